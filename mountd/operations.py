"""FUSE requests ↔ `Vfs`: types, attributes and errors, nothing else.

Every handler is wrapped: whatever it raises becomes an errno, because an exception that pyfuse3 does not know ends the
mount. Requests that would change something answer EROFS.
"""

import errno
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, StatvfsData

from ddrive.drive.stat import DIRECTORY_MODE
from ddrive.errors import InvalidName
from mountd.awake import Awake
from mountd.errnos import is_expected, to_errno
from mountd.inodes import Inode, to_bytes
from mountd.vfs import Vfs

log = logging.getLogger(__name__)

BLOCK_BYTES = 65536  # what `st_blksize` recommends: the size of most blocks
SECTOR_BYTES = 512  # unit of `st_blocks`
NS_PER_MS = 1_000_000
QUIET = frozenset({errno.ENOENT, errno.ENODATA, errno.EOPNOTSUPP, errno.ESTALE, errno.EINTR, errno.EROFS})

P = ParamSpec("P")
R = TypeVar("R")


def answered(handler: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return `handler` with every exception turned into an errno; cancellation passes through."""

    @wraps(handler)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:
            number = to_errno(error, reading=True)
            if not is_expected(error):
                log.exception("request failed, which is a fault of ours: operation=%s", handler.__name__)
            elif number not in QUIET:
                log.info("request refused: operation=%s errno=%s why=%s", handler.__name__, number, error)
            raise FUSEError(number) from None

    return guarded


def decoded(name: bytes) -> str:
    """Return `name` as text. Raises: InvalidName when it is not UTF-8: no drive has such names."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InvalidName(f"the name {name[:40]!r} is not UTF-8") from None


class Operations(pyfuse3.Operations):
    """The request handlers of one mount."""

    supports_dot_lookup = False  # only needed to export the mount over NFS

    def __init__(self, vfs: Vfs, *, uid: int, gid: int) -> None:
        """`uid` and `gid` own every entry: whoever mounted, as with the npm mounts."""
        super().__init__()
        self.awake = Awake()
        self._vfs = vfs
        self._uid = uid
        self._gid = gid

    @answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Return the entry at `name`; one with inode 0 lets the kernel remember that there is none."""
        self.awake.note()
        found = await self._vfs.lookup(parent_inode, decoded(name), ctx.pid)
        if found.inode is None:
            absent = EntryAttributes()
            absent.st_ino = 0
            absent.entry_timeout = found.timeout_s
            return absent
        return self._attributes(found.inode, found.timeout_s)

    @answered
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Return the attributes of an inode."""
        self.awake.note()
        found = await self._vfs.getattr(inode, ctx.pid)
        return self._attributes(found, self._vfs.timeout_of(found))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take back lookups. Nothing waits for an answer, so nothing may be raised."""
        try:
            for number, count in inode_list:
                self._vfs.forget(number, count)
        except Exception:
            log.exception("request failed, which is a fault of ours: operation=forget")

    @answered
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Return the target of a symbolic link."""
        return to_bytes(await self._vfs.readlink(inode, ctx.pid))

    @answered
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        """Allow: the kernel has checked the permission bits (`default_permissions`)."""
        return True

    @answered
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Return a directory handle."""
        return await self._vfs.opendir(inode, ctx.pid)

    @answered
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """Fill the kernel's buffer with entries and their attributes."""

        def emit(name: bytes, inode: Inode, timeout_s: float, following: int) -> bool:
            about = _dots(inode) if name in (b".", b"..") else self._attributes(inode, timeout_s)
            return bool(pyfuse3.readdir_reply(token, name, about, following))

        await self._vfs.readdir(fh, start_id, emit)

    @answered
    async def releasedir(self, fh: int) -> None:
        """Close a directory handle."""
        self._vfs.releasedir(fh)

    @answered
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Return a file handle; cached pages stay good, as an inode number stands for one content."""
        return FileInfo(fh=await self._vfs.open(inode, flags, ctx.pid), keep_cache=True)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return bytes of a file."""
        return await self._vfs.read(fh, off, size)

    @answered
    async def release(self, fh: int) -> None:
        """Close a file handle."""
        await self._vfs.release(fh)

    @answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Return the size and free space of the disk that holds what is fetched."""
        figures = self._vfs.statfs()
        answer = StatvfsData()
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(answer, name, getattr(figures, name))
        answer.f_namemax = 255
        return answer

    @answered
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Return an extended attribute."""
        if not name.startswith(b"user."):
            raise FUSEError(errno.EOPNOTSUPP)  # `ls -l` then stops asking for security contexts and ACLs of each file
        return await self._vfs.getxattr(inode, decoded(name), ctx.pid)

    @answered
    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        """Return the names of the extended attributes."""
        return [to_bytes(name) for name in await self._vfs.listxattr(inode, ctx.pid)]

    def _attributes(self, inode: Inode, timeout_s: float) -> EntryAttributes:
        stat = inode.stat
        if stat is None:
            raise FUSEError(errno.ESTALE)
        entry = EntryAttributes()
        entry.st_ino = inode.number
        entry.entry_timeout = timeout_s
        entry.attr_timeout = timeout_s
        entry.st_mode = stat.mode
        entry.st_nlink = 2 if inode.is_dir else 1
        entry.st_uid = self._uid
        entry.st_gid = self._gid
        size = 0 if inode.is_dir else len(to_bytes(self._vfs.target_of(stat))) if stat.linkname else stat.size
        entry.st_size = size
        entry.st_blocks = (size + SECTOR_BYTES - 1) // SECTOR_BYTES
        entry.st_blksize = BLOCK_BYTES
        entry.st_atime_ns = entry.st_mtime_ns = stat.mtime_ms * NS_PER_MS
        entry.st_ctime_ns = stat.ctime_ms * NS_PER_MS
        return entry

    async def _refuse(self, *_: Any) -> NoReturn:
        """Answer what would change the drive."""
        raise FUSEError(errno.EROFS)


def _dots(inode: Inode) -> EntryAttributes:
    """Return what the kernel takes of `.` and `..`, number and kind: more may be forgotten of a directory."""
    entry = EntryAttributes()
    entry.st_ino = inode.number
    entry.st_mode = DIRECTORY_MODE
    return entry


CHANGING = (
    *("setattr", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "create", "write"),
    *("setxattr", "removexattr"),
)
for _name in CHANGING:
    setattr(Operations, _name, Operations._refuse)
