"""Files in memory and on disk behave alike; locks and holes are those of the disk."""

import pytest

from ddrive.errors import StorageLocked
from ddrive.feed import FileDirectory, MemoryDirectory
from ddrive.feed.storage import read_small, write_small


@pytest.fixture(params=["memory", "disk"])
def directory(request, tmp_path):
    directory = MemoryDirectory() if request.param == "memory" else FileDirectory(tmp_path / "deep" / "feed")
    yield directory
    directory.close()


def test_what_is_written_is_read(directory):
    storage = directory.open("data", create=True)
    assert storage.read(0, 10) == b""
    storage.write(5, b"hello")
    assert storage.size() == 10
    assert storage.read(0, 100) == bytes(5) + b"hello"
    storage.write(8, memoryview(b"LONGER"))
    assert storage.read(4, 100) == b"\x00helLONGER"
    storage.truncate(7)
    assert storage.read(0, 100) == bytes(5) + b"he"
    storage.truncate(9)
    assert storage.read(6, 100) == b"e\x00\x00"
    storage.sync()
    storage.close()
    again = directory.open("data", create=False)
    assert again.read(5, 2) == b"he"
    again.close()


def test_a_punched_range_reads_as_zeros_and_the_size_stays(directory):
    storage = directory.open("data", create=True)
    storage.write(0, b"x" * 100)
    storage.punch(10, 20)
    storage.punch(90, 500)
    assert storage.read(0, 200) == b"x" * 10 + bytes(20) + b"x" * 60 + bytes(10)
    storage.punch(200, 5)
    assert storage.size() == 100
    storage.close()


def test_extents_cover_everything_that_is_not_zero(directory):
    storage = directory.open("data", create=True)
    assert storage.extents() == []
    storage.write(3_000_000, b"x")
    extents = storage.extents()
    assert extents[-1][0] <= 3_000_000 < extents[-1][1]
    storage.close()


def test_absent_files_are_only_made_on_request(directory):
    assert not directory.exists("tree")
    with pytest.raises(FileNotFoundError):
        directory.open("tree", create=False)
    assert read_small(directory, "tree", 10) == b""
    write_small(directory, "tree", b"longer text")
    write_small(directory, "tree", b"text")
    assert read_small(directory, "tree", 10) == b"text"
    assert directory.exists("tree")
    directory.remove()
    assert not directory.exists("tree")


def test_only_one_owner_at_a_time(directory, tmp_path):
    other = directory if isinstance(directory, MemoryDirectory) else FileDirectory(directory.path)
    directory.lock()
    with pytest.raises(StorageLocked):
        other.lock()
    directory.close()
    other.lock()
    other.close()


def test_secret_keys_are_readable_by_their_owner_only(tmp_path):
    write_small(FileDirectory(tmp_path), "secret_key", bytes(64))
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_holes_give_their_space_back(tmp_path):
    storage = FileDirectory(tmp_path).open("data", create=True)
    storage.write(0, b"x" * (1 << 20))
    storage.sync()
    before = (tmp_path / "data").stat().st_blocks
    storage.punch(0, 1 << 20)
    storage.sync()
    assert (tmp_path / "data").stat().st_blocks < before // 8
    storage.close()


def test_a_read_only_directory_makes_nothing(tmp_path):
    view = FileDirectory(tmp_path / "absent", read_only=True)
    with pytest.raises(FileNotFoundError):
        view.open("data", create=True)
    assert not (tmp_path / "absent").exists()
