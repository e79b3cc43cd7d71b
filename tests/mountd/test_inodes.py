"""Inode numbers stand for contents, are stable, and are forgotten when nobody knows them."""

import errno
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.drive.stat import DIRECTORY_MODE, FILE_MODE, LINK_MODE, Mount, Stat
from ddrive.ids import PublicKey
from mountd.inodes import MAX_ASKED, Inode, InodeTable, identity_of
from mountd.listing import Listing
from tests.support.memory_drive import Entry

DIRECTORY = Stat(DIRECTORY_MODE)
FILE = Stat(FILE_MODE, size=10, blocks=1, offset=4, byte_offset=100, mtime_ms=5)


def known(table: InodeTable, parent: Inode, name: str, stat: Stat) -> Inode:
    """Bind and count one lookup, as an answered request does."""
    inode = table.bind(parent, name, stat)
    inode.lookups += 1
    return inode


def test_the_same_content_keeps_its_inode() -> None:
    table = InodeTable()
    first = known(table, table.root, "a", FILE)
    changed_mode = Stat(FILE_MODE | 0o111, size=10, blocks=1, offset=4, byte_offset=100, mtime_ms=5)
    assert table.bind(table.root, "a", changed_mode) is first
    assert first.stat is changed_mode


@pytest.mark.parametrize(
    "other",
    [
        Stat(FILE_MODE, size=10, blocks=1, offset=5, byte_offset=110, mtime_ms=5),
        Stat(FILE_MODE, size=11, blocks=1, offset=4, byte_offset=100, mtime_ms=5),
        Stat(FILE_MODE, size=10, blocks=1, offset=4, byte_offset=100, mtime_ms=6),
        DIRECTORY,
        Stat(LINK_MODE, linkname="b"),
    ],
    ids=["place", "size", "time", "directory", "link"],
)
def test_another_content_gets_another_number_and_the_old_one_stays_readable(other: Stat) -> None:
    table = InodeTable()
    old = known(table, table.root, "a", FILE)
    table.opened(old)
    new = known(table, table.root, "a", other)
    assert new.number != old.number
    assert table.root.children["a"] is new
    assert table.get(old.number) is old
    assert old.stat is FILE
    assert not old.attached
    table.forget(old.number, 1)
    assert table.get(old.number) is old
    table.closed(old)
    with pytest.raises(OSError, match="not known") as caught:
        table.get(old.number)
    assert caught.value.errno == errno.ESTALE
    assert table.root.children["a"] is new


def test_another_drive_nested_at_a_path_is_another_directory() -> None:
    table = InodeTable()
    nested = Stat(DIRECTORY_MODE, mount=Mount(PublicKey(bytes(32))))
    other = Stat(DIRECTORY_MODE, mount=Mount(PublicKey(bytes([1]) * 32)))
    first = known(table, table.root, "d", nested)
    below = known(table, first, "f", FILE)
    assert first.nested
    assert below.nested
    second = known(table, table.root, "d", other)
    assert second.number != first.number
    assert known(table, second, "f", FILE).number != below.number


def test_a_drive_nested_at_a_fixed_version_is_as_current_as_its_entry() -> None:
    table = InodeTable()
    pinned = known(table, table.root, "d", Stat(DIRECTORY_MODE, mount=Mount(PublicKey(bytes(32)), 7)))
    assert not pinned.nested


def test_what_is_in_a_nested_drive_is_foreign_at_any_version() -> None:
    table = InodeTable()
    pinned = known(table, table.root, "d", Stat(DIRECTORY_MODE, mount=Mount(PublicKey(bytes(32)), 7)))
    below = known(table, pinned, "below", FILE)
    assert below.foreign
    assert not known(table, table.root, "beside", FILE).foreign


def test_numbers_are_stable_when_the_kernel_forgets_and_in_another_table() -> None:
    numbers = []
    for _ in range(2):
        table = InodeTable()
        for _ in range(2):
            directory = known(table, table.root, "d", DIRECTORY)
            file = known(table, directory, "ü" * 30, FILE)
            numbers.append((directory.number, file.number))
            table.forget(file.number, 1)
            table.forget(directory.number, 1)
            assert len(table) == 1
    assert len(set(numbers)) == 1
    assert all(number > 1 for number in numbers[0])


def test_numbers_of_what_was_moved_or_written_stay_when_the_kernel_forgets() -> None:
    table = InodeTable()
    written = Stat(FILE_MODE, size=11, blocks=1, offset=5, byte_offset=110, mtime_ms=6)
    above, below = known(table, table.root, "d", DIRECTORY), known(table, table.root, "e", DIRECTORY)
    file, directory = known(table, above, "a", FILE), known(table, above, "b", DIRECTORY)
    table.restate(file, written, 0.0)
    table.move(file, below, "c")
    table.move(directory, below, "f")
    inside = known(table, directory, "x", FILE)
    numbers = [inode.number for inode in (file, directory, inside)]
    for _ in range(2):
        for number in reversed(numbers):
            table.forget(number, 1)
        assert len(table) == 3
        file, directory = known(table, below, "c", written), known(table, below, "f", DIRECTORY)
        assert [file.number, directory.number, known(table, directory, "x", FILE).number] == numbers
    table.remove(file)
    table.forget(file.number, 1)
    assert table.bind(below, "c", written).number != numbers[0]


def test_parents_stay_while_a_child_is_known() -> None:
    table = InodeTable()
    directory = known(table, table.root, "d", DIRECTORY)
    file = known(table, directory, "f", FILE)
    table.forget(directory.number, 1)
    assert table.get(directory.number) is directory
    table.forget(file.number, 1)
    assert len(table) == 1


def test_paths_and_walking() -> None:
    table = InodeTable()
    directory = known(table, table.root, "d", DIRECTORY)
    file = known(table, directory, "f", FILE)
    assert (table.root.path, directory.path, file.path) == ("/", "/d", "/d/f")
    assert (table.root.child_path("d"), directory.child_path("x")) == ("/d", "/d/x")


def test_detaching_a_directory_detaches_what_is_below() -> None:
    table = InodeTable()
    directory = known(table, table.root, "d", DIRECTORY)
    file = known(table, directory, "f", FILE)
    table.detach(directory)
    assert not file.attached
    assert not table.root.children
    assert file.stat is FILE
    table.forget(file.number, 1)
    table.forget(directory.number, 1)
    assert len(table) == 1


def test_the_root_is_never_forgotten() -> None:
    table = InodeTable()
    table.forget(1, 100)
    assert table.get(1) is table.root


def test_remembered_attributes_are_limited_to_the_newest_directories_and_those_open_or_replaced() -> None:
    table = InodeTable(max_stats=2)
    kept = known(table, table.root, "open", DIRECTORY)
    table.opened(kept)
    replaced = known(table, table.root, "replaced", DIRECTORY)
    table.detach(replaced)
    several = [known(table, table.root, str(number), DIRECTORY) for number in range(5)]
    assert kept.stat is DIRECTORY
    assert replaced.stat is DIRECTORY
    assert [inode.stat for inode in several] == [None, None, None, DIRECTORY, DIRECTORY]


def test_attributes_of_files_go_with_the_files() -> None:
    table = InodeTable(max_stats=2)
    several = [known(table, table.root, str(number), FILE) for number in range(5)]
    assert all(inode.stat is FILE for inode in several)


def test_the_attributes_of_the_root_stay() -> None:
    table = InodeTable(max_stats=2)
    table.remember(table.root, DIRECTORY, 1.0)
    for number in range(5):
        known(table, table.root, str(number), FILE)
    assert table.root.stat is DIRECTORY


def test_remembered_listings_are_limited_to_the_newest() -> None:
    table = InodeTable(max_listed=5)
    directories = [known(table, table.root, str(number), DIRECTORY) for number in range(3)]
    listing = Listing([Entry("a", FILE), Entry("b", FILE)])
    for directory in directories:
        table.remember_listing(directory, listing, 1.0)
    assert [directory.listing for directory in directories] == [None, listing, listing]
    big = Listing([Entry(str(number), FILE) for number in range(9)])
    table.remember_listing(directories[0], big, 1.0)
    assert [directory.listing for directory in directories] == [big, None, None]


@given(st.lists(st.tuples(st.sampled_from(["bind", "forget", "detach"]), st.sampled_from("abc"), st.integers(0, 2))))
def test_numbers_stay_unique_and_nothing_leaks(steps: list[tuple[str, str, int]]) -> None:
    table = InodeTable()
    lookups: dict[int, int] = {}
    for step, name, offset in steps:
        inode = table.root.children.get(name)
        if step == "bind":
            inode = known(table, table.root, name, Stat(FILE_MODE, size=1, blocks=1, offset=offset))
            lookups[inode.number] = lookups.get(inode.number, 0) + 1
            assert table.get(inode.number) is inode
        elif inode is not None and step == "detach":
            table.detach(inode)
        elif inode is not None:
            table.forget(inode.number, 1)
            lookups[inode.number] -= 1
    for number, count in lookups.items():
        table.forget(number, count)
    assert len(table) == 1


def test_identity_is_of_the_content_only() -> None:
    assert identity_of(Stat(FILE_MODE, offset=1)) == identity_of(Stat(FILE_MODE | 0o111, uid=3, ctime_ms=9, offset=1))
    assert identity_of(DIRECTORY) == identity_of(Stat(DIRECTORY_MODE, mtime_ms=9))


def test_the_oldest_entries_are_to_be_forgotten_but_not_those_in_use() -> None:
    table = InodeTable(max_inodes=3)
    crowded: list[str] = []
    table.on_crowded = lambda inode: crowded.append(inode.name)
    directory = known(table, table.root, "directory", DIRECTORY)
    first = known(table, directory, "0", FILE)
    table.opened(first)
    for number in range(1, 6):
        known(table, directory, str(number), FILE)
    assert crowded == ["1", "2", "3"]
    table.closed(first)
    table.opened(first)
    table.closed(first)
    table.forget(directory.children["4"].number, 1)
    for number in (6, 7):
        known(table, directory, str(number), FILE)
    assert crowded == ["1", "2", "3", "5"]  # what was opened lately gets another turn, the fourth is gone already
    for number in (8, 9):
        known(table, directory, str(number), FILE)
    assert crowded == ["1", "2", "3", "5", "6", "0"]
    assert first.number in {inode.number for inode in table}  # until the kernel says so


def test_an_emptied_directory_gives_its_table_of_children_back() -> None:
    table = InodeTable()
    directory = known(table, table.root, "directory", DIRECTORY)
    children = [known(table, directory, str(number), FILE) for number in range(1000)]
    for inode in children:
        table.forget(inode.number, 1)
    assert sys.getsizeof(directory.children) == sys.getsizeof({})


def test_only_some_entries_are_to_be_forgotten_at_a_time() -> None:
    table = InodeTable(max_inodes=1)
    crowded: list[Inode] = []
    table.on_crowded = crowded.append
    inodes = [known(table, table.root, str(number), FILE) for number in range(2 * MAX_ASKED)]
    assert crowded == inodes[:MAX_ASKED]
    inodes[1].lookups += 1  # looked up again before the kernel has forgotten it
    for inode in crowded:  # which grows meanwhile
        table.forget(inode.number, 1)
    assert crowded == inodes
    assert list(table) == [table.root, inodes[1]]  # which is the newest now
