"""Keeps a mount true to the drives nested in its drive: each one that was looked into is followed.

While all of them are, entries of nested drives are remembered as long as others; when there are too many, or following
one fails, they are good for a second again.
"""

import logging
from collections.abc import Iterable
from typing import Protocol

import trio

from ddrive.errors import DriveError
from mountd.face import DriveFace, NestedDrivesFace, NestedFace, NestingFace
from mountd.vfs import Vfs

log = logging.getLogger(__name__)

RETRY_S = 1.0
COMPARE_LIMIT_S = 1.0  # as for the outer drive


class Forgetting(Protocol):
    """Who drops what is remembered of a mount: `follower.Follower`."""

    async def forget(self, drive: DriveFace, paths: Iterable[str]) -> None: ...
    def forget_all(self) -> None: ...


class NestingDrive(DriveFace, NestingFace, Protocol):
    """A drive with drives in it."""


class NestedFollower:
    """The watch over all nested drives of one mount."""

    def __init__(self, vfs: Vfs, caches: Forgetting, drive: NestingDrive) -> None:
        self._vfs = vfs
        self._caches = caches
        self._drive = drive
        self._failing: set[str] = set()
        self._tasks: dict[str, tuple[NestedFace, trio.CancelScope]] = {}

    async def run(self) -> None:
        """Follow every nested drive from when it is looked into, until cancelled."""
        while True:
            try:
                nested = await self._drive.nested()
                break
            except DriveError as problem:
                log.info("nested drives are not known yet: why=%s", problem)
                await trio.sleep(RETRY_S)
        async with trio.open_nursery() as nursery:
            while True:
                for found in nested.drives():
                    self._begin(found, nested, nursery)
                self._judge(nested)
                await nested.more()

    def _begin(self, found: NestedFace, nested: NestedDrivesFace, nursery: trio.Nursery) -> None:
        known = self._tasks.get(found.path)
        if known is not None and known[0] == found:
            return
        if known is not None:
            known[1].cancel()  # another drive is there now
        scope = trio.CancelScope()
        self._tasks[found.path] = found, scope
        nursery.start_soon(self._follow, found, nested, scope)

    def _judge(self, nested: NestedDrivesFace) -> None:
        followed = nested.complete and not self._failing
        if self._vfs.nested_followed and not followed:
            self._caches.forget_all()
        self._vfs.nested_followed = followed

    async def _follow(self, found: NestedFace, nested: NestedDrivesFace, scope: trio.CancelScope) -> None:
        known = found.seen
        log.info("following a nested drive: path=/%s version=%d", found.path, known)
        with scope:
            while True:
                try:
                    while True:
                        if found.version > known:
                            known = await self._catch_up(found, known)
                        self._failing.discard(found.path)
                        self._judge(nested)
                        await found.wait_version(known + 1)
                except Exception:
                    log.exception("following a nested drive failed, trying again: path=/%s", found.path)
                self._failing.add(found.path)
                self._judge(nested)
                await trio.sleep(RETRY_S)

    async def _catch_up(self, found: NestedFace, known: int) -> int:
        """Drop what changed since version `known`; return the version that the caches are true to now."""
        version = found.version
        paths = None
        with trio.move_on_after(COMPARE_LIMIT_S):
            try:
                paths = await found.changed(known)
            except DriveError as problem:
                log.info("changes unknown, dropping all caches: path=/%s why=%s", found.path, problem)
        if paths is None:
            self._caches.forget_all()
        else:
            await self._caches.forget(self._drive, paths)
        return version
