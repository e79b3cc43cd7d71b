"""What was checked once is read in parts as long as nothing was cleared, and never after that."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from ddrive.errors import NotHeld
from ddrive.feed import FeedView, FileDirectory
from ddrive.store.cleared import Cleared, ClearedCount
from tests.feed.samples import copy, reader, writer

BLOCKS = [bytes([number]) * 65536 for number in range(1, 17)]


def part(view, index, begin, end):
    return view.part(65536 * index + begin, 65536 * index + end, index)


@pytest.fixture
def owner(tmp_path):
    """A copy of a feed with all its blocks, whose owner counts what it clears."""
    owner = reader(FileDirectory(tmp_path / "feed"))
    copy(writer(BLOCKS), owner, range(len(BLOCKS)))
    cleared = Cleared(tmp_path / "cleared")
    owner.clearing = partial(cleared.clearing, owner.key)
    yield owner
    owner.close()
    cleared.close()


@pytest.fixture
def view(owner, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        view = FeedView(FileDirectory(tmp_path / "feed", read_only=True), owner.key, executor)
        view.adopt(owner.length, owner.runs(0, owner.length))
        view.ask(ClearedCount(tmp_path / "cleared", owner.key))
        yield view
        view.close()


def test_a_part_is_read_of_what_was_checked_and_of_nothing_else(view):
    assert part(view, 3, 10, 20) is None
    view.block(3)
    assert part(view, 3, 10, 20) == BLOCKS[3][10:20]
    assert part(view, 3, 0, 65536) == BLOCKS[3]
    assert part(view, 3, 65530, 65537) is None  # the block ends before
    view.block(4)
    assert part(view, 3, 65530, 65537) == BLOCKS[3][65530:] + BLOCKS[4][:1]
    assert part(view, 2, 65530, 65537) is None
    assert part(view, 5, 10, 20) is None


def test_what_was_loaded_ahead_or_in_a_run_counts_as_checked(view):
    view.load_ahead(0, 8)
    assert view.loaded_run(0, 1 << 20)[1] == 8
    assert part(view, 7, 1, 2) == BLOCKS[7][1:2]
    assert view.blocks(8, 12) == BLOCKS[8:12]
    assert part(view, 11, 1, 2) == BLOCKS[11][1:2]


def test_nothing_is_relied_on_after_something_was_cleared(owner, view):
    for index in range(16):
        view.block(index)
    owner.clear(7, 8)  # the view has not heard of it
    assert view.has(7)
    assert [part(view, index, 0, 10) for index in range(16)] == [None] * 16
    assert view.block(6) == BLOCKS[6]
    assert part(view, 6, 0, 10) == BLOCKS[6][:10]
    assert part(view, 7, 0, 10) is None


def test_nothing_is_relied_on_while_something_is_cleared(owner, view):
    view.block(3)
    with owner.clearing():
        assert part(view, 3, 0, 10) is None
        view.block(3)
        assert part(view, 3, 0, 10) is None
    assert part(view, 3, 0, 10) is None  # it was read while the other one was at work
    view.block(3)
    assert part(view, 3, 0, 10) == BLOCKS[3][:10]


def test_what_was_loaded_before_something_was_cleared_counts_as_checked_no_more(owner, view):
    view.load_ahead(0, 8)
    view._ahead._jobs[0].loaded.result()
    owner.clear(2, 3)
    view.block(9)
    assert view.loaded_run(0, 1 << 20)[1] == 8
    assert part(view, 2, 0, 10) is None
    assert part(view, 9, 0, 10) == BLOCKS[9][:10]


def test_a_block_that_is_cleared_between_a_look_at_the_count_and_the_read_is_not_given_out(owner, view, monkeypatch):
    view.block(5)
    read = view._files.data.read

    def clear_first(offset, size):
        owner.clear(5, 6)
        return read(offset, size)

    monkeypatch.setattr(view._files.data, "read", clear_first)
    assert part(view, 5, 0, 10) is None


def test_another_file_of_counts_is_not_mixed_up_with_the_first(owner, view, tmp_path):
    view.block(5)
    (tmp_path / "cleared").unlink()
    Cleared(tmp_path / "cleared").close()
    view.ask(ClearedCount(tmp_path / "cleared", owner.key))
    assert part(view, 5, 0, 10) is None


def test_without_counts_everything_is_checked_each_time(owner, tmp_path):
    view = FeedView(FileDirectory(tmp_path / "feed", read_only=True), owner.key)
    view.adopt(owner.length, owner.runs(0, owner.length))
    view.block(5)
    assert part(view, 5, 0, 10) is None
    view.close()


def test_an_owner_that_was_killed_while_it_cleared_leaves_no_doubt_to_the_next_one(tmp_path, owner):
    first = Cleared(tmp_path / "cleared")
    count = ClearedCount(tmp_path / "cleared", owner.key)
    clearing = first.clearing(owner.key)
    clearing.__enter__()
    assert count.now() == 1
    Cleared(tmp_path / "cleared").close()
    assert count.now() == 2
    first.close()
    count.close()


def test_a_disk_without_room_for_counts_takes_the_trust_and_nothing_else(owner, view, monkeypatch):
    view.block(5)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    owner.clear(6, 7)
    monkeypatch.undo()
    assert part(view, 5, 0, 10) is None
    owner.clear(8, 9)
    assert view.block(5) == BLOCKS[5]
    assert part(view, 5, 0, 10) is None


def test_what_the_owner_has_cleared_is_not_called_damaged_before_the_view_is_told(owner, view, tmp_path):
    counts = ClearedCount(tmp_path / "cleared", owner.key)
    view.clears = counts.now()
    owner.clear(7, 8)
    for index in (7, 9):
        if index == 9:
            view.clears = counts.now()  # with which the owner tells what it holds
            path = tmp_path / "feed" / "data"
            path.write_bytes(path.read_bytes().replace(BLOCKS[9], bytes(65536)))
        assert view.has(index)
        with pytest.raises(NotHeld):
            view.block(index)
        assert view.gone_bad(0, 16) is (index == 9)
    assert (view.gone_bad(8, 10), view.gone_bad(10, 16)) == (True, False)
    counts.close()


def test_a_copy_knows_what_its_disk_has_damaged_until_it_is_cleared(owner, tmp_path):
    path = tmp_path / "feed" / "data"
    path.write_bytes(path.read_bytes().replace(BLOCKS[9], bytes(65536)))
    assert owner.audit(9, 10).bad == [9]
    assert (owner.gone_bad(0, 9), owner.gone_bad(9, 10)) == (False, True)
    owner.clear(9, 10)
    assert not owner.gone_bad(0, 16)
