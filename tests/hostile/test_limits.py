"""What a hostile peer can send, and how little comes of it: every limit tried on a raw socket against an engine."""

import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from ddrive.feed import merkle
from ddrive.ids import BlockIndex
from ddrive.protocol import Received, static_public_key
from ddrive.protocol.codec import encode
from ddrive.protocol.framing import MAX_BODY_BYTES
from ddrive.protocol.handshake import MAX_MESSAGE_BYTES
from ddrive.protocol.messages import Close, Data, Have, Open, Request, Unhave, Want
from ddrive.protocol.varint import encode_varint
from ddrive.replication.serving import MAX_QUEUED
from tests.hostile.strangers import Engine, Stranger, engine, stranger, unknown_discovery_key, until

KIB = 1024


async def verified(here: Engine, peer: Stranger) -> int:
    """Get as far as somebody does who knows the key; returns the channel."""
    await peer.shake_hands()
    return await peer.open(here.feed)


async def test_a_long_handshake_message_is_refused_by_its_length(tmp_path: Path) -> None:
    async with engine(tmp_path) as here, stranger(here) as peer:
        await peer.stream.send_all(encode_varint(MAX_MESSAGE_BYTES + 1))
        assert await peer.is_dropped()


async def test_junk_in_place_of_a_handshake(tmp_path: Path) -> None:
    async with engine(tmp_path) as here, stranger(here) as peer:
        await peer.stream.send_all(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" * 9)
        assert await peer.is_dropped()


@pytest.mark.parametrize(
    ("declared", "kept"),
    [(encode_varint(64 * KIB + 9), False), (encode_varint(60 * KIB), True), (b"\xff" * 10, False)],
    ids=["over 64 KiB", "60 KiB", "endless varint"],
)
async def test_before_a_key_is_proven_frames_are_small(tmp_path: Path, declared: bytes, kept: bool) -> None:
    async with engine(tmp_path) as here, stranger(here) as peer:
        await peer.shake_hands()
        await peer.raw(declared)
        if kept:
            await peer.raw(b"\x0f" * 1000)
            await trio.sleep(0.1)
            assert here.swarm.links
        else:
            assert await peer.is_dropped()


async def test_a_frame_of_more_than_8_mib_is_refused_by_its_length(tmp_path: Path) -> None:
    async with engine(tmp_path) as here, stranger(here) as peer:
        await verified(here, peer)
        await peer.raw(encode_varint(MAX_BODY_BYTES + 9))
        assert await peer.is_dropped()


async def test_who_broke_the_protocol_is_not_let_in_again(tmp_path: Path) -> None:
    secret = bytes(range(32))
    async with engine(tmp_path) as here:
        async with stranger(here, secret=secret) as peer:
            await verified(here, peer)
            await peer.raw(b"\xff" * 10)
            assert await peer.is_dropped()
        async with stranger(here, secret=secret) as peer:
            await peer.shake_hands()
            assert await peer.is_dropped()
        async with stranger(here) as other:
            await verified(here, other)
            assert static_public_key(secret) not in [link.remote_public_key for link in here.swarm.links]


async def test_a_claim_of_very_many_blocks_is_one_range(tmp_path: Path) -> None:
    async with engine(tmp_path / "near", 1) as source, engine(tmp_path / "far") as here:
        copy = await here.store.open_feed(key=source.feed.key)
        async with stranger(here) as peer:
            await peer.shake_hands()
            channel = await peer.open(copy)
            await peer.say(channel, Have(BlockIndex(0), 1 << 50), Have(BlockIndex(1 << 51), 1 << 50))
            session = here.store.session(copy)
            await until(lambda: session.remote_length() == (1 << 51) + (1 << 50))
            (held,) = session._peers.values()
            assert held.state.remote._starts == [0, 1 << 51]
            assert not held.state.remote._maps


async def test_more_feeds_than_the_limit_are_refused_one_by_one(tmp_path: Path) -> None:
    async with engine(tmp_path) as here, stranger(here) as peer:
        await peer.shake_hands()
        names = [unknown_discovery_key() for _ in range(140)]
        for number, name in enumerate(names, 1):
            await peer.frame(number, *encode(Open(name, bytes(32))))
        refused = 0
        with trio.fail_after(10):
            while refused < len(names):
                plain = await peer.take_plain()
                refused += sum(name in plain for name in names)
        assert here.swarm.links


async def test_more_requests_than_the_limit_end_the_link(tmp_path: Path) -> None:
    async with engine(tmp_path, 64) as here, stranger(here) as peer:
        channel = await verified(here, peer)
        requests = [Request(BlockIndex(index % 64)) for index in range(MAX_QUEUED + 200)]
        await peer.say(channel, *requests)  # and no answer is read until the queue is over its limit
        await until(lambda: not here.swarm.links)


async def test_unasked_blocks_are_dropped_before_hashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine(tmp_path / "near", 1) as source, engine(tmp_path / "far") as here:
        copy = await here.store.open_feed(key=source.feed.key)
        hashed = []
        monkeypatch.setattr(merkle, "leaf_hash", lambda data: hashed.append(data) or bytes(32))
        async with stranger(here) as peer:
            await peer.shake_hands()
            channel = await peer.open(copy)
            for index in range(5):
                await peer.say(channel, Data(BlockIndex(index), bytes(60 * KIB)))
            answers: list[object] = []
            with trio.fail_after(10):
                while len(answers) < 5:
                    told = [event.message for event in await peer.take() if isinstance(event, Received)]
                    answers += [message for message in told if isinstance(message, Unhave)]
        assert answers == [Unhave(BlockIndex(index)) for index in range(5)]
        assert hashed == []


@pytest.mark.parametrize("count", [10])
async def test_unknown_feed_and_wrong_key_look_the_same(tmp_path: Path, count: int) -> None:
    async with engine(tmp_path, 1, at_rest=True) as here, stranger(here) as one, stranger(here) as other:
        known = here.store.discovery_key(here.feed.key)
        answers = []
        for peer, name in ((one, unknown_discovery_key()), (other, known)):
            await peer.shake_hands()
            plain = b""
            for _ in range(count):
                await peer.frame(1, *encode(Open(name, bytes(32))))
                with trio.move_on_after(0.3):
                    plain += await peer.take_plain()
            answers.append(plain.replace(name, b"<name>"))
        assert answers[0] == answers[1].replace(known, b"<name>")
        assert answers[0].count(b"<name>") == count
        assert here.store.feeds() == []  # so nobody else is offered it either


async def test_nothing_is_sent_to_who_does_not_know_the_key(tmp_path: Path) -> None:
    async with engine(tmp_path, 1, at_rest=True) as here, stranger(here) as peer:
        await peer.shake_hands()
        name = here.store.discovery_key(here.feed.key)
        await peer.frame(1, *encode(Open(name, bytes(32))))
        await peer.frame(1, *encode(Want(BlockIndex(0), 1 << 20)))
        await peer.frame(1, *encode(Request(BlockIndex(0))))
        plain = b""
        with trio.move_on_after(0.5):
            while True:
                plain += await peer.take_plain()
        _, body = encode(Close(name))
        assert plain.endswith(body)
        assert len(plain) < 3 * (len(body) + 40)


async def test_memory_of_a_connection(tmp_path: Path) -> None:
    count = 24
    async with engine(tmp_path, 8) as here, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(stranger(here)) for _ in range(count)]
        await until(lambda: len(here.swarm._members) == count)
        tracemalloc.start()
        try:
            start = tracemalloc.get_traced_memory()[0]
            for peer in peers:
                await peer.stream.send_all(encode_varint(MAX_MESSAGE_BYTES) + bytes(60_000))
            await trio.sleep(0.3)
            assert (tracemalloc.get_traced_memory()[0] - start) / count < 256 * KIB
        finally:
            tracemalloc.stop()


async def test_memory_of_a_peer_that_has_shaken_hands(tmp_path: Path) -> None:
    count = 16
    async with engine(tmp_path, 64) as here, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(stranger(here)) for _ in range(count)]
        tracemalloc.start()
        try:
            start = tracemalloc.get_traced_memory()[0]
            for peer in peers:
                channel = await verified(here, peer)
                await peer.say(channel, Want(BlockIndex(0), 1 << 20), Have(BlockIndex(0), 1 << 50))
                await peer.say(channel, *[Request(BlockIndex(index)) for index in range(64)])  # never read
                await peer.raw(encode_varint(MAX_BODY_BYTES) + bytes(256 * KIB))
            await trio.sleep(0.5)
            assert (tracemalloc.get_traced_memory()[0] - start) / count < 2048 * KIB
        finally:
            tracemalloc.stop()
