"""One node of the DHT on a UDP socket: carries its datagrams, keeps its time, and looks up the names of given nodes."""

import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from ddrive.swarm.background import background
from ddrive.swarm.dht_node import Node, Walk
from ddrive.swarm.dht_rpc import MAX_DATAGRAM_BYTES
from ddrive.swarm.resolving import resolve
from ddrive.swarm.static import Address

FRESH_S = 600.0  # names are looked up again after this long, when they are needed
AT_ONCE = 100  # datagrams taken in before others get their turn
REFRESH_S = 600.0  # between two walks of a node that stays to its own id: it meets newcomers there

_log = logging.getLogger(__name__)


class NodeSocket:
    """A node that can be reached. Raises: OSError when the address to listen on cannot be had."""

    def __init__(self, given: Sequence[Address], *, listen: Address, is_ephemeral: bool) -> None:
        self.node = Node(os.urandom, trio.current_time(), is_ephemeral=is_ephemeral)
        self.last_error: str | None = None
        self._given = given
        self.kept: list[Address] = []  # nodes of last time, to begin at as well
        self._resolved: list[Address] = []
        self._resolved_s = -FRESH_S
        self._changed = trio.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind(listen)
        except OSError:
            self._socket.close()
            raise
        self.address = Address(*self._socket.getsockname())

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    async def resolve(self) -> None:
        """Look up the names of the given nodes, when that was long ago or has failed."""
        if trio.current_time() < self._resolved_s + FRESH_S:
            return
        found, self.last_error = await resolve(self._given, family=socket.AF_INET)
        if found:
            self._resolved, self._resolved_s = found, trio.current_time()

    def forget_names(self) -> None:
        """Look up the names of the given nodes anew next time: the network is another one."""
        self._resolved_s = -FRESH_S

    def start(self, walk: Walk) -> None:
        """Begin a walk, at the nodes known by now."""
        self.node.start(walk, [*self._resolved, *self.kept], trio.current_time())
        self._flush()

    def update(self, walk: Walk, keepers: list[tuple[Address, bytes]]) -> None:
        """Send the update of a walk to nodes that gave a token before."""
        self.node.update(walk, keepers, trio.current_time())
        self._flush()

    def stop(self, walk: Walk) -> None:
        """Give a walk up."""
        self.node.stop(walk)

    def _flush(self) -> None:
        """Send what the node wants to send. What the kernel refuses is lost, as any datagram may be."""
        out, self.node.out = self.node.out, []
        for data, address in out:
            try:
                self._socket.sendto(data, address)
            except OSError as error:
                self.last_error = f"sending to {address}: {error.strerror}"
        if out:
            self._changed.set()

    async def run(self) -> None:
        """Take in datagrams, and do what is due, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                self._take_in()
                await trio.lowlevel.checkpoint()

    def _take_in(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data, source = self._socket.recvfrom(MAX_DATAGRAM_BYTES + 1)
            except OSError:
                break
            self.node.receive(data, Address(*source), trio.current_time())
            self._flush()

    async def _keep_time(self) -> None:
        while True:
            self._changed = trio.Event()
            with trio.move_on_at(self.node.next_s()):
                await self._changed.wait()
            self.node.tick(trio.current_time())
            self._flush()

    async def keep_acquainted(self) -> None:
        """Walk to our own id now and then, for ever."""
        while True:
            await self.resolve()
            self.start(Walk(self.node.id))
            await trio.sleep(REFRESH_S)


@asynccontextmanager
async def open_dht_node(listen: Address, given: Sequence[Address] = ()) -> AsyncIterator[NodeSocket]:
    """Give a node that stays in the network of the `given` ones, or begins one of its own, while the block runs.

    Raises: OSError when the address to listen on cannot be had.
    """
    node = NodeSocket(given, listen=listen, is_ephemeral=False)
    try:
        async with background(node.run, node.keep_acquainted):
            _log.info("dht node is up address=%s", node.address)
            yield node
    finally:
        node.close()
