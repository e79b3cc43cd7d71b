"""Peers on the same network, found by multicast DNS: the socket on port 5353, which others use too, on every network.

Packets go to the link alone (TTL 255, a multicast address that no router passes on), and only a sender on the link
that the packet came from is believed. What is sent when is decided in `lan_plan`.
"""

import errno
import logging
import math
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from ddrive.dialect import Dialect
from ddrive.ids import DiscoveryKey
from ddrive.swarm import mdns
from ddrive.swarm.background import background
from ddrive.swarm.discovery import DiscoveryReport, Finding, Mechanism, Sink
from ddrive.swarm.lan_plan import LanPlan
from ddrive.swarm.networks import Network, parse_ip
from ddrive.swarm.static import Address
from ddrive.swarm.watching import Networks

RETRY_S: Final = 30.0  # when the socket could not be had
TTL: Final = 255  # Source: RFC 6762, 11

_IP_PKTINFO: Final = 8  # Source: linux/in.h
_IP_MULTICAST_ALL: Final = 49  # Source: linux/in.h
_PKTINFO: Final = struct.Struct("@i4s4s")  # index of the interface, our address there, destination
_MEMBERSHIP: Final = struct.Struct("@4s4si")  # group, our address, index of the interface

_log = logging.getLogger(__name__)


class LanDiscovery:
    """The `Discovery` on the LAN. Made by `open_lan`."""

    name: Mechanism = "lan"

    def __init__(self, sink: Sink, port: int, networks: Networks) -> None:
        self._sink = sink
        self._networks = networks
        self._plan = LanPlan(port, int.from_bytes(os.urandom(2)), os.urandom, random.random)
        self._socket: trio.socket.SocketType | None = None
        self._joined: set[int] = set()  # networks, by index
        self._last_error: str | None = None
        self._changed = trio.Event()
        self._can_announce = bool(port)

    def join(self, discovery_key: DiscoveryKey, dialect: Dialect, *, announce: bool) -> None:
        """Look for peers of a topic; npm peers of either family may look for it, whatever its dialect."""
        self._plan.join(discovery_key, announce=announce and self._can_announce)
        self._changed.set()

    def leave(self, discovery_key: DiscoveryKey) -> None:
        """Look for a topic no more."""
        self._plan.leave(discovery_key)

    def refresh(self) -> None:
        """Ask for all topics again, on the networks that there are now."""
        self._plan.refresh()
        self._changed.set()

    def reached_at(self, port: int) -> None:
        """Go on as before: on our own networks there is no router in between."""

    def linked(self, discovery_key: DiscoveryKey, *, is_linked: bool) -> None:
        """Go on as before: it is asked often enough."""

    def report(self) -> DiscoveryReport:
        """Return how it is doing."""
        names = [network.name for network in self._usable() if network.index in self._joined]
        return self._plan.tally.report(
            running=bool(names), last_error=self._last_error, detail=f"on {', '.join(names)}" if names else None
        )

    def _usable(self) -> list[Network]:
        """Return the networks to speak on: those that lead somewhere, else the machine itself."""
        found = [
            network
            for network in self._networks.here.networks
            if any(address.version == 4 for address in network.addresses)
        ]
        return [network for network in found if not network.is_loopback] or found

    async def _run(self) -> None:
        while True:
            try:
                with _open_socket() as self._socket:
                    self._joined.clear()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._listen, self._socket)
                        await self._speak(self._socket)
            except* OSError as errors:
                self._last_error = f"port {mdns.PORT} cannot be used: {errors.exceptions[0]}"
                _log.warning("no discovery on the LAN reason=%s", self._last_error)
            self._joined.clear()
            await trio.sleep(RETRY_S)

    async def _speak(self, link: trio.socket.SocketType) -> None:
        """Send what is due, for ever."""
        while True:
            self._changed = trio.Event()
            self._join_groups(link)
            for packet in self._plan.packets(trio.current_time()):
                for network in self._usable():
                    await self._send(link, packet, network)
            with trio.move_on_at(self._plan.next_s() if self._joined else math.inf):
                await self._changed.wait()

    def _join_groups(self, link: trio.socket.SocketType) -> None:
        """Listen on all networks that are usable now."""
        usable = {network.index for network in self._usable()}
        self._joined &= usable
        for index in usable - self._joined:
            membership = _MEMBERSHIP.pack(socket.inet_aton(mdns.GROUP), bytes(4), index)
            try:
                link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # it went and came back: the kernel still knows us
                    self._last_error = str(error)
                    continue
            self._joined.add(index)

    async def _send(self, link: trio.socket.SocketType, packet: bytes, network: Network) -> None:
        if network.index not in self._joined:
            return
        source = next(own.ip.packed for own in network.addresses if own.version == 4)
        through = (socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(network.index, source, bytes(4)))
        try:
            await link.sendmsg([packet], [through], 0, (mdns.GROUP, mdns.PORT))
            self._last_error = None
        except OSError as error:
            self._last_error = f"{network.name}: {error.strerror}"

    async def _listen(self, link: trio.socket.SocketType) -> None:
        """Take in packets, for ever."""
        while True:
            data, about, _, sender = await link.recvmsg(mdns.MAX_PACKET_BYTES, socket.CMSG_SPACE(_PKTINFO.size))
            came_in = next((_PKTINFO.unpack(value)[0] for _, kind, value in about if kind == _IP_PKTINFO), 0)
            assert isinstance(sender, tuple)
            self._received(data, sender[0], came_in)

    def _received(self, data: bytes, source: str, came_in: int) -> None:
        address = parse_ip(source)
        here = self._networks.here
        from_here = address is not None and here.owns(address)
        on_link = any(network.index == came_in and address and network.reaches(address) for network in here.networks)
        if not from_here and not on_link:
            return
        due_s = self._plan.next_s()
        for discovery_key, port in self._plan.received(data, source, from_here=from_here):
            self._sink(Finding(Address(source, port), discovery_key, self.name))
        if self._plan.next_s() < due_s:
            self._changed.set()


def _open_socket() -> trio.socket.SocketType:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        link.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        link.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TTL)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)  # other programs here are peers too
        link.bind(("", mdns.PORT))
    except OSError:
        link.close()
        raise
    return trio.socket.from_stdlib_socket(link)


@asynccontextmanager
async def open_lan(sink: Sink, *, port: int, networks: Networks) -> AsyncIterator[LanDiscovery]:
    """Give the discovery on the LAN; what it finds goes to `sink`. `port` 0: nobody can reach us, only look."""
    lan = LanDiscovery(sink, port, networks)
    async with background(lan._run):
        yield lan
