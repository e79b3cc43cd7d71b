"""Hosts with networks of their own on this machine: network namespaces, joined by a bridge or router in one more.

Nothing of it reaches the networks of this machine; all is gone when the block ends.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

_numbers = count()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Host:
    """One host: commands after `prefix` run on it."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address  # on the common network, an IPv4 address
        self.prefix = ["nsenter", f"--net=/run/netns/{name}", "--"]

    def ip(self, *words: str) -> None:
        """Change its network, in the words of the command `ip`."""
        _ip("-n", self.name, *words)


@contextmanager
def lan(hosts: int, *, network: str = "10.77.0") -> Iterator[list[Host]]:
    """Give hosts on one network with the addresses NETWORK.1, NETWORK.2 and so on, and no other network."""
    with namespaces(hosts) as (switch, names):
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", switch, "link", "set", "bridge", "up")
        made = [Host(name, f"{network}.{number}") for number, name in enumerate(names, 1)]
        for host in made:
            port = _plug_in(host, switch)
            _ip("-n", switch, "link", "set", port, "master", "bridge")
            host.ip("route", "add", "default", "dev", "eth0")  # npm peers find the network for multicast by it
        yield made


@contextmanager
def routed(hosts: int) -> Iterator[tuple[Host, list[Host]]]:
    """Give a router, and hosts with public addresses, each on a network of its own behind a switch.

    The router is on the network of host N (from 1) with its interface `netN`. When that goes down, the host still has
    a carrier: it notices nothing but silence.
    """
    with namespaces(hosts) as (middle, names):
        router, made = Host(middle, ""), [Host(name, f"11.0.{number}.2") for number, name in enumerate(names, 1)]
        for number, host in enumerate(made, 1):
            port, net = _plug_in(host, middle), f"net{number}"
            router.ip("link", "add", net, "type", "bridge", "mcast_snooping", "0")
            router.ip("link", "set", port, "master", net)
            router.ip("address", "add", f"11.0.{number}.1/24", "dev", net)
            router.ip("link", "set", net, "up")
            host.ip("route", "add", "default", "via", f"11.0.{number}.1")
        subprocess.run([*router.prefix, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        yield router, made


@contextmanager
def internet(hosts: int) -> Iterator[list[Host]]:
    """Give hosts with public addresses, each on a network of its own, and a router in between."""
    with routed(hosts) as (_, made):
        yield made


CAPTURE = """
import socket, struct
link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
link.bind(("eth0", 3))
print("ready", flush=True)
while True:
    packet, about = link.recvfrom(65536)
    if about[2] == socket.PACKET_OUTGOING and about[1] == 0x0800:
        protocol, head = packet[9], 4 * (packet[0] & 15)
        if protocol in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
            to = socket.inet_ntoa(packet[16:20])
            print(f"{to}:{struct.unpack_from('!H', packet, head + 2)[0]}", flush=True)
"""


class Captured:
    """The UDP and TCP packets over IPv4 that a host has sent."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def end(self) -> set[str]:
        """Stop, and return where they went: `address:port`."""
        self._process.kill()
        assert self._process.stdout is not None
        return set(self._process.stdout.read().split())


@contextmanager
def capture(host: Host) -> Iterator[Captured]:
    """Write down what a host sends."""
    command = [*host.prefix, sys.executable, "-c", CAPTURE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Captured(process)
        finally:
            process.kill()


@contextmanager
def namespaces(hosts: int) -> Iterator[tuple[str, list[str]]]:
    """Give the name of one network namespace in the middle, and those of as many hosts."""
    base = f"ddrive-{os.getpid()}-{next(_numbers)}"
    names = [f"{base}-{number}" for number in range(hosts + 1)]
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        yield names[0], names[1:]
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)


def _plug_in(host: Host, middle: str) -> str:
    """Lead a cable from a host to the middle and return the name of its end there."""
    port = f"port{host.name.rpartition('-')[2]}"
    host.ip("link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", middle)
    _ip("-n", middle, "link", "set", port, "up")
    host.ip("address", "add", f"{host.address}/24", "dev", "eth0")
    host.ip("link", "set", "eth0", "up")
    return port
