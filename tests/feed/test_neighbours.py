"""Blocks that lie side by side are read and checked together, and given out only when all of them are good."""

import pytest

from ddrive.feed import FeedLog, FeedView, MemoryDirectory
from ddrive.feed.storage import DATA, TREE
from tests.feed.samples import copy, reader, writer

BLOCKS = [b"%d:" % index + bytes(index % 7) for index in range(300)]  # of more than one page of the tree


def viewed(owner: FeedLog, directory: MemoryDirectory) -> FeedView:
    view = FeedView(directory, owner.key)
    view.adopt(owner.length, owner.runs(0, owner.length))
    return view


@pytest.fixture
def directory() -> MemoryDirectory:
    return MemoryDirectory()


@pytest.fixture(params=["owner", "view"])
def feed(request: pytest.FixtureRequest, directory: MemoryDirectory) -> FeedLog | FeedView:
    """Return an author's feed whose blocks were not read yet, or somebody's view of it."""
    writer(BLOCKS, directory).close()
    owner = FeedLog.open(directory)
    return owner if request.param == "owner" else viewed(owner, directory)


@pytest.mark.parametrize(("start", "end"), [(0, 300), (100, 260), (127, 129), (128, 256), (299, 300), (5, 5)])
def test_they_are_what_each_of_them_is(feed: FeedLog | FeedView, start: int, end: int) -> None:
    for _ in range(2):  # read first, read again
        assert feed.blocks(start, end) == BLOCKS[start:end]


def test_damage_to_one_is_left_to_the_reader_of_that_one(feed: FeedLog | FeedView, directory: MemoryDirectory) -> None:
    place = feed.byte_offset(150)
    assert place is not None
    directory.files[DATA][place] ^= 1
    assert feed.blocks(140, 160) is None
    assert feed.blocks(151, 160) == BLOCKS[151:160]


def test_a_file_that_was_cut_short_gives_nothing_short(feed: FeedLog | FeedView, directory: MemoryDirectory) -> None:
    assert feed.blocks(290, 300) == BLOCKS[290:]
    del directory.files[DATA][-3:]
    assert feed.blocks(290, 300) is None
    assert feed.blocks(290, 299) == BLOCKS[290:299]


def test_nothing_is_given_beyond_the_end_or_where_one_is_missing(feed: FeedLog | FeedView) -> None:
    assert feed.blocks(290, 301) is None


def test_a_copy_gives_those_that_it_holds(directory: MemoryDirectory) -> None:
    source, log = writer(BLOCKS), reader(directory)
    copy(source, log, [*range(120, 140), 299])
    for feed in (log, viewed(log, directory)):
        assert feed.blocks(120, 140) == BLOCKS[120:140]
        assert feed.blocks(119, 140) is None
        assert feed.blocks(120, 141) is None


def test_a_leaf_that_is_blank_proves_nothing(directory: MemoryDirectory) -> None:
    writer(BLOCKS, directory).close()
    owner = FeedLog.open(directory)
    read_before = FeedLog.open(MemoryDirectory(directory.files))
    assert read_before.blocks(125, 135) == BLOCKS[125:135]
    start = 32 + 40 * 2 * 130
    directory.files[TREE][start : start + 40] = bytes(40)
    read_before._files.forget_nodes()  # as when many others were needed meanwhile
    for feed in (owner, viewed(owner, directory), read_before):
        assert feed.blocks(125, 135) is None
        assert feed.blocks(132, 135) == BLOCKS[132:135]
