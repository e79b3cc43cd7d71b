"""A worker that was killed and cannot go: its guard ends the mount, with no engine there. With a real mount."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mountd.connections import way_to_abort, write_control
from tests.support.memory_mount import until
from tests.support.program import alive, kill

STUCK = """
import os, stat, sys
import pyfuse3, trio
from mountd.guarding import guarded

class Stuck(pyfuse3.Operations):
    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode = inode, stat.S_IFDIR | 0o755
        return entry

    async def lookup(self, parent, name, ctx=None):
        pyfuse3.invalidate_entry_async(parent, b"other")  # waits for the end of this lookup
        await trio.sleep_forever()

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guard.keep)
        await pyfuse3.main()

with guarded() as guard:
    pyfuse3.init(Stuck(), sys.argv[1], {"fsname=stuck", "subtype=ddrive"})
    guard.watch(sys.argv[1])
    print(os.getpid(), flush=True)
    trio.run(main)
"""

GOING = """
import sys
from mountd.guarding import guarded

with guarded():
    print("{}", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mnt"
    place.mkdir()
    yield place
    subprocess.run(["fusermount3", "-u", "-z", place], capture_output=True)


def abort(place: Path) -> None:
    """End a mount that nobody serves, so that the test can."""
    descriptor = way_to_abort(str(place))
    assert descriptor is not None
    write_control(descriptor, 1)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_whoever_waits_for_a_killed_worker_that_cannot_go_is_let_go(place: Path, is_replaced: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK, place], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        pid = json.loads(worker.stdout.readline())
        (guard,) = children(pid)
        if is_replaced:
            kill(guard)
            until(lambda: [child for child in children(pid) if child != guard])
            (guard,) = children(pid)
        with subprocess.Popen(["stat", place / "name"], stderr=subprocess.DEVNULL) as reader:
            time.sleep(0.5)  # the lookup is there by then, and the thread behind it
            began = time.monotonic()
            kill(pid)
            try:
                assert reader.wait(10)
            except subprocess.TimeoutExpired:
                abort(place)
                raise
            assert worker.wait(10) == -9
            assert time.monotonic() - began < 5
        until(lambda: not alive(guard))


@pytest.mark.parametrize("is_killed", [False, True])
def test_the_guard_goes_with_a_worker_that_can_go(is_killed: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", GOING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        worker.stdout.readline()
        (guard,) = children(worker.pid)
        if is_killed:
            worker.kill()
        with suppress(BrokenPipeError):
            worker.stdin.close()
        worker.wait(10)
        until(lambda: not alive(guard))
        assert is_killed or not Path(f"/proc/{guard}").exists()  # nobody else would have to take note of its end


def test_a_signal_does_not_end_the_guard_of_a_worker_that_lives() -> None:
    with subprocess.Popen([sys.executable, "-c", GOING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        worker.stdout.readline()
        (guard,) = children(worker.pid)
        time.sleep(0.5)  # before that it has not begun
        subprocess.run(["kill", "-TERM", str(guard)], check=True)
        time.sleep(0.2)
        assert alive(guard)
        worker.stdin.close()
        worker.wait(10)
        until(lambda: not alive(guard))
