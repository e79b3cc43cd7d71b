"""FUSE requests ↔ `Vfs`: types, attributes and errors, nothing else.

Every handler is wrapped: whatever it raises becomes an errno, because an exception that pyfuse3 does not know ends the
mount.
"""

import errno
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, ReaddirToken, RequestContext, SetattrFields, StatvfsData

from ddrive.drive.stat import DIRECTORY_MODE, storable_ms
from ddrive.errors import ImpossibleEntry, InvalidName, NameTooLong
from mountd.awake import Awake
from mountd.editing import Editor
from mountd.errnos import is_expected, to_errno
from mountd.inodes import Inode, to_bytes
from mountd.openfiles import Caller
from mountd.vfs import Vfs

log = logging.getLogger(__name__)

BLOCK_BYTES = 65536  # what `st_blksize` recommends: the size of most blocks
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
SMALL_READ_BYTES = 16384  # the kernel asks for more when a reader goes through a file in order
TARGET_BYTES_MAX = 4095  # of a link: the kernel has a page for it, and ends it with a NUL
SECTOR_BYTES = 512  # unit of `st_blocks`
MOST_BYTES = (1 << 63) - 1  # the kernel takes no larger size; whoever opens such a file is told that it cannot be
NS_PER_MS = 1_000_000
QUIET = frozenset({errno.ENOENT, errno.ENODATA, errno.EOPNOTSUPP, errno.ESTALE, errno.EINTR, errno.EROFS})

CHANGING = frozenset(
    (
        *("setattr", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "create", "write"),
        *("link", "flush", "fsync", "fsyncdir", "setxattr", "removexattr"),
    )
)

P = ParamSpec("P")
R = TypeVar("R")


def answered(handler: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return `handler` with every exception turned into an errno; cancellation passes through."""
    reading = handler.__name__ not in CHANGING

    @wraps(handler)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:
            number = to_errno(error, reading=reading)
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

    def __init__(self, vfs: Vfs, editor: Editor, *, uid: int, gid: int, writable: bool) -> None:
        """`uid` and `gid` own every entry: whoever mounted, as with the npm mounts.

        In a `writable` mount only those without an owner of their own; ours have one.
        """
        super().__init__()
        self.awake = Awake()
        self._vfs = vfs
        self._editor = editor
        self._writable = writable
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
        target = to_bytes(await self._vfs.readlink(inode, ctx.pid))
        if b"\0" in target:  # the kernel would take what is before it
            raise ImpossibleEntry("the target of this link holds a NUL")
        if len(target) > TARGET_BYTES_MAX:
            raise NameTooLong(f"the target of this link has {len(target)} bytes, more than a path may have")
        return target

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
        """Return a file handle; cached pages stay good, as an inode number stands for one content, or for ours."""
        if flags & WRITE_FLAGS:
            fh = await self._editor.open(inode, flags, _caller(ctx))
        else:
            fh = await self._vfs.open(inode, ctx.pid)
        return FileInfo(fh=fh, keep_cache=True)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return bytes of a file."""
        if size <= SMALL_READ_BYTES:
            self.awake.note()
        return await self._vfs.read(fh, off, size)

    @answered
    async def release(self, fh: int) -> None:
        """Close a file handle."""
        await self._editor.release(fh)

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

    # Changes

    @answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make a file and open it."""
        fh, inode = await self._editor.create(parent_inode, decoded(name), mode, flags, _caller(ctx))
        return FileInfo(fh=fh, keep_cache=True), self._attributes(inode, self._vfs.timeout_of(inode))

    @answered
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        """Make a file, FIFO or socket."""
        return self._made(await self._editor.mknod(parent_inode, decoded(name), mode, _caller(ctx)))

    @answered
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        """Make a directory."""
        return self._made(await self._editor.mkdir(parent_inode, decoded(name), mode, _caller(ctx)))

    @answered
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        """Make a symbolic link."""
        where = target.decode("utf-8", "surrogateescape")
        return self._made(await self._editor.symlink(parent_inode, decoded(name), where, _caller(ctx)))

    @answered
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Refuse: an entry of a drive has one name. EPERM is what programs take for that."""
        raise FUSEError(errno.EPERM if self._writable else errno.EROFS)

    @answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Take the name of a file away."""
        await self._editor.unlink(parent_inode, decoded(name), ctx.pid)

    @answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an empty directory."""
        await self._editor.rmdir(parent_inode, decoded(name), ctx.pid)

    @answered
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Move an entry."""
        names = decoded(name_old), decoded(name_new)
        await self._editor.rename((parent_inode_old, parent_inode_new), names, flags, ctx.pid)

    @answered
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        """Change size, mode, owner or times; there is no time of access in a drive."""
        changes: dict[str, int] = {}
        if fields.update_mode:
            changes["mode"] = attr.st_mode
        if fields.update_uid:
            changes["uid"] = attr.st_uid
        if fields.update_gid:
            changes["gid"] = attr.st_gid
        if fields.update_mtime:
            changes["mtime_ms"] = storable_ms(attr.st_mtime_ns // NS_PER_MS)
        size = attr.st_size if fields.update_size else None
        found = await self._editor.set_attributes(inode, size, changes, ctx.pid)
        return self._attributes(found, self._vfs.timeout_of(found))

    @answered
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an extended attribute."""
        await self._editor.set_xattr(inode, decoded(name), value, ctx.pid)

    @answered
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute."""
        await self._editor.set_xattr(inode, decoded(name), None, ctx.pid)

    @answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write into a file; return how many bytes found room."""
        return await self._editor.write(fh, off, buf)

    @answered
    async def flush(self, fh: int) -> None:
        """Note that a program has closed the file."""
        await self._editor.flush(fh)

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Make a file durable."""
        await self._editor.fsync(fh)

    @answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Make the names in a directory durable."""
        await self._editor.fsyncdir()

    # Attributes

    def _made(self, inode: Inode) -> EntryAttributes:
        return self._attributes(inode, self._vfs.timeout_of(inode))

    def _attributes(self, inode: Inode, timeout_s: float) -> EntryAttributes:
        stat = inode.stat
        if stat is None:
            raise FUSEError(errno.ESTALE)
        entry = EntryAttributes()
        entry.st_ino = inode.number
        entry.entry_timeout = timeout_s
        entry.attr_timeout = timeout_s
        entry.st_mode = stat.mode
        entry.st_nlink = 0 if inode.removed else 2 if inode.is_dir else 1
        entry.st_uid = (stat.uid or self._uid) if self._writable else self._uid
        entry.st_gid = (stat.gid or self._gid) if self._writable else self._gid
        size = 0 if inode.is_dir else len(to_bytes(self._vfs.target_of(stat))) if stat.linkname else stat.size
        if size > MOST_BYTES:
            size = MOST_BYTES
        entry.st_size = size
        entry.st_blocks = (size + SECTOR_BYTES - 1) // SECTOR_BYTES
        entry.st_blksize = BLOCK_BYTES
        entry.st_atime_ns = entry.st_mtime_ns = stat.mtime_ms * NS_PER_MS
        entry.st_ctime_ns = stat.ctime_ms * NS_PER_MS
        return entry


def _dots(inode: Inode) -> EntryAttributes:
    """Return what the kernel takes of `.` and `..`, number and kind: more may be forgotten of a directory."""
    entry = EntryAttributes()
    entry.st_ino = inode.number
    entry.st_mode = DIRECTORY_MODE
    return entry


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.pid, ctx.uid, ctx.gid)
