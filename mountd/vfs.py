"""The POSIX meaning of a drive, by inode number: what FUSE asks, answered from caches, the disk and then the peers.

Knows nothing of pyfuse3: `operations.Operations` translates. All attributes and listings once seen are kept and used
until the drive changes; `follower.Follower` tells which paths did, in nested drives too. Where changes are not followed
(too many nested drives, a follower in trouble) answers are good for a second.
"""

import errno
import math
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import islice
from typing import Any

import trio

from ddrive.drive.stat import DIRECTORY_MODE, Stat
from ddrive.errors import (
    CorruptStorage,
    DriveError,
    IsADirectory,
    NameTooLong,
    NoPeers,
    NotADirectory,
    NotFound,
    TimedOut,
    TooManyLinks,
)
from ddrive.ids import PublicKey
from mountd.crowding import Crowding
from mountd.face import NodeFace
from mountd.handles import DirHandle, FileHandle, HandleTable, reads
from mountd.inodes import Inode, InodeTable, leads_back, to_bytes
from mountd.listing import Listing
from mountd.mounted_drive import MountedDrive
from mountd.waits import Callers, Limits, Wait, interrupted
from mountd.xattrs import LINK_AS_IS, OWN_PREFIX, given_value, names_of, own_value

NAME_BYTES_MAX = 255
FOREVER_S = 365 * 86400.0  # kernel cache of a mount that cannot change
FOLLOWED_S = 30.0  # kernel cache of a followed drive: changes are announced, this heals an announcement that was lost
UNFOLLOWED_S = 1.0  # cache of what may change without our knowing
ABSENT_S = 1.0  # kernel cache of names that do not exist in a drive that may change
SAME_CALL_S = 1.0  # a read that comes this soon after one that failed late is the kernel's second try of the same call
SECOND_TRY_S = 0.05  # how long such a read may wait
LISTED_LOOKUPS_MIN = 16  # lookups in one directory before it is listed instead
LISTED_SHARE = 64  # and at least this share of the versions of the drive
LISTED_VERSION_MAX = 100_000  # of a drive whose directories are listed unasked: two seconds at most

Emit = Callable[[bytes, Inode, float, int], bool]  # name, inode, cache time, offset of the next; False: buffer is full


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a lookup: `inode` None means that there is no such entry. `timeout_s` is for the kernel's cache."""

    inode: Inode | None
    timeout_s: float


class Vfs(MountedDrive):
    """One mounted drive. It answers before the drive is open: the root is there, all else waits."""

    def __init__(self, *, fixed: bool, mountpoint: str, state: str, limits: Limits, callers: Callers) -> None:
        """`fixed`: a version that cannot change; `state`: a directory on the disk whose free space is shown."""
        super().__init__(limits, callers)
        self.fixed = fixed
        self.inodes = InodeTable()
        self.epoch = 0  # grows with each change of the drive: an answer begun before is not kept
        self.nested_followed = False  # whether changes in all nested drives are announced too
        self.followed = fixed  # whether changes are announced, or cannot happen
        self.node_at: Callable[[str], NodeFace | None] = lambda path: None  # what was changed here and is at a path
        self.unlisted: Callable[[str, str], bool] = lambda directory, name: False  # whether listings do not show a name
        self._mountpoint = mountpoint.rstrip("/")
        self._state = state
        self.files: HandleTable[FileHandle] = HandleTable()
        self._dirs: HandleTable[DirHandle] = HandleTable()
        self._crowding = Crowding(self.inodes)
        self._waiting_reads = 0
        now_ms = int(time.time() * 1000)
        self.set_root(Stat(DIRECTORY_MODE, mtime_ms=now_ms, ctime_ms=now_ms))

    # What the world tells

    def set_root(self, stat: Stat) -> None:
        """The root has these attributes from now on."""
        self.inodes.remember(self.inodes.root, stat, math.inf)

    def date_root(self, stat: Stat) -> None:
        """The root has the times of `stat` from now on; a drive knows no other attributes of it."""
        self.set_root((self.inodes.root.stat or stat)._replace(mtime_ms=stat.mtime_ms, ctime_ms=stat.ctime_ms))

    # Attributes

    async def lookup(self, parent: int, name: str, caller: int) -> Found:
        """Return what is at `name` in a directory, and count the kernel's knowledge of it."""
        directory = self.directory(parent)
        inode, kept = await self.find(directory, name, caller)
        if inode is not None:
            inode.lookups += 1
        if not kept:
            return Found(inode, 0.0)
        return Found(inode, self.timeout_of(inode) if inode else self._absent_timeout(directory))

    async def find(self, directory: Inode, name: str, caller: int) -> tuple[Inode | None, bool]:
        """Return what is at `name` in a directory, None for nothing, and whether that stays true until told."""
        if len(name) * 4 > NAME_BYTES_MAX and len(to_bytes(name)) > NAME_BYTES_MAX:
            raise NameTooLong(f"the name {name[:40]!r}… is longer than {NAME_BYTES_MAX} bytes")
        now = trio.current_time()
        inode = directory.children.get(name)
        if inode is None or inode.stat is None or inode.expires <= now:
            listing = directory.listing if directory.listing_expires > now else None
            beyond = (listing is None or name not in listing.by_name) and self.unlisted(directory.path, name)
            if listing is not None and not beyond:
                stat = listing.by_name.get(name)
                inode = None if stat is None else self.bind(directory, name, stat)
            elif not beyond and self._worth_listing(directory):
                stat = (await self._listing(directory, caller)).by_name.get(name)
                inode = None if stat is None else self.bind(directory, name, stat)
            else:
                epoch = self.epoch
                return await self._ask_entry(directory, name, caller), epoch == self.epoch
        return inode, True

    async def getattr(self, number: int, caller: int) -> Inode:
        """Return an inode whose `stat` holds its attributes as of now, or as last seen if its content was replaced."""
        inode = self.inodes.get(number)
        if inode.stat is not None and (inode.expires > trio.current_time() or not inode.attached):
            return inode
        if not inode.attached or inode.parent is None:
            raise OSError(errno.ESTALE, f"{inode.path} was replaced")
        current = await self._ask_entry(inode.parent, inode.name, caller)
        if inode.stat is None:
            raise OSError(errno.ESTALE, f"{inode.path} was replaced")
        if current is None and not inode.handles:
            raise NotFound(f"{inode.path} does not exist any more")
        return inode

    def timeout_of(self, inode: Inode) -> float:
        """Return how long the kernel may keep what it is told of `inode`, in seconds."""
        if not self.followed or self._unannounced(inode):
            return UNFOLLOWED_S
        return FOREVER_S if (self.fixed or inode.pinned) and not inode.nested else FOLLOWED_S

    def forget(self, number: int, count: int) -> None:
        """Take back `count` lookups."""
        self.inodes.forget(number, count)

    async def readlink(self, number: int, caller: int) -> str:
        """Return the target of a symbolic link; see `target_of`."""
        inode = await self.getattr(number, caller)
        if inode.stat is None or not inode.stat.linkname:
            raise OSError(errno.EINVAL, f"{inode.path} is not a symbolic link")
        return self.target_of(inode.stat)

    def target_of(self, link: Stat) -> str:
        """Return where a symbolic link leads; absolute targets are meant from the drive's root, as with npm mounts."""
        target = link.linkname or ""
        return self._mountpoint + target if target.startswith("/") and LINK_AS_IS not in link.metadata else target

    def link_name(self, target: str) -> tuple[str, bool]:
        """Return how a link to `target` is stored, and whether that is marked to be shown as it is."""
        if target.startswith(self._mountpoint + "/"):
            return target.removeprefix(self._mountpoint), False
        return target, target.startswith("/")

    def statfs(self) -> os.statvfs_result:
        """Return the figures of the disk that holds the state directory."""
        return os.statvfs(self._state)

    # Extended attributes

    async def listxattr(self, number: int, caller: int) -> list[str]:
        """Return the names of the extended attributes."""
        inode = await self.getattr(number, caller)
        return names_of(inode.stat) if inode.stat is not None else []

    async def getxattr(self, number: int, name: str, caller: int) -> bytes:
        """Return the value of an extended attribute.

        Raises: OSError (ENODATA) when there is none of that name.
        """
        inode = await self.getattr(number, caller)
        value = None
        if name == f"{OWN_PREFIX}key" and (nested := await self._nested_key(inode, caller)) is not None:
            value = nested.hex().encode()
        elif inode.stat is not None and name.startswith(OWN_PREFIX):
            value = await self.ask(self._own_value(inode, inode.stat, name.removeprefix(OWN_PREFIX)), inode, caller)
        elif inode.stat is not None:
            value = given_value(inode.stat, name)
        if value is None:
            raise OSError(errno.ENODATA, f"no attribute {name}")
        return value

    async def _nested_key(self, inode: Inode, caller: int) -> PublicKey | None:
        """Return the key of the nested drive that shows an entry, None when the mounted one does."""
        place: Inode | None = inode
        while place is not None:
            stat = place.stat or (await self.getattr(place.number, caller)).stat
            if stat is not None and stat.mount is not None and not stat.mount.feed:
                return stat.mount.key
            place = place.parent
        return None

    async def _own_value(self, inode: Inode, stat: Stat, name: str) -> bytes | None:
        return await own_value(await self.ready(), inode.path, stat, name)

    # Directories

    async def opendir(self, number: int, caller: int) -> int:
        """Return a handle for reading a directory; its listing is made now, so that it cannot fail half way."""
        inode = self.directory(number)
        await self._crowding.room()
        await self._listed(handle := DirHandle(inode, caller))
        self.inodes.opened(inode)
        return self._dirs.add(handle)

    async def readdir(self, fh: int, start: int, emit: Emit) -> None:
        """Hand the entries from offset `start` on to `emit` until it returns False. Offsets hold while `fh` is open."""
        handle = self._dirs.get(fh)
        if start == 0 or not handle.entries:  # rewinddir shows what is there now
            handle.epoch = self.epoch
            handle.entries = (await self._listed(handle)).entries
        directory, current = handle.inode, handle.epoch == self.epoch
        timeout, expires = (self.timeout_of(directory), self.expiry(directory)) if current else (0.0, 0.0)
        dots = ((b".", directory), (b"..", directory.parent or directory))
        if not all(emit(name, inode, 0.0, offset) for offset, (name, inode) in enumerate(dots[start:], start + 1)):
            return
        start = max(start, len(dots))
        for offset, (name, stat) in enumerate(islice(handle.entries, start - len(dots), None), start + 1):
            known, inode = timeout, None if current else directory.children.get(name)
            if inode is None or inode.stat is None:
                inode = self.inodes.bind(directory, name, stat, expires=expires)
            if stat.mount is not None:
                inode.expires = self.expiry(inode) if current else 0.0
                known = min(timeout, self.timeout_of(inode))
            if not emit(to_bytes(name), inode, known, offset):
                self.inodes.drop_unused(inode)
                return
            inode.lookups += 1

    def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self.inodes.closed(self._dirs.remove(fh).inode)

    async def _listed(self, handle: DirHandle) -> Listing:
        inode = handle.inode
        if inode.removed:
            return Listing(())  # a program may still be in it, and what has its name now is another one
        if not inode.attached:
            raise NotFound(f"{inode.path} does not exist any more")
        return await self._listing(inode, handle.opener)

    async def _listing(self, inode: Inode, caller: int) -> Listing:
        """Return what is in a directory, and keep it unless the drive changed meanwhile."""
        listing = inode.listing
        if listing is None or inode.listing_expires <= trio.current_time():
            epoch = self.epoch
            here = self._drive is not None and not inode.foreign and self._is_held(self._drive)
            listing = Listing(await self.ask(self._list(inode.path), inode, caller, here=here))
            if epoch == self.epoch:
                self.inodes.remember_listing(inode, listing, self.expiry(inode))
        return listing

    def _worth_listing(self, directory: Inode) -> bool:
        """Tell whether so many names were looked up in a directory that listing it is the quicker way.

        A lookup costs about 50 us, an entry of a listing 20, and no directory has more entries than its drive has
        versions. Only where that takes neither a peer nor long.
        """
        drive = self._drive
        if drive is None or directory.foreign or not self.followed:
            return False
        directory.lookups_below += 1
        version = drive.version
        if directory.lookups_below < max(LISTED_LOOKUPS_MIN, version // LISTED_SHARE) or version > LISTED_VERSION_MAX:
            return False
        directory.lookups_below = 0
        return self._is_held(drive)

    # Files

    async def open(self, number: int, caller: int) -> int:
        """Return a handle for reading a file.

        Raises: OSError (ESTALE) when the number stands for a content that was replaced meanwhile: the kernel then
        looks the path up again and opens what is there now.
        """
        inode = self.inodes.get(number)
        if inode.is_dir:
            raise IsADirectory(f"{inode.path} is a directory")
        if inode.node is None and inode.attached:
            inode.node = self.node_at(inode.path)
        if inode.node is not None:
            return self.add_handle(FileHandle(inode, inode.node, caller))
        stat = (await self.getattr(number, caller)).stat
        if not inode.attached or inode.parent is None:
            raise OSError(errno.ESTALE, f"{inode.path} was replaced")
        known = None if inode.foreign else stat
        reader = await self.ask(self._open(inode.path, known), inode, caller)
        if stat is None or not reads(reader, stat):
            await reader.aclose()
            inode.expires = 0.0
            self.inodes.drop_listing(inode.parent)
            raise OSError(errno.ESTALE, f"{inode.path} was replaced")
        return self.add_handle(FileHandle(inode, reader, caller))

    def add_handle(self, handle: FileHandle) -> int:
        """Return the number of a file that is open now."""
        self.inodes.opened(handle.inode)
        return self.files.add(handle)

    async def read(self, fh: int, offset: int, size: int) -> bytes:
        """Return `size` bytes of an open file from `offset`; fewer only at its end, never for want of data."""
        handle = self.files.get(fh)
        reader = handle.inode.node or handle.reader  # the newest bytes if it was changed here
        data = reader.begin_read(offset, size)
        if not isinstance(data, bytes):
            data = await self._awaited(data, handle)
        if handle.inode.node is None and len(data) != min(size, max(0, reader.size - offset)):
            raise CorruptStorage(f"{handle.inode.path} gave {len(data)} bytes at {offset} where {size} were asked for")
        return data

    async def _awaited(self, work: Coroutine[Any, Any, bytes], handle: FileHandle) -> bytes:
        """Return what a read returns that has to wait."""
        wait = Wait(handle.opener, handle.inode, shared=True, givers=self.givers_of_content(handle.reader.feed))
        limit_s = self.limits.deadline_s
        if handle.failure is not None and trio.current_time() - handle.failed_at < SAME_CALL_S:
            if isinstance(handle.failure, OSError) and self.waits.is_interrupted(wait):
                work.close()
                raise interrupted()
            if isinstance(handle.failure, DriveError):
                limit_s = SECOND_TRY_S
        if self._waiting_reads >= self.limits.max_waiting_reads:
            work.close()
            raise self.waits.late(wait)
        self._waiting_reads += 1
        try:
            return await self.waits.bounded(work, wait, limit_s=limit_s, unconnected_limit_s=limit_s)
        except (TimedOut, NoPeers, InterruptedError) as failure:
            if limit_s > SECOND_TRY_S:
                handle.failure, handle.failed_at = failure, trio.current_time()
            raise handle.failure or failure from None
        finally:
            self._waiting_reads -= 1

    async def release(self, fh: int) -> None:
        """Close a file: nothing is fetched for it any more."""
        handle = self.files.remove(fh)
        self.inodes.closed(handle.inode)
        await handle.reader.aclose()

    async def aclose(self) -> None:
        """Close all files; operations that still wait end with an error first."""
        await self.waits.aclose(OSError(errno.EIO, "the file system is being unmounted"))
        for handle in self.files.clear():
            await handle.reader.aclose()

    # The drive

    async def _ask_entry(self, directory: Inode, name: str, caller: int) -> Inode | None:
        """Return the inode for what the drive has at `name`, None when it has nothing."""
        epoch, former = self.epoch, directory.children.get(name)
        stat = await self.ask(self._lstat(directory.child_path(name)), directory, caller)
        if stat is not None:
            return self.bind(directory, name, stat, keep=epoch == self.epoch)
        if former is not None and directory.children.get(name) is former:
            self.inodes.detach(former)
        return None

    def bind(self, directory: Inode, name: str, stat: Stat, *, keep: bool = True) -> Inode:
        """Return the inode for what is at a name; with `keep` that is true until a change is told."""
        inode = self.inodes.bind(directory, name, stat)
        inode.expires = self.expiry(inode) if keep else 0.0
        return inode

    def _unannounced(self, inode: Inode) -> bool:
        """Tell whether `inode` may change without our hearing of it; a plain feed shown as a file always may."""
        feed = inode.stat is not None and inode.stat.mount is not None and inode.stat.mount.feed
        return inode.nested and (feed or inode.pinned or not self.nested_followed)

    def expiry(self, inode: Inode) -> float:
        """Return until when attributes of `inode` that were just told are good."""
        if self.followed and not self._unannounced(inode):
            return math.inf
        return trio.current_time() + UNFOLLOWED_S

    def _absent_timeout(self, directory: Inode) -> float:
        return FOREVER_S if self.fixed and not directory.nested else ABSENT_S

    def directory(self, number: int) -> Inode:
        """Return the directory with that number. Raises: NotADirectory, OSError (ESTALE), TooManyLinks for a circle."""
        inode = self.inodes.get(number)
        if not inode.is_dir:
            raise NotADirectory(f"{inode.path} is not a directory")
        if self._drive is not None and leads_back(inode, self._drive.key):
            raise TooManyLinks(f"{inode.path} leads back into a drive that it is in")
        return inode
