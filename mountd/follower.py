"""Keeps a mount true to its drive: opens the drive, then tells the caches of us and the kernel what has changed.

The kernel is told exactly the entries whose meaning changed. A directory that stays is never dropped, only its
attributes: dropping it would make it "deleted" for every process that works in it.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import trio

from ddrive.errors import DriveError, NotFound
from mountd.face import DriveFace, NestingFace
from mountd.inodes import Inode, identity_of, to_bytes
from mountd.nested import NestedFollower
from mountd.vfs import Vfs

log = logging.getLogger(__name__)

RETRY_S = 1.0
EMPTY_VERSION = 1  # a drive with its header only; before it, nothing is known of a drive
COMPARE_LIMIT_S = 1.0  # a change has to be seen within two seconds: when it cannot be told what changed, all may have


class KernelCache(Protocol):
    """What the kernel remembers of the mount. Plain calls that neither block nor raise."""

    def drop_entry(self, parent: int, name: bytes) -> None:
        """Forget what is, or is not, at `name` in a directory."""

    def drop_attributes(self, number: int) -> None:
        """Forget the attributes of an inode, not its pages."""


class Follower:
    """One mount's watch over its drive."""

    def __init__(self, vfs: Vfs, kernel: KernelCache) -> None:
        self._vfs = vfs
        self._kernel = kernel

    async def run(self, open_drive: Callable[[], Awaitable[DriveFace]]) -> None:
        """Open the drive, however long it takes, then follow it and the drives nested in it.

        Ends only for a version that cannot change and holds no nested drives.
        """
        drive = await self._open(open_drive)
        known = drive.version
        self._vfs.set_drive(drive)
        await self._show_root(drive)
        log.info("drive is open: version=%d", known)
        async with trio.open_nursery() as nursery:
            if isinstance(drive, NestingFace):
                nursery.start_soon(NestedFollower(self._vfs, self, drive).run)
            await self._follow(drive, known)

    async def _follow(self, drive: DriveFace, known: int) -> None:
        while not self._vfs.fixed:
            try:
                known = await self._catch_up(drive, known)
                self._vfs.followed = True
                while True:
                    await drive.metadata.wait_length(known + 1)
                    known = await self._catch_up(drive, known)
            except Exception:
                log.exception("following the drive failed, trying again: version=%d", known)
            self._vfs.followed = False
            await trio.sleep(RETRY_S)

    async def _open(self, open_drive: Callable[[], Awaitable[DriveFace]]) -> DriveFace:
        while True:
            try:
                return await open_drive()
            except (DriveError, OSError) as problem:
                log.info("drive cannot be opened yet: why=%s", problem)
                self._vfs.set_failure(problem)
            except Exception as fault:
                log.exception("opening the drive failed, which is a fault of ours")
                self._vfs.set_failure(fault)
            await trio.sleep(RETRY_S)

    async def _catch_up(self, drive: DriveFace, known: int) -> int:
        """Return the version that the caches are true to now."""
        version = drive.version
        if version == known:
            return known
        paths = await self._compare(drive, known) if known > EMPTY_VERSION else None
        if paths is None:
            self.forget_all()
        elif paths:
            await self.forget(drive, paths)
        if paths is None or paths:
            await self._show_root(drive)
        return version

    async def _compare(self, drive: DriveFace, known: int) -> Sequence[str] | None:
        """Return which paths changed since version `known`, None when that takes too long to find out."""
        with trio.move_on_after(COMPARE_LIMIT_S):
            try:
                return await drive.changed(known)
            except DriveError as problem:
                log.info("changes unknown, dropping all caches: since=%d why=%s", known, problem)
        return None

    async def _show_root(self, drive: DriveFace) -> None:
        """Give the root the times that the drive has for it, if that is known without waiting."""
        with trio.move_on_after(COMPARE_LIMIT_S), suppress(DriveError):
            stat = await drive.lstat("/")
            if stat.mtime_ms:
                self._vfs.date_root(stat)
                self._kernel.drop_attributes(self._vfs.inodes.root.number)

    async def forget(self, drive: DriveFace, paths: Iterable[str]) -> None:
        """Drop what is known about `paths` and the directories above them."""
        self._vfs.epoch += 1
        directories: dict[int, Inode] = {}
        dropped: set[tuple[int, str]] = set()
        for path in paths:
            inode = self._vfs.inodes.root
            for name in filter(None, path.split("/")):
                self._doubt(inode)
                child = inode.children.get(name)
                if child is not None and child.is_dir:
                    directories[child.number] = inode = child
                    continue
                dropped.add((inode.number, name))
                if child is not None:
                    self._doubt(child)
                break
            else:
                self._doubt(inode)
        for number, name in dropped:
            self._kernel.drop_entry(number, to_bytes(name))
        for directory in directories.values():
            await self._check(drive, directory)

    async def _check(self, drive: DriveFace, directory: Inode) -> None:
        """Drop a directory that is gone or another now; of one that stays drop the attributes."""
        parent = directory.parent
        if parent is None or not directory.attached:
            return
        stat = None
        with trio.move_on_after(COMPARE_LIMIT_S) as limit:
            try:
                stat = await drive.lstat(directory.path)
            except NotFound:
                log.debug("directory is gone: inode=%d", directory.number)
            except DriveError as problem:
                log.info("directory cannot be checked: inode=%d why=%s", directory.number, problem)
                return
        if limit.cancelled_caught or (stat is not None and identity_of(stat) == directory.identity):
            self._kernel.drop_attributes(directory.number)
            return
        self._kernel.drop_entry(parent.number, to_bytes(directory.name))
        self._vfs.inodes.detach(directory)

    def forget_all(self) -> None:
        """Drop everything that may be out of date."""
        self._vfs.epoch += 1
        for inode in self._vfs.inodes:
            self._doubt(inode)
            if inode.parent is not None and inode.attached and not inode.is_dir:
                self._kernel.drop_entry(inode.parent.number, to_bytes(inode.name))
            elif inode.is_dir:
                self._kernel.drop_attributes(inode.number)

    def _doubt(self, inode: Inode) -> None:
        """What we remember of `inode` is asked again; the root's attributes are not the drive's."""
        if inode.parent is not None:
            inode.expires = 0.0
        self._vfs.inodes.drop_listing(inode)
