"""One connection on one stream: dispatch, keep-alive, timeouts, back-pressure and all the ways it can end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import memory_stream_pair

from ddrive.crypto import KeyPair
from ddrive.ids import BlockIndex, ChannelId
from ddrive.protocol import Data, Link, LinkEnd, Message, Request, run_link
from tests.protocol.pairs import FIRST_SECRET, SECOND_SECRET, public_of
from tests.protocol.recorder import Recorder

FEED = KeyPair.from_seed(b"\x07" * 32).public_key


@dataclass
class Running:
    """Two links that run against each other."""

    first: Recorder
    second: Recorder
    ends: dict[str, LinkEnd] = field(default_factory=dict)
    both_ended: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def two_links(first: Recorder, second: Recorder, **timeouts: float) -> AsyncIterator[Running]:
    """Run a link over memory with `first` as the initiator; cancelled when the block is left."""
    running = Running(first, second)
    near, far = memory_stream_pair()

    async def run(name: str, stream: trio.abc.Stream, handler: Recorder, secret: bytes) -> None:
        running.ends[name] = await run_link(
            stream, initiator=name == "first", handler=handler, static_secret=secret, address=name, **timeouts
        )
        if len(running.ends) == 2:
            running.both_ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "first", near, first, FIRST_SECRET)
        nursery.start_soon(run, "second", far, second, SECOND_SECRET)
        yield running
        nursery.cancel_scope.cancel()


async def test_request_is_answered() -> None:
    def answer(link: Link, channel: ChannelId, message: Message) -> None:
        assert isinstance(message, Request)
        link.send(channel, Data(message.index, b"value"))

    reader, writer = Recorder(FEED), Recorder(FEED, on_message=answer)
    async with two_links(reader, writer):
        await reader.wait_for("channel_opened")
        reader.links[0].send(reader.channels[0], Request(BlockIndex(3)))
        await reader.wait_for("received")
    assert writer.messages == [Request(BlockIndex(3))]
    assert reader.messages == [Data(BlockIndex(3), b"value")]
    assert reader.links[0].remote_public_key == public_of(SECOND_SECRET)
    assert reader.calls[-1] == writer.calls[-1] == "closed"
