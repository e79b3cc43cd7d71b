"""A worker that is killed is replaced without a moment in which programs see the directory below its mount."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from mountd.beneath import put_beneath
from mountd.fuse import mount_options
from mountd.mountinfo import mounts_at
from tests.support import old_kernel
from tests.support.memory_mount import until
from tests.support.program import Program, alive, kill, program
from tests.support.writing import WritableMount, writable_mount

RELEASE = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
IS_OFFERED = os.geteuid() == 0 and RELEASE >= (6, 5)  # mounting beneath another mount
KILLS = 4  # the engine gives up after five within a minute
REFUSED = "not mounted beneath the dead mount"
ENDED = (errno.ENOTCONN, errno.ECONNABORTED)


class Visitors:
    """Programs that list a directory and make files in it all the time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.closed: set[str] = set()  # the files that were made, as far as their maker could see
        self.bare = 0  # listings that lack what is there since before
        self.errors: set[int] = set()

    def look(self) -> None:
        """List the directory."""
        self.bare += "marker" not in os.listdir(self.directory)

    def make(self) -> None:
        """Make a file."""
        name = f"file-{len(self.closed)}"
        (self.directory / name).write_text(name)
        self.closed.add(name)


@contextmanager
def visited(directory: Path) -> Iterator[Visitors]:
    """Let programs work in `directory` for as long as the block lasts; give what they see."""
    visitors = Visitors(directory)
    ends = Event()

    def work(step: Callable[[], None]) -> None:
        while not ends.wait(0.0003):
            try:
                step()
            except OSError as error:
                visitors.errors.add(error.errno or 0)

    threads = [Thread(target=work, args=(step,), daemon=True) for step in (visitors.look, visitors.make)]
    for thread in threads:
        thread.start()
    try:
        yield visitors
    finally:
        ends.set()
        for thread in threads:
            thread.join(30)


def replace_worker(mount: WritableMount) -> None:
    """Kill the worker and return when the next one serves."""
    old = mount.pids()["worker"]
    kill(old)
    until(lambda: not alive(old))

    def is_replaced() -> bool:
        (told,) = mount.ask("status")["mounts"]
        return told["pid"] != old and told["state"] == "ok"

    until(is_replaced)
    assert len(mounts_at(str(mount.path))) == 1


def test_nobody_sees_the_directory_below_a_mount_whose_worker_is_replaced(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        (mount.path / "marker").touch()
        with visited(mount.path) as visitors:
            for _ in range(KILLS):
                replace_worker(mount)
        there = set(os.listdir(mount.path))
        mount.ask("unmount", mountpoint=str(mount.path))
        assert mounts_at(str(mount.path)) == []
        assert (REFUSED in mount.logged()) is not IS_OFFERED
        if IS_OFFERED:
            assert os.listdir(mount.path) == []
            assert visitors.bare == 0
            assert sorted(visitors.closed - there) == []
            assert visitors.errors & set(ENDED)


def test_a_worker_is_replaced_where_the_kernel_knows_no_mounting_beneath(tmp_path: Path) -> None:
    with program(tmp_path / "state") as made:
        if IS_OFFERED:
            made.command = [sys.executable, old_kernel.__file__, *made.command]
        mount = mounted_anew(made, tmp_path / "mnt")
        (mount.path / "marker").write_text("text")
        for _ in range(2):
            replace_worker(mount)
            assert (mount.path / "marker").read_text() == "text"
        assert mount.logged().count(REFUSED) == 2
        mount.ask("unmount", mountpoint=str(mount.path))
        assert mounts_at(str(mount.path)) == []
        assert os.listdir(mount.path) == []


def test_what_a_worker_leaves_that_is_killed_while_it_replaces_another_is_healed(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        (mount.path / "marker").write_text("text")
        for pid in mount.pids().values():
            kill(pid)
            until(lambda pid=pid: not alive(pid))  # type: ignore[misc]
        beneath = put_beneath(str(mount.path), mount_options(name="ddrive:0", read_only=False, allow_other=False))
        assert (beneath is not None) is IS_OFFERED
        if beneath:
            beneath.drop()  # as the end of the process does it
        assert len(mounts_at(str(mount.path))) == 1 + IS_OFFERED
        mount.heal()
        assert (mount.path / "marker").read_text() == "text"
        assert len(mounts_at(str(mount.path))) == 1
        mount.ask("unmount", mountpoint=str(mount.path))
        assert os.listdir(mount.path) == []


def mounted_anew(made: Program, path: Path) -> WritableMount:
    """Return a new drive of the engine `made`, mounted to write to at `path`."""
    key = made.ask("create", "--name", "written")["key"]
    made.mount(key, path)
    return WritableMount(made, key, path)
