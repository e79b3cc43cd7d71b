"""A disk that fills up: writers are told while they write, readers are still served, and room makes all well again."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.memory_mount import until
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
