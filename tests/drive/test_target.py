"""What an export writes: trees of any depth, and names for nothing but whole files."""

import fcntl
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from ddrive.drive.drive import Drive
from ddrive.drive.exporter import CHUNK_BYTES, OPEN_LEVELS, export_tree
from ddrive.drive.reader import FileReader
from ddrive.drive.stat import Stat, encode_stat
from ddrive.drive.target import TEMPORARY, Directory, Output
from ddrive.drive.writer import NewEntry
from ddrive.errors import DiskFull

FILE = Stat(0o100644, mtime_ms=1_000)
DEEP = 2_000  # levels: far more than Python calls and, below, than files may be open
FILES_OPEN = 150


@contextmanager
def few_files() -> Iterator[None]:
    """Let this process open a few files only, besides those that other tests have left open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + FILES_OPEN, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def at_depth(root: Path, names: list[str]) -> int:
    """Return an open directory that no path leads to, as it would be too long."""
    descriptor = os.open(root, os.O_RDONLY)
    for name in names:
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    return descriptor


def listed(root: Path, names: list[str]) -> list[str]:
    """Return what is in such a directory."""
    descriptor = at_depth(root, names)
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def below(directory: Path) -> list[str]:
    """Return all names at and below a directory."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


async def test_a_tree_of_any_depth_is_exported_and_replaced(own: Drive, tmp_path: Path) -> None:
    assert sys.getrecursionlimit() < DEEP
    names = ["d"] * DEEP
    for path in ("/".join([*names, "end"]), "/".join([*names[: DEEP // 2], "x/y/f"]), "d/z/f"):
        await own.batch([NewEntry(path, FILE, (b"x",))])
    out = tmp_path / "out"
    with few_files():
        report = await export_tree(own, "/", out)
        assert (report.refused, report.files, report.directories) == ([], 3, DEEP + 3)
        assert listed(out, names) == ["end"]
        assert listed(out, names[: DEEP // 2]) == ["d", "x"]
        assert (out / "d/z/f").read_bytes() == b"x"
        again = await export_tree(own, "/", out)
        assert (again.written, again.files) == (0, 3)
        planned = await export_tree(own, "/", out, dry_run=True)
        assert (planned.written, planned.files, planned.refused) == (0, 3, [])

        await own.unlink("/".join([*names, "end"]))
        await own.batch([NewEntry("d/d", FILE, (b"a file",))])
        report = await export_tree(own, "/d/z", out, delete=True)
        assert (report.refused, report.removed, os.listdir(out)) == ([], 1, ["f"])


@pytest.mark.parametrize("gone", [False, True])
async def test_a_directory_that_is_moved_while_it_is_written_is_left_out(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    names = [f"{number:03}" for number in range(OPEN_LEVELS + 20)]
    await own.batch(
        [NewEntry("/".join([*names, "f"]), FILE, (b"x",)), NewEntry("001", FILE), NewEntry("000/z/g", FILE)]
    )
    out = tmp_path / "out"
    plain = Directory.write

    def write(self: Directory, output: Output, *, replace: bool) -> None:
        plain(self, output, replace=replace)
        if output.name == "f":
            (out / "000/001/002").rename(tmp_path / "above")  # the way back is found by names
            (out / "000/001").rename(tmp_path / "further")
            if gone:
                (out / "000").rename(tmp_path / "gone")
                (out / "000").mkdir()

    monkeypatch.setattr(Directory, "write", write)
    report = await export_tree(own, "/", out)
    assert [path for path, _ in report.refused] == (["000", "000/001"] if gone else ["000/001"])
    assert report.unwritten == len(report.refused)
    assert below(out) == ["000", "001"] if gone else ["000", "000/z", "000/z/g", "001"]


async def test_what_has_too_long_a_path_is_counted(own: Drive, tmp_path: Path) -> None:
    trie = (await own.trie()).trie
    for name in ("file", "directory/f"):
        await trie.put("/".join([*["x" * 250] * 32, name.rjust(200, "y")]), encode_stat(Stat(0o100644)))
    await own.write_file("/f", b"1")
    report = await export_tree(own, "/", tmp_path / "out")
    assert (report.files, report.unwritten, len(report.refused)) == (1, 2, 2)
    assert all("8192 bytes" in why for _, why in report.refused)


@pytest.mark.parametrize("size", [1000, 3 * CHUNK_BYTES])
async def test_a_file_has_its_name_when_it_is_whole(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    await own.write_file("/d/f", b"old" * 1000)
    out = tmp_path / "out"
    await export_tree(own, "/", out)
    await own.write_file("/d/f", bytes(size))
    seen: list[list[str]] = []
    plain = os.write

    def write(descriptor: int, data: memoryview) -> int:
        seen.append(below(out))
        assert (out / "d/f").read_bytes() == b"old" * 1000
        return plain(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        await export_tree(own, "/", out)
    assert all(len(names) == 3 and TEMPORARY.fullmatch(names[1][2:]) for names in seen)
    assert len(seen) == max(1, size // CHUNK_BYTES)
    assert below(out) == ["d", "d/f"]
    assert (out / "d/f").read_bytes() == bytes(size)


@pytest.mark.parametrize("why", [DiskFull("full"), trio.Cancelled])
async def test_an_export_that_ends_early_leaves_whole_files(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: object
) -> None:
    await own.write_file("/f", bytes(3 * CHUNK_BYTES))
    out = tmp_path / "out"
    plain = FileReader.read
    scope = trio.CancelScope()

    async def read(self: FileReader, position: int, size: int) -> bytes:
        if position == 2 * CHUNK_BYTES:
            if isinstance(why, DiskFull):
                raise why
            scope.cancel()
        return await plain(self, position, size)

    with monkeypatch.context() as patched:
        patched.setattr(FileReader, "read", read)
        if isinstance(why, DiskFull):
            with pytest.raises(DiskFull):
                await export_tree(own, "/", out)
        else:
            with scope:
                await export_tree(own, "/", out)
            assert scope.cancelled_caught
    assert below(out) == []
    await export_tree(own, "/", out)
    assert (out / "f").stat().st_size == 3 * CHUNK_BYTES


async def test_what_a_killed_export_left_goes_away_unless_another_one_writes_it(own: Drive, tmp_path: Path) -> None:
    left, meant = (f".ddrive-export-{digit * 16}" for digit in "0a")
    for path in ("/d/f", f"/d/{meant}"):
        await own.write_file(path, b"1")
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    for name in (left, meant, ".ddrive-export-notes", ".ddrive-export-" + "A" * 16):
        (out / "d" / name).write_bytes(b"partial")
    (out / "d" / (left[:-1] + "1")).symlink_to("somewhere")
    with_all = below(out)
    planned = await export_tree(own, "/", out, dry_run=True)
    assert (planned.written, below(out)) == (2, with_all)
    directory = Directory.root(out / "d")
    with directory.create("other", replace=False):
        await export_tree(own, "/", out, delete=False)
        [busy] = [name for name in os.listdir(out / "d") if TEMPORARY.fullmatch(name) and name != meant]
        assert (await export_tree(own, "/", out, delete=True)).removed == 2
        assert sorted(os.listdir(out / "d")) == sorted([busy, meant, "f"])
    directory.close()
    assert sorted(os.listdir(out / "d")) == [meant, "f"]
    assert (out / "d" / meant).read_bytes() == b"1"
    (out / left).write_bytes(b"partial")
    await export_tree(own, "/d/f", out)
    assert sorted(os.listdir(out)) == ["d", "f"]


async def test_links_are_replaced_as_a_whole(own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await own.symlink("/link", "new")
    out = tmp_path / "out"
    out.mkdir()
    (out / "link").symlink_to("old")
    plain, seen = os.rename, []

    def rename(*names: str, src_dir_fd: int, dst_dir_fd: int) -> None:
        seen.append(os.readlink(out / "link"))
        partial(plain, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)(*names)

    monkeypatch.setattr(os, "rename", rename)
    await export_tree(own, "/", out)
    assert (seen, os.readlink(out / "link")) == (["old"], "new")


async def test_extended_attributes_that_the_drive_lacks_go_with_what_else_it_lacks(own: Drive, tmp_path: Path) -> None:
    metadata = {"user.kept": b"1"}
    await own.batch([NewEntry("d", Stat(0o040755, mtime_ms=1)), NewEntry("d/f", FILE, (b"1",))])
    await own.batch([NewEntry("d/g", Stat(0o100644, mtime_ms=1, metadata=metadata), (b"1",))])
    out = tmp_path / "out"
    await export_tree(own, "/", out)
    for name in ("d", "d/f", "d/g"):
        os.setxattr(out / name, "user.more", b"2")
    await export_tree(own, "/", out)
    assert [os.listxattr(out / name) for name in ("d", "d/f")] == [["user.more"], ["user.more"]]
    assert (await export_tree(own, "/", out, delete=True, dry_run=True)).written == 2
    assert (await export_tree(own, "/", out, delete=True)).written == 0
    assert [os.listxattr(out / name) for name in ("d", "d/f", "d/g")] == [[], [], ["user.kept"]]


async def test_an_export_that_tidies_up_takes_nothing_from_another_one_that_just_begins(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Stat(0o120777, mtime_ms=1_000, linkname="f")
    await own.batch([NewEntry("f", FILE, (b"1",)), NewEntry("g", link)])
    lock, rename, tidied = fcntl.flock, os.rename, list[str]()

    def tidy(before: str) -> None:
        if before not in tidied:
            tidied.append(before)
            other = Directory.root(tmp_path / "out")
            other.tidy(())
            other.close()

    def locked(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            tidy("locking")
        lock(descriptor, operation)

    def renamed(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        tidy(f"renaming to {new}")
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(fcntl, "flock", locked)
    monkeypatch.setattr(os, "rename", renamed)
    report = await export_tree(own, "/", tmp_path / "out")
    assert tidied == ["renaming to g", "locking", "renaming to f"]
    assert report.refused == []
    assert below(tmp_path / "out") == ["f", "g"]


async def test_an_export_does_not_wait_for_another_one_that_takes_its_file_away(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await own.batch([NewEntry("f", FILE, (b"1",))])
    lock, tidying = fcntl.flock, list[int]()

    def locked(descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and not tidying:  # the other one has it open and locked, and is not done with it
            tidying.append(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY))
            lock(tidying[0], fcntl.LOCK_SH)
            os.unlink(os.readlink(f"/proc/self/fd/{descriptor}"))
        assert operation & fcntl.LOCK_NB  # it would wait for ever here
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", locked)
    report = await export_tree(own, "/", tmp_path / "out")
    os.close(tidying[0])
    assert report.refused == []
    assert (tmp_path / "out" / "f").read_bytes() == b"1"
    assert below(tmp_path / "out") == ["f"]
