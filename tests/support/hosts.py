"""Hosts with networks of their own on this machine: network namespaces, joined by a bridge in one more of them.

Nothing of it reaches the networks of this machine; all is gone when the block ends.
"""

import os
import subprocess
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
    base = f"ddrive-{os.getpid()}-{next(_numbers)}"
    switch = f"{base}-switch"
    made = [Host(f"{base}-{number}", f"{network}.{number}") for number in range(1, hosts + 1)]
    names = [switch, *(host.name for host in made)]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, host in enumerate(made):
            port = f"port{number}"
            host.ip("link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch)
            _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            host.ip("link", "set", "lo", "up")
            host.ip("address", "add", f"{host.address}/24", "dev", "eth0")
            host.ip("link", "set", "eth0", "up")
            host.ip("route", "add", "default", "dev", "eth0")  # npm peers find the network for multicast by it
        yield made
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)
