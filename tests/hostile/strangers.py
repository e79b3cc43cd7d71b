"""Peers that keep to no rules, on raw sockets, against what an engine runs: a store, its replicator and a swarm."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from ddrive.crypto import KeyPair, discovery_key
from ddrive.dialect import DWEB
from ddrive.feed.feed import Feed
from ddrive.ids import ChannelId
from ddrive.protocol import Connection, Event, Message
from ddrive.protocol.framing import encode_frame
from ddrive.store.linked import Replicator
from ddrive.store.store import OwnedStore, open_store
from ddrive.swarm import Swarm, open_swarm

BLOCK_BYTES = 64 * 1024


@dataclass
class Engine:
    """What is attacked."""

    store: OwnedStore
    feed: Feed
    swarm: Swarm

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.swarm.listen_addresses[0].rpartition(":")[2])


@asynccontextmanager
async def engine(path: Path, blocks: int = 0, *, at_rest: bool = False) -> AsyncIterator[Engine]:
    """Run a store with one feed of `blocks` blocks behind a swarm; `at_rest`: it lies on disk and is not open."""
    async with open_store(path, DWEB) as store:
        feed = await store.create_feed("attacked")
        if blocks:
            await feed.append([os.urandom(BLOCK_BYTES) for _ in range(blocks)])
    async with open_store(path, DWEB) as store:
        if not at_rest:
            feed = await store.create_feed("attacked")
        replicator = Replicator([store])
        async with open_swarm(replicator, listen="127.0.0.1:0", static_secret=os.urandom(32)) as swarm:
            yield Engine(store, feed, swarm)
        replicator.close()


class Stranger:
    """One raw socket; a `Connection` does the handshake and the cipher, what is sent is up to the test."""

    def __init__(self, stream: trio.SocketStream, secret: bytes) -> None:
        self.stream = stream
        self.connection = Connection(initiator=True, static_secret=secret, nonce=os.urandom(24))

    async def shake_hands(self) -> None:
        """Do the handshake."""
        await self.flush()
        while not self.connection.established:
            self.connection.receive_data(await self.stream.receive_some(4096))
            await self.flush()

    async def flush(self) -> None:
        """Send what the connection has queued."""
        await self.stream.send_all(self.connection.data_to_send())

    async def raw(self, frames: bytes) -> None:
        """Send bytes as the plain text of the encrypted stream."""
        self.connection._output.append(frames)
        self.connection.pending_bytes += len(frames)
        await self.flush()

    async def frame(self, channel: int, kind: int, body: bytes) -> None:
        """Send one frame."""
        await self.raw(encode_frame(channel, kind, body))

    async def take(self) -> list[Event]:
        """Return what arrives next, decoded."""
        return self.connection.receive_data(await self.stream.receive_some(1 << 20))

    async def take_plain(self) -> bytes:
        """Return what arrives next, decrypted and not decoded."""
        return bytes(self.connection._decrypt.apply(await self.stream.receive_some(1 << 20)))

    async def open(self, feed: Feed) -> ChannelId:
        """Open a feed whose key we know, and return when the engine has opened it too."""
        channel = self.connection.open_channel(feed.key, DWEB)
        await self.flush()
        while not self.connection.is_open(channel):
            await self.take()
        return channel

    async def say(self, channel: ChannelId, *messages: Message) -> None:
        """Send messages."""
        for message in messages:
            self.connection.send(channel, message)
        await self.flush()

    async def is_dropped(self) -> bool:
        """Return True when the engine has closed the connection; what it sends before that is thrown away."""
        with trio.move_on_after(10):
            with suppress(trio.BrokenResourceError):
                while await self.stream.receive_some(1 << 20):
                    pass
            return True
        return False


@asynccontextmanager
async def stranger(engine: Engine, *, secret: bytes | None = None) -> AsyncIterator[Stranger]:
    """Connect to the engine."""
    stream = await trio.open_tcp_stream("127.0.0.1", engine.port)
    async with stream:
        yield Stranger(stream, secret or os.urandom(32))


def unknown_discovery_key() -> bytes:
    """Return the discovery key of a feed that nobody has."""
    return discovery_key(KeyPair.generate().public_key, DWEB.discovery_ns)


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition()` is true."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)
