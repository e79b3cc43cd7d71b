"""Noticing that the networks of this machine have changed: an address or a carrier comes or goes, the machine wakes up.

The kernel tells of changes of links and addresses over a netlink socket. That we were stopped, or the machine asleep,
shows in a pause that took much longer than it was meant to.
"""

import fcntl
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Final

import ifaddr
import trio

from ddrive.swarm.background import background
from ddrive.swarm.networks import Here, Network

LOOK_S: Final = 5.0  # between two looks, for what the kernel does not tell
ASLEEP_S: Final = 5.0  # a look that comes this much too late comes after a sleep
SETTLE_S: Final = 0.2  # an address comes in several steps; we wait for the last one

_SIOCGIFFLAGS: Final = 0x8913  # Source: linux/sockios.h
_IFF_RUNNING: Final = 0x40  # Source: linux/if.h
_FLAGS: Final = struct.Struct("@16sh22x")  # struct ifreq: name, flags. Source: linux/if.h
_GROUPS: Final = 0x1 | 0x10 | 0x100  # links, IPv4 addresses, IPv6 addresses. Source: linux/rtnetlink.h, RTMGRP_*

_log = logging.getLogger(__name__)


def look_around() -> Here:
    """Return the networks that have an address now."""
    found = []
    for adapter in ifaddr.get_adapters():
        addresses = [_interface(address) for address in adapter.ips]
        if adapter.index is not None and addresses:
            found.append(Network(adapter.index, adapter.name, tuple(addresses), _is_running(adapter.name)))
    return Here(tuple(found))


def _is_running(interface: str) -> bool:
    """Tell whether an interface is up and has a carrier. Source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asker:
        try:
            answer = fcntl.ioctl(asker, _SIOCGIFFLAGS, _FLAGS.pack(interface.encode(), 0))
        except OSError:  # it has gone
            return False
    return bool(_FLAGS.unpack(answer)[1] & _IFF_RUNNING)


def _interface(address: ifaddr.IP) -> IPv4Interface | IPv6Interface:
    text = address.ip if isinstance(address.ip, str) else address.ip[0].partition("%")[0]
    return ip_interface(f"{text}/{address.network_prefix}")


class Networks:
    """Where we are now, kept up to date. Made by `open_networks`."""

    def __init__(self) -> None:
        self.here = look_around()
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after each change, and after each sleep."""
        self._listeners.append(listener)

    async def _watch(self) -> None:
        with _netlink() as kernel:
            before = _awake_s()
            while True:
                with trio.move_on_after(LOOK_S):
                    await _told(kernel)
                    await trio.sleep(SETTLE_S)
                now, here = _awake_s(), self._look()
                slept_s = now - before - LOOK_S
                before = now
                if here != self.here or slept_s > ASLEEP_S:
                    _log.info("networks changed networks=%s slept_s=%.0f", _shown(here), max(0.0, slept_s))
                    self.here = here
                    for listener in self._listeners:
                        listener()

    def _look(self) -> Here:
        try:
            return look_around()
        except OSError as error:
            _log.warning("networks not known reason=%s", error)
            return self.here


def _awake_s() -> float:
    """Return seconds that pass while the machine sleeps too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextmanager
def _netlink() -> Iterator[trio.socket.SocketType | None]:
    """Give a socket on which the kernel tells of changes; None where it does not: then looking has to do."""
    try:
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except OSError as error:
        _log.info("the kernel tells of no changes of networks reason=%s", error)
        yield None
        return
    with kernel:
        kernel.bind((0, _GROUPS))
        yield trio.socket.from_stdlib_socket(kernel)


async def _told(kernel: trio.socket.SocketType | None) -> None:
    """Return when the kernel has told something."""
    if kernel is None:
        await trio.sleep_forever()
    else:
        with suppress(OSError):  # it had more to tell than there was room for
            await kernel.recv(65536)


def _shown(here: Here) -> str:
    return ",".join(
        f"{network.name}:{own.ip}{'' if network.is_running else ':down'}"
        for network in here.networks
        for own in network.addresses
    )


@asynccontextmanager
async def open_networks() -> AsyncIterator[Networks]:
    """Give the networks that this machine is on, kept up to date while the block runs."""
    networks = Networks()
    async with background(networks._watch):
        yield networks
