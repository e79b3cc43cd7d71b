"""The meaning of a mounted drive, asked without FUSE: what is cached, what waits, and what errors come out."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from ddrive.drive.stat import DIRECTORY_MODE, FILE_MODE, Stat
from ddrive.errors import (
    BadHandle,
    CorruptStorage,
    IsADirectory,
    NameTooLong,
    NoPeers,
    NotADirectory,
    NotFound,
    TimedOut,
)
from mountd.follower import Follower
from mountd.inodes import MAX_ASKED, MAX_INODES, ROOT_NUMBER, Inode
from mountd.vfs import FOLLOWED_S, FOREVER_S, LISTED_LOOKUPS_MIN, UNFOLLOWED_S, Vfs
from mountd.waits import Limits
from mountd.xattrs import TOTAL_BYTES_MAX, check_given
from tests.support.memory_drive import Entry, FakeCallers, Feed, MemoryDrive

CALLER = 4711
TIMEOUT_S = 30.0


@dataclass
class Kernel:
    """The invalidations that the kernel was told."""

    entries: list[tuple[int, bytes]] = field(default_factory=list)
    attributes: list[int] = field(default_factory=list)

    def drop_entry(self, parent: int, name: bytes) -> None:
        self.entries.append((parent, name))

    def drop_attributes(self, number: int) -> None:
        self.attributes.append(number)


@dataclass
class Mounted:
    vfs: Vfs
    drive: MemoryDrive
    kernel: Kernel
    callers: FakeCallers

    async def find(self, path: str) -> Inode:
        """Walk as the kernel does: one lookup for each name."""
        inode = self.vfs.inodes.root
        for name in filter(None, path.split("/")):
            found = (await self.vfs.lookup(inode.number, name, CALLER)).inode
            assert found is not None, f"{name} of {path} is absent"
            inode = found
        return inode

    async def open(self, path: str) -> int:
        return await self.vfs.open((await self.find(path)).number, CALLER)

    async def names(self, path: str, start: int = 0) -> list[str]:
        fh = await self.vfs.opendir((await self.find(path)).number, CALLER)
        found: list[str] = []

        def emit(name: bytes, inode: Inode, timeout_s: float, following: int) -> bool:
            found.append(name.decode())
            return True

        await self.vfs.readdir(fh, start, emit)
        self.vfs.releasedir(fh)
        return found


@asynccontextmanager
async def mounted(*, fixed: bool = False, opened: bool = True) -> AsyncIterator[Mounted]:
    drive = MemoryDrive()
    callers = FakeCallers()
    vfs = Vfs(fixed=fixed, mountpoint="/mnt/data", state="/", limits=Limits(TIMEOUT_S), callers=callers)
    vfs.stranded = lambda: drive.is_stranded
    kernel = Kernel()
    ready = trio.Event()
    if opened:
        ready.set()

    async def open_drive() -> MemoryDrive:
        await ready.wait()
        return drive

    async with trio.open_nursery() as nursery:
        nursery.start_soon(vfs.waits.watch)
        nursery.start_soon(Follower(vfs, kernel).run, open_drive)
        await trio.testing.wait_all_tasks_blocked()
        yield Mounted(vfs, drive, kernel, callers)
        await vfs.aclose()
        nursery.cancel_scope.cancel()


# Attributes


async def test_an_entry_is_asked_of_the_drive_once(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        await trio.testing.wait_all_tasks_blocked()
        first = await it.find("/a")
        assert first.stat == it.drive.stats["/a"]
        assert await it.find("/a") is first
        assert await it.vfs.getattr(first.number, CALLER) is first
        assert it.drive.calls.count("lstat /a") == 1
        assert first.lookups == 2


async def test_absence_is_an_answer(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        found = await it.vfs.lookup(ROOT_NUMBER, "nothing", CALLER)
        assert found.inode is None
        assert 0 < found.timeout_s <= UNFOLLOWED_S


async def test_many_lookups_in_one_directory_turn_into_one_listing(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        for number in range(40):
            it.drive.write(f"/{number:02}", b"x")
        await trio.testing.wait_all_tasks_blocked()
        for number in range(40):
            assert (await it.find(f"/{number:02}")).stat == it.drive.stats[f"/{number:02}"]
        assert it.drive.calls.count("list /") == 1
        assert sum(call.startswith("lstat /") for call in it.drive.calls) < LISTED_LOOKUPS_MIN + 2


async def test_a_listing_waits_until_the_kernel_has_forgotten_what_it_was_asked_to(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        asked: list[Inode] = []
        it.vfs.inodes.on_crowded = asked.append
        for number in range(MAX_INODES + 2 * MAX_ASKED + 10):
            it.vfs.bind(it.vfs.inodes.root, str(number), Stat(FILE_MODE, offset=number)).lookups += 1
        opened: list[int] = []

        async def open_it() -> None:
            opened.append(await it.vfs.opendir(ROOT_NUMBER, CALLER))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_it)
            await trio.testing.wait_all_tasks_blocked()
            assert not opened
            while it.vfs.inodes.is_crowded:
                it.vfs.forget(asked.pop(0).number, 1)
        assert len(opened) == 1


async def test_a_directory_is_not_listed_unasked_when_that_needs_a_peer(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        for number in range(40):
            it.drive.write(f"/{number:02}", b"x")
        await trio.testing.wait_all_tasks_blocked()
        it.drive.metadata.lacking = 1
        for number in range(40):
            await it.find(f"/{number:02}")
        assert "list /" not in it.drive.calls


async def test_a_listing_answers_later_lookups_also_of_what_is_absent(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        for number in range(20):
            it.drive.write(f"/d/{number:02}", b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert (await it.names("/d"))[2:] == [f"{number:02}" for number in range(20)]
        calls = len(it.drive.calls)
        for number in range(20):
            await it.find(f"/d/{number:02}")
        directory = await it.find("/d")
        assert (await it.vfs.lookup(directory.number, "absent", CALLER)).inode is None
        assert await it.names("/d")
        assert len(it.drive.calls) == calls


async def test_the_root_needs_no_drive_and_no_peer(autojump_clock: MockClock) -> None:
    async with mounted(opened=False) as it:
        root = await it.vfs.getattr(ROOT_NUMBER, CALLER)
        assert root.stat is not None
        assert root.stat.mode == DIRECTORY_MODE
        assert it.vfs.statfs().f_blocks > 0


async def test_a_drive_that_is_not_here_yet_fails_in_time_and_fills_in_by_itself(autojump_clock: MockClock) -> None:
    async with mounted(opened=False) as it:
        started = trio.current_time()
        with pytest.raises(NoPeers):
            await it.vfs.opendir(ROOT_NUMBER, CALLER)
        assert trio.current_time() - started <= 6
        it.drive.write("/a", b"x")
        it.vfs.set_drive(it.drive)
        assert await it.names("/") == [".", "..", "a"]


@pytest.mark.parametrize(("fixed", "timeout_s"), [(False, FOLLOWED_S), (True, FOREVER_S)])
async def test_how_long_the_kernel_may_remember(autojump_clock: MockClock, fixed: bool, timeout_s: float) -> None:
    async with mounted(fixed=fixed) as it:
        it.drive.write("/a", b"x")
        it.drive.mount("/nested", bytes(32))
        await trio.testing.wait_all_tasks_blocked()
        assert (await it.vfs.lookup(ROOT_NUMBER, "a", CALLER)).timeout_s == timeout_s
        assert (await it.vfs.lookup(ROOT_NUMBER, "nested", CALLER)).timeout_s == UNFOLLOWED_S


async def test_names_that_cannot_be(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        file = it.drive.write("/a", b"x")
        assert file
        with pytest.raises(NameTooLong):
            await it.vfs.lookup(ROOT_NUMBER, "ü" * 128, CALLER)
        with pytest.raises(NotADirectory):
            await it.vfs.lookup((await it.find("/a")).number, "b", CALLER)
        with pytest.raises(OSError, match="not known"):
            await it.vfs.getattr(99, CALLER)


async def test_links_lead_where_the_author_meant(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.symlink("/relative", "../a")
        it.drive.symlink("/absolute", "/d/a")
        it.drive.write("/file", b"")
        assert await it.vfs.readlink((await it.find("/relative")).number, CALLER) == "../a"
        assert await it.vfs.readlink((await it.find("/absolute")).number, CALLER) == "/mnt/data/d/a"
        with pytest.raises(OSError, match="not a symbolic link"):
            await it.vfs.readlink((await it.find("/file")).number, CALLER)


async def test_extended_attributes(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"x" * 70000, colour=b"red", **{"ddrive.key": b"forged"})
        it.drive.mkdir("/d")
        file, directory = await it.find("/a"), await it.find("/d")
        assert await it.vfs.listxattr(directory.number, CALLER) == []
        assert await it.vfs.listxattr(file.number, CALLER) == ["user.colour"]
        told = [f"user.ddrive.{name}" for name in ("key", "version", "blocks", "held", "offset")]
        names = [*told, "user.colour"]
        values = [await it.vfs.getxattr(file.number, name, CALLER) for name in names]
        assert values == [it.drive.key.hex().encode(), b"4", b"2", b"2", b"1", b"red"]
        for number, name in ((file.number, "user.none"), (directory.number, "user.ddrive.blocks")):
            with pytest.raises(OSError, match="no attribute") as caught:
                await it.vfs.getxattr(number, name, CALLER)
            assert caught.value.errno == errno.ENODATA


def test_attributes_whose_names_are_not_text_count_like_others() -> None:
    check_given("user.a", {"user.a": b"1", "user.\udcff": b"2"})
    with pytest.raises(OSError, match="has room for") as caught:
        check_given("user.a", {"user.a": b"1", "user.\udcff": bytes(TOTAL_BYTES_MAX - 12)})
    assert caught.value.errno == errno.ENOSPC


# Directories


async def test_offsets_of_a_listing_hold_while_it_changes(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        for name in "abcd":
            it.drive.write(f"/{name}", b"x")
        await trio.testing.wait_all_tasks_blocked()
        fh = await it.vfs.opendir(ROOT_NUMBER, CALLER)
        seen: list[tuple[str, int]] = []

        def emit(name: bytes, inode: Inode, timeout_s: float, following: int) -> bool:
            if len(seen) == 4:
                return False
            seen.append((name.decode(), following))
            return True

        await it.vfs.readdir(fh, 0, emit)
        it.drive.remove("/a")
        it.drive.write("/aa", b"x")
        await trio.sleep(1)
        rest: list[str] = []
        await it.vfs.readdir(fh, seen[-1][1], lambda name, *_: rest.append(name.decode()) is None)
        assert [name for name, _ in seen] + rest == [".", "..", "a", "b", "c", "d"]
        again: list[str] = []
        await it.vfs.readdir(fh, 0, lambda name, *_: again.append(name.decode()) is None)
        assert again == [".", "..", "aa", "b", "c", "d"]


async def test_entries_that_did_not_fit_are_not_counted_as_known_by_the_kernel(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"x")
        await trio.testing.wait_all_tasks_blocked()
        fh = await it.vfs.opendir(ROOT_NUMBER, CALLER)
        await it.vfs.readdir(fh, 0, lambda name, *_: name != b"a")
        assert len(it.vfs.inodes) == 1
        await it.vfs.readdir(fh, 2, lambda *_: True)
        assert len(it.vfs.inodes) == 2


# Files


async def test_reading(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        data = os.urandom(100_000)
        it.drive.write("/a", data)
        fh = await it.open("/a")
        assert await it.vfs.read(fh, 0, 200_000) == data
        assert await it.vfs.read(fh, 99_999, 5) == data[-1:]
        assert await it.vfs.read(fh, 100_000, 5) == b""
        await it.vfs.release(fh)
        assert it.drive.readers[-1].closed
        with pytest.raises(BadHandle):
            await it.vfs.read(fh, 0, 1)


async def test_what_cannot_be_opened(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.mkdir("/d")
        with pytest.raises(IsADirectory):
            await it.vfs.open((await it.find("/d")).number, CALLER)


async def test_a_short_answer_of_the_drive_is_an_error(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        fh = await it.open("/a")
        it.drive.short_reads = 1
        with pytest.raises(CorruptStorage):
            await it.vfs.read(fh, 0, 4)


async def test_an_open_file_keeps_its_content_and_new_opens_see_the_new_one(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"old")
        await trio.testing.wait_all_tasks_blocked()
        old = await it.find("/a")
        old_fh = await it.open("/a")
        it.drive.write("/a", b"newer")
        await trio.testing.wait_all_tasks_blocked()
        assert it.kernel.entries[-1] == (ROOT_NUMBER, b"a")
        new = await it.find("/a")
        assert new.number != old.number
        assert await it.vfs.read(old_fh, 0, 10) == b"old"
        assert await it.vfs.read(await it.open("/a"), 0, 10) == b"newer"
        kept = await it.vfs.getattr(old.number, CALLER)
        assert kept.stat is not None
        assert kept.stat.size == 3


async def test_opening_a_replaced_content_asks_the_kernel_to_look_again(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"old")
        old = await it.find("/a")
        it.drive.write("/a", b"newer")
        with pytest.raises(OSError, match="replaced") as caught:  # before anything told us of the change
            await it.vfs.open(old.number, CALLER)
        assert caught.value.errno == errno.ESTALE
        assert all(reader.closed for reader in it.drive.readers)
        assert await it.vfs.read(await it.open("/a"), 0, 10) == b"newer"


# Waiting


async def test_a_read_gives_up_at_the_deadline_and_says_why(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        fh = await it.open("/a")
        it.drive.missing.add("/a")
        started = trio.current_time()
        with pytest.raises(TimedOut):
            await it.vfs.read(fh, 0, 4)
        assert TIMEOUT_S - 2 < trio.current_time() - started < TIMEOUT_S
        await trio.sleep(5)
        it.drive.metadata.peer_count = 0
        with pytest.raises(NoPeers):
            await it.vfs.read(fh, 0, 4)
        it.drive.arrive()
        assert await it.vfs.read(fh, 0, 4) == b"text"


async def test_the_kernels_second_try_does_not_wait_again(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        fh = await it.open("/a")
        it.drive.missing.add("/a")
        with pytest.raises(TimedOut):
            await it.vfs.read(fh, 0, 4)
        started = trio.current_time()
        with pytest.raises(TimedOut):
            await it.vfs.read(fh, 0, 4)
        assert trio.current_time() - started < 1
        it.drive.arrive()
        assert await it.vfs.read(fh, 0, 4) == b"text"


async def test_a_call_that_keeps_trying_waits_again(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        fh = await it.open("/a")
        it.drive.missing.add("/a")
        waited = []
        for _ in range(40):
            started = trio.current_time()
            with pytest.raises(TimedOut):
                await it.vfs.read(fh, 0, 4)
            waited.append(trio.current_time() - started)
        assert sum(duration > 1 for duration in waited) > 1


async def open_absent(it: Mounted, count: int) -> list[int]:
    """Open files of which no block is here."""
    for number in range(count):
        it.drive.write(f"/{number}", b"text")
    opened = [await it.open(f"/{number}") for number in range(count)]
    it.drive.missing |= {f"/{number}" for number in range(count)}
    return opened


async def test_only_the_first_of_many_waits_long_for_nobody(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        opened = await open_absent(it, 100)
        it.drive.metadata.peer_count = 0
        waited = []
        for fh in opened:
            started = trio.current_time()
            with pytest.raises(NoPeers):
                await it.vfs.read(fh, 0, 4)
            waited.append(trio.current_time() - started)
        assert waited[0] > TIMEOUT_S - 2
        assert max(waited[1:]) < 2
        started = trio.current_time()
        with pytest.raises(NoPeers):
            await it.vfs.lookup(ROOT_NUMBER, "0", CALLER + 1)
        assert trio.current_time() - started < 2
        it.drive.metadata.peer_count = 1
        started = trio.current_time()
        with pytest.raises(TimedOut):
            await it.vfs.read(opened[1], 0, 4)
        assert trio.current_time() - started > TIMEOUT_S - 2
        it.drive.metadata.peer_count = 0
        started = trio.current_time()
        with pytest.raises(NoPeers):
            await it.vfs.read(opened[2], 0, 4)
        assert trio.current_time() - started > TIMEOUT_S - 2


async def test_only_the_first_waits_long_for_bytes_whose_feed_no_connected_peer_has(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.content = Feed()
        first, second, third, fourth = await open_absent(it, 4)
        it.drive.content.peer_count = 0  # those who are connected have the entries only
        for fh, limit_s in ((first, TIMEOUT_S), (second, 2), (third, 2)):
            started = trio.current_time()
            with pytest.raises(NoPeers):
                await it.vfs.read(fh, 0, 4)
            assert limit_s / 2 <= trio.current_time() - started < limit_s
        it.drive.content.peer_count = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads, it, fourth, b"text")
            await trio.sleep(10)
            it.drive.arrive("/3")


async def test_a_peer_that_is_found_just_then_has_all_the_time(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        first, second, third = await open_absent(it, 3)
        it.drive.metadata.peer_count = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, it, first)
            await trio.sleep(10)
            nursery.start_soon(reads, it, second, b"text")  # it began when nobody knew that this is in vain
            await trio.sleep(25)
            nursery.start_soon(reads, it, third, b"text")
            await trio.sleep(0.5)
            it.drive.metadata.peer_count = 1
            await trio.sleep(1)
            it.drive.arrive("/1")
            await trio.sleep(20)
            it.drive.arrive("/2")


async def test_what_waits_for_no_peer_is_not_cut_short(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/slow", b"text")
        opened = await open_absent(it, 1)
        it.drive.metadata.peer_count = 0
        await fails(it, opened[0])
        found = it.drive.lstat

        async def slow(path: str) -> Stat:
            await trio.sleep(4)
            return await found(path)

        it.drive.lstat = slow  # type: ignore[method-assign]
        assert (await it.vfs.lookup(ROOT_NUMBER, "slow", CALLER)).inode is not None


async def fails(it: Mounted, fh: int) -> None:
    with pytest.raises(NoPeers):
        await it.vfs.read(fh, 0, 4)


async def test_a_long_listing_of_what_is_held_needs_no_peer(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.metadata.peer_count = 0
        for number in range(3):
            it.drive.write(f"/{number}", b"x")
        await trio.testing.wait_all_tasks_blocked()
        listed = it.drive.list

        async def slow(path: str) -> list[Entry]:
            await trio.sleep(2 * TIMEOUT_S)
            return await listed(path)

        it.drive.list = slow  # type: ignore[method-assign]
        assert (await it.names("/"))[2:] == ["0", "1", "2"]


async def test_want_of_data_is_never_absence(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.missing |= {"/a", "/"}
        with pytest.raises(TimedOut):
            await it.vfs.lookup(ROOT_NUMBER, "a", CALLER)
        with pytest.raises(TimedOut):
            await it.vfs.opendir(ROOT_NUMBER, CALLER)
        it.drive.metadata.peer_count = 0
        started = trio.current_time()
        with pytest.raises(NoPeers):
            await it.vfs.lookup(ROOT_NUMBER, "a", CALLER)
        assert trio.current_time() - started < 6


async def test_a_waiting_reader_goes_on_when_the_data_arrives(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        fh = await it.open("/a")
        it.drive.missing.add("/a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads, it, fh, b"text")
            await trio.sleep(10)
            it.drive.arrive()


async def reads(it: Mounted, fh: int, expected: bytes) -> None:
    assert await it.vfs.read(fh, 0, 100) == expected


@pytest.mark.parametrize("who", ["opener", "somebody else"])
async def test_an_interrupted_reader_is_released(autojump_clock: MockClock, who: str) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        fh = await it.open("/a")
        number = (await it.find("/a")).number
        it.drive.missing.add("/a")
        if who == "opener":
            it.callers.ending.add(CALLER)
        else:
            it.callers.ending_inodes = lambda orphans: {number}
        started = trio.current_time()
        with pytest.raises(InterruptedError):
            await it.vfs.read(fh, 0, 4)
        assert trio.current_time() - started < 1


async def test_the_second_try_of_an_interrupted_read_is_released_at_once(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        fh = await it.open("/a")
        it.drive.missing.add("/a")
        it.callers.ending.add(CALLER)
        with pytest.raises(InterruptedError):
            await it.vfs.read(fh, 0, 4)
        started = trio.current_time()
        with pytest.raises(InterruptedError):
            await it.vfs.read(fh, 0, 4)
        assert trio.current_time() == started


async def test_a_read_that_nobody_waits_for_ends(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        fh = await it.open("/a")
        number = (await it.find("/a")).number
        it.drive.missing.add("/a")
        it.callers.gone.add(CALLER)
        it.callers.ending_inodes = lambda orphans: set(orphans)
        assert number
        with pytest.raises(InterruptedError):
            await it.vfs.read(fh, 0, 4)


async def test_an_interrupted_lookup_is_released(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.missing.add("/a")
        it.callers.ending.add(CALLER)
        with pytest.raises(InterruptedError):
            await it.vfs.lookup(ROOT_NUMBER, "a", CALLER)


async def test_everything_that_waits_ends_when_the_mount_does(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.missing.add("/a")
        it.callers.unmounted = True
        with pytest.raises(OSError, match="not mounted any more"):
            await it.vfs.lookup(ROOT_NUMBER, "a", CALLER)


async def test_too_many_waiting_reads_are_refused_and_the_rest_stays_quick(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.vfs.limits = Limits(TIMEOUT_S, max_waiting_reads=5)
        it.drive.write("/a", b"text")
        it.drive.write("/b", b"x")
        fh = await it.open("/a")
        it.drive.missing.add("/a")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(reads, it, fh, b"text")
            await trio.sleep(1)
            with pytest.raises(TimedOut):
                await it.vfs.read(fh, 0, 4)
            assert (await it.find("/b")).stat is not None
            it.drive.arrive()


# Changes


async def test_only_what_changed_is_dropped(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/d/a", b"x")
        it.drive.write("/d/b", b"x")
        it.drive.write("/other/c", b"x")
        await trio.testing.wait_all_tasks_blocked()
        await it.names("/d")
        await it.names("/other")
        directory = await it.find("/d")
        unchanged = await it.find("/d/b")
        await it.find("/d/a")
        it.kernel.entries.clear()
        it.kernel.attributes.clear()
        it.drive.write("/d/a", b"changed")
        await trio.testing.wait_all_tasks_blocked()
        assert it.kernel.entries == [(directory.number, b"a")]
        assert it.kernel.attributes == [directory.number, ROOT_NUMBER]
        calls = len(it.drive.calls)
        await it.names("/other")
        assert await it.find("/d/b") is unchanged
        assert len(it.drive.calls) - calls <= 1  # the directory itself: its times may have changed


async def test_a_name_that_was_absent_appears(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        await it.names("/")
        assert (await it.vfs.lookup(ROOT_NUMBER, "d", CALLER)).inode is None
        it.drive.write("/d/e/f", b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert it.kernel.entries == [(ROOT_NUMBER, b"d")]
        assert (await it.find("/d/e/f")).stat is not None
        assert await it.names("/") == [".", "..", "d"]


async def test_a_directory_that_vanishes_with_its_last_file_is_dropped(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/d/e/f", b"x")
        await trio.testing.wait_all_tasks_blocked()
        parent = await it.find("/d")
        await it.find("/d/e/f")
        it.kernel.entries.clear()
        it.drive.remove("/d/e/f")
        await trio.testing.wait_all_tasks_blocked()
        assert (ROOT_NUMBER, b"d") in it.kernel.entries
        assert (await it.vfs.lookup(ROOT_NUMBER, "d", CALLER)).inode is None
        with pytest.raises(NotFound):
            await it.vfs.opendir(parent.number, CALLER)


async def test_a_removed_file_stays_readable_where_it_is_open(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"text")
        await trio.testing.wait_all_tasks_blocked()
        inode = await it.find("/a")
        fh = await it.open("/a")
        it.drive.remove("/a")
        await trio.testing.wait_all_tasks_blocked()
        assert (await it.vfs.lookup(ROOT_NUMBER, "a", CALLER)).inode is None
        assert await it.vfs.read(fh, 0, 4) == b"text"
        assert (await it.vfs.getattr(inode.number, CALLER)).stat == inode.stat


async def test_when_it_cannot_be_told_what_changed_all_is_asked_again(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"old")
        it.drive.mkdir("/d")
        await trio.testing.wait_all_tasks_blocked()
        await it.names("/")
        directory = await it.find("/d")
        await it.find("/a")
        it.drive.missing.add("*")
        it.drive.write("/a", b"newer")
        await trio.sleep(2)
        assert (ROOT_NUMBER, b"a") in it.kernel.entries
        assert directory.number in it.kernel.attributes
        stat = (await it.find("/a")).stat
        assert stat is not None
        assert stat.size == 5


async def test_an_answer_begun_before_a_change_is_not_kept(autojump_clock: MockClock) -> None:
    async with mounted() as it:
        it.drive.write("/a", b"old")
        await trio.testing.wait_all_tasks_blocked()
        it.drive.missing.add("/")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.names, "/")
            await trio.testing.wait_all_tasks_blocked()
            it.drive.put("/b", Stat(FILE_MODE))
            await trio.testing.wait_all_tasks_blocked()
            it.drive.arrive()
        assert it.drive.calls.count("list /") == 2  # opening and the first read of the open directory
        assert await it.names("/") == [".", "..", "a", "b"]


async def test_following_goes_on_after_a_fault(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with mounted() as it:
        it.drive.faults["*"] = RuntimeError("a fault")
        it.drive.write("/a", b"x")
        await trio.sleep(0.5)
        assert not it.vfs.followed
        assert "following the drive failed" in caplog.text
        it.drive.faults.clear()
        await trio.sleep(5)
        assert it.vfs.followed
        assert await it.names("/") == [".", "..", "a"]


async def test_a_drive_that_cannot_be_opened_is_tried_again(autojump_clock: MockClock) -> None:
    drive = MemoryDrive()
    vfs = Vfs(fixed=False, mountpoint="/m", state="/", limits=Limits(), callers=FakeCallers())
    attempts = 0

    async def open_drive() -> MemoryDrive:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise CorruptStorage("not a drive")
        return drive

    async with trio.open_nursery() as nursery:
        nursery.start_soon(vfs.waits.watch)
        nursery.start_soon(Follower(vfs, Kernel()).run, open_drive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CorruptStorage):
            await vfs.lookup(ROOT_NUMBER, "a", CALLER)
        await trio.sleep(5)
        assert (await vfs.lookup(ROOT_NUMBER, "a", CALLER)).inode is None
        nursery.cancel_scope.cancel()
