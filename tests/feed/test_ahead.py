"""Blocks that threads read and check before they are asked for."""

import errno
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from ddrive.errors import CorruptStorage, NotHeld
from ddrive.feed import FeedLog, FeedView, FileDirectory
from ddrive.feed.ahead import JOB_BYTES, MAX_AHEAD_BYTES
from ddrive.feed.storage import FileStorage
from tests.feed.samples import copy, main_blocks, reader, writer

BLOCKS = main_blocks()[:13]


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


class NoExecutor(Executor):
    """Never runs what it is given."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        self.submitted += 1
        return Future()


def view_of(owner, path, executor):
    view = FeedView(FileDirectory(path, read_only=True), owner.key, executor)
    view.adopt(owner.length, owner.runs(0, owner.length))
    return view


@pytest.fixture
def counted_reads(monkeypatch):
    """Return the list of (offset, size) that were read from files."""
    reads: list[tuple[int, int]] = []
    read = FileStorage.read

    def counting(self, offset, size):
        reads.append((offset, size))
        return read(self, offset, size)

    monkeypatch.setattr(FileStorage, "read", counting)
    return reads


def test_what_was_loaded_ahead_is_given_out_without_another_read(tmp_path, executor, counted_reads):
    owner = writer(BLOCKS, FileDirectory(tmp_path / "feed"))
    view = view_of(owner, tmp_path / "feed", executor)
    view.load_ahead(0, 13)
    first = view.block(0)
    executor.shutdown()
    counted_reads.clear()
    assert [first, *(view.block(index) for index in range(1, 13))] == BLOCKS
    assert counted_reads == []
    view.close()


def test_each_loaded_block_is_given_out_once(tmp_path, executor, counted_reads):
    owner = writer(BLOCKS, FileDirectory(tmp_path / "feed"))
    view = view_of(owner, tmp_path / "feed", executor)
    view.load_ahead(7, 8)
    assert view.block(7) == BLOCKS[7]
    counted_reads.clear()
    assert view.block(7) == BLOCKS[7]
    assert (owner.byte_offset(7), len(BLOCKS[7])) in counted_reads
    view.close()


def test_blocks_that_are_not_held_are_left_out(tmp_path, executor):
    owner = reader(FileDirectory(tmp_path / "feed"))
    copy(writer(BLOCKS), owner, [1, 2, 9])
    view = view_of(owner, tmp_path / "feed", executor)
    view.load_ahead(0, 13)
    assert [view.block(index) for index in (1, 2, 9)] == [BLOCKS[index] for index in (1, 2, 9)]
    with pytest.raises(NotHeld):
        view.block(3)
    view.close()


def test_a_disk_that_fails_for_a_moment_fails_no_later_read(tmp_path, executor, monkeypatch):
    owner = writer(BLOCKS, FileDirectory(tmp_path / "feed"))
    view = view_of(owner, tmp_path / "feed", executor)

    def failing(self, offset, size):
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, "read", failing)
        view.load_ahead(6, 9)
        executor.shutdown()
    assert [view.block(index) for index in (6, 7, 8, 7)] == [BLOCKS[index] for index in (6, 7, 8, 7)]
    view.close()


def test_a_damaged_block_is_not_given_out(tmp_path, executor):
    owner = writer(BLOCKS, FileDirectory(tmp_path / "feed"))
    view = view_of(owner, tmp_path / "feed", executor)
    with (tmp_path / "feed" / "data").open("r+b") as file:
        file.seek(owner.byte_offset(7) + 5)
        file.write(b"wrong")
    view.load_ahead(6, 9)
    with pytest.raises(NotHeld):
        view.block(7)
    assert view.block(8) == BLOCKS[8]
    view.close()


def test_loading_twice_reads_once(tmp_path):
    owner = writer(BLOCKS, FileDirectory(tmp_path / "feed"))
    pool = NoExecutor()
    view = view_of(owner, tmp_path / "feed", pool)
    view.load_ahead(0, 8)
    view.load_ahead(0, 8)
    assert pool.submitted == 1
    view.close()


def test_what_is_not_taken_stays_within_its_bound(tmp_path):
    blocks = [bytes([index]) * (1 << 20) for index in range(12)]
    owner = writer(blocks, FileDirectory(tmp_path / "feed"))
    view = view_of(owner, tmp_path / "feed", NoExecutor())
    view.load_ahead(0, 12)
    ahead = view._ahead
    assert ahead is not None
    assert [index for index in range(12) if ahead.has(index)] == list(range(12 - MAX_AHEAD_BYTES // (1 << 20), 12))
    view.close()


def test_a_view_without_threads_loads_nothing_ahead(tmp_path):
    owner = writer(BLOCKS, FileDirectory(tmp_path / "feed"))
    view = view_of(owner, tmp_path / "feed", None)
    view.load_ahead(0, 13)
    assert view.block(7) == BLOCKS[7]
    view.close()


def test_neighbours_that_are_too_large_together_are_not_loaded(tmp_path):
    blocks = [bytes([number]) * (MAX_AHEAD_BYTES // 4 + 1) for number in range(4)]
    small = [b"."] * 1000  # most are, so that many are read in one go
    owner = writer([*blocks, *small], FileDirectory(tmp_path / "feed"))
    pool = NoExecutor()
    view = view_of(owner, tmp_path / "feed", pool)
    view.load_ahead(0, 4)
    assert pool.submitted == 0
    assert [view.block(index) for index in range(4)] == blocks
    view.load_ahead(0, 3)
    assert pool.submitted == 1
    view.close()


def test_large_blocks_are_loaded_one_by_one(tmp_path):
    blocks = [bytes([number]) * (JOB_BYTES // 2 + 1) for number in range(4)]
    owner = writer(blocks, FileDirectory(tmp_path / "feed"))
    pool = NoExecutor()
    view = view_of(owner, tmp_path / "feed", pool)
    view.load_ahead(0, 4)
    assert pool.submitted == 4
    view.close()


def test_blocks_that_were_loaded_together_are_given_out_together(tmp_path, executor):
    owner = writer(BLOCKS, FileDirectory(tmp_path / "feed"))
    view = view_of(owner, tmp_path / "feed", executor)
    view.load_ahead(0, 8)
    sizes = [len(block) for block in BLOCKS]
    run = view.loaded_run(2, sum(sizes[2:5]))
    assert run is not None
    assert (bytes(run[0]), run[1]) == (b"".join(BLOCKS[2:5]), 3)
    assert view.loaded_run(2, 1000) is None  # once
    run = view.loaded_run(5, 0)
    assert run is not None
    assert (bytes(run[0]), run[1]) == (BLOCKS[5], 1)  # one in any case
    run = view.loaded_run(0, 1 << 20)
    assert run is not None
    assert (bytes(run[0]), run[1]) == (b"".join(BLOCKS[:2]), 2)  # up to where others were taken
    assert [view.block(index) for index in range(8)] == BLOCKS[:8]
    assert view.loaded_run(9, 1000) is None
    view.close()


def test_all_of_a_job_is_given_out_without_a_copy(tmp_path, executor):
    owner = writer(BLOCKS, FileDirectory(tmp_path / "feed"))
    view = view_of(owner, tmp_path / "feed", executor)
    view.load_ahead(0, 8)
    assert view.loaded_run(0, 1 << 20) == (b"".join(BLOCKS[:8]), 8)
    view.close()


def test_a_run_ends_before_a_damaged_block_and_one_that_was_cleared(tmp_path, executor):
    owner = writer(BLOCKS, FileDirectory(tmp_path / "feed"))
    content = bytearray((tmp_path / "feed" / "data").read_bytes())
    content[owner.byte_offset(4)] ^= 1
    (tmp_path / "feed" / "data").write_bytes(content)
    view = view_of(owner, tmp_path / "feed", executor)
    view.load_ahead(0, 8)
    assert view.loaded_run(0, 1 << 20) == (b"".join(BLOCKS[:4]), 4)
    assert view.loaded_run(4, 1 << 20) is None
    with pytest.raises(NotHeld):
        view.block(4)
    view.mark_cleared(6, 7)
    assert view.loaded_run(5, 1 << 20) is None
    view.close()


LARGE = [bytes([number]) * (20_000 + number) for number in range(100)]


@pytest.fixture
def owned(tmp_path, executor):
    """Return a feed of large blocks, opened anew, so that none is verified."""
    writer(LARGE, FileDirectory(tmp_path / "feed")).close()
    log = FeedLog.open(FileDirectory(tmp_path / "feed"))
    log.load_in(executor)
    yield log
    log.close()


def read(log, index):
    """Read a block as a program does."""
    block = log.block(index)
    log.note_order(index)
    return block


def sizes_of(reads):
    return {size for offset, size in reads if size >= 20_000}


def test_who_reads_a_feed_of_ours_in_order_has_it_loaded_ahead(owned, counted_reads):
    assert [read(owned, index) for index in range(100)] == LARGE
    assert max(sizes_of(counted_reads)) > 8 * 20_000
    del counted_reads[:]
    assert [read(owned, index) for index in range(100)] == LARGE
    assert max(sizes_of(counted_reads)) < 8 * 20_000  # verified: one by one, without hashing again


def test_who_jumps_about_in_a_feed_of_ours_has_nothing_loaded_ahead(owned, counted_reads):
    order = [index * 37 % 100 for index in range(100)]
    assert [read(owned, index) for index in order] == [LARGE[index] for index in order]
    assert max(sizes_of(counted_reads)) < 2 * 20_000


def test_a_block_that_is_damaged_is_found_among_those_loaded_ahead(owned, tmp_path):
    with (tmp_path / "feed" / "data").open("r+b") as file:
        file.seek(sum(map(len, LARGE[:50])))
        file.write(b"damage")
    found = []
    for index in range(100):
        try:
            found.append(read(owned, index))
        except CorruptStorage:
            found.append(b"")
    assert found == [*LARGE[:50], b"", *LARGE[51:]]
    assert not owned.has(50)


def test_a_block_that_was_cleared_is_not_given_out_from_memory(owned):
    for index in range(8):
        read(owned, index)
    owned.clear(9, 10)
    assert read(owned, 8) == LARGE[8]
    with pytest.raises(NotHeld):
        read(owned, 9)
    assert read(owned, 10) == LARGE[10]


def test_an_audit_reads_what_was_loaded_ahead_again(owned, tmp_path):
    for index in range(8):
        read(owned, index)
    read(owned, 8)  # what comes after it is in memory
    with (tmp_path / "feed" / "data").open("r+b") as file:
        file.seek(sum(map(len, LARGE[:12])))
        file.write(b"damage")
    assert owned.audit() == (99, [12], [])


def test_what_is_given_to_peers_in_runs_is_not_loaded_ahead(owned, counted_reads):
    for start in range(0, 96, 8):
        assert owned.blocks(start, start + 8) == LARGE[start : start + 8]
    owned.close()
    assert sum(size for _, size in counted_reads if size >= 20_000) == sum(map(len, LARGE[:96]))
