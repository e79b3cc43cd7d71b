"""The drive behind a mount: it may not be open yet, and every question to it ends within the limits of the mount."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import trio

from ddrive.drive.stat import Stat
from ddrive.errors import NotFound
from ddrive.ids import BlockIndex
from mountd.face import DriveFace, EntryFace, FeedFace, ReaderFace
from mountd.inodes import Inode
from mountd.waits import Callers, Limits, Wait, Waits

HERE_S = 300.0  # for listing what is held; 100,000 entries take about 5

T = TypeVar("T")


class MountedDrive:
    """What asks the drive of one mount, for callers (process ids) who may be killed while they wait."""

    def __init__(self, limits: Limits, callers: Callers) -> None:
        self.limits = limits
        self.metadata: FeedFace | None = None  # known before the drive is
        self.stranded: Callable[[], bool] = lambda: False  # whether blocks are wished for that nobody can send
        self.waits = Waits(callers, connected=self.connected, stranded=lambda: self.stranded())
        self._drive: DriveFace | None = None
        self._failure: Exception | None = None
        self._opened = trio.Event()

    def set_drive(self, drive: DriveFace) -> None:
        """The drive is open: operations that wait for it go on."""
        self._drive = drive
        self.metadata = drive.metadata
        self._failure = None
        self._opened.set()

    def set_failure(self, failure: Exception) -> None:
        """The drive cannot be opened for now: operations fail with `failure` until it is."""
        self._failure = failure
        self._opened.set()
        self._opened = trio.Event()

    def connected(self) -> bool:
        """Tell whether a peer of this drive is connected."""
        return self.metadata is not None and self.metadata.peer_count > 0

    async def ask(self, work: Coroutine[Any, Any, T], inode: Inode, caller: int, *, here: bool = False) -> T:
        """Return what `work` returns, within the limits of this mount. Raises: as `waits.Waits.bounded`.

        Work on what is `here` waits for nobody and has as much time as a drive of millions of entries needs.
        """
        if here:
            limit_s = max(HERE_S, self.limits.deadline_s)
            return await self.waits.bounded(work, Wait(caller, inode, shared=False), limit_s=limit_s)
        limit_s = self.limits.deadline_s
        wait = Wait(caller, inode, shared=False)
        return await self.waits.bounded(
            work, wait, limit_s=limit_s, unconnected_limit_s=min(limit_s, self.limits.meta_timeout_s)
        )

    async def ready(self) -> DriveFace:
        """Return the drive as soon as it is open. Raises: why it cannot be opened."""
        while self._drive is None:
            if self._failure is not None:
                raise self._failure
            await self._opened.wait()
        return self._drive

    async def _lstat(self, path: str) -> Stat | None:
        drive = await self.ready()
        try:
            return await drive.lstat(path)
        except NotFound:
            return None

    async def _list(self, path: str) -> Sequence[EntryFace]:
        drive = await self.ready()
        return await drive.list(path)

    async def _open(self, path: str, stat: Stat | None) -> ReaderFace:
        drive = await self.ready()
        return await drive.open(path, stat)

    @staticmethod
    def _is_held(drive: DriveFace) -> bool:
        """Tell whether all entries of the drive itself are held here, so that looking at them waits for nobody.

        Of a drive without a block nothing is known yet, and the first one has to come from somebody.
        """
        return 0 < drive.version == drive.metadata.held(BlockIndex(0), BlockIndex(drive.version))
