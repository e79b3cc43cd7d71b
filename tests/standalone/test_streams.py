"""A feed as a stream to read from and to write to."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ddrive.errors import NotHeld, NotWritable, TimedOut, TooLarge
from ddrive.feed.storage import MemoryDirectory
from ddrive.standalone import StandaloneFeed, open_feed
from tests.standalone.pairs import BLOCKS, author_and_copy


@pytest.fixture
async def author():
    async with open_feed(MemoryDirectory()) as feed:
        await feed.append(list(BLOCKS))
        yield feed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, BLOCKS),
        ({"start": 5}, BLOCKS[5:]),
        ({"start": 5, "end": 9}, BLOCKS[5:9]),
        ({"start": 9, "end": 5}, []),
        ({"start": 30}, []),
        ({"tail": True}, []),
        ({"batch": 7}, BLOCKS),
    ],
)
async def test_it_gives_the_blocks_that_are_asked_for(author, options, expected):
    assert [block async for block in author.read_stream(**options)] == expected


async def test_a_snapshot_ends_where_the_feed_ended(author):
    stream = author.read_stream()
    await author.append(b"later")
    assert [block async for block in stream] == BLOCKS


async def test_otherwise_it_ends_where_the_feed_ends(author):
    stream = author.read_stream(snapshot=False)
    await author.append(b"later")
    assert [block async for block in stream] == [*BLOCKS, b"later"]


async def test_a_live_stream_waits_for_more(author):
    stream = author.read_stream(19, live=True)
    assert await stream.receive() == BLOCKS[19]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(author.append, b"later")
        assert await stream.receive() == b"later"


async def test_a_live_tail_begins_with_what_comes_next(author):
    stream = author.read_stream(tail=True, live=True)
    await author.append(b"later")
    assert await stream.receive() == b"later"


async def test_a_live_stream_that_does_not_wait_ends_in_an_error(author):
    stream = author.read_stream(tail=True, live=True, wait=False)
    with pytest.raises(NotHeld):
        await stream.receive()


async def test_a_step_of_a_stream_can_time_out(author, autojump_clock):
    stream = author.read_stream(tail=True, live=True, timeout=1)
    with pytest.raises(TimedOut):
        await stream.receive()


async def test_a_closed_stream_gives_nothing(author):
    stream = author.read_stream()
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive()


@pytest.mark.parametrize("batch", [1, 6])
async def test_it_reads_from_peers(batch: int, autojump_clock):
    async with author_and_copy() as (_, copy):
        await copy.update(20)
        assert [block async for block in copy.read_stream(2, 18, batch=batch)] == BLOCKS[2:18]


async def test_it_decodes(author):
    async with open_feed(MemoryDirectory(), value_encoding="json") as feed:
        await feed.append([1, "b"])
        assert [value async for value in feed.read_stream()] == [1, "b"]


async def test_what_is_sent_is_appended_together():
    async with open_feed(MemoryDirectory()) as feed:
        async with feed.write_stream() as stream:
            for block in BLOCKS:
                await stream.send(block)
            assert feed.length == 0
        assert await feed.get_range(0, 20) == BLOCKS
        assert feed.signature(0)[0] == 19


async def test_long_values_are_cut():
    async with open_feed(MemoryDirectory()) as feed:
        async with feed.write_stream(max_block_size=4) as stream:
            await stream.send(b"0123456789")
            await stream.send(b"")
        assert await feed.get_range(0, 4) == [b"0123", b"4567", b"89", b""]


async def test_much_is_appended_before_the_end():
    async with open_feed(MemoryDirectory()) as feed, feed.write_stream() as stream:
        for _ in range(200):
            await stream.send(b"x")
        assert feed.length == 128


async def test_a_stream_that_fails_appends_nothing_more():
    async with open_feed(MemoryDirectory()) as feed:
        with suppress(KeyError):
            async with feed.write_stream() as stream:
                await stream.send(b"x")
                raise KeyError
        assert feed.length == 0


async def test_a_closed_stream_takes_nothing():
    async with open_feed(MemoryDirectory()) as feed:
        stream = feed.write_stream()
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send(b"x")


async def test_a_copy_has_no_stream_to_write_to():
    async with author_and_copy(joined=False) as (_, copy):
        with pytest.raises(NotWritable):
            copy.write_stream()


async def test_a_waiting_stream_ends_with_the_feed(author):
    stream = author.read_stream(tail=True, live=True)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(Exception, match="closed"):
                await stream.receive()

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await author.aclose()


async def test_closing_a_stream_ends_the_wait_of_another_task(author):
    stream = author.read_stream(tail=True, live=True)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive()

            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.receive()
            await stream.aclose()


async def test_a_value_that_is_too_large_is_not_taken_in():
    async with open_feed(MemoryDirectory()) as feed:
        async with feed.write_stream() as stream:
            await stream.send(b"before")
            with pytest.raises(TooLarge, match="max_block_size"):
                await stream.send(bytes(8 * 1024 * 1024))
        assert await feed.get_range(0, feed.length) == [b"before"]
        with pytest.raises(ValueError, match="at most"):
            feed.write_stream(max_block_size=8 * 1024 * 1024)


async def test_what_was_taken_in_outlives_an_append_that_was_cancelled():
    async with open_feed(MemoryDirectory()) as feed:
        async with feed.write_stream() as stream:
            await stream.send(b"kept")
            with trio.CancelScope() as scope, _turn_of(feed):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.flush)
                    await wait_all_tasks_blocked()
                    scope.cancel()
        assert await feed.get_range(0, feed.length) == [b"kept"]


@contextmanager
def _turn_of(feed: StandaloneFeed) -> Iterator[None]:
    """Keep every append from beginning."""
    feed.feed._turn.acquire_nowait()
    try:
        yield
    finally:
        feed.feed._turn.release()
