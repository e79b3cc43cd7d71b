"""Nested drives in a mount: followed once they are looked into, and what changed in them is dropped, nothing else."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ddrive.drive.stat import FILE_MODE, Stat
from ddrive.errors import DriveError
from mountd.follower import Follower
from mountd.inodes import ROOT_NUMBER
from mountd.vfs import ABSENT_S, FOLLOWED_S, UNFOLLOWED_S, Limits, Vfs
from tests.mountd.test_vfs import CALLER, Kernel, Mounted
from tests.support.memory_drive import FakeCallers, MemoryDrive


class Nested:
    """A nested drive at `path` whose author changes entries of `drive` below it."""

    def __init__(self, drive: "NestingDrive", path: str) -> None:
        self.path = path
        self.seen = self.version = 3
        self.fault: Exception | None = None
        self._drive = drive
        self._changes: dict[int, str] = {}
        self._grown = trio.Event()

    def put(self, name: str, size: int) -> None:
        path = f"/{self.path}/{name}"
        self._drive.stats[path] = Stat(FILE_MODE, size=size, blocks=1, offset=size, mtime_ms=size)
        self.version += 1
        self._changes[self.version] = path
        self._grown.set()
        self._grown = trio.Event()

    async def wait_version(self, version: int) -> int:
        while self.version < version:
            await self._grown.wait()
        return self.version

    async def changed(self, old: int) -> list[str]:
        if self.fault is not None:
            raise self.fault
        return [path for version, path in self._changes.items() if version > old]


class NestingDrive(MemoryDrive):
    """A drive with nested drives, and the `NestedDrivesFace` of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.complete = True
        self.found: list[Nested] = []
        self._more = trio.Event()

    async def nested(self) -> "NestingDrive":
        return self

    def drives(self) -> list[Nested]:
        return list(self.found)

    async def more(self) -> None:
        await self._more.wait()

    def look_into(self, path: str) -> Nested:
        self.mount(f"/{path}", bytes(32))
        self.found.append(Nested(self, path))
        self.tell()
        return self.found[-1]

    def tell(self) -> None:
        self._more.set()
        self._more = trio.Event()


@asynccontextmanager
async def mounted(*, fixed: bool = False) -> AsyncIterator[tuple[Mounted, NestingDrive]]:
    drive, kernel, callers = NestingDrive(), Kernel(), FakeCallers()
    vfs = Vfs(fixed=fixed, mountpoint="/mnt/data", state="/", limits=Limits(5.0), callers=callers)

    async def open_drive() -> NestingDrive:
        await trio.lowlevel.checkpoint()
        return drive

    async with trio.open_nursery() as nursery:
        nursery.start_soon(vfs.waits.watch)
        nursery.start_soon(Follower(vfs, kernel).run, open_drive)
        await wait_all_tasks_blocked()
        yield Mounted(vfs, drive, kernel, callers), drive
        await vfs.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("fixed", [False, True])
async def test_exactly_what_changed_is_dropped(autojump_clock: MockClock, fixed: bool) -> None:
    async with mounted(fixed=fixed) as (it, drive):
        inner = drive.look_into("sub")
        inner.put("a", 1)
        inner.put("b", 1)
        await wait_all_tasks_blocked()
        top = await it.find("/sub")
        stays, changes = await it.find("/sub/b"), await it.find("/sub/a")
        assert (await it.vfs.lookup(top.number, "a", CALLER)).timeout_s == FOLLOWED_S
        assert (await it.vfs.lookup(top.number, "missing", CALLER)).timeout_s == ABSENT_S
        it.kernel.entries.clear()
        calls = len(drive.calls)
        await trio.sleep(20)
        assert await it.find("/sub/b") is stays
        assert len(drive.calls) == calls
        inner.put("a", 2)
        await wait_all_tasks_blocked()
        assert it.kernel.entries == [(top.number, b"a")]
        assert (await it.find("/sub/a")).number != changes.number
        assert await it.find("/sub/b") is stays


async def test_what_cannot_be_compared_is_all_dropped(autojump_clock: MockClock) -> None:
    async with mounted() as (it, drive):
        inner = drive.look_into("sub")
        inner.put("a", 1)
        await wait_all_tasks_blocked()
        await it.find("/sub/a")
        it.kernel.entries.clear()
        inner.fault = DriveError("nobody has it")
        inner.put("b", 1)
        await wait_all_tasks_blocked()
        assert [name for _, name in it.kernel.entries] == [b"a"]


async def test_too_many_nested_drives_are_asked_again_every_second(autojump_clock: MockClock) -> None:
    async with mounted() as (it, drive):
        inner = drive.look_into("sub")
        inner.put("a", 1)
        await wait_all_tasks_blocked()
        await it.find("/sub/a")
        drive.complete = False
        drive.tell()
        await wait_all_tasks_blocked()
        assert (await it.vfs.lookup(ROOT_NUMBER, "sub", CALLER)).timeout_s == UNFOLLOWED_S
        drive.stats["/sub/a"] = Stat(FILE_MODE, size=7, blocks=1, offset=7, mtime_ms=7)
        await trio.sleep(UNFOLLOWED_S + 0.1)
        found = await it.find("/sub/a")
        assert found.stat is not None
        assert found.stat.size == 7


async def test_a_failing_watch_begins_again(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with mounted() as (it, drive):
        inner = drive.look_into("sub")
        await wait_all_tasks_blocked()
        assert it.vfs.nested_followed
        inner.fault = OSError(errno.EIO, "a fault of ours")
        inner.put("a", 1)
        await wait_all_tasks_blocked()
        assert not it.vfs.nested_followed
        inner.fault = None
        await trio.sleep(2)
        assert it.vfs.nested_followed
    caplog.clear()
