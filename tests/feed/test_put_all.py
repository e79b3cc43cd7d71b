"""Blocks that came together are verified one by one and stored with one write: `FeedLog.put_all`."""

import errno

import pytest

from ddrive.errors import NotHeld
from ddrive.feed import FeedLog, MemoryDirectory
from ddrive.feed.merkle import Proof
from ddrive.feed.storage import DATA, MemoryStorage
from ddrive.ids import BlockIndex
from tests.feed.samples import content, copy, main_blocks, proof_of, reader, writer

BLOCKS = main_blocks()


@pytest.fixture
def author() -> FeedLog:
    return writer(BLOCKS)


def begun(author: FeedLog, directory: MemoryDirectory | None = None) -> FeedLog:
    """Return a copy that has the last block, and with it a signature."""
    log = reader(directory)
    copy(author, log, [len(BLOCKS) - 1])
    return log


def answers(author: FeedLog, log: FeedLog, indexes: list[int]) -> dict[BlockIndex, tuple[bytes, Proof]]:
    """Return what a peer that knows what `log` holds now sends for some blocks."""
    return {
        BlockIndex(index): (author.block(index), Proof(proof_of(author, index, log.digest(index)).nodes))
        for index in indexes
    }


def counted(directory: MemoryDirectory, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the offset of each write to the blocks of feeds in memory."""
    writes: list[int] = []
    write = MemoryStorage.write

    def noted(storage, offset, data):
        if storage._content is directory.files[DATA]:
            writes.append(offset)
        write(storage, offset, data)

    monkeypatch.setattr(MemoryStorage, "write", noted)
    return writes


def test_neighbours_are_stored_with_one_write(author, monkeypatch):
    directory = MemoryDirectory()
    log = begun(author, directory)
    writes = counted(directory, monkeypatch)
    assert log.put_all(answers(author, log, [*range(3, 9), *range(20, 24)])) == [(3, 9), (20, 24)]
    assert len(writes) == 2
    log.sync()
    again = content(FeedLog.open(MemoryDirectory(directory.files)))
    assert again == {index: BLOCKS[index] for index in (*range(3, 9), *range(20, 24), len(BLOCKS) - 1)}


def test_a_proof_may_build_on_the_block_before_it(author):
    log = begun(author)
    whole = answers(author, log, list(range(8)))
    known = reader()
    copy(author, known, [len(BLOCKS) - 1])
    lean = {}
    for index in range(8):  # each proof leaves out what came with the blocks before
        lean |= answers(author, known, [index])
        copy(author, known, [index])
    assert sum(len(proof.nodes) for _, proof in lean.values()) < sum(len(proof.nodes) for _, proof in whole.values())
    assert log.put_all(lean) == [(0, 8)]


@pytest.mark.parametrize("spoil", ["value", "proof", "held"])
def test_it_ends_before_what_is_unusual(author, spoil):
    log = begun(author)
    blocks = answers(author, log, list(range(10)))
    value, proof = blocks[BlockIndex(4)]
    if spoil == "value":
        blocks[BlockIndex(4)] = value + b"!", proof
    elif spoil == "proof":
        blocks[BlockIndex(4)] = value, Proof((proof.nodes[0]._replace(hash=bytes(32)), *proof.nodes[1:]))
    else:
        copy(author, log, [4])
    assert log.put_all(blocks) == [(0, 4)]
    assert log.held(0, 4) == 4
    assert log.held(5, 10) == 0


def test_a_full_disk_stores_none_of_a_run_and_stays_readable(author, monkeypatch):
    directory = MemoryDirectory()
    log = begun(author, directory)
    write = MemoryStorage.write

    def full(storage, offset, data):
        if storage._content is directory.files[DATA] and offset >= author.byte_offset(20):
            raise OSError(errno.ENOSPC, "no space left")
        write(storage, offset, data)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStorage, "write", full)
        assert log.put_all(answers(author, log, [*range(3, 9), *range(20, 24)])) == [(3, 9)]
    assert not log.has(20)
    assert content(log) == {index: BLOCKS[index] for index in (*range(3, 9), len(BLOCKS) - 1)}
    assert log.put_all(answers(author, log, list(range(20, 24)))) == [(20, 24)]


def test_room_is_asked_for_all_of_them_together(author):
    log = begun(author)
    asked = []

    def room(index, size):
        asked.append((index, size))
        return size <= sum(map(len, BLOCKS[5:8]))

    log.room = room
    assert log.put_all(answers(author, log, list(range(5, 12)))) == [(5, 8)]
    assert asked == [(index, sum(map(len, BLOCKS[5 : index + 1]))) for index in range(5, 9)]


def test_a_program_that_looks_at_each_block_gets_them_one_by_one(author):
    log = begun(author)
    log.on_write = lambda index, block: None
    assert log.put_all(answers(author, log, list(range(5)))) == []


def test_a_tree_that_cannot_be_read_is_left_to_put(author, monkeypatch):
    log = begun(author)
    blocks = answers(author, log, list(range(8)))

    def broken(number):
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(log._files, "node", broken)
        assert log.put_all(blocks) == []
    assert log.put_all(blocks) == [(0, 8)]


@pytest.mark.parametrize("together", [True, False])
def test_what_a_failing_disk_has_lost_is_not_given_out(author, together):
    directory = MemoryDirectory()
    log = begun(author, directory)
    if together:
        log.put_all(answers(author, log, [8, 9]))
    else:
        copy(author, log, [8, 9])
    assert log.block(8) == BLOCKS[8]  # as long as the kernel has a copy
    directory.files[DATA][:] = bytes(len(directory.files[DATA]))
    with pytest.raises(NotHeld):
        log.block(9)
    pages = log.begin_flush()
    assert pages is not None
    log.cancel_flush(pages)
    with pytest.raises(NotHeld):
        log.block(8)
