"""The workers of an engine that is ending, and those that cannot end by themselves."""
# ruff: noqa: ASYNC240, ASYNC222 - /proc does not block, nor does a process that has ended

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.errors import DiskFull, DriveError, Misauthored, MountFailed, StorageError
from ddrive.ids import PublicKey
from mountd.config import Config
from mountd.mountinfo import mounted_at
from mountd.mounts import Mount, MountTable, owner_of
from mountd.processes import is_defunct, start_time
from mountd.workers import WorkerPool
from tests.support.memory_mount import memory_mount
from tests.support.program import kill, program

WORKER = "import time; time.sleep(600)"

FAILING_WORKER = """
from ddrive.trie import InvalidNode
from mountd import worker

async def fails(options, guard):
    raise {error}

worker.run_worker = fails
worker.main()
"""

EMPTY = """
import ctypes, json, os, platform, stat, subprocess, sys, threading, time
import pyfuse3, trio

class Empty(pyfuse3.Operations):
    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode = inode, stat.S_IFDIR | 0o755
        return entry

place = json.loads(sys.stdin.readline())["mountpoint"]
"""

STUCK_WORKER = f"""{EMPTY}
class Stuck(Empty):
    async def lookup(self, parent, name, ctx=None):
        pyfuse3.invalidate_entry_async(parent, b"other")  # waits for the end of this lookup
        await trio.sleep_forever()

subprocess.run(["fusermount3", "-u", "-z", place], stderr=subprocess.DEVNULL)
pyfuse3.init(Stuck(), place, {{"fsname=stuck", "subtype=ddrive"}})
print('{{"ready": true}}', flush=True)
trio.run(pyfuse3.main)
"""

# Its mount is gone long before it is: a thread lives on when the first one has ended
SLOW_WORKER = f"""{EMPTY}
def lingers():
    time.sleep(2.5)
    os._exit(0)

pyfuse3.init(Empty(), place, {{"fsname=slow", "subtype=ddrive"}})
print('{{"ready": true}}', flush=True)
trio.run(pyfuse3.main)
pyfuse3.close()
threading.Thread(target=lingers).start()
ctypes.CDLL(None).syscall({{"x86_64": 60, "aarch64": 93}}[platform.machine()], 0)  # the end of this thread
"""


def new_mount(place: Path) -> Mount:
    (place / "state" / "log").mkdir(parents=True)
    (place / "place").mkdir()
    return Mount(str(place / "place"), PublicKey(bytes(32)), DWEB)


def new_pool(place: Path, mount: Mount, nursery: trio.Nursery, code: str) -> WorkerPool:
    table = MountTable(place / "mounts.json")
    table.add(mount)
    return WorkerPool(Config(place / "state"), table, nursery, command=(sys.executable, "-c", code))


async def becomes(condition: Callable[[], object]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.02)


def device(mountpoint: str) -> str:
    found = mounted_at(mountpoint)
    assert found is not None
    return found.device


def waits_for_kernel(pid: int) -> bool:
    """Tell whether a thread of a process waits in a way that no signal ends."""
    return any(
        status.read_text().rpartition(")")[2].split()[0] == "D" for status in Path(f"/proc/{pid}/task").glob("*/stat")
    )


async def test_a_mount_that_begins_while_all_end_is_not_waited_for(tmp_path: Path) -> None:
    mount = new_mount(tmp_path)
    async with trio.open_nursery() as nursery:
        pool = new_pool(tmp_path, mount, nursery, WORKER)
        await pool.stop_all()
        with trio.fail_after(10), pytest.raises(MountFailed, match="the engine is ending"):
            await pool.start(mount)
    assert mount.pid is not None
    assert not Path(f"/proc/{mount.pid}").exists()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("OSError(28, 'why')", DiskFull),
        ("OSError(13, 'why')", StorageError),
        ("InvalidNode('why')", Misauthored),
        ("ValueError('why')", DriveError),
    ],
)
async def test_the_engine_hears_what_failed_in_a_worker(tmp_path: Path, error: str, kind: type[DriveError]) -> None:
    mount = new_mount(tmp_path)
    async with trio.open_nursery() as nursery:
        pool = new_pool(tmp_path, mount, nursery, FAILING_WORKER.format(error=error))
        with trio.fail_after(20), pytest.raises(kind, match="why") as caught:
            await pool.start(mount)
        assert type(caught.value) is kind


@pytest.mark.parametrize("is_killed_too", [False, True], ids=["its engine", "the next engine"])
async def test_a_killed_worker_that_waits_for_itself_is_replaced(tmp_path: Path, is_killed_too: bool) -> None:
    mount = new_mount(tmp_path)
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as first_nursery:
            pool = new_pool(tmp_path, mount, first_nursery if is_killed_too else nursery, STUCK_WORKER)
            await pool.start(mount)
            child = pool._workers[mount.mountpoint].child
            killed = mount.pid
            assert child is not None
            assert killed is not None
            program = await trio.lowlevel.open_process(["stat", mount.mountpoint + "/x"], stderr=subprocess.DEVNULL)
            await becomes(lambda: waits_for_kernel(killed))
            first_nursery.cancel_scope.cancel()
        kill(killed)
        await becomes(lambda: is_defunct(killed))
        if is_killed_too:
            pool = new_pool(tmp_path, mount, nursery, STUCK_WORKER)
            assert await pool.adopt(mount)
        await becomes(lambda: mount.pid != killed and mount.state == "ok")
        with trio.fail_after(10):
            assert await program.wait()
            await trio.to_thread.run_sync(child.process.wait)
        await pool.stop(mount, force=True)


async def test_a_worker_that_has_ended_is_not_taken_for_one_that_serves(tmp_path: Path) -> None:
    mount = new_mount(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as dead:  # noqa: ASYNC220
        assert dead.stdout is not None
        dead.stdout.read()
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        async with trio.open_nursery() as nursery:
            pool = new_pool(tmp_path, mount, nursery, WORKER)
            mount.pid, mount.started, mount.owner = dead.pid, start_time(dead.pid), owner_of(tmp_path / "state")
            assert not await pool.adopt(mount)


async def test_a_mount_that_has_the_number_of_one_that_ended_lives(tmp_path: Path) -> None:
    mount = new_mount(tmp_path)
    async with trio.open_nursery() as nursery:
        pool = new_pool(tmp_path, mount, nursery, SLOW_WORKER)
        for attempt in range(10):  # somebody else may be given the number
            await pool.start(mount)
            number = device(mount.mountpoint)
            with trio.fail_after(10):
                nursery.start_soon(partial(pool.stop, mount, force=False))
                await becomes(lambda: mounted_at(mount.mountpoint) is None)
                (tmp_path / str(attempt)).mkdir()
                with memory_mount(tmp_path / str(attempt)) as other:
                    is_same = device(str(other.path)) == number
                    await becomes(lambda: not pool.running(mount.mountpoint))
                    await trio.to_thread.run_sync(os.listdir, other.path)  # which the kernel does not remember
            if is_same:
                return
    raise AssertionError("no mount was given the number of another")


def test_a_worker_whose_engine_has_gone_says_why_in_one_line(tmp_path: Path) -> None:
    options = {"state": str(tmp_path), "socket": str(tmp_path / "none"), "key": "00" * 32, "dialect": "dweb"}
    told = json.dumps(options | {"mountpoint": str(tmp_path)}) + "\n"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "mountd.worker"],
        cwd=Path(__file__).resolve().parents[2],
        input=told.encode(),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writing)
    assert done.returncode == 1
    assert b"mount failed: why=no engine answers" in done.stderr
    assert b"BrokenPipe" not in done.stderr


def test_a_worker_whose_engine_went_while_it_mounted_serves_on(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with program(tmp_path / "state") as engine:
        key = engine.ask("create")["key"]
        socket = str(tmp_path / "state" / "control.sock")
        options = {"state": str(tmp_path / "state"), "socket": socket, "key": key, "mountpoint": str(place)}
        reading, writing = os.pipe()
        os.close(reading)
        with subprocess.Popen(
            [sys.executable, "-m", "mountd.worker"],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.PIPE,
            stdout=writing,
            stderr=subprocess.PIPE,
        ) as worker:
            os.close(writing)
            assert worker.stdin is not None
            assert worker.stderr is not None
            worker.stdin.write(json.dumps(options | {"dialect": "dweb"}).encode() + b"\n")
            worker.stdin.flush()
            try:
                assert any(b"mounted: " in line for line in worker.stderr)
                assert mounted_at(str(place)) is not None
                assert os.listdir(place) == []
            finally:
                worker.terminate()
            assert worker.wait(20) == 0
        assert mounted_at(str(place)) is None
