"""Several mounts of one drive that are written beside each other, whoever is killed meanwhile."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.memory_mount import until
from tests.support.program import alive, kill
from tests.support.writing import writable_mount


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


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
            assert {path.name: path.read_bytes() for path in one.path.iterdir()} == wanted
        mount.remount()
        assert {path.name: path.read_bytes() for path in mount.path.iterdir()} == wanted
