"""What the tests of replication share: feeds in memory with their sessions, links between them, scripted peers."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio
from trio.testing import memory_stream_pair

from ddrive.crypto import KeyPair
from ddrive.dialect import DWEB, Dialect
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.merkle import RemoteTree
from ddrive.feed.storage import MemoryDirectory
from ddrive.ids import ChannelId, DiscoveryKey, PublicKey
from ddrive.protocol.link import Link, LinkEnd
from ddrive.protocol.messages import Data, Have, Message, Request, Want
from ddrive.protocol.running import run_link
from ddrive.protocol.sharing import Share
from ddrive.replication.session import FeedSession

PAIR = KeyPair.from_seed(bytes([7]) * 32)


def block(index: int, size: int = 100) -> bytes:
    """Return the content of block `index` in all these tests."""
    return bytes((131 * index + 7 * j) % 256 for j in range(size))


def log_of(length: int, *, size: int = 100, pair: KeyPair = PAIR) -> FeedLog:
    """Return an author's log with `length` blocks."""
    log = FeedLog.create(MemoryDirectory(), key=pair.public_key, secret_key=pair.secret_key)
    if length:
        log.append([block(index, size) for index in range(length)])
    return log


class Place:
    """One feed at one place: author when `length` is given, else a reader without any block."""

    def __init__(
        self, length: int | None = None, *, size: int = 100, dialect: Dialect = DWEB, eager_length: bool = False
    ) -> None:
        log = FeedLog.create(MemoryDirectory(), key=PAIR.public_key) if length is None else log_of(length, size=size)
        self.dialect = dialect
        self.feed = Feed(log)
        self.session = FeedSession(self.feed, eager_length=eager_length)
        self.feed.set_source(self.session)
        self.ends: list[LinkEnd] = []
        self.received_messages: list[Message] = []
        self.link: Link | None = None
        self.share = Share()  # of its links, which limits them

    def established(self, link: Link) -> None:
        self.link = link
        link.open_channel(self.feed.key, self.dialect)
        self.session.expect(link)

    def channel_requested(self, link: Link, discovery_key: DiscoveryKey) -> None:
        link.refuse(discovery_key)

    def channel_opened(self, link: Link, channel: ChannelId) -> None:
        self.session.add_peer(link, channel)

    def channel_closed(self, link: Link, channel: ChannelId) -> None:
        self.session.remove_peer(link)

    def received(self, link: Link, channel: ChannelId, messages: Sequence[Message]) -> None:
        self.received_messages += messages
        self.session.received(link, messages)

    def drained(self, link: Link) -> None:
        self.session.drained(link)

    def closed(self, link: Link) -> None:
        self.session.remove_peer(link)

    def of_type(self, kind: type) -> list[Message]:
        """The messages of one type that arrived here so far."""
        return [message for message in self.received_messages if isinstance(message, kind)]


class Scripted:
    """A peer that announces `length` blocks and answers requests by `answer(request) -> messages`."""

    def __init__(
        self, length: int, answer: Callable[[Request], list[Message]], key: PublicKey = PAIR.public_key
    ) -> None:
        self.length = length
        self.answer = answer
        self.key = key
        self.ends: list[LinkEnd] = []
        self.got: list[Message] = []
        self.link: Link | None = None
        self.channel: ChannelId | None = None

    def established(self, link: Link) -> None:
        self.link = link
        link.open_channel(PAIR.public_key, DWEB)

    def channel_requested(self, link: Link, discovery_key: DiscoveryKey) -> None:
        link.refuse(discovery_key)

    def channel_opened(self, link: Link, channel: ChannelId) -> None:
        self.channel = channel

    def channel_closed(self, link: Link, channel: ChannelId) -> None:
        pass

    def received(self, link: Link, channel: ChannelId, messages: Sequence[Message]) -> None:
        self.got += messages
        for message in messages:
            if isinstance(message, Want):
                packed = bytes([0xFF]) * (self.length // 8) + bytes([0xFF00 >> self.length % 8 & 0xFF])
                link.send(channel, Have(message.start, message.length, bytes([2 * len(packed)]) + packed))
            elif isinstance(message, Request):
                link.send(channel, *self.answer(message))

    def say(self, message: Message) -> None:
        """Send a message unasked."""
        assert self.link is not None
        assert self.channel is not None
        self.link.send(self.channel, message)

    def drained(self, link: Link) -> None:
        pass

    def closed(self, link: Link) -> None:
        pass

    def requests(self) -> list[int]:
        """The block numbers that were asked for."""
        return [message.index for message in self.got if isinstance(message, Request)]


def honest(log: FeedLog) -> Callable[[Request], list[Message]]:
    """Return an answer function that tells the truth out of `log`."""
    tree = RemoteTree()

    def answer(request: Request) -> list[Message]:
        proof = log.proof(request.index, digest=request.nodes, hash_only=request.hash, remote=tree)
        assert proof is not None
        value = None if request.hash else log.block(request.index)
        return [Data(request.index, value, proof.nodes, proof.signature)]

    return answer


def lying(log: FeedLog) -> Callable[[Request], list[Message]]:
    """Return an answer function that changes one byte of each block."""
    truth = honest(log)

    def answer(request: Request) -> list[Message]:
        (data,) = truth(request)
        assert isinstance(data, Data)
        assert data.value is not None
        return [Data(data.index, b"\xff" + data.value[1:], data.nodes, data.signature)]

    return answer


def silent(request: Request) -> list[Message]:
    """Answer nothing."""
    return []


@asynccontextmanager
async def linked(*pairs: tuple[Place | Scripted, Place | Scripted]) -> AsyncIterator[None]:
    """Connect each pair over a stream in memory, with the sessions' clock ticking, until the context ends."""
    async with trio.open_nursery() as nursery:
        for pair in pairs:
            for handler in pair:
                handler.link = None
        for pair in pairs:
            for stream, handler in zip(memory_stream_pair(), pair, strict=True):
                nursery.start_soon(partial(_run, stream, handler, handler is pair[0]))
        for place in {place for pair in pairs for place in pair if isinstance(place, Place)}:
            nursery.start_soon(_tick, place.session)
        await until(lambda: all(handler.link is not None for pair in pairs for handler in pair))
        yield
        nursery.cancel_scope.cancel()


async def _run(stream: trio.abc.Stream, handler: Place | Scripted, initiator: bool) -> None:
    share = handler.share if isinstance(handler, Place) else None
    end = await run_link(stream, initiator=initiator, handler=handler, static_secret=os.urandom(32), share=share)
    handler.ends.append(end)


async def _tick(session: FeedSession) -> None:
    while True:
        await trio.sleep(0.25)
        session.tick(trio.current_time())


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Return when `condition()` is true."""
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.05)
