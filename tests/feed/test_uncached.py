"""Large pieces are stored alike by file systems that can do without the kernel's cache and by those that cannot."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from ddrive.feed import storage as storages
from ddrive.feed import uncached
from ddrive.feed.file_blocks import FileBlocks, Place
from ddrive.feed.storage import FileDirectory, FileStorage
from ddrive.feed.uncached import UNCACHED_BYTES, is_sound, read_into, write_pieces

SHIFT = 1234  # as in a feed, where blocks seldom begin with a page
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
IOV_MAX = os.sysconf("SC_IOV_MAX")
IN_MEMORY = "/dev/shm"  # a tmpfs, which is nothing but cache


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path):
    if request.param == "disk":
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        yield Path(directory)


def test_large_pieces_lie_where_they_belong(place):
    storage = FileDirectory(place).open("data", create=True)
    pieces = [os.urandom(UNCACHED_BYTES - 1) for _ in range(20)]
    storage.write(0, b"x" * SHIFT)
    storage.write_through(SHIFT, pieces[:1])
    offset = SHIFT + len(pieces[0])
    storage.write_through(offset, pieces[1:])
    storage.write(offset, b"y")
    content = b"x" * SHIFT + pieces[0] + b"y" + b"".join(pieces[1:])[1:]
    assert storage.read(0, len(content) + 1) == content
    storage.sync()
    assert storage.read(SHIFT, len(content)) == content[SHIFT:]
    storage.close()


@pytest.mark.parametrize("size", [300, 4100])
def test_more_pieces_than_one_call_takes(place, size):
    storage = FileDirectory(place).open("data", create=True)
    pieces = [os.urandom(size) for _ in range(IOV_MAX + 5)]
    storage.write_through(SHIFT, pieces)
    assert storage.read(SHIFT, size * len(pieces) + 1) == b"".join(pieces)
    storage.close()


def test_nodes_of_a_trie_stay_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(storages, "write_pieces", None)
    storage = FileDirectory(tmp_path).open("data", create=True)
    nodes = [os.urandom(110)] * UNCACHED_BYTES
    storage.write_through(SHIFT, nodes)
    assert storage.read(SHIFT, 1 << 24) == b"".join(nodes)
    storage.close()


@pytest.mark.parametrize("offset", [0, 1, PAGE_BYTES - 1, PAGE_BYTES, 5 * PAGE_BYTES + SHIFT])
@pytest.mark.parametrize(
    "sizes",
    [(UNCACHED_BYTES,), (1, PAGE_BYTES, UNCACHED_BYTES, 0, 1), (100, 3 * UNCACHED_BYTES), (300,) * (2 * IOV_MAX + 9)],
    ids=["one", "three pages", "two", "many small ones"],
)
def test_a_page_that_is_written_in_part_stays_in_the_cache(tmp_path, monkeypatch, offset, sizes):
    storage = FileDirectory(tmp_path).open("data", create=True)
    pieces = [os.urandom(size) for size in sizes]
    written: list[tuple[int, int]] = []

    def noted(fd, some, place):
        written.append((place, sum(map(len, some))))
        return write_pieces(fd, some, place)

    monkeypatch.setattr(storages, "write_pieces", noted)
    storage.write_through(offset, pieces)
    assert storage.read(0, 1 << 20) == bytes(offset) + b"".join(pieces)
    (start, size) = written.pop()
    assert not written
    assert (start % PAGE_BYTES, size % PAGE_BYTES) == (0, 0)
    assert offset <= start < offset + PAGE_BYTES
    assert start + size <= offset + sum(sizes) < start + size + PAGE_BYTES
    storage.close()


def test_blocks_are_read_from_a_file_of_any_file_system(place):
    content = os.urandom(3 * UNCACHED_BYTES + 5)
    (place / "file").write_bytes(content)
    with (place / "file").open("rb") as file:
        blocks = FileBlocks(file, [Place(1, UNCACHED_BYTES), Place(UNCACHED_BYTES + 1, 10), Place(len(content) - 3, 3)])
        assert b"".join(blocks.load()) == content[1 : UNCACHED_BYTES + 11] + content[-3:]


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_sandbox_or_file_system_that_refuses_is_asked_for_the_usual_way(tmp_path, monkeypatch, refusal):
    calls: list[tuple[str, int]] = []

    def refused(name):
        usual = getattr(os, name)

        def call(fd, buffers, offset, flags=0):
            calls.append((name, flags))
            if flags:
                raise OSError(refusal, os.strerror(refusal))
            return usual(fd, buffers, offset)

        return call

    for name in ("pwritev", "preadv"):
        monkeypatch.setattr(os, name, refused(name))
    monkeypatch.setattr(uncached, "_flags", 1 << 7)  # as on a new kernel
    content = os.urandom(2 * UNCACHED_BYTES)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert write_pieces(fd, [content[:1], content[1:]], PAGE_BYTES) == len(content)
    found = bytearray(len(content) + 1)
    assert read_into(fd, memoryview(found), PAGE_BYTES) == len(content)
    os.close(fd)
    assert found == content + b"\0"
    assert calls == [("pwritev", 1 << 7), ("pwritev", 0), ("preadv", 1 << 7), ("preadv", 0)]


def test_other_errors_are_told(place):
    (place / "file").write_bytes(bytes(10))
    fd = os.open(place / "file", os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_pieces(fd, [bytes(UNCACHED_BYTES)], 0)
    assert read_into(fd, memoryview(bytearray(20)), 0) == 10
    assert read_into(fd, memoryview(bytearray(20)), 10) == 0
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_into(fd, memoryview(bytearray(20)), 0)


def test_a_full_file_system_is_told(place):
    storage = FileStorage(os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(OSError, match="No space left"):
        storage.write_through(0, [bytes(UNCACHED_BYTES)] * 2)
    storage.close()


@pytest.mark.parametrize(
    ("release", "sound"),
    [("6.16.0", True), ("7.0-rc1", True), ("6.18.44-fc", True), ("6.15.9-arch1", False), ("5.10.0-30-amd64", False)],
)
def test_only_kernels_without_known_faults_are_asked(release, sound):
    assert is_sound(release) is sound
