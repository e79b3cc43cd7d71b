"""Many feeds on one link: what is offered, opened from disk, refused; both dialects side by side."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
import trio

from ddrive.dialect import DWEB, HYPERCORE
from ddrive.ids import BlockIndex
from ddrive.protocol.running import run_link
from ddrive.store.linked import Replicator, replicate
from ddrive.store.store import open_store

BLOCKS = [bytes([number]) * 50 for number in range(40)]


@asynccontextmanager
async def connected(one: Replicator, other: Replicator, ends: list) -> AsyncIterator[None]:
    """Link both over loopback TCP."""

    async def run(stream, handler, initiator):
        ends.append(await run_link(stream, initiator=initiator, handler=handler, static_secret=os.urandom(32)))

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listener.socket.getsockname()[:2]
        near = await trio.open_tcp_stream(host, port)
        far = await listener.accept()
        await listener.aclose()
        nursery.start_soon(run, near, one, True)
        nursery.start_soon(run, far, other, False)
        await until(lambda: one.links and other.links)
        yield
        nursery.cancel_scope.cancel()


async def until(condition, timeout_s=20):
    """Return when `condition()` is true."""
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.fixture
async def stores(tmp_path):
    """Two stores of the dialect dweb and two of hypercore, by name."""
    async with AsyncExitStack() as stack:
        yield {
            (place, dialect.name): await stack.enter_async_context(open_store(tmp_path / place / dialect.name, dialect))
            for place in ("near", "far")
            for dialect in (DWEB, HYPERCORE)
        }


async def test_all_open_feeds_cross_one_link(stores):
    near, far = stores["near", "dweb"], stores["far", "dweb"]
    written = [await far.open_feed(name=name) for name in ("a", "b", "c")]
    for feed in written:
        await feed.append(BLOCKS)
    read = [await near.open_feed(key=feed.key) for feed in written]
    async with connected(Replicator([near]), Replicator([far]), []):
        for feed in read:
            with trio.fail_after(20):
                await feed.download(0, 40)
    assert [feed.get_held(BlockIndex(39)) for feed in read] == [BLOCKS[39]] * 3


async def test_a_feed_opened_later_appears_on_the_link(stores):
    near, far = stores["near", "dweb"], stores["far", "dweb"]
    async with connected(Replicator([near]), Replicator([far]), []):
        written = await far.open_feed(name="late")
        await written.append(BLOCKS)
        read = await near.open_feed(key=written.key)
        with trio.fail_after(20):
            assert await read.get(BlockIndex(3)) == BLOCKS[3]


async def test_a_feed_on_disk_is_opened_when_a_peer_asks(stores, tmp_path):
    near = stores["near", "dweb"]
    async with open_store(tmp_path / "third", DWEB) as store:
        feed = await store.open_feed(name="a")
        await feed.append(BLOCKS)
        key = feed.key
    async with open_store(tmp_path / "third", DWEB) as far:
        read = await near.open_feed(key=key)
        async with connected(Replicator([near]), Replicator([far]), []):
            with trio.fail_after(20):
                assert await read.get(BlockIndex(3)) == BLOCKS[3]
            assert [feed.key for feed in far.feeds()] == [key]


async def test_an_unknown_feed_is_refused_and_refresh_does_not_wait_for_it(stores):
    near, far = stores["near", "dweb"], stores["far", "dweb"]
    read = await near.open_feed(key=(await stores["near", "hypercore"].open_feed(name="x")).key)
    async with connected(Replicator([near]), Replicator([far]), []):
        with trio.fail_after(4):
            await read.refresh()
        assert far.feeds() == []
        assert read.peer_count == 0


async def test_refresh_waits_for_a_channel_that_is_about_to_open(stores):
    near, far = stores["near", "dweb"], stores["far", "dweb"]
    written = await far.open_feed(name="a")
    await written.append(BLOCKS)
    async with connected(Replicator([near]), Replicator([far]), []):
        read = await near.open_feed(key=written.key)
        await read.refresh()
        assert read.length == 40


async def test_what_is_not_served_is_refused(stores, tmp_path):
    near = stores["near", "dweb"]
    async with open_store(tmp_path / "third", DWEB) as store:
        feed = await store.open_feed(name="a")
        await feed.append(BLOCKS)
        key = feed.key
    async with open_store(tmp_path / "third", DWEB) as far:
        asked = []
        read = await near.open_feed(key=key)
        serves = Replicator([far], serves=lambda found: bool(asked.append(found)))
        async with connected(Replicator([near]), serves, []):
            await until(lambda: asked)
            await read.refresh()
            assert asked == [far.discovery_key(key)]
            assert far.feeds() == []


async def test_both_dialects_share_a_link(stores):
    near = [stores["near", name] for name in ("dweb", "hypercore")]
    far = [stores["far", name] for name in ("dweb", "hypercore")]
    written = [await store.open_feed(name="a") for store in far]
    for feed in written:
        await feed.append(BLOCKS)
    remembered = []
    one = Replicator(near, remember=lambda key, dialect, link: remembered.append((key, dialect)))
    async with connected(one, Replicator(far), []):
        for store, feed in zip(near, written, strict=True):
            with trio.fail_after(20):
                assert await (await store.open_feed(key=feed.key)).get(BlockIndex(7)) == BLOCKS[7]
        assert len(one.links) == 1
    assert remembered == [(written[0].key, DWEB), (written[1].key, HYPERCORE)]


async def test_a_peer_that_does_not_know_the_key_gets_nothing(stores, tmp_path):
    far = stores["far", "dweb"]
    written = await far.open_feed(name="a")
    await written.append(BLOCKS)
    async with open_store(tmp_path / "bad", replace(DWEB, capability_ns=b"wrong")) as bad:
        read = await bad.open_feed(key=written.key)
        one, other = Replicator([bad]), Replicator([far])
        async with connected(one, other, []):
            await until(
                lambda: not any(replicator.sessions(link) for replicator in (one, other) for link in replicator.links)
            )
            assert read.length == written.peer_count == read.peer_count == 0


async def test_a_live_feed_follows(stores):
    near, far = stores["near", "dweb"], stores["far", "dweb"]
    written = await far.open_feed(name="a")
    read = await near.open_feed(key=written.key, live=True)
    async with connected(Replicator([near]), Replicator([far]), []):
        for length in range(1, 6):
            await written.append([b"x"])
            await until(lambda length=length: read.length == length)
            assert read.has(BlockIndex(length - 1))


async def test_exchange_goes_on_over_a_second_link(stores):
    near, far = stores["near", "dweb"], stores["far", "dweb"]
    written = await far.open_feed(name="a")
    await written.append(BLOCKS)
    read = await near.open_feed(key=written.key)
    one, other = Replicator([near]), Replicator([far])
    for index in (3, 4):
        async with connected(one, other, []):
            with trio.fail_after(20):
                assert await read.get(BlockIndex(index)) == BLOCKS[index]
        await until(lambda: not one.links)
        assert read.peer_count == 0


async def test_closing_the_replicator_ends_its_links(stores):
    near, far, ends = stores["near", "dweb"], stores["far", "dweb"], []
    one = Replicator([near])
    async with connected(one, Replicator([far]), ends):
        one.close()
        await until(lambda: len(ends) == 2)
        await near.open_feed(name="a")


async def test_one_stream_can_be_exchanged_with_one_call(stores):
    near, far = stores["near", "dweb"], stores["far", "dweb"]
    written = await far.open_feed(name="a")
    await written.append(BLOCKS)
    read = await near.open_feed(key=written.key)
    one, other = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(replicate, far, other, initiator=False))
        nursery.start_soon(partial(replicate, near, one, initiator=True))
        with trio.fail_after(20):
            await read.download(0, 40)
        nursery.cancel_scope.cancel()
