"""Several mounts of one drive that are written beside each other, whoever is killed meanwhile."""

import os
import signal
import subprocess
import time
from pathlib import Path

from mountd.pending import GROUP_S
from tests.support.memory_mount import until
from tests.support.program import alive, kill, stopped
from tests.support.writing import WritableMount, writable_mount


def contents(directory: Path) -> dict[str, bytes]:
    """Return all files of a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def is_at_rest(mount: WritableMount) -> bool:
    """Tell whether everything that was changed is in the drive, as nothing is added to that."""
    version = mount.ask("info", key=mount.key)["version"]
    time.sleep(3 * GROUP_S)
    return bool(mount.ask("info", key=mount.key)["version"] == version)


def test_each_mount_has_its_own_changes_when_all_workers_were_killed(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        mounts = [mount, mount.second(), mount.second("third")]
        for number, one in enumerate(mounts):
            (one.path / f"gone{number}").write_bytes(b"old")
            until(lambda one=one: sorted(os.listdir(one.path)) == sorted(os.listdir(mount.path)))  # type: ignore[misc]
        workers = [one.pids()["worker"] for one in mounts]
        with stopped(mount.pids()["engine"]):  # nothing is stored
            for number, one in enumerate(mounts):
                (one.path / f"new{number}").write_bytes(b"%d" % number * 1000)
                (one.path / f"gone{number}").unlink()
            for pid in workers:
                kill(pid)
            until(lambda: not any(map(alive, workers)))
        for number, one in enumerate(mounts):
            one.heal()
            with (one.path / f"new{number}").open("ab") as file:
                file.write(b"more")
            assert not (one.path / f"gone{number}").exists()
        wanted = {f"new{number}": b"%d" % number * 1000 + b"more" for number in range(len(mounts))}
        for one in mounts:
            until(lambda one=one: sorted(os.listdir(one.path)) == sorted(wanted))  # type: ignore[misc]
            until(lambda one=one: contents(one.path) == wanted)  # type: ignore[misc]
        mount.remount()
        assert contents(mount.path) == wanted


def test_a_directory_moves_although_the_program_was_killed_meanwhile(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        (mount.path / "d").mkdir()
        (mount.path / "d/old").write_bytes(b"old")
        until(lambda: is_at_rest(mount))
        with stopped(mount.pids()["engine"]):
            mover = subprocess.Popen(["mv", "-T", "d", "e"], cwd=mount.path)
            time.sleep(1)  # for the worker to have begun
            mover.kill()
            assert mover.wait(30) == -signal.SIGKILL
            (mount.path / "d/more").write_bytes(b"more")  # it has not moved yet
            file = (mount.path / "d/open").open("wb", buffering=0)
            file.write(b"open")
        until(lambda: sorted(os.listdir(mount.path)) == ["e"])
        with file:
            file.write(b" file")
        wanted = {"old": b"old", "more": b"more", "open": b"open file"}
        assert contents(mount.path / "e") == wanted
        mount.remount()
        assert os.listdir(mount.path) == ["e"]
        assert contents(mount.path / "e") == wanted


def test_a_file_that_others_have_replaced_keeps_its_bytes_for_who_has_it_open(tmp_path: Path) -> None:
    old, new = os.urandom(1_000_000), os.urandom(1_000_000)
    with writable_mount(tmp_path) as mount:
        second = mount.second()
        file, others = mount.path / "file", second.path / "file"
        file.write_bytes(old)
        until(lambda: others.exists() and others.read_bytes() == old)
        with file.open("rb", buffering=0) as opened:
            (second.path / "fresh").write_bytes(new)
            (second.path / "fresh").rename(others)
            until(lambda: file.read_bytes() == new)
            os.fchmod(opened.fileno(), 0o600)
            os.setxattr(opened.fileno(), "user.mine", b"")
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(opened.fileno(), len(old) + 1, 0) == old
        mount.remount()
        assert file.read_bytes() == new
        assert (file.stat().st_mode & 0o777, os.listxattr(file)) == (0o644, [])
