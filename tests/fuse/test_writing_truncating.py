"""Emptying a file by opening it: the kernel leaves all of that to the mount, also what it does itself for a write."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.memory_mount import until
from tests.support.writing import writable_mount

STRANGER = 1001


def test_emptying_an_empty_file_gives_it_new_times(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        stamp = mount.path / "stamp"
        stamp.touch()
        mount.remount()
        for flags in (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC):
            before = stamp.stat()
            time.sleep(0.02)
            os.close(os.open(stamp, flags))
            after = stamp.stat()
            assert (after.st_mtime_ns > before.st_mtime_ns, after.st_ctime_ns > before.st_ctime_ns) == (True, True)
        mount.remount()
        assert stamp.stat().st_mtime_ns == after.st_mtime_ns


@pytest.mark.parametrize(
    ("user", "mode", "kept"),
    [(STRANGER, 0o6777, 0o777), (STRANGER, 0o4666, 0o666), (STRANGER, 0o2766, 0o2766), (0, 0o6777, 0o6777)],
)
def test_emptying_by_others_takes_privileges_away(tmp_path: Path, user: int, mode: int, kept: int) -> None:
    with writable_mount(tmp_path) as mount:
        place = tmp_path / "shared"
        mount.program.mount(mount.key, place, "--allow-other")
        path = place / "program"
        path.write_bytes(b"old")
        path.chmod(mode)
        place.chmod(0o755)
        subprocess.run(["sh", "-c", ": > program"], cwd=place, user=user, group=user, extra_groups=[], check=True)
        assert (path.stat().st_size, path.stat().st_mode & 0o7777) == (0, kept)
        until(lambda: (mount.path / "program").exists() and (mount.path / "program").stat().st_size == 0)
        assert (mount.path / "program").stat().st_mode & 0o7777 == kept
