"""One connection on one stream: dispatch, keep-alive, timeouts, back-pressure and all the ways it can end."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from ddrive.crypto import KeyPair, discovery_key
from ddrive.dialect import DWEB
from ddrive.errors import LocalProtocolError, RemoteProtocolError
from ddrive.ids import BlockIndex, ChannelId, DiscoveryKey, Node, NodeIndex
from ddrive.protocol import Connection, Data, Have, Link, LinkEnd, Message, Request, run_link
from ddrive.protocol import link as link_module
from tests.protocol.pairs import FIRST_SECRET, SECOND_SECRET, public_of
from tests.protocol.recorder import Recorder

FEED = KeyPair.from_seed(b"\x07" * 32).public_key
OTHER = KeyPair.from_seed(b"\x08" * 32).public_key


@dataclass
class Running:
    """Two links that run against each other, or one against a scripted peer."""

    ends: dict[str, LinkEnd] = field(default_factory=dict)
    ended: dict[str, trio.Event] = field(default_factory=lambda: {"first": trio.Event(), "second": trio.Event()})

    async def end_of(self, name: str) -> LinkEnd:
        """Return how a link ended, once it has."""
        await self.ended[name].wait()
        return self.ends[name]

    async def run(self, name: str, stream: trio.abc.Stream, handler: Recorder, secret: bytes) -> None:
        """Run one link, the initiator if it is the first."""
        self.ends[name] = await run_link(
            stream, initiator=name == "first", handler=handler, static_secret=secret, address=name
        )
        self.ended[name].set()


@asynccontextmanager
async def two_links(first: Recorder, second: Recorder) -> AsyncIterator[Running]:
    """Run a link over memory with `first` as the initiator; cancelled when the block is left."""
    running = Running()
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run, "first", near, first, FIRST_SECRET)
        nursery.start_soon(running.run, "second", far, second, SECOND_SECRET)
        yield running
        nursery.cancel_scope.cancel()


@dataclass
class ScriptedPeer:
    """A peer on the other end of the stream that does nothing by itself."""

    stream: trio.abc.Stream
    connection: Connection

    async def flush(self) -> None:
        """Send what the connection has queued."""
        await self.stream.send_all(self.connection.data_to_send())

    async def take(self) -> None:
        """Receive once."""
        self.connection.receive_data(bytes(await self.stream.receive_some(65536)))

    async def shake_hands(self) -> None:
        """Do the responder's part of the handshake."""
        while not self.connection.established:
            await self.take()
            await self.flush()

    async def open(self) -> ChannelId:
        """Open the feed, which the other side opens too, and return the channel."""
        channel = self.connection.open_channel(FEED, DWEB)
        await self.flush()
        while not self.connection.is_open(channel):
            await self.take()
        return channel

    async def keep_talking(self) -> None:
        """Send a sign of life every second, and never receive."""
        with suppress(trio.BrokenResourceError):
            while True:
                self.connection.ping()
                await self.flush()
                await trio.sleep(1)


@asynccontextmanager
async def scripted_peer(
    handler: Recorder, pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = memory_stream_pair
) -> AsyncIterator[tuple[Running, ScriptedPeer]]:
    """Run an initiator's link against a scripted peer."""
    running = Running()
    near, far = pair()
    peer = ScriptedPeer(far, Connection(initiator=False, static_secret=SECOND_SECRET, nonce=bytes(24)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run, "first", near, handler, FIRST_SECRET)
        yield running, peer
        nursery.cancel_scope.cancel()


def answer(link: Link, channel: ChannelId, message: Message) -> None:
    """Answer a Request."""
    if isinstance(message, Request):
        link.send(channel, Data(message.index, b"value"))


# --- dispatch


async def test_request_is_answered() -> None:
    reader, writer = Recorder(FEED), Recorder(FEED, on_message=answer)
    async with two_links(reader, writer):
        await reader.wait_for("channel_opened")
        reader.links[0].send(reader.channels[0], Request(BlockIndex(3)))
        await reader.wait_for("received")
    assert writer.messages == [Request(BlockIndex(3))]
    assert reader.messages == [Data(BlockIndex(3), b"value")]
    assert reader.links[0].remote_public_key == public_of(SECOND_SECRET)
    assert reader.calls[-1] == writer.calls[-1] == "closed"


async def test_channel_opened_by_a_call_from_outside_is_reported() -> None:
    reader, writer = Recorder(), Recorder(FEED)
    async with two_links(reader, writer):
        await reader.wait_for("channel_requested")
        await writer.wait_for("channel_closed")
        reader.links[0].open_channel(OTHER, DWEB)
        await writer.wait_for("channel_requested")
        await reader.wait_for("channel_closed")
    assert "channel_opened" not in reader.calls


async def test_late_answer_to_a_request_opens_the_channel() -> None:
    class Patient(Recorder):
        def channel_requested(self, link: Link, discovery_key: DiscoveryKey) -> None:
            self._note("channel_requested")

    reader, writer = Patient(), Recorder(FEED)
    async with two_links(reader, writer):
        await reader.wait_for("channel_requested")
        channel = reader.links[0].open_channel(FEED, DWEB)
        await reader.wait_for("channel_opened")
        await writer.wait_for("channel_opened")
        assert reader.channels == [channel]
        reader.links[0].close_channel(channel)
        await writer.wait_for("channel_closed")


async def test_messages_of_one_call_go_out_with_one_send() -> None:
    sends: list[int] = []

    @dataclass
    class Counting(trio.abc.Stream):
        inner: trio.abc.Stream

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            sends.append(len(data))
            await self.inner.send_all(data)

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await self.inner.receive_some(max_bytes)

        async def wait_send_all_might_not_block(self) -> None:
            await self.inner.wait_send_all_might_not_block()

        async def aclose(self) -> None:
            await self.inner.aclose()

    def counted_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        near, far = memory_stream_pair()
        return Counting(near), far

    reader = Recorder(FEED)
    async with scripted_peer(reader, counted_pair) as (_, peer):
        await peer.shake_hands()
        peer.connection.open_channel(FEED, DWEB)
        await peer.flush()
        await reader.wait_for("channel_opened")
        await trio.testing.wait_all_tasks_blocked()
        sends.clear()
        for index in range(100):
            reader.links[0].send(reader.channels[0], Request(BlockIndex(index)))
        await trio.testing.wait_all_tasks_blocked()
    assert len(sends) == 1


async def test_message_for_a_channel_that_the_peer_has_closed_is_dropped() -> None:
    reader, writer = Recorder(FEED), Recorder(FEED)
    async with two_links(reader, writer):
        await reader.wait_for("channel_opened")
        await writer.wait_for("channel_opened")
        reader.links[0].close_channel(reader.channels[0])
        await writer.wait_for("channel_closed")
        writer.links[0].send(writer.channels[0], Have(BlockIndex(0)))
        with pytest.raises(LocalProtocolError):
            writer.links[0].send(ChannelId(77), Have(BlockIndex(0)))


async def test_request_and_close_in_one_chunk_do_no_harm() -> None:
    writer = Recorder(FEED, on_message=answer)
    async with scripted_peer(writer) as (_, peer):
        await peer.shake_hands()
        channel = await peer.open()
        peer.connection.send(channel, Request(BlockIndex(0)))
        peer.connection.close_channel(channel)
        await peer.flush()
        await writer.wait_for("channel_closed")
    assert writer.calls[-3:] == ["received", "channel_closed", "closed"]


# --- signs of life and timeouts


async def test_idle_links_stay(autojump_clock: MockClock) -> None:
    first, second = Recorder(), Recorder()
    async with two_links(first, second) as running:
        await trio.sleep(1000)
        assert running.ends == {}
        assert first.links[0].bytes_received == second.links[0].bytes_sent == 123 + 99


async def test_silent_peer_is_dropped(autojump_clock: MockClock) -> None:
    handler = Recorder()
    async with scripted_peer(handler) as (running, peer):
        await peer.shake_hands()
        assert await running.end_of("first") == LinkEnd("the peer is silent")
    assert trio.current_time() >= 20
    assert handler.calls == ["established", "closed"]


async def test_peer_that_never_answers_the_handshake_is_dropped(autojump_clock: MockClock) -> None:
    handler = Recorder()
    async with scripted_peer(handler) as (running, _):
        assert await running.end_of("first") == LinkEnd("the handshake took too long")
    assert handler.calls == []


async def test_dripping_handshake_is_cut_off(autojump_clock: MockClock) -> None:
    handler = Recorder()

    async def drip(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"\xff\xff\x03")  # announces the longest message
        while True:
            await stream.send_all(b"x")
            await trio.sleep(1)

    async with scripted_peer(handler) as (running, peer), trio.open_nursery() as nursery:
        start = trio.current_time()
        nursery.start_soon(drip, peer.stream)
        assert await running.end_of("first") == LinkEnd("the handshake took too long")
        assert trio.current_time() - start == pytest.approx(20)
        nursery.cancel_scope.cancel()
    assert handler.calls == []


# --- back-pressure


async def test_peer_that_takes_nothing_is_dropped(autojump_clock: MockClock) -> None:
    handler = Recorder(FEED)
    async with scripted_peer(handler, lockstep_stream_pair) as (running, peer), trio.open_nursery() as nursery:
        await peer.shake_hands()
        nursery.start_soon(peer.keep_talking)
        assert await running.end_of("first") == LinkEnd("the peer does not take what it is sent")
        nursery.cancel_scope.cancel()


async def test_slow_peer_is_kept_and_drained_is_called(autojump_clock: MockClock) -> None:
    handler = Recorder(FEED)

    async def take_slowly(peer: ScriptedPeer) -> None:
        while True:
            peer.connection.receive_data(bytes(await peer.stream.receive_some(64 * 1024)))
            peer.connection.ping()
            await peer.flush()
            await trio.sleep(6)

    async with scripted_peer(handler, lockstep_stream_pair) as (running, peer), trio.open_nursery() as nursery:
        await peer.shake_hands()
        peer.connection.open_channel(FEED, DWEB)
        await peer.flush()
        await handler.wait_for("channel_opened")
        link = handler.links[0]
        nursery.start_soon(take_slowly, peer)
        sent = 0
        while link.room:
            link.send(handler.channels[0], Data(BlockIndex(0), bytes(64 * 1024)))
            sent += 1
        assert 16 <= sent <= 18
        assert link.queued_bytes >= link_module.HIGH_WATER_BYTES
        await handler.wait_for("drained")
        assert link.queued_bytes < link_module.HIGH_WATER_BYTES // 4
        assert link.room
        assert running.ends == {}
        nursery.cancel_scope.cancel()
    assert handler.calls.count("drained") == 1


async def test_output_without_bound_ends_the_link(autojump_clock: MockClock) -> None:
    handler = Recorder(FEED)
    async with scripted_peer(handler, lockstep_stream_pair) as (running, peer):
        await peer.shake_hands()
        peer.connection.open_channel(FEED, DWEB)
        await peer.flush()
        await handler.wait_for("channel_opened")
        for _ in range(6):
            handler.links[0].send(handler.channels[0], Data(BlockIndex(0), bytes(1 << 20)))
        assert handler.links[0].queued_bytes < link_module.MAX_UNSENT_BYTES + (2 << 20)
        assert (await running.end_of("first")).reason == "the peer does not take what it is sent"


async def test_small_messages_behind_a_block_that_is_larger_than_the_bound_do_not_end_the_link(
    autojump_clock: MockClock,
) -> None:
    handler = Recorder(FEED)
    async with scripted_peer(handler, lockstep_stream_pair) as (running, peer):
        await peer.shake_hands()
        peer.connection.open_channel(FEED, DWEB)
        await peer.flush()
        await handler.wait_for("channel_opened")
        link, channel = handler.links[0], handler.channels[0]
        link.send(channel, Data(BlockIndex(0), bytes(2 * link_module.MAX_UNSENT_BYTES - 100)))
        for index in range(100):
            link.send(channel, Have(BlockIndex(index)))
        assert link.end is None
        for _ in range(3):
            link.send(channel, Data(BlockIndex(0), bytes(1 << 20)))
        assert (await running.end_of("first")).reason == "the peer does not take what it is sent"


# --- ends


async def test_peer_that_leaves() -> None:
    first, second = Recorder(), Recorder()
    async with two_links(first, second) as running:
        await first.wait_for("established")
        await second.wait_for("established")
        first.links[0].disconnect("enough")
        assert await running.end_of("first") == LinkEnd("enough")
        assert not (await running.end_of("second")).lied
        first.links[0].disconnect("again")
        assert running.ends["first"].reason == "enough"
    assert first.calls[-1] == second.calls[-1] == "closed"


async def test_what_is_queued_is_sent_before_leaving() -> None:
    reader, writer = Recorder(FEED), Recorder(FEED)
    async with two_links(reader, writer) as running:
        await reader.wait_for("channel_opened")
        reader.links[0].send(reader.channels[0], Have(BlockIndex(7)))
        reader.links[0].disconnect("enough")
        reader.links[0].send(reader.channels[0], Have(BlockIndex(8)))
        await running.end_of("second")
    assert writer.messages == [Have(BlockIndex(7))]


async def test_broken_stream() -> None:
    near, far = memory_stream_pair()
    handler = Recorder()
    await far.aclose()
    end = await run_link(near, initiator=True, handler=handler, static_secret=FIRST_SECRET)
    assert not end.lied
    assert handler.calls == []


async def test_junk_in_place_of_a_handshake_is_a_lie() -> None:
    async with scripted_peer(Recorder()) as (running, peer):
        await peer.stream.send_all(b"GET / HTTP/1.1\r\n" + bytes(100))
        assert (await running.end_of("first")).lied


async def test_handler_that_finds_a_lie_ends_the_link() -> None:
    def judge(link: Link, channel: ChannelId, message: Message) -> None:
        raise RemoteProtocolError("block 3 does not verify")

    reader, writer = Recorder(FEED, on_message=judge), Recorder(FEED)
    async with two_links(reader, writer) as running:
        await writer.wait_for("channel_opened")
        writer.links[0].send(writer.channels[0], Data(BlockIndex(3), b"junk"))
        assert await running.end_of("first") == LinkEnd("block 3 does not verify", lied=True)
        assert not (await running.end_of("second")).lied
    assert reader.calls[-1] == "closed"


async def test_failure_of_the_handler_ends_only_its_link(caplog: pytest.LogCaptureFixture) -> None:
    def fail(link: Link, channel: ChannelId, message: Message) -> None:
        raise ValueError("a mistake of ours")

    reader, writer = Recorder(FEED, on_message=fail), Recorder(FEED)
    async with two_links(reader, writer) as running:
        await writer.wait_for("channel_opened")
        writer.links[0].send(writer.channels[0], Have(BlockIndex(3)))
        end = await running.end_of("first")
    assert not end.lied
    assert "a mistake of ours" in end.reason
    assert "link failed" in caplog.text


async def test_events_behind_the_end_are_not_told() -> None:
    reader = Recorder(FEED, on_message=lambda link, channel, message: link.disconnect("enough"))
    async with scripted_peer(reader) as (running, peer):
        await peer.shake_hands()
        channel = await peer.open()
        for index in range(3):
            peer.connection.send(channel, Have(BlockIndex(index)))
        await peer.flush()
        await running.end_of("first")
    assert reader.messages == [Have(BlockIndex(0))]


async def test_cancelled_link_tells_its_handler() -> None:
    first, second = Recorder(), Recorder()
    async with two_links(first, second):
        await first.wait_for("established")
        await second.wait_for("established")
    assert first.calls == second.calls == ["established", "closed"]


@asynccontextmanager
async def over_tcp(reader: Recorder, writer: Recorder) -> AsyncIterator[None]:
    """Link two handlers over loopback, and go on when they have opened their channel."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        accept = partial(run_link, initiator=False, handler=writer, static_secret=SECOND_SECRET)
        nursery.start_soon(trio.serve_listeners, accept, listeners)
        stream = await trio.testing.open_stream_to_socket_listener(listeners[0])
        nursery.start_soon(partial(run_link, stream, initiator=True, handler=reader, static_secret=FIRST_SECRET))
        await reader.wait_for("channel_opened")
        await writer.wait_for("channel_opened")
        yield
        nursery.cancel_scope.cancel()


async def test_over_loopback_tcp() -> None:
    reader, writer = Recorder(FEED), Recorder(FEED, on_message=answer)
    async with over_tcp(reader, writer):
        reader.links[0].send(reader.channels[0], Request(BlockIndex(3)))
        await reader.wait_for("received")
    assert reader.messages == [Data(BlockIndex(3), b"value")]


async def test_large_blocks_and_their_nodes_are_taken_by_the_kernel_in_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(NodeIndex(1), bytes(32), 1 << 17)
    reader, writer = Recorder(FEED), Recorder(FEED)
    taken: list[int] = []
    write = os.write

    def counting(fd: int, data: memoryview) -> int:
        count = write(fd, data)
        taken.append(count)
        return count

    async with over_tcp(reader, writer):
        await trio.testing.wait_all_tasks_blocked(0.05)
        monkeypatch.setattr(os, "write", counting)
        for index in range(2):
            writer.links[0].send(writer.channels[0], Data(BlockIndex(index), bytes(1 << 16), (node,) * 4))
        await reader.wait_for("received", 2)
    assert [count for count in taken if count > 1000] == [max(taken)]
    assert max(taken) > 1 << 17


async def test_discovery_key_is_what_the_handler_is_asked_for() -> None:
    asked = []

    class Asked(Recorder):
        def channel_requested(self, link: Link, discovery_key: DiscoveryKey) -> None:
            asked.append(discovery_key)
            super().channel_requested(link, discovery_key)

    async with two_links(Asked(), writer := Recorder(FEED)):
        await writer.wait_for("channel_closed")
    assert asked == [discovery_key(FEED, DWEB.discovery_ns)]


async def test_frame_that_never_comes_to_an_end_is_cut_off(autojump_clock: MockClock) -> None:
    handler = Recorder(FEED)
    async with scripted_peer(handler) as (running, peer):
        await peer.shake_hands()
        peer.connection._output.append(b"\x80\x80\x02")  # 32 KiB are to follow
        await peer.flush()
        started = trio.current_time()
        while "first" not in running.ends:
            peer.connection._output.append(b"\x0f")
            with suppress(trio.BrokenResourceError):
                await peer.flush()
            await trio.sleep(15)
        assert running.ends["first"].reason == "the peer sends too slowly"
        assert trio.current_time() - started < 60


async def test_long_frame_over_a_slow_line_is_taken(autojump_clock: MockClock) -> None:
    handler = Recorder(FEED)
    async with scripted_peer(handler) as (running, peer):
        await peer.shake_hands()
        channel = peer.connection.open_channel(FEED, DWEB)
        await peer.flush()
        await handler.wait_for("channel_opened")
        await peer.take()
        peer.connection.send(channel, Data(BlockIndex(0), bytes(400_000)))
        rest = peer.connection.data_to_send()
        while rest:  # 2 KB a second
            await peer.stream.send_all(rest[:4096])
            rest = rest[4096:]
            await trio.sleep(2)
        await handler.wait_for("received")
        assert running.ends == {}
