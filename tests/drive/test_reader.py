"""Bytes of files out of blocks: what is fetched, what is refused, and nothing that lasts longer than the reader."""

import random

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ddrive.drive.holdings import wanting
from ddrive.drive.reader import BEHIND_S, Extent, FileReader, extent_of
from ddrive.drive.stat import Stat
from ddrive.errors import BadHandle, CorruptStorage, DriveError, ImpossibleEntry, NoPeers
from ddrive.feed import Feed
from ddrive.ids import BlockIndex
from tests.drive.loopback import Loopback, own_feed, sparse_copy

BLOCK = 65536


def pattern(size: int, seed: int = 0) -> bytes:
    """Return bytes that differ everywhere."""
    return random.Random(seed).randbytes(size)


async def held(blocks: list[bytes], before: list[bytes] | None = None) -> tuple[Feed, Extent, bytes]:
    """Return a feed that holds a file of `blocks` behind `before`, where the file is, and its bytes."""
    before = [b"before"] if before is None else before
    feed = own_feed()
    await feed.append([*before, *blocks, b"behind"])
    data = b"".join(blocks)
    return feed, Extent(len(before), len(blocks), sum(map(len, before)), len(data)), data


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    reads=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=12),
    present=st.sets(st.integers(0, 12)),
)
@example(sizes=[0, 2], reads=[(1, 1), (0, 1)], present=set())
def test_any_range_of_any_split_is_read_right(
    sizes: list[int], reads: list[tuple[int, int]], present: set[int]
) -> None:
    blocks = [pattern(size, number) for number, size in enumerate(sizes)]
    data = b"".join(blocks)

    async def check() -> None:
        loopback = await sparse_copy([b"before", *blocks, b"behind"])
        for index in present & set(range(len(blocks) + 2)):
            await loopback.copy.get(index)
        reader = FileReader(loopback.copy, Extent(1, len(blocks), 6, len(data)))
        for offset, size in reads:
            assert await reader.read(offset, size) == data[offset : offset + size]
            assert reader.held(offset, size)
        await reader.aclose()
        assert loopback.wishes == []

    trio.run(check)


async def test_sequential_reads_of_held_blocks_never_wait() -> None:
    feed, extent, data = await held([pattern(BLOCK, number) for number in range(9)] + [b"end"])
    reader = FileReader(feed, extent)
    await reader.read(0, 1)  # the numbers are checked once
    for offset in range(0, len(data), 100_000):
        step = reader.read(offset, 100_000)
        with pytest.raises(StopIteration) as finished:
            step.send(None)
        assert finished.value.value == data[offset : offset + 100_000]


@pytest.mark.parametrize("extent", [Extent(3, 0, 0, 0), Extent(99, 1, 10**9, 0), Extent(0, 0, 0, 0)])
async def test_an_empty_file_needs_no_feed(extent: Extent) -> None:
    loopback = await sparse_copy([b"x"])
    reader = FileReader(loopback.copy, extent)
    assert (await reader.read(0, 100), reader.size, reader.held(0, 10)) == (b"", 0, True)
    assert loopback.asked == []


def test_a_stat_without_blocks_has_no_bytes() -> None:
    assert extent_of(Stat(0o100644)).size == 0
    with pytest.raises(ImpossibleEntry):
        extent_of(Stat(0o100644, size=5))


async def test_reading_outside_the_file_gives_nothing() -> None:
    feed, extent, data = await held([b"abc"])
    reader = FileReader(feed, extent)
    assert await reader.read(3, 10) == b""
    assert await reader.read(10**12, 10) == b""
    assert await reader.read(-1, 10) == b""
    assert await reader.read(2, 10) == data[2:]


async def file_of(count: int) -> tuple[Loopback, FileReader, bytes]:
    """Return a sparse file of 64 KiB blocks, with others before and behind it."""
    blocks = [pattern(BLOCK, number) for number in range(count)]
    loopback = await sparse_copy([b"before", *blocks, pattern(BLOCK)])
    return loopback, FileReader(loopback.copy, Extent(1, count, 6, count * BLOCK)), b"".join(blocks)


async def test_a_random_read_fetches_only_the_blocks_that_hold_it() -> None:
    loopback, reader, data = await file_of(40)
    assert await reader.read(20 * BLOCK + 100, 4096) == data[20 * BLOCK + 100 :][:4096]
    assert loopback.served == [21]
    assert await reader.read(7 * BLOCK - 50, 100) == data[7 * BLOCK - 50 :][:100]
    assert sorted(loopback.served) == [7, 8, 21]
    assert loopback.wishes == []
    assert loopback.seeks == []  # the usual block size made seeking needless


async def test_an_unusual_split_costs_one_seek() -> None:
    blocks = [pattern(1000 + 500 * (number % 3), number) for number in range(60)]
    data = b"".join(blocks)
    loopback = await sparse_copy([b"before", *blocks])
    reader = FileReader(loopback.copy, Extent(1, 60, 6, len(data)))
    assert await reader.read(50_000, 10) == data[50_000:50_010]
    assert loopback.seeks == [50_006]
    assert len(loopback.served) == 1


async def test_a_file_that_only_looks_usual_is_read_right() -> None:
    sizes = [60_000, 70_000, 65_536, 65_000]  # four blocks, as 64 KiB blocks would give
    blocks = [pattern(size, number) for number, size in enumerate(sizes)]
    data = b"".join(blocks)
    for offset in (0, 59_999, 60_000, 66_000, 129_999, 130_000, len(data) - 1):
        loopback = await sparse_copy([b"before", *blocks])
        reader = FileReader(loopback.copy, Extent(1, 4, 6, len(data)))
        assert await reader.read(offset, 10) == data[offset : offset + 10]


async def test_a_read_of_many_blocks_asks_for_all_at_once() -> None:
    loopback, reader, _ = await file_of(40)
    loopback.serving = False
    with trio.move_on_after(0.01):
        await reader.read(5 * BLOCK, 8 * BLOCK)
    assert (6, 14, True) in loopback.asked


async def test_reading_on_grows_a_window_within_the_file() -> None:
    loopback, reader, data = await file_of(200)
    offset, ends = 0, []
    while offset < len(data):
        piece = await reader.read(offset, 2 * BLOCK)
        assert piece == data[offset : offset + 2 * BLOCK]
        offset += len(piece)
        ends.append(max([end for _, end, urgent in loopback.asked if not urgent], default=0) - offset // BLOCK)
    assert ends[0] <= 0  # one read is not a run yet
    assert max(ends) <= 64 + 3  # 4 MiB
    assert max(ends) >= 64 - 32
    assert sorted(loopback.served) == list(range(1, 201))
    await reader.aclose()
    assert loopback.wishes == []


async def test_a_jump_withdraws_the_window() -> None:
    loopback, reader, _ = await file_of(200)
    for offset in range(0, 10 * BLOCK, BLOCK):
        loopback.serving = offset < 8 * BLOCK
        with trio.move_on_after(0.01):
            await reader.read(offset, BLOCK)
    assert loopback.wishes
    with trio.move_on_after(0.01):
        await reader.read(150 * BLOCK, 10)
    assert loopback.wishes == []


async def test_a_file_behind_the_end_of_its_feed_is_given_up_when_a_peer_has_all_of_that(
    autojump_clock: MockClock,
) -> None:
    loopback, reader, _ = await file_of(10)
    assert await reader.read(0, 5)
    lost = FileReader(loopback.copy, Extent(10**6, 10, 10**9, 10 * BLOCK), "lost")
    started = trio.current_time()
    with pytest.raises(NoPeers, match="nobody knows more than 12"):
        await lost.read(0, 5)
    assert trio.current_time() - started == pytest.approx(BEHIND_S)
    assert loopback.wishes == []
    loopback.serving = False  # nobody is there who has all: its author may come
    with trio.move_on_after(1000) as scope:
        await lost.read(0, 5)
    assert scope.cancelled_caught
    assert loopback.wishes == []


@pytest.mark.parametrize(
    ("extent", "error"),
    [
        (Extent(5, 30, 10**9, 500_000), NoPeers),  # its first block is there, its bytes are not
        (Extent(10**6, 30, 10**9, 500_000), NoPeers),
        (Extent(12, 30, 11 * BLOCK + 6, 500_000), NoPeers),  # right behind what there is
        (Extent(10**6, 30, BLOCK, 500_000), ImpossibleEntry),
        (Extent(5, 3, 10**9, 3 * BLOCK), ImpossibleEntry),  # split as usual
    ],
)
async def test_bytes_within_a_file_that_nobody_can_have_are_not_waited_for(
    autojump_clock: MockClock, extent: Extent, error: type[DriveError]
) -> None:
    loopback, _, _ = await file_of(10)
    reader = FileReader(loopback.copy, extent)  # nothing is known of its feed yet
    length = loopback.author.length

    async def tell_length() -> bool:
        """Prove the length, as peers do when they are asked for news."""
        loopback.want_offset(0, BlockIndex(0), BlockIndex(length))()
        return loopback.copy.length == length

    loopback.ends = tell_length  # type: ignore[method-assign]
    for position in (300_000 % extent.size, extent.size - 10):
        with trio.fail_after(BEHIND_S + 1), pytest.raises(error):
            await reader.read(position, 5)
    assert loopback.wishes == []


async def test_an_unusual_split_that_is_just_being_told_of_is_read(autojump_clock: MockClock) -> None:
    loopback, reader, _ = await file_of(10)
    assert await reader.read(0, 5)
    late = FileReader(loopback.copy, Extent(12, 3, loopback.copy.byte_length, 90))
    found: list[bytes] = []

    async def read() -> None:
        found.append(await late.read(50, 5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.sleep(BEHIND_S / 2)
        await loopback.author.append([b"a" * 20, b"b" * 40, b"c" * 30])
        loopback.want_blocks(BlockIndex(13), BlockIndex(14), urgent=True)()
    assert found == [b"b" * 5]


async def test_a_file_whose_blocks_are_just_being_told_of_is_read(autojump_clock: MockClock) -> None:
    loopback, reader, _ = await file_of(10)
    assert await reader.read(0, 5)
    more = pattern(BLOCK, 99)
    late = FileReader(loopback.copy, Extent(12, 1, loopback.copy.byte_length, BLOCK))
    found: list[bytes] = []

    async def read() -> None:
        found.append(await late.read(0, BLOCK))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.sleep(BEHIND_S / 2)
        await loopback.author.append([more])
        loopback.want_blocks(BlockIndex(12), BlockIndex(13), urgent=True)()
    assert found == [more]


async def test_a_cancelled_read_leaves_no_wish() -> None:
    loopback, reader, _ = await file_of(10)
    loopback.serving = False
    with trio.move_on_after(0.01) as scope:
        await reader.read(3 * BLOCK, 3 * BLOCK)
    assert scope.cancelled_caught
    assert loopback.wishes == []


async def test_closing_withdraws_everything_and_ends_reading() -> None:
    loopback, reader, _ = await file_of(100)
    for offset in range(0, 6 * BLOCK, BLOCK):
        await reader.read(offset, BLOCK)
    await reader.aclose()
    await reader.aclose()
    assert loopback.wishes == []
    with pytest.raises(BadHandle):
        await reader.read(0, 1)


@pytest.mark.parametrize(
    "extent",
    [
        Extent(1, 2, 6, 7),  # the blocks end before the size
        Extent(1, 2, 6, 8),
        Extent(1, 1, 6, 6),
        Extent(1, 2, 7, 6),  # starts elsewhere
        Extent(1, 2, 0, 6),
        Extent(0, 1, 6, 3),  # bytes of another block
        Extent(3, 5, 12, 40),  # beyond the feed
        Extent(1000, 2, 6, 6),
        Extent(1, 2, 10**9, 6),
    ],
)
async def test_numbers_that_do_not_fit_the_feed_are_refused(extent: Extent) -> None:
    feed = own_feed()
    await feed.append([b"before", b"abc", b"def", b"behind"])
    for offset in (0, 2, extent.size - 1):
        with pytest.raises(CorruptStorage):
            await FileReader(feed, extent, "f").read(offset, 100)


async def test_a_block_beyond_the_feed_is_not_waited_for_when_its_bytes_would_be_in_front() -> None:
    author = await sparse_copy([b"abc", b"def", b"more"])
    assert await FileReader(author.copy, Extent(1, 1, 3, 3)).read(0, 3) == b"def"  # from then on its length is known
    with trio.fail_after(1), pytest.raises(CorruptStorage):
        await FileReader(author.copy, Extent(100, 1, 0, 3)).read(0, 3)
    with trio.move_on_after(0.1):  # of one that is longer than anybody has told nobody can say that
        await FileReader(author.copy, Extent(100, 1, 10, 3)).read(0, 3)
        raise AssertionError


async def test_a_file_that_is_too_short_is_refused_before_its_end_is_read() -> None:
    feed = own_feed()
    await feed.append([b"abcdef"])
    with pytest.raises(CorruptStorage):
        await FileReader(feed, Extent(0, 1, 0, 7)).read(0, 2)
    author = await sparse_copy([b"abc", b"def", b"more"])
    with pytest.raises(CorruptStorage):
        await FileReader(author.copy, Extent(0, 2, 0, 8)).read(3, 1)


@pytest.mark.parametrize(
    "stat",
    [
        Stat(0o100644, size=1 << 60, blocks=1),
        Stat(0o100644, size=1, blocks=1, byte_offset=(1 << 64) - 1),
        Stat(0o100644, size=1, blocks=1 << 63),
        Stat(0o100644, size=1, blocks=1, offset=(1 << 64) - 1),
    ],
)
def test_impossible_numbers_are_refused_at_once(stat: Stat) -> None:
    with pytest.raises(CorruptStorage):
        extent_of(stat)


@settings(max_examples=100, deadline=None)
@given(
    extent=st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 20), st.integers(0, 20)),
    offset=st.integers(0, 20),
    size=st.integers(1, 20),
)
def test_lying_numbers_give_an_error_or_as_many_bytes_as_they_promise(
    extent: tuple[int, int, int, int], offset: int, size: int
) -> None:
    lie = Extent(extent[0], extent[1], extent[2], extent[3] if extent[1] else 0)

    async def check() -> None:
        feed = own_feed()
        await feed.append([b"abc", b"", b"defgh", b"i"])
        try:
            data = await FileReader(feed, lie).read(offset, size)
        except DriveError:
            return
        assert len(data) == max(0, min(offset + size, lie.size) - offset)

    trio.run(check)


async def test_a_cleared_block_is_fetched_again_from_a_peer() -> None:
    loopback, reader, data = await file_of(3)
    await reader.read(0, 3 * BLOCK)
    loopback.copy.clear(2, 3)
    assert not reader.held(BLOCK, 1)
    fresh = FileReader(loopback.copy, reader.extent)
    assert await fresh.read(BLOCK, 10) == data[BLOCK : BLOCK + 10]


async def test_files_side_by_side_are_wished_for_together() -> None:
    loopback = await sparse_copy([bytes([number]) for number in range(20)])
    loopback.serving = False
    extents = [Extent(3, 2, 3, 2), Extent(7, 1, 7, 1), Extent(5, 1, 5, 1), Extent(1, 0, 1, 0), Extent(12, 1, 12, 1)]
    with wanting(FileReader(loopback.copy, extent) for extent in extents):
        assert sorted(loopback.wishes) == [(3, 6, False), (7, 8, False), (12, 13, False)]
    assert loopback.wishes == []
