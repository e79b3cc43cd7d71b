"""Open things are found by their number until they are closed, and numbers are not used again."""

import pytest

from ddrive.errors import BadHandle
from mountd.handles import DirHandle, HandleTable
from mountd.inodes import InodeTable


def handle() -> DirHandle:
    return DirHandle(InodeTable().root, opener=1)


def test_a_handle_is_found_until_it_is_removed() -> None:
    table: HandleTable[DirHandle] = HandleTable()
    opened = handle()
    number = table.add(opened)
    assert table.get(number) is opened
    assert table.remove(number) is opened
    with pytest.raises(BadHandle):
        table.get(number)
    with pytest.raises(BadHandle):
        table.remove(number)


def test_numbers_are_not_used_again() -> None:
    table: HandleTable[DirHandle] = HandleTable()
    first = table.add(handle())
    table.remove(first)
    assert table.add(handle()) != first


def test_clear_gives_what_was_open() -> None:
    table: HandleTable[DirHandle] = HandleTable()
    opened = [handle(), handle()]
    for one in opened:
        table.add(one)
    assert table.clear() == opened
    assert len(table) == 0
