"""Files that are open to be written."""

import errno
import os
import stat as kinds
from typing import NamedTuple

import trio

from ddrive.errors import IsADirectory, NotWritable
from mountd.changing import Changing, known
from mountd.follower import KernelCache
from mountd.handles import FileHandle
from mountd.inodes import Inode
from mountd.moments import now_ms
from mountd.nodes import Node
from mountd.spool import CHUNK_BYTES
from mountd.staged import StagedDrive
from mountd.vfs import Vfs

SPARE_BYTES = 4 * 1024 * 1024  # left free on the disk, for entries and what comes with contents
ROOM_CHECKED_BYTES = 1024 * 1024  # written between two looks at the room on the disk


class Caller(NamedTuple):
    """Who asks: thread id, and whose the new entries are."""

    pid: int
    uid: int
    gid: int


class OpenFiles(Changing):
    """Opening, writing, closing, and changing the size of files. Base of `editing.Editor`."""

    def __init__(self, vfs: Vfs, kernel: KernelCache) -> None:
        super().__init__(vfs, kernel)
        self._unchecked = 0  # bytes written since we looked at the room on the disk

    async def open(self, number: int, flags: int, who: Caller) -> int:
        """Return a handle for writing a file, emptied first if `flags` say so."""
        staged = await self._ready()
        inode = await self._vfs.getattr(number, who.pid)
        if inode.is_dir:
            raise IsADirectory(f"{inode.path} is a directory")
        if not inode.attached and not inode.removed:
            raise OSError(errno.ESTALE, f"{inode.path} was replaced")
        await self._check_writable(staged, inode, who.pid)
        _check_no_feed(inode)
        node = self._node(staged, inode)
        fh = self._opened(inode, node, who.pid)
        if flags & os.O_TRUNC:  # the times of an empty file too
            await node.edit(inode.path).truncate(0)
            if who.uid:
                _drop_privileges(node)
            self._written(inode, node)
            return fh
        try:
            await self._vfs.ask(node.bind(), inode, who.pid)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.release(fh)
            raise
        return fh

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Put bytes into an open file; return how many: not all when the disk is full then."""
        handle = self._vfs.files.get(fh)
        inode, node, staged = handle.inode, handle.inode.node, self._staged
        if staged is None or not handle.writes or not isinstance(node, Node):
            raise OSError(errno.EBADF, f"{inode.path} is not open for writing")
        growth = max(0, offset + len(data) - node.size)
        self._unchecked += max(growth, len(data))
        staged.written_at = trio.current_time()
        if self._unchecked >= ROOM_CHECKED_BYTES:
            self._check_room(staged, growth)
        stored = await self._vfs.ask(node.edit(inode.path).write(offset, data), inode, handle.opener)
        self._written(inode, node)
        return stored

    async def flush(self, fh: int) -> None:
        """A program has closed the file: what it holds counts now."""
        handle = self._vfs.files.get(fh)
        if handle.writes and isinstance(handle.inode.node, Node):
            staged = await self._ready()
            staged.seal(handle.inode.node)
            if not staged.room.is_set():
                await self._vfs.ask(staged.room.wait(), handle.inode, handle.opener, here=True)

    async def fsync(self, fh: int) -> None:
        """Return when what the file holds survives a loss of power."""
        node = self._vfs.files.get(fh).inode.node
        staged = await self._ready()
        if isinstance(node, Node):
            staged.seal(node, due=False)
        await staged.spool.sync()

    async def fsyncdir(self) -> None:
        """Return when all changes of names so far survive a loss of power."""
        await (await self._ready()).spool.sync()

    async def release(self, fh: int) -> None:
        """Close a file. Raises: OSError, when what was written last cannot be kept."""
        handle = self._vfs.files.get(fh)
        await self._vfs.release(fh)
        inode, staged = handle.inode, self._staged
        node = inode.node
        if staged is None or not isinstance(node, Node):
            return
        try:
            if handle.writes:
                staged.released(node)
        finally:
            if not inode.handles:
                inode.node = None
                if node.path is None:
                    node.discard()

    def _opened(self, inode: Inode, node: Node, caller: int) -> int:
        inode.node = node
        node.writers += 1
        return self._vfs.add_handle(FileHandle(inode, node, caller, writes=True))

    def _written(self, inode: Inode, node: Node) -> None:
        at_ms = now_ms()
        assert node.draft is not None
        node.stat = node.stat._replace(size=node.draft.size, mtime_ms=at_ms, ctime_ms=at_ms)
        self._vfs.inodes.restate(inode, node.stat, self._vfs.expiry(inode))

    def _check_room(self, staged: StagedDrive, growth: int) -> None:
        """Refuse what the disk has no room for: files are stored whole, with their holes, beside what is in the spool.

        So an error comes while somebody writes, not when all is closed and stored.
        """
        figures = self._vfs.statfs()
        self._unchecked = 0
        if growth > figures.f_blocks * figures.f_frsize:
            raise OSError(errno.EFBIG, "a file is stored with its holes: the disk could never hold that one")
        needed = growth + len(staged.spool.slots) * CHUNK_BYTES + SPARE_BYTES
        if needed > figures.f_bavail * figures.f_frsize:
            raise OSError(errno.ENOSPC, "the disk has no room for what is written")

    async def _resize(self, staged: StagedDrive, inode: Inode, size: int, caller: int) -> None:
        if not kinds.S_ISREG(known(inode).mode):
            raise OSError(errno.EINVAL, f"{inode.path} is not a file")
        _check_no_feed(inode)
        node = self._node(staged, inode)
        node.writers += 1  # a commit that ends meanwhile does not let go of it
        try:
            await self._vfs.ask(node.bind(), inode, caller)
            if size > node.size:
                self._check_room(staged, size - node.size)
            await self._vfs.ask(node.edit(inode.path).make_ready(size), inode, caller)
            self._resized(staged, inode, node, size)
        finally:
            node.writers -= 1
            staged.let_go(node)

    def _resized(self, staged: StagedDrive, inode: Inode, node: Node, size: int) -> None:
        """Give a node another size, which counts at once where nobody has it open to write. Raises: OSError.

        Then nothing has changed, as that says so itself: what waits since a close that found no room is still there.
        """
        draft, stat, was_dirty = node.edit(inode.path), node.stat, node.is_dirty
        former = draft.resize(size)
        self._written(inode, node)
        if node.writers == 1:
            try:
                staged.seal(node)
            except OSError:
                draft.take_back(former)
                node.stat = stat
                if not was_dirty:  # what was made ready is used by nobody
                    staged.revert(node, inode.path)
                self._vfs.inodes.restate(inode, node.stat, self._vfs.expiry(inode))
                raise
        draft.let_go(former)


def _check_no_feed(inode: Inode) -> None:
    """Raise NotWritable for a plain feed that is shown as a file: what is written would be in no reader's bytes."""
    stat = known(inode)
    if stat.mount is not None and stat.mount.feed:
        raise NotWritable(f"{inode.path} shows a feed: append to that, or use ddrive unlink-drive")


def _drop_privileges(node: Node) -> None:
    """Take set-user-ID and set-group-ID from a file that is emptied by opening: for that alone the kernel does not."""
    mode = node.stat.mode & ~kinds.S_ISUID
    if mode & kinds.S_IXGRP:  # without it, it gives nobody anything, and the kernel leaves it after a write too
        mode &= ~kinds.S_ISGID
    if mode != node.stat.mode:
        node.stat = node.stat._replace(mode=mode)
        node.changed.add("mode")
