"""A disk that fills up: writers are told while they write, readers are still served, and room makes all well again."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

import pytest

from tests.support.memory_mount import until
from tests.support.program import kill
from tests.support.writing import writable_mount

DISK_BYTES = 48 * 1024 * 1024
PIECE = os.urandom(1024 * 1024)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory whose `state` is a small disk of its own."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "none", state], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", state], check=True)


def write_pieces(path: Path, count: int) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(PIECE)


def write_all(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


def fits(path: Path) -> bool:
    try:
        path.write_bytes(PIECE)
        return True
    except OSError:
        return False


def seen(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def test_a_full_disk(small_disk: Path) -> None:
    with writable_mount(small_disk) as mount:
        second = mount.second()
        kept = mount.path / "kept"
        kept.write_bytes(PIECE * 4)
        with pytest.raises(OSError, match="No space") as caught:
            write_pieces(mount.path / "big", DISK_BYTES // len(PIECE))
        assert caught.value.errno == errno.ENOSPC
        assert kept.read_bytes() == PIECE * 4
        os.truncate(mount.path / "big", 0)
        (mount.path / "big").unlink()
        until(lambda: fits(mount.path / "after"))  # as soon as the spool is empty
        until(lambda: seen(second.path / "after") == PIECE)  # it may be seen empty: what did not fit was closed too
        mount.remount()
        assert sorted(os.listdir(mount.path)) == ["after", "kept"]


def test_what_is_held_can_be_read_by_an_engine_that_starts_on_a_full_disk(small_disk: Path) -> None:
    with writable_mount(small_disk) as mount:
        second = small_disk / "read"
        mount.program.mount(mount.key, second, "--read-only")
        (mount.path / "kept").write_bytes(PIECE)
        until(lambda: seen(second / "kept") == PIECE)
        fill(mount.program.state / "filler", keep=0)
        for victims in (["worker"], ["engine"], ["engine", "worker"]):  # the table does not know the second worker
            pids = mount.pids()
            for victim in victims:
                kill(pids[victim])
            mount.heal()
            assert (mount.path / "kept").read_bytes() == PIECE
        mount.program.ask("stop")
        fill(mount.program.state / "more", keep=0)
        assert mount.program.run("status").code == 0
        until(lambda: os.path.ismount(second))
        assert (second / "kept").read_bytes() == PIECE
        assert mount.program.run("cat", mount.key, "kept").out == PIECE


def test_what_could_not_be_stored_is_told_and_stored_by_the_next_mount(small_disk: Path) -> None:
    with writable_mount(small_disk) as mount:
        filler = mount.program.state / "filler"
        with (mount.path / "late").open("wb", buffering=0) as file:
            file.write(PIECE * 4)
            os.fsync(file.fileno())
            fill(filler, keep=256 * 1024)
        told = mount.program.run("unmount", mount.path, "--json")
        assert told.code == 0, told
        left = told.json()["left"]
        assert [(each["key"], each["bytes"]) for each in left] == [(mount.key, 4 * len(PIECE))]
        assert len(told.err.splitlines()) == 1, told
        assert mount.key[:8] in told.err
        assert "4.0 MiB" in told.err
        assert "next mount" in told.err
        ended = mount.program.run("stop", "--json")
        assert (ended.code, ended.json()) == (0, {"stopped": True, "left": left})
        assert "next mount" in ended.err
        filler.unlink()
        mount.heal()
        assert (mount.path / "late").read_bytes() == PIECE * 4
        done = mount.program.run("unmount", mount.path, "--json")
        assert (done.code, done.json()["left"], done.err) == (0, [], "")


def fill(path: Path, *, keep: int) -> None:
    """Take all room of a disk but `keep` bytes."""
    with path.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(PIECE):
                pass
        file.truncate(max(0, file.tell() - keep))


def test_what_finds_no_room_changes_nothing(small_disk: Path) -> None:
    """Each record of an entry with a large attribute is larger than what is free; those of others are not."""
    with writable_mount(small_disk) as mount:
        for name in ("file", "other"):
            (mount.path / name).write_bytes(b"kept")
            os.setxattr(mount.path / name, "user.large", bytes(60_000))
        for place in (mount.path / "dir", mount.path / "plain"):
            place.mkdir()
        os.setxattr(mount.path / "dir", "user.large", bytes(60_000))
        mount.remount()
        file, other = mount.path / "file", mount.path / "other"
        before = [about(path) for path in (file, other)]
        filler = mount.program.state / "filler"
        fill(filler, keep=32 * 1024)
        with file.open("r+b", buffering=0) as opened:
            for change in (
                lambda: file.chmod(0o600),
                lambda: os.chown(file, 1, 1),
                lambda: os.utime(file, (1, 1)),
                lambda: os.setxattr(file, "user.small", b"x"),
                lambda: os.removexattr(file, "user.large"),
                lambda: os.truncate(other, 2),
                lambda: file.rename(mount.path / "elsewhere"),
                lambda: file.rename(other),
            ):
                with pytest.raises(OSError, match="No space") as caught:
                    change()
                assert caught.value.errno == errno.ENOSPC
                assert [about(path) for path in (file, other)] == before
            opened.write(b"lost")
            for _ in range(2):  # what was not made durable is not said to be so when it is asked again
                with pytest.raises(OSError, match="No space"):
                    os.fsync(opened.fileno())
            (mount.path / "dir" / "inner").mkdir()  # though the times of `dir` find no room
            (mount.path / "dir" / "made").write_bytes(b"made")
            assert sorted(os.listdir(mount.path)) == ["dir", "file", "other", "plain"]
            filler.unlink()
            os.fsync(opened.fileno())
        mount.remount()
        assert sorted(os.listdir(mount.path)) == ["dir", "file", "other", "plain"]
        assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"lost", 0o644)
        assert about(other) == before[1]
        assert sorted(os.listdir(mount.path / "dir")) == ["inner", "made"]
        assert (mount.path / "dir" / "made").read_bytes() == b"made"


def test_a_directory_moves_although_what_waits_in_it_cannot_be_recorded_anew(small_disk: Path) -> None:
    with writable_mount(small_disk) as mount:
        filler, old, new = mount.program.state / "filler", mount.path / "old", mount.path / "new"
        old.mkdir()
        (old / "stored").write_bytes(b"stored")
        mount.remount()
        with (old / "late").open("wb", buffering=0) as file:
            file.write(PIECE * 4)
            os.setxattr(file.fileno(), "user.large", bytes(60_000))
            os.fsync(file.fileno())
            fill(filler, keep=32 * 1024)
        old.rename(new)
        assert os.listdir(mount.path) == ["new"]
        assert sorted(os.listdir(new)) == ["late", "stored"]
        assert (new / "late").read_bytes() == PIECE * 4
        kill(mount.pids()["worker"])
        filler.unlink()
        mount.heal()
        assert os.listdir(mount.path) == ["new"]
        assert ((new / "late").read_bytes(), (new / "stored").read_bytes()) == (PIECE * 4, b"stored")


def test_a_file_whose_size_found_no_room_shows_what_others_write(small_disk: Path) -> None:
    with writable_mount(small_disk) as mount:
        filler, second, file = mount.program.state / "filler", mount.second(), mount.path / "file"
        file.write_bytes(b"kept")
        os.setxattr(file, "user.large", bytes(60_000))
        mount.remount()
        assert file.read_bytes() == b"kept"
        fill(filler, keep=32 * 1024)
        for size in (2, 20):
            with pytest.raises(OSError, match="No space"):
                os.truncate(file, size)
        filler.unlink()
        until(lambda: seen(second.path / "file") == b"kept")
        (second.path / "file").write_bytes(b"others")
        until(lambda: file.read_bytes() == b"others")


def about(path: Path) -> tuple[object, ...]:
    """Return what a file is and has."""
    found = path.stat()
    times = found.st_mtime_ns, found.st_ctime_ns
    names = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return found.st_mode, found.st_uid, found.st_gid, found.st_size, times, names, path.read_bytes()


def test_what_found_no_room_when_it_was_closed_is_stored_when_there_is_some(small_disk: Path) -> None:
    with writable_mount(small_disk) as mount:
        filler = mount.program.state / "filler"
        paths = [mount.path / name for name in ("next", "last")]
        for path in paths:
            file = path.open("wb", buffering=0)
            os.setxattr(file.fileno(), "user.large", bytes(60_000))
            fill(filler, keep=32 * 1024)
            file.write(b"late")
            with pytest.raises(OSError, match="No space"):
                file.close()
            assert path.read_bytes() == b"late"
            filler.unlink()
            if path.name == "next":
                (mount.path / "other").touch()  # what is stored next takes it along
                until(lambda: mount.program.run("cat", mount.key, "next").out == b"late")
        mount.remount()
        assert [path.read_bytes() for path in paths] == [b"late", b"late"]
        assert all(os.getxattr(path, "user.large") == bytes(60_000) for path in paths)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_size_that_finds_no_room_leaves_what_found_none_when_it_was_closed(small_disk: Path, is_new: bool) -> None:
    with writable_mount(small_disk) as mount:
        filler, path = mount.program.state / "filler", mount.path / "file"
        if not is_new:
            path.write_bytes(b"former")
            os.setxattr(path, "user.large", bytes(60_000))
            mount.remount()
        data = os.urandom(200_000)
        file = path.open("w+b" if is_new else "r+b", buffering=0)
        if is_new:
            os.setxattr(file.fileno(), "user.large", bytes(60_000))
        file.write(data)
        fill(filler, keep=32 * 1024)
        with pytest.raises(OSError, match="No space"):
            file.close()
        before = about(path)
        for size in (150_000, 2, 0, 300_000):
            with pytest.raises(OSError, match="No space"):
                os.truncate(path, size)
            assert about(path) == before
            assert path.read_bytes() == data
        filler.unlink()
        (mount.path / "other").write_bytes(data)  # nothing of it is where the other is
        assert path.read_bytes() == data
        os.truncate(path, 100_000)
        until(lambda: mount.program.run("cat", mount.key, "file").out == data[:100_000])
        mount.remount()
        assert path.read_bytes() == data[:100_000]


def test_a_write_that_finds_room_for_a_part_says_how_much(small_disk: Path) -> None:
    with writable_mount(small_disk) as mount:
        filler, fresh, former = mount.program.state / "filler", mount.path / "fresh", mount.path / "former"
        old, new = os.urandom(400_000), os.urandom(400_000)
        former.write_bytes(old)
        mount.remount()
        for path, start in ((fresh, 0), (former, 1000)):
            expected = bytearray(path.read_bytes() if path.exists() else b"")
            with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
                fill(filler, keep=240 * 1024)
                file.seek(start)
                with pytest.raises(OSError, match="No space"):
                    write_all(file, new)
                end = file.tell()
                assert end > start  # there was room for some
                expected[start:end] = new[: end - start]
                assert path.read_bytes() == expected
                filler.unlink()
                file.write(new[end - start :])
            expected[start : start + len(new)] = new
            mount.remount()
            assert path.read_bytes() == expected


def test_a_mount_that_begins_on_a_full_disk_serves_readers_and_lets_write_when_there_is_room(small_disk: Path) -> None:
    with writable_mount(small_disk) as mount:
        filler, kept, late = mount.program.state / "filler", mount.path / "kept", mount.path / "late"
        kept.write_bytes(PIECE)
        mount.program.ask("stop")
        assert mount.spools() == []
        fill(filler, keep=0)
        assert mount.program.run("status").code == 0
        until(lambda: os.path.ismount(mount.path))
        fill(mount.program.state / "more", keep=0)
        assert kept.read_bytes() == PIECE
        for change in (
            lambda: (mount.path / "dir").mkdir(),
            lambda: kept.chmod(0o600),
            lambda: late.write_bytes(PIECE),
        ):
            with pytest.raises(OSError, match="No space"):
                change()
        assert kept.read_bytes() == PIECE
        assert kept.stat().st_mode & 0o777 == 0o644
        for path in (filler, mount.program.state / "more"):
            path.unlink()
        late.write_bytes(PIECE)
        assert len(mount.spools()) == 1  # what was tried before has left none
        kept.chmod(0o600)
        mount.remount()
        assert sorted(os.listdir(mount.path)) == ["kept", "late"]
        assert (kept.stat().st_mode & 0o777, late.read_bytes()) == (0o600, PIECE)


def test_on_a_full_disk_a_mount_is_not_made_or_made_and_can_be_ended(small_disk: Path) -> None:
    with writable_mount(small_disk) as mount:
        second, filler = small_disk / "second", mount.program.state / "filler"
        second.mkdir()
        mount.program.mountpoints.append(second)
        fill(filler, keep=0)
        fill(mount.program.state / "more", keep=0)
        made = mount.program.run("mount", mount.key, second)
        assert made.code in (0, 7), made
        assert os.path.ismount(second) == (made.code == 0)
        shown = [told["mountpoint"] for told in mount.ask("status")["mounts"]]
        assert shown == [str(mount.path), *([str(second)] if made.code == 0 else [])]
        for place in shown:
            ended = mount.program.run("unmount", place)
            assert ended.code == 0, ended
            assert not os.path.ismount(place)
        assert mount.ask("status")["mounts"] == []
        filler.unlink()
        mount.program.ask("stop")
        assert mount.program.ask("status")["mounts"] == []
