"""The verbs `mount` and `unmount`: is the place usable, is something dead in the way, one verb per place at a time.

No file call is made on a mount of this engine: what is mounted is read from /proc, and a place inside one of our own
mounts is refused. Other places are looked at in a thread, within a time limit.
"""

import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from ddrive.errors import DriveError, InvalidPath, MountFailed, NotFound, UnusablePlace
from ddrive.ids import PublicKey, short
from mountd.device import check_device
from mountd.mountinfo import is_ours, mounted_at
from mountd.mounts import Mount, MountOptions, MountTable
from mountd.unmounting import detach_dead, is_dead
from mountd.workers import WorkerPool

LOOK_LIMIT_S = 5.0  # for a file call on a place that is not ours
STARTING_LIMIT_S = 10.0  # for a worker that is being restarted when somebody mounts the same drive there again

_log = logging.getLogger(__name__)


class Mountpoints:
    """The mounts of one engine."""

    def __init__(self, table: MountTable, workers: WorkerPool) -> None:
        self.table = table
        self._workers = workers
        self._turns: dict[str, trio.Lock] = {}
        self._waiting: dict[str, int] = {}

    async def check(self, place: str, key: PublicKey, *, cover: bool = False) -> None:
        """Refuse at once what could not be mounted later: see `mount` for what is raised."""
        place = await self._real(place)
        async with self._turn(place):
            old = self.table.get(place)
            if old is None:
                await self._check_free(place, cover=cover)
            elif old.state != "dead" and old.key != key:
                raise _busy(old)
        check_device()

    async def mount(self, wanted: Mount, *, cover: bool = False) -> Mount:
        """Mount, and return when the mountpoint answers.

        What is mounted there already in just this way is returned as it is; in another way it is mounted anew, and
        stays as it was when that fails.
        A directory that holds something is only covered with `cover`.
        Raises: MountFailed, NotFound, UnusablePlace, InvalidPath, Busy.
        """
        place = wanted.mountpoint = await self._real(wanted.mountpoint)
        async with self._turn(place):
            old = self.table.get(place)
            worked = old if old is not None and old.state == "ok" else None
            if old is not None:
                if await self._is_same(old, wanted):
                    return old
                await self._take_off(old, wanted)
            if old is None or not await _is_dead(place):  # a dead one goes when the new one is there
                await self._check_free(place, cover=cover or old is not None)
            self.table.add(wanted)
            try:
                await self._workers.start(wanted)
            except BaseException as error:
                self.table.remove(place)
                if worked is not None and isinstance(error, Exception):
                    await self._put_back(worked)
                raise
        _log.info("mounted drive=%s mountpoint=%s", short(wanted.key), place)
        return wanted

    async def unmount(self, place: str, *, force: bool) -> PublicKey | None:
        """End a mount of this engine, or what a dead engine has left at the place; return which drive it was, if known.

        Raises: NotFound, Busy.
        """
        place = await self._real(_normal(place))
        async with self._turn(place):
            mount = self.table.get(place)
            if mount is not None:
                self.table.remove(place)
                try:
                    await self._workers.stop(mount, force=force)
                except DriveError:
                    self.table.add(mount)
                    raise
                _log.info("unmounted mountpoint=%s", place)
                return mount.key
            if not await self._heal(place):
                self.table.find(place)
            return None

    async def restore(self, mount: Mount) -> None:
        """Bring a mount of the last run back: its worker may still live; what is dead is replaced.

        In a copy of a state directory, what the original still serves is forgotten.
        """
        async with self._turn(mount.mountpoint):
            if self.table.get(mount.mountpoint) is not mount:
                return
            try:
                if await self._workers.adopt(mount):
                    return
                is_gone = await _is_dead(mount.mountpoint)
                if not is_gone and is_ours(mount.mountpoint) and not self._workers.is_own(mount):
                    self.forget(mount)
                    _log.warning("mount left to the original of this state directory mountpoint=%s", mount.mountpoint)
                    return
                if not is_gone:  # a dead one is taken off by the worker, just before it mounts
                    await self._check_free(mount.mountpoint, cover=True)
                await self._workers.start(mount, keeps_dead=True)
                _log.info("restored drive=%s mountpoint=%s", short(mount.key), mount.mountpoint)
            except (DriveError, OSError) as error:
                mount.state = "dead"
                _log.error("mount not restored mountpoint=%s error=%s", mount.mountpoint, error)

    def forget(self, mount: Mount) -> None:
        """Take note that somebody else has unmounted it."""
        if self.table.get(mount.mountpoint) is mount:
            self.table.remove(mount.mountpoint)

    @asynccontextmanager
    async def _turn(self, place: str) -> AsyncIterator[None]:
        lock = self._turns.setdefault(place, trio.Lock())
        self._waiting[place] = self._waiting.get(place, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[place] -= 1
            if not self._waiting[place]:
                del self._waiting[place], self._turns[place]

    async def _real(self, place: str) -> str:
        """Return `place` without symbolic links, unless it belongs to a mount of ours, which is not asked."""
        if self.table.get(place) is not None or self.table.above(place) is not None:
            return place
        with trio.move_on_after(LOOK_LIMIT_S):
            return await trio.to_thread.run_sync(os.path.realpath, place, abandon_on_cancel=True)
        raise MountFailed(f"{place} does not answer: something on the way there hangs")

    async def _is_same(self, old: Mount, wanted: Mount) -> bool:
        """Tell whether `old` serves what is wanted, waiting for a worker that is just starting.

        One that somebody has just unmounted by hand serves nothing, even if its end is not noted yet.
        """
        if (old.key, old.version, old.options) != (wanted.key, wanted.version, wanted.options):
            return False
        with trio.move_on_after(STARTING_LIMIT_S):
            while old.state == "starting":  # noqa: ASYNC110 - a restart tells nobody how it goes on
                await trio.sleep(0.05)
        return old.state == "ok" and self._workers.running(old.mountpoint) and is_ours(old.mountpoint)

    async def _take_off(self, old: Mount, wanted: Mount) -> None:
        if old.state != "dead" and old.key != wanted.key:
            raise _busy(old)
        if old.state != "dead" or self._workers.running(old.mountpoint):
            await self._workers.stop(old, force=old.state == "dead")
        self.table.remove(old.mountpoint)

    async def _put_back(self, old: Mount) -> None:
        """Mount again what was taken off for a mount that failed."""
        self.table.add(old)
        try:
            await self._workers.start(old)
        except (DriveError, OSError) as error:
            self.table.remove(old.mountpoint)
            _log.error("mount not put back mountpoint=%s error=%s", old.mountpoint, error)

    async def _check_free(self, place: str, *, cover: bool) -> None:
        """Make sure that `place` is a directory on which nothing is mounted; a dead mount of ours is taken off.

        Without `cover` it has to be empty.
        """
        outer = self.table.above(place)
        if outer is not None:
            raise MountFailed(f"{place} lies inside a mounted drive ({outer.mountpoint}): choose a place outside of it")
        await self._heal(place)
        if (there := mounted_at(place)) is not None:
            raise MountFailed(f"{place} is busy: {there.source} ({there.kind}) is mounted there; choose another place")
        try:
            status = await _look(place)
        except FileNotFoundError:
            raise NotFound(f"the mountpoint does not exist ({place}): make it with mkdir -p") from None
        except OSError as error:
            raise MountFailed(f"{place} cannot be used as a mountpoint: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise UnusablePlace(f"the mountpoint is not a directory ({place}): choose an empty directory")
        if not cover and await _holds_something(place):
            raise UnusablePlace(
                f"the mountpoint is not empty ({place}): choose another one, or cover it with -o nonempty"
            )

    async def _heal(self, place: str) -> bool:
        """Take a mount off that no process serves any more; tell whether there was one."""
        if self._workers.running(place) or not await _is_dead(place):
            return False
        _log.warning("dead mount taken off mountpoint=%s", place)
        await detach_dead(place)
        return True


def wanted_mount(place: str, options: dict[str, Any]) -> tuple[str, MountOptions]:
    """Return place and options of a mount, checked. Raises: InvalidPath, DriveError."""
    timeout_s = options.get("timeout_s")
    if timeout_s is not None and not 0 < float(timeout_s) < float("inf"):
        raise DriveError(f"timeout {timeout_s!r} is not a number of seconds above 0")
    return _normal(place), MountOptions(
        read_only=bool(options.get("read_only")),
        allow_other=bool(options.get("allow_other")),
        timeout_s=None if timeout_s is None else float(timeout_s),
    )


def _busy(old: Mount) -> MountFailed:
    return MountFailed(
        f"{old.mountpoint} is busy: drive {short(old.key)} is mounted there; unmount it first, or choose another place"
    )


def _normal(place: str) -> str:
    if not os.path.isabs(place) or "\0" in place:
        raise InvalidPath(f"the mountpoint has to be an absolute path ({place!r})")
    return os.path.normpath("/" + place.lstrip("/"))


async def _is_dead(place: str) -> bool:
    """Tell whether a drive is mounted at `place` whose process has gone.

    Raises: MountFailed when what is there does not answer.
    """
    with trio.move_on_after(LOOK_LIMIT_S):
        return await trio.to_thread.run_sync(is_dead, place, abandon_on_cancel=True)
    raise MountFailed(f"{place} does not answer: something is mounted there that hangs")


async def _holds_something(place: str) -> bool:
    """Tell whether a directory has entries; one that we may not read passes."""

    def look() -> bool:
        try:
            with os.scandir(place) as entries:
                return any(entries)
        except OSError:
            return False

    with trio.move_on_after(LOOK_LIMIT_S):
        return await trio.to_thread.run_sync(look, abandon_on_cancel=True)
    raise MountFailed(f"{place} does not answer: something is mounted there that hangs")


async def _look(place: str) -> os.stat_result:
    """Return what `place` is. Raises: OSError, MountFailed when there is no answer in time."""
    with trio.move_on_after(LOOK_LIMIT_S):
        return await trio.to_thread.run_sync(os.lstat, place, abandon_on_cancel=True)
    raise MountFailed(f"{place} does not answer: something is mounted there that hangs")
