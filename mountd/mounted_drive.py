"""The drive behind a mount: it may not be open yet, and every question to it ends within the limits of the mount."""

import math
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import trio

from ddrive.drive.stat import Stat
from ddrive.errors import NoPeers, NotFound
from ddrive.ids import BlockIndex, PublicKey
from ddrive.store.attached import Supply
from mountd.face import DriveFace, EntryFace, FeedFace, ReaderFace
from mountd.inodes import Inode
from mountd.waits import IN_VAIN_S, Callers, Givers, Limits, Wait, Waits

HERE_S = 300.0  # for listing what is held; 100,000 entries take about 5
FOUND_S = 8.0  # for a nested drive of which nothing is here: after up to 4 s (`finding.LOOK_S`) strangers are asked
ABSENT_S = 0.05  # for a nested drive of which nothing is here, after one operation waited in vain for any of it
WALK_S = 10.0  # another nested drive that is looked into so soon after that gets little time too: somebody walks a tree
NOTHING = Supply(0, 0, is_wanted=False)

T = TypeVar("T")


class MountedDrive:
    """What asks the drive of one mount, for callers (process ids) who may be killed while they wait."""

    def __init__(self, limits: Limits, callers: Callers) -> None:
        self.limits = limits
        self.metadata: FeedFace | None = None  # known before the drive is
        self.stranded: Callable[[], bool] = lambda: False  # whether blocks are wished for that nobody can send
        self.supply: Callable[[PublicKey], Supply | None] = lambda key: None  # of the entries of a nested drive
        self.waits = Waits(callers, connected=self.connected, stranded=lambda: self.stranded())
        self._nested: dict[PublicKey, Givers] = {}  # of the nested drives that were asked
        self._contents: weakref.WeakKeyDictionary[FeedFace, Givers] = weakref.WeakKeyDictionary()
        self._absent_at = -math.inf  # when somebody waited last for a nested drive of which nothing is here
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
        unconnected_limit_s = min(limit_s, self.limits.meta_timeout_s)
        key = _nested_key(inode)
        supply = None if key is None else self.supply(key)
        if key is None or supply is None:
            wait = Wait(caller, inode, shared=False)
            return await self.waits.bounded(work, wait, limit_s=limit_s, unconnected_limit_s=unconnected_limit_s)
        givers = self._givers_of(key)
        if not supply.length:  # whatever the peers of other drives are: it takes somebody who has this one
            if not math.isinf(givers.in_vain_since):
                limit_s = ABSENT_S
            elif trio.current_time() - self._absent_at < WALK_S:
                unconnected_limit_s = min(unconnected_limit_s, IN_VAIN_S)
            elif self.connected():
                unconnected_limit_s = min(limit_s, FOUND_S)
        wait = Wait(caller, inode, shared=False, givers=givers)
        try:
            return await self.waits.bounded(work, wait, limit_s=limit_s, unconnected_limit_s=unconnected_limit_s)
        except NoPeers:
            if limit_s > ABSENT_S and not self._supply(key).length:
                self._absent_at = givers.in_vain_since = trio.current_time()
            raise

    def _givers_of(self, key: PublicKey) -> Givers:
        """Return who can give the entries of a nested drive. A peer without any of it is nobody, connected or not."""
        givers = self._nested.get(key)
        if givers is None:
            givers = self._nested[key] = Givers(
                connected=lambda: bool(self._supply(key).peers and self._supply(key).length),
                stranded=lambda: self._supply(key).is_wanted,
            )
        givers.look()
        return givers

    def givers_of_content(self, content: FeedFace) -> Givers | None:
        """Return who can give the bytes of a file: None for the peers of the drive, unless none has any of its feed.

        A drive can name a feed that nobody has; and who has looked at the entries of one only has no bytes to give.
        """
        if content.giver_count or not self.connected():
            return None
        givers = self._contents.get(content)
        if givers is None:
            known = weakref.ref(content)

            def connected() -> bool:
                feed = known()
                return feed is not None and feed.giver_count > 0

            givers = self._contents[content] = Givers(connected, stranded=lambda: True)
        return givers

    def _supply(self, key: PublicKey) -> Supply:
        return self.supply(key) or NOTHING

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


def _nested_key(inode: Inode) -> PublicKey | None:
    """Return the key of the nested drive that `inode` is in, None for the mounted one or when that is not known."""
    place: Inode | None = inode if inode.foreign else None
    while place is not None and place.foreign:
        if place.stat is not None and place.stat.mount is not None and place.is_dir:
            return place.stat.mount.key
        place = place.parent
    return None
