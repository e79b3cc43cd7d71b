"""Reading a feed whose files another process owns."""

import subprocess
import sys

import pytest

from ddrive.errors import CorruptStorage, NotHeld
from ddrive.feed import FeedView, FileDirectory, MemoryDirectory
from tests.feed.samples import PAIR, copy, main_blocks, reader, writer

BLOCKS = main_blocks()[:13]


@pytest.fixture(params=["memory", "disk"])
def directory(request, tmp_path):
    return MemoryDirectory() if request.param == "memory" else FileDirectory(tmp_path / "feed")


def view_of(owner, directory, *, adopt=True):
    place = directory if isinstance(directory, MemoryDirectory) else FileDirectory(directory.path, read_only=True)
    view = FeedView(place, owner.key)
    if adopt:
        view.adopt(owner.length, owner.runs(0, owner.length))
    return view


def test_a_view_reads_what_the_owner_holds(directory):
    source, owner = writer(BLOCKS), reader(directory)
    copy(source, owner, [2, 9])
    view = view_of(owner, directory)
    assert (view.length, view.byte_length, view.writable) == (13, source.byte_length, False)
    assert view.runs(0, 13) == [(2, 3), (9, 10)]
    assert (view.block(2), view.block(9)) == (BLOCKS[2], BLOCKS[9])
    assert view.locate(source.byte_offset(9)) == owner.locate(source.byte_offset(9)) == (9, 0)
    with pytest.raises(NotHeld):
        view.block(3)
    view.close()


def test_a_view_follows_its_owner(directory):
    owner = writer(BLOCKS[:3], directory)
    view = view_of(owner, directory)
    assert view.block(2) == BLOCKS[2]
    owner.append(BLOCKS[3:9])
    view.grow(9)
    view.mark_held(3, 9)
    assert [view.block(index) for index in range(9)] == BLOCKS[:9]
    assert view.locate(owner.byte_length - 1) == owner.locate(owner.byte_length - 1)
    owner.clear(4, 6)
    view.mark_cleared(4, 6)
    assert view.runs(0, 9) == [(0, 4), (6, 9)]
    view.close()


def test_a_view_never_gives_out_bytes_that_the_owner_freed(directory):
    source, owner = writer(BLOCKS), reader(directory)
    copy(source, owner, range(13))
    view = view_of(owner, directory)
    assert view.block(7) == BLOCKS[7]
    owner.clear(7, 8)  # the view has not heard of it
    with pytest.raises(NotHeld):
        view.block(7)
    assert not view.has(7)
    copy(source, owner, [7])
    view.mark_held(7, 8)
    assert view.block(7) == BLOCKS[7]
    view.close()


def test_a_view_believes_no_length_that_is_not_signed(directory):
    owner = writer(BLOCKS[:3], directory)
    view = view_of(owner, directory)
    staged = owner.stage(BLOCKS[3:6])
    with pytest.raises(CorruptStorage):
        view.grow(6)
    assert view.length == 3
    owner.secure(staged)
    owner.publish(staged)
    view.grow(6)
    assert view.length == 6
    view.grow(4)
    assert view.length == 6
    view.close()


def test_nodes_of_an_append_that_was_given_up_do_not_stick(directory):
    owner = writer(BLOCKS[:3], directory)
    view = view_of(owner, directory)
    owner.stage([b"given up", b"as well"])
    assert view.block(2) == BLOCKS[2]
    owner.abandon()
    owner.append([b"first", b"second"])
    view.grow(5)
    view.mark_held(3, 5)
    assert (view.block(3), view.block(4)) == (b"first", b"second")
    view.close()


def test_a_view_that_was_told_too_much_holds_nothing_wrong(directory):
    source, owner = writer(BLOCKS), reader(directory)
    copy(source, owner, [2])
    view = view_of(owner, directory)
    view.mark_held(0, 13)
    for index in set(range(13)) - {2, 3}:  # 3 is empty, which its hash next to block 2 proves
        with pytest.raises(NotHeld):
            view.block(index)
    assert (view.runs(0, 13), view.block(3)) == ([(2, 4)], b"")
    view.adopt(13, [(2, 3)])
    assert view.block(2) == BLOCKS[2]
    view.close()


def test_a_view_in_another_process(tmp_path):
    owner = writer(BLOCKS[:5], FileDirectory(tmp_path))
    script = (
        "import sys\n"
        "from ddrive.feed import FeedView, FileDirectory\n"
        "view = FeedView(FileDirectory(sys.argv[1], read_only=True), bytes.fromhex(sys.argv[2]))\n"
        "for line in sys.stdin:\n"
        "    length = int(line)\n"
        "    view.grow(length)\n"
        "    view.mark_held(0, length)\n"
        "    print(b''.join(view.block(index) for index in range(length)).hex(), flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), PAIR.public_key.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        for count in (5, 6, 9, 13):
            if count > owner.length:
                owner.append(BLOCKS[owner.length : count])  # nothing is flushed: the page cache is shared
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            assert bytes.fromhex(process.stdout.readline()) == b"".join(BLOCKS[:count])
    finally:
        process.stdin.close()
        process.wait(timeout=20)
        process.stdout.close()
    owner.close()
