"""Changes through a mount: what one call does, now, on another mount, and after a remount."""

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.drive import open_drive
from ddrive.ids import PublicKey
from ddrive.store.attached import open_attached
from tests.support.memory_mount import until
from tests.support.writing import WritableMount, sh, writable_mount

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WritableMount, WritableMount]]:
    with writable_mount(tmp_path_factory.mktemp("writing")) as first:
        yield first, first.second()


@pytest.fixture
def place(mounts: tuple[WritableMount, WritableMount], request: pytest.FixtureRequest) -> Path:
    """A directory of its own for each test, on the first mount."""
    path = mounts[0].path / str(request.node.name)[:100]
    path.mkdir()
    return path


def other(mounts: tuple[WritableMount, WritableMount], path: Path) -> Path:
    """Return where the second mount shows `path` of the first."""
    return mounts[1].path / path.relative_to(mounts[0].path)


def code_of(call: Callable[[], object]) -> int | None:
    """Return the errno of a call, None when it succeeds."""
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def renameat2(old: Path, new: Path, flags: int) -> int:
    """Return 0 or the errno of a rename with flags."""
    failed = LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags)
    return ctypes.get_errno() if failed else 0


def go_down(top: Path, name: str, *, make: bool = False) -> tuple[int, int, int]:
    """Go down through directories of one name; return the last one, open, how many there are, and the last errno."""
    here, depth = os.open(top, os.O_PATH), 0
    while True:
        try:
            if make:
                os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_PATH, dir_fd=here)
        except OSError as error:
            return here, depth, error.errno or 0
        os.close(here)
        here, depth = below, depth + 1


def depth_of(top: Path, name: str, *, make: bool = False) -> tuple[int, int]:
    """Go down through directories of one name; return how many there are, and the last errno."""
    last, *told = go_down(top, name, make=make)
    os.close(last)
    return told[0], told[1]


def test_what_lies_as_deep_as_can_be_is_stored(mounts: tuple[WritableMount, WritableMount], place: Path) -> None:
    name = "d" * 200
    depth, refused = depth_of(place, name, make=True)
    assert refused == errno.ENAMETOOLONG
    assert depth * 201 > 4096  # a program may name so much below a directory that is deep itself
    (place / "beside").write_bytes(b"stored too")
    until(lambda: (other(mounts, place) / "beside").exists())
    until(lambda: depth_of(other(mounts, place), name) == (depth, errno.ENOENT))


def test_a_directory_is_not_moved_where_a_file_in_it_would_lie_too_deep(
    mounts: tuple[WritableMount, WritableMount], place: Path
) -> None:
    top = place / "top"
    top.mkdir()
    last, _, _ = go_down(top, "d" * 200, make=True)  # where no 200 bytes are left
    try:
        with os.fdopen(os.open("open", os.O_WRONLY | os.O_CREAT, dir_fd=last), "wb") as file:
            file.write(b"not closed yet")
            file.flush()
            with pytest.raises(OSError, match="File name too long"):
                top.rename(place / ("longer" * 40))
        until(lambda: depth_of(other(mounts, place) / "top", "d" * 200) == depth_of(top, "d" * 200))
        with pytest.raises(OSError, match="File name too long"):  # nor what is in the drive already
            top.rename(place / ("longer" * 40))
        (place / "beside").write_bytes(b"stored")
        until(lambda: (other(mounts, place) / "beside").exists())
    finally:
        os.close(last)


def test_a_file_is_written_read_and_seen_by_another_mount(
    mounts: tuple[WritableMount, WritableMount], place: Path
) -> None:
    data = os.urandom(300_000)
    (place / "a").write_bytes(data)
    assert (place / "a").read_bytes() == data
    until(lambda: other(mounts, place / "a").exists())
    assert other(mounts, place / "a").read_bytes() == data
    other(mounts, place / "a").write_bytes(b"from there")
    until(lambda: (place / "a").read_bytes() == b"from there")


def test_bytes_are_written_anywhere_and_cut_off(place: Path) -> None:
    path = place / "a"
    path.write_bytes(b"x" * 200_000)
    expected = bytearray(b"x" * 200_000)
    with path.open("r+b", buffering=0) as file:
        for offset, data in ((70_000, b"Y" * 10), (65_530, b"Z" * 20), (199_999, b"end"), (300_000, b"far")):
            file.seek(offset)
            file.write(data)
            expected[len(expected) : offset] = bytes(max(0, offset - len(expected)))
            expected[offset : offset + len(data)] = data
        assert path.read_bytes() == expected
        for size in (100, 150_000, 65_536, 65_537, 131_072):
            file.truncate(size)
            expected = expected[:size] + bytes(max(0, size - len(expected)))
            assert os.fstat(file.fileno()).st_size == size
            assert path.read_bytes() == expected
    os.truncate(path, 70_000)
    os.truncate(path, 80_000)
    with path.open("ab") as file:
        file.write(b"appended")
    assert path.read_bytes() == expected[:70_000] + bytes(10_000) + b"appended"


def test_opening_to_empty_a_file_and_opening_only_what_is_new(place: Path) -> None:
    (place / "a").write_bytes(b"long")
    (place / "a").write_bytes(b"s")
    assert (place / "a").read_bytes() == b"s"
    assert code_of(lambda: os.open(place / "a", os.O_CREAT | os.O_EXCL | os.O_WRONLY)) == errno.EEXIST
    assert code_of(lambda: os.open(place, os.O_TMPFILE | os.O_RDWR)) == errno.EOPNOTSUPP


def test_flags_of_chattr_are_refused_at_once(place: Path) -> None:
    (place / "a").touch()
    with (place / "a").open("rb") as file:
        assert code_of(lambda: fcntl.ioctl(file, FS_IOC_GETFLAGS, bytes(8))) == errno.ENOTTY
        assert code_of(lambda: fcntl.ioctl(file, FS_IOC_SETFLAGS, bytes(8))) == errno.ENOTTY


def test_a_removed_file_lives_while_it_is_open(place: Path) -> None:
    (place / "a").write_bytes(b"x" * 100_000)
    with (place / "a").open("r+b", buffering=0) as file, (place / "a").open("rb", buffering=0) as reader:
        (place / "a").unlink()
        assert os.fstat(file.fileno()).st_nlink == 0
        file.write(b"hello")
        assert os.pread(reader.fileno(), 7, 0) == b"helloxx"
        os.fchmod(file.fileno(), 0o600)
        assert os.fstat(reader.fileno()).st_mode & 0o777 == 0o600
        (place / "a").write_bytes(b"another")
        assert os.pread(file.fileno(), 5, 0) == b"hello"
    assert (place / "a").read_bytes() == b"another"


@pytest.mark.parametrize("how", ["unlink", "replace"])
def test_a_removed_file_that_is_changed_leaves_what_has_its_name_alone(
    mounts: tuple[WritableMount, WritableMount], place: Path, how: str
) -> None:
    path, late = place / "file", place / "late"
    path.write_bytes(b"removed")
    file = os.open(path, os.O_RDONLY)
    until(lambda: (other(mounts, path)).exists())  # it is stored
    if how == "unlink":
        path.unlink()
        path.write_bytes(b"new")
    else:
        late.write_bytes(b"new")
        late.rename(path)
    os.fchmod(file, 0o600)
    assert (os.fstat(file).st_mode & 0o777, os.pread(file, 100, 0)) == (0o600, b"removed")
    os.close(file)
    assert (path.stat().st_mode & 0o777, path.read_bytes()) == (0o644, b"new")
    (place / "end").touch()
    until(lambda: other(mounts, place / "end").exists())
    there = other(mounts, path)
    assert (there.stat().st_mode & 0o777, there.read_bytes()) == (0o644, b"new")


def test_open_files_show_what_others_write_before_and_after_the_commit(
    mounts: tuple[WritableMount, WritableMount], place: Path
) -> None:
    (place / "a").write_bytes(b"A" * 100_000)
    until((other(mounts, place / "a")).exists)
    number = (place / "a").stat().st_ino
    with (place / "a").open("rb", buffering=0) as reader:
        for text in (b"first", b"again"):
            with (place / "a").open("r+b") as file:
                file.write(text)
            assert os.pread(reader.fileno(), 6, 0) == text + b"A"
            until(lambda text=text: other(mounts, place / "a").read_bytes()[:5] == text)  # type: ignore[misc]
            assert os.pread(reader.fileno(), 6, 0) == text + b"A"
            assert os.fstat(reader.fileno()).st_ino == (place / "a").stat().st_ino == number


def test_a_file_open_to_read_shows_changes_made_by_path(place: Path) -> None:
    path = place / "a"
    path.write_bytes(b"x" * 100_000)
    with path.open("rb", buffering=0) as reader:
        path.chmod(0o600)
        os.truncate(path, 70_000)
        assert len(os.pread(reader.fileno(), 200_000, 0)) == 70_000
        path.rename(place / "b")
        with (place / "b").open("r+b") as file:
            file.write(b"new")
        assert os.pread(reader.fileno(), 4, 0) == b"newx"
        (place / "c").write_bytes(b"other")
        assert renameat2(place / "b", place / "c", RENAME_EXCHANGE) == 0
        with (place / "c").open("r+b") as file:
            file.write(b"once")
        assert os.pread(reader.fileno(), 5, 0) == b"oncex"


def test_a_directory_moves_while_a_large_file_in_it_is_stored(
    mounts: tuple[WritableMount, WritableMount], place: Path
) -> None:
    size = 128 * 1024 * 1024
    (place / "d").mkdir()
    with (place / "d" / "large").open("wb") as file:
        file.seek(size - 3)
        file.write(b"end")
    (place / "d" / "small").write_bytes(b"text")
    for old, new in (("d", "e"), ("e", "f")):
        (place / old).rename(place / new)
        assert sorted(os.listdir(place / new)) == ["large", "small"]
    assert (place / "f" / "small").read_bytes() == b"text"
    until(lambda: other(mounts, place / "f" / "small").exists() and other(mounts, place / "f" / "large").exists())
    assert sorted(os.listdir(other(mounts, place))) == ["f"]
    with other(mounts, place / "f" / "large").open("rb") as file:
        assert file.seek(-3, os.SEEK_END) == size - 3
        assert file.read() == b"end"


def test_files_move_over_others(mounts: tuple[WritableMount, WritableMount], place: Path) -> None:
    (place / "a").write_bytes(b"1")
    (place / "b").write_bytes(b"2")
    with (place / "b").open("rb") as old:
        (place / "a").rename(place / "b")
        assert old.read() == b"2"
    assert [path.name for path in place.iterdir()] == ["b"]
    with (place / "c").open("wb", buffering=0) as file:
        file.write(b"before")
        (place / "c").rename(place / "d")
        file.write(b" and after")
    assert (place / "d").read_bytes() == b"before and after"
    until(lambda: other(mounts, place).exists() and sorted(os.listdir(other(mounts, place))) == ["b", "d"])
    until(lambda: other(mounts, place / "d").read_bytes() == b"before and after")


def test_directories_move_with_all_in_them(mounts: tuple[WritableMount, WritableMount], place: Path) -> None:
    sh("mkdir -p d/e full empty; echo f > d/e/f; echo x > full/x; ln -s e/f d/l", place)
    assert code_of(lambda: (place / "d").rename(place / "d/e/x")) == errno.EINVAL
    assert code_of(lambda: (place / "d").rename(place / "full")) == errno.ENOTEMPTY
    assert code_of(lambda: (place / "d").rename(place / "full/x")) == errno.ENOTDIR
    assert code_of(lambda: (place / "full/x").rename(place / "d")) == errno.EISDIR
    assert code_of(lambda: (place / "d").rmdir()) == errno.ENOTEMPTY
    with (place / "d/e/open").open("wb", buffering=0) as file, (place / "d/e/f").open("rb") as reader:
        file.write(b"open")
        (place / "d").rename(place / "empty")
        file.write(b" still")
        assert reader.read() == b"f\n"
        assert (place / "empty/e/open").read_bytes() == b"open still"
    assert (place / "empty/l").read_bytes() == b"f\n"
    assert sorted(os.listdir(place)) == ["empty", "full"]
    until(lambda: other(mounts, place / "empty/e/open").exists())
    assert sh("find . | sort", other(mounts, place)) == sh("find . | sort", place)


def test_what_follows_the_move_of_a_directory_is_published(
    mounts: tuple[WritableMount, WritableMount], place: Path
) -> None:
    sh("mkdir d; echo f > d/f", place)
    until(lambda: other(mounts, place / "d/f").exists())  # all is committed, nothing waits
    (place / "d").rename(place / "e")
    until(lambda: other(mounts, place / "e/f").exists())
    (place / "after").write_bytes(b"x")
    until(lambda: other(mounts, place / "after").exists())


def test_renames_that_replace_nothing_or_exchange(place: Path) -> None:
    (place / "a").write_bytes(b"1")
    (place / "b").write_bytes(b"2")
    assert renameat2(place / "a", place / "b", RENAME_NOREPLACE) == errno.EEXIST
    assert renameat2(place / "a", place / "b", RENAME_EXCHANGE) == 0
    assert ((place / "a").read_bytes(), (place / "b").read_bytes()) == (b"2", b"1")
    assert renameat2(place / "a", place / "c", RENAME_NOREPLACE) == 0
    assert renameat2(place / "a", place / "c", RENAME_EXCHANGE) == errno.ENOENT
    assert sorted(os.listdir(place)) == ["b", "c"]


def test_links_lead_where_they_were_told(mounts: tuple[WritableMount, WritableMount], place: Path) -> None:
    (place / "a").write_bytes(b"text")
    targets = ("a", "../elsewhere", "/etc/passwd", str(place / "a"))
    for number, target in enumerate(targets):
        os.symlink(target, place / f"l{number}")
        assert os.readlink(place / f"l{number}") == target
    until(lambda: other(mounts, place / "l3").is_symlink())
    assert os.readlink(other(mounts, place / "l2")) == "/etc/passwd"
    assert os.readlink(other(mounts, place / "l3")) == str(other(mounts, place / "a"))
    assert code_of(lambda: os.link(place / "a", place / "b")) == errno.EPERM


def test_attributes(mounts: tuple[WritableMount, WritableMount], place: Path) -> None:
    path = place / "a"
    path.write_bytes(b"x" * 70_000)
    (place / "d").mkdir(mode=0o700)
    path.chmod(0o4640)
    os.chown(path, 1000, 1001)
    os.utime(path, ns=(1, 1234567890123456789))
    os.utime(place / "d", ns=(1, 1234567890987654321))
    until(lambda: other(mounts, path).exists() and other(mounts, path).stat().st_mtime_ns == 1234567890123000000)
    for seen in (path, other(mounts, path)):
        status = seen.stat()
        assert (status.st_mode, status.st_uid, status.st_gid) == (0o100640, 1000, 1001)
        assert (status.st_mtime_ns, status.st_size) == (1234567890123000000, 70_000)
    assert (place / "d").stat().st_mtime_ns == 1234567890987000000
    assert (place / "d").stat().st_mode == 0o40700


def test_times_that_no_drive_can_hold_become_the_nearest(
    mounts: tuple[WritableMount, WritableMount], place: Path
) -> None:
    for time_s, held_s in ((2**62, 8_640_000_000_000), (2**33, 2**33), (-(2**40), 0)):
        path, by_path = place / f"open{time_s}", place / f"named{time_s}"
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        os.write(descriptor, b"x")
        os.utime(descriptor, (time_s, time_s))
        os.fsync(descriptor)
        os.close(descriptor)
        by_path.write_bytes(b"y")
        os.utime(by_path, (time_s, time_s))
        by_path.chmod(0o600)
        by_path = by_path.rename(place / f"renamed{time_s}")
        for shown in (path, by_path):
            assert int(shown.stat().st_mtime) == held_s
            until(other(mounts, shown).exists)
            assert int(other(mounts, shown).stat().st_mtime) == held_s


def test_extended_attributes(place: Path) -> None:
    path = place / "a"
    path.write_bytes(b"")
    os.setxattr(path, "user.a", b"1")
    assert os.getxattr(path, "user.a") == b"1"
    assert code_of(lambda: os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)) == errno.EEXIST
    assert code_of(lambda: os.setxattr(path, "user.b", b"2", os.XATTR_REPLACE)) == errno.ENODATA
    assert code_of(lambda: os.setxattr(path, "user.ddrive.key", b"2")) == errno.EOPNOTSUPP
    assert code_of(lambda: os.setxattr(path, "trusted.a", b"2")) == errno.EOPNOTSUPP
    assert code_of(lambda: os.setxattr(path, "user.big", b"2" * 65_536)) == errno.ENOSPC
    assert code_of(lambda: os.setxattr(path, f"user.{'b' * 251}", b"2")) == errno.ERANGE
    assert code_of(lambda: os.setxattr(path, "user.", b"2")) == errno.EINVAL
    assert os.listxattr(path) == ["user.a"]
    os.removexattr(path, "user.a")
    assert "user.a" not in os.listxattr(path)
    assert code_of(lambda: os.removexattr(path, "user.a")) == errno.ENODATA


def test_attributes_that_are_too_many_can_be_taken_away(
    mounts: tuple[WritableMount, WritableMount], place: Path
) -> None:
    path = place / "a"
    path.write_bytes(b"")
    inner = str(path.relative_to(mounts[0].path))

    async def author() -> None:  # no mount was asked
        async with open_attached(mounts[0].program.state / "control.sock", reconnect=False) as engine:
            drive = await open_drive(engine.store(DWEB), key=PublicKey(bytes.fromhex(mounts[0].key)))
            for name in "abc":
                await drive.set_metadata(inner, f"user.{name}", bytes(40_000))

    until(lambda: bool(mounts[0].program.ask("ls", mounts[0].key, place.name)))
    trio.run(author)
    until(lambda: len(os.listxattr(path)) == 3)
    assert code_of(lambda: os.setxattr(path, "user.d", b"1")) == errno.ENOSPC
    for name in "abc":
        os.removexattr(path, f"user.{name}")
    assert os.listxattr(path) == []


def test_programs_that_copy_attributes_copy_the_authors(place: Path, tmp_path: Path) -> None:
    source, back, stale = (tmp_path / name for name in ("source", "back", "stale"))
    for directory in (source, stale):
        (directory / "d").mkdir(parents=True)
        (directory / "d" / "f").write_bytes(b"x")
        os.setxattr(directory / "d" / "f", "user.a", b"1")
    os.setxattr(stale / "d" / "f", "user.ddrive.version", b"1")
    for command in (
        ["rsync", "-aX", f"{source}/", f"{place}/synced/"],
        ["rsync", "-aX", f"{source}/", f"{place}/synced/"],
        ["rsync", "-aX", f"{place}/synced/", f"{back}/"],
        ["cp", "-a", f"{place}/synced/d", f"{back}/copied"],
        ["mv", f"{place}/synced/d/f", f"{back}/moved"],
        ["cp", "-a", f"{stale}/d/f", f"{place}/copied"],
        ["mv", f"{stale}/d/f", f"{place}/moved"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), command
    for path in (back / "d" / "f", back / "copied" / "f", back / "moved", place / "copied", place / "moved"):
        assert os.listxattr(path) == ["user.a"], path
    assert os.getxattr(place / "moved", "user.ddrive.key")


def test_other_kinds_of_entries(place: Path) -> None:
    os.mkfifo(place / "fifo")
    os.mknod(place / "socket", stat.S_IFSOCK | 0o600)
    assert stat.S_ISFIFO((place / "fifo").stat().st_mode)
    assert stat.S_ISSOCK((place / "socket").stat().st_mode)
    assert code_of(lambda: os.mknod(place / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 3))) == errno.EPERM
    assert sh("(echo through > fifo &) ; cat fifo", place) == "through\n"


def test_shared_memory(place: Path) -> None:
    path = place / "a"
    with path.open("w+b") as file:
        file.truncate(300_000)
        with mmap.mmap(file.fileno(), 300_000) as memory:
            memory[100_000:100_005] = b"mmapd"
            memory.flush()
            assert os.pread(file.fileno(), 5, 100_000) == b"mmapd"
            memory[200_000:200_004] = b"late"
    assert path.read_bytes() == bytes(100_000) + b"mmapd" + bytes(99_995) + b"late" + bytes(99_996)


def test_locks_holes_and_copies(place: Path) -> None:
    path = place / "a"
    path.write_bytes(os.urandom(300_000))
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.lockf(file, fcntl.LOCK_EX)
        with path.open("rb") as second:
            assert code_of(lambda: fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)) == errno.EWOULDBLOCK
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 300_000
        os.posix_fallocate(file.fileno(), 0, 400_000)
    with path.open("rb", buffering=0) as source, (place / "b").open("wb", buffering=0) as target:
        while os.copy_file_range(source.fileno(), target.fileno(), 400_000):
            pass
    assert (place / "b").read_bytes() == path.read_bytes()
    assert path.stat().st_size == 400_000
    assert code_of(lambda: os.truncate(path, 1 << 50)) in (errno.ENOSPC, errno.EFBIG)


def test_only_what_changed_is_stored(mounts: tuple[WritableMount, WritableMount], place: Path) -> None:
    mount = mounts[0]
    path = place / "a"
    path.write_bytes(os.urandom(200_000))
    until(lambda: other(mounts, path).exists())

    def lengths() -> tuple[int, int]:
        told = mount.program.ask("info", mount.key)
        return told["metadata"]["length"], told["content"]["length"]

    metadata, content = lengths()
    path.chmod(0o600)
    until(lambda: other(mounts, path).stat().st_mode == 0o100600)
    assert lengths() == (metadata + 1, content)
    path.rename(place / "b")
    os.utime(place / "b", ns=(0, 10**15))
    until(lambda: other(mounts, place / "b").exists())
    assert lengths() == (metadata + 4, content)  # gone, there, and the times of the directory


def test_all_is_there_after_a_remount_and_nothing_is_left_in_the_spool(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        sh("mkdir -p d/e; echo a > d/a; echo b > d/e/b; ln -s a d/l; mkfifo d/f; chmod 700 d/e; rm d/a", mount.path)
        (mount.path / "big").write_bytes(bytes(range(256)) * 100_000)
        before = sh("find . -printf '%p %y %m %s %l %T@\\n' | sort", mount.path)
        mount.program.ask("unmount", mount.path)
        assert mount.spools() == []
        mount.program.mount(mount.key, mount.path)
        assert (
            sh("find . -printf '%p %y %m %s %l %T@\\n' | sort", mount.path).splitlines()[1:] == before.splitlines()[1:]
        )
        assert (mount.path / "big").read_bytes() == bytes(range(256)) * 100_000


def test_who_may_not_write(mounts: tuple[WritableMount, WritableMount], tmp_path: Path) -> None:
    mount = mounts[0]
    (mount.path / "some").write_bytes(b"")
    until((mounts[1].path / "some").exists)
    shown = mount.program.mount(mount.key, tmp_path / "ro", "--read-only")
    assert not shown["writable"]
    assert code_of(lambda: (tmp_path / "ro/new").write_bytes(b"")) == errno.EROFS
    pinned = mount.program.mount(f"dweb://{mount.key}+2", tmp_path / "old")
    assert not pinned["writable"]
    assert code_of(lambda: (tmp_path / "old/new").write_bytes(b"")) == errno.EROFS
    versions = mount.path / ".ddrive/versions"
    for place in (versions / "new", versions / "2/new", versions / "2/d/new"):
        assert code_of(lambda place=place: place.write_bytes(b""))  # type: ignore[misc]
        assert code_of(lambda place=place: place.mkdir())  # type: ignore[misc]
    for name in ("ro", "old"):
        mount.program.ask("unmount", tmp_path / name)
