"""The POSIX meaning of changes through a mount, by inode number; `Vfs` is the same for reading.

Knows nothing of pyfuse3. What the kernel has checked already (permissions, kinds, loops of directories) is not checked
again, unless others may have changed the drive since.
"""

import errno
import os
import stat as kinds
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ddrive.drive.stat import DIRECTORY_BIT, FILE_BIT, LINK_MODE, PERMISSION_BITS, Stat
from ddrive.errors import IsADirectory, NotADirectory, NotEmpty, NotFound, NotWritable
from mountd.committing import Committer
from mountd.follower import KernelCache
from mountd.handles import FileHandle
from mountd.inodes import Inode, to_bytes
from mountd.nodes import Node
from mountd.spool import CHUNK_BYTES
from mountd.staged import StagedDrive
from mountd.vfs import Vfs
from mountd.xattrs import LINK_AS_IS, check_given

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
SPARE_BYTES = 4 * 1024 * 1024  # left free on the disk, for entries and what comes with contents
ROOM_CHECKED_BYTES = 1024 * 1024  # written between two looks at the room on the disk
CLOCK_REALTIME_COARSE = 5  # of Linux; Python has no name for it
MADE_OF_BITS = (kinds.S_IFREG, kinds.S_IFIFO, kinds.S_IFSOCK)  # what mknod can make: the kernel does the rest


class Caller(NamedTuple):
    """Who asks: thread id, and whose the new entries are."""

    pid: int
    uid: int
    gid: int


class Editor:
    """Changes of one mounted drive."""

    def __init__(self, vfs: Vfs, kernel: KernelCache) -> None:
        self._vfs = vfs
        self._kernel = kernel
        self._unchecked = 0  # bytes written since we looked at the room on the disk
        self._staged: StagedDrive | None = None
        self._committer: Committer | None = None

    def set_drive(self, staged: StagedDrive, committer: Committer) -> None:
        """From now on changes go to `staged`."""
        self._staged, self._committer = staged, committer
        staged.on_stat, staged.on_stale = self._restated, self._stale
        self._vfs.node_at = staged.node

    # New entries

    async def create(self, parent: int, name: str, mode: int, flags: int, who: Caller) -> tuple[int, Inode]:
        """Make a file and open it to write; return its handle and inode."""
        staged, directory = await self._place(parent, who.pid)
        inode, _ = await self._vfs.find(directory, name, who.pid)
        if inode is not None:
            if flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, f"{inode.path} exists")
            fh = await self.open(inode.number, flags, who.pid)
        else:
            stat = self._new_stat(directory, FILE_BIT | mode & PERMISSION_BITS, who)
            node = staged.add(directory.child_path(name), stat, sealed=False)
            inode = self._appeared(directory, name, stat)
            await self._touch(directory, who.pid)
            fh = self._opened(inode, node, who.pid)
        inode.lookups += 1
        return fh, inode

    async def mknod(self, parent: int, name: str, mode: int, who: Caller) -> Inode:
        """Make an empty file, FIFO or socket. Raises: OSError (EPERM) for devices, which no drive can hold."""
        if kinds.S_IFMT(mode) not in MADE_OF_BITS:
            raise PermissionError(errno.EPERM, "a drive cannot hold devices")
        return await self._make(parent, name, mode, who)

    async def mkdir(self, parent: int, name: str, mode: int, who: Caller) -> Inode:
        """Make a directory."""
        return await self._make(parent, name, DIRECTORY_BIT | mode & PERMISSION_BITS, who)

    async def symlink(self, parent: int, name: str, target: str, who: Caller) -> Inode:
        """Make a symbolic link; a target inside the mount leads to the same place wherever the drive is mounted."""
        linkname, as_is = self._vfs.link_name(target)
        metadata = {LINK_AS_IS: b""} if as_is else {}
        return await self._make(parent, name, LINK_MODE | 0o777, who, linkname=linkname, metadata=metadata)

    async def _make(self, parent: int, name: str, mode: int, who: Caller, **fields: Any) -> Inode:
        staged, directory = await self._place(parent, who.pid)
        inode, _ = await self._vfs.find(directory, name, who.pid)
        if inode is not None:
            raise FileExistsError(errno.EEXIST, f"{inode.path} exists")
        stat = self._new_stat(directory, mode, who, **fields)
        staged.add(directory.child_path(name), stat)
        inode = self._appeared(directory, name, stat)
        await self._touch(directory, who.pid)
        inode.lookups += 1
        return inode

    def _new_stat(self, directory: Inode, mode: int, who: Caller, **fields: Any) -> Stat:
        """Return attributes of something made now; a directory with set-group-ID hands its group on."""
        gid = who.gid
        above = directory.stat
        if above is not None and above.mode & kinds.S_ISGID:
            gid = above.gid
            if kinds.S_ISDIR(mode):
                mode |= kinds.S_ISGID
        now_ms = _now_ms()
        return Stat(mode, who.uid, gid, mtime_ms=now_ms, ctime_ms=now_ms, **fields)

    def _appeared(self, directory: Inode, name: str, stat: Stat) -> Inode:
        inode = self._vfs.bind(directory, name, stat)
        self._vfs.inodes.list_as(directory, name, stat)
        return inode

    # Names

    async def unlink(self, parent: int, name: str, caller: int) -> None:
        """Take the name of a file away; it lives on while it is open."""
        staged, directory, inode = await self._named(parent, name, caller)
        if inode.is_dir:
            raise IsADirectory(f"{inode.path} is a directory")
        await self._remove(staged, directory, inode, caller)

    async def rmdir(self, parent: int, name: str, caller: int) -> None:
        """Remove an empty directory."""
        staged, directory, inode = await self._named(parent, name, caller)
        if not inode.is_dir:
            raise NotADirectory(f"{inode.path} is not a directory")
        await self._check_empty(staged, inode, caller)
        await self._remove(staged, directory, inode, caller)

    async def _remove(self, staged: StagedDrive, directory: Inode, inode: Inode, caller: int) -> None:
        _check_no_mount(inode)
        node = staged.node(inode.path)
        staged.remove(inode.path)
        self._vanished(inode, node)
        await self._touch(directory, caller)

    def _vanished(self, inode: Inode, node: Node | None) -> None:
        """Take note that an entry has no name any more; what only it used is given back once nobody reads it."""
        if inode.stat is not None:
            inode.stat = replace(inode.stat, ctime_ms=_now_ms())
        if node is not None and not inode.handles:
            node.discard()
        self._vfs.inodes.remove(inode)

    async def rename(self, parents: tuple[int, int], names: tuple[str, str], flags: int, caller: int) -> None:
        """Move an entry over whatever is at the other place, if that is of the same kind and empty."""
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise OSError(errno.EINVAL, "no such way to rename")
        staged, former, source = await self._named(parents[0], names[0], caller)
        _, directory = await self._place(parents[1], caller)
        target, _ = await self._vfs.find(directory, names[1], caller)
        await self._check_same_drive(staged, former, directory, caller)
        if target is source:
            return
        if flags & RENAME_EXCHANGE:
            if target is None:
                raise NotFound(f"{directory.child_path(names[1])} does not exist")
            self._exchange(staged, source, target)
        else:
            if target is not None:
                await self._check_replaceable(staged, source, target, flags, caller)
            await self._move(staged, source, directory, names[1], caller)
        await self._touch(former, caller)
        if directory is not former:
            await self._touch(directory, caller)

    async def _check_replaceable(
        self, staged: StagedDrive, source: Inode, target: Inode, flags: int, caller: int
    ) -> None:
        if flags & RENAME_NOREPLACE:
            raise FileExistsError(errno.EEXIST, f"{target.path} exists")
        _check_no_mount(target)
        if target.is_dir and not source.is_dir:
            raise IsADirectory(f"{target.path} is a directory")
        if source.is_dir and not target.is_dir:
            raise NotADirectory(f"{target.path} is not a directory")
        if target.is_dir:
            await self._check_empty(staged, target, caller)

    async def _move(self, staged: StagedDrive, source: Inode, directory: Inode, name: str, caller: int) -> None:
        path = directory.child_path(name)
        if source.is_dir:
            await self._vfs.ask(self._move_directory(staged, source.path, path), source, caller)
            stat = _known(source)
        else:
            stat = replace(self._node(staged, source).stat, ctime_ms=_now_ms())
            replaced = staged.node(path)
            node = staged.move(source.path, path, stat)
            stat = node.stat
        target = directory.children.get(name)
        if target is not None:
            self._vanished(target, None if source.is_dir else replaced)
        self._vfs.inodes.move(source, directory, name)
        self._vfs.inodes.restate(source, stat, self._vfs.expiry(source))

    async def _move_directory(self, staged: StagedDrive, old: str, new: str) -> None:
        """Move a directory in the drive itself, as one change; what is not committed yet moves along."""
        if self._committer is None or new.startswith(old + "/"):
            raise OSError(errno.EINVAL, f"{old} cannot be moved into itself")
        async with self._committer.alone():
            await staged.drive.rename(old, new)
            staged.moved(old, new)
        self._vfs.epoch += 1

    def _exchange(self, staged: StagedDrive, source: Inode, target: Inode) -> None:
        if source.is_dir or target.is_dir:
            raise OSError(errno.EINVAL, "directories cannot be exchanged")
        inodes, now_ms = self._vfs.inodes, _now_ms()
        nodes = self._node(staged, source), self._node(staged, target)
        stats = [replace(node.stat, ctime_ms=now_ms) for node in nodes]
        staged.swap(source.path, target.path, stats)
        inodes.swap(source, target)
        for inode, stat in zip((source, target), stats, strict=True):
            inodes.restate(inode, stat, self._vfs.expiry(inode))

    # Attributes

    async def set_attributes(self, number: int, size: int | None, changes: Mapping[str, Any], caller: int) -> Inode:
        """Change the size or attributes (`mode` without kind, `uid`, `gid`, `mtime_ms`); return the inode."""
        staged = await self._ready()
        inode = await self._vfs.getattr(number, caller)
        stat = _known(inode)
        await self._check_writable(staged, inode, caller)
        if size is not None and size != stat.size:
            await self._resize(staged, inode, size, caller)
            stat = _known(inode)
        elif size is not None:
            changes = {"mtime_ms": _now_ms(), **changes}
        if "mode" in changes:
            changes = {**changes, "mode": kinds.S_IFMT(stat.mode) | changes["mode"] & PERMISSION_BITS}
        if changes:
            self._set(staged, inode, {"ctime_ms": _now_ms(), **changes})
        return inode

    async def set_xattr(self, number: int, name: str, value: bytes | None, caller: int) -> None:
        """Give an extended attribute a value, or take it away. Raises: OSError (ENODATA, EPERM, EOPNOTSUPP, ENOSPC)."""
        staged = await self._ready()
        inode = await self._vfs.getattr(number, caller)
        await self._check_writable(staged, inode, caller)
        metadata = dict(_known(inode).metadata)
        if value is None and name not in metadata:
            raise OSError(errno.ENODATA, f"no attribute {name}")
        metadata.pop(name, None)
        if value is not None:
            metadata[name] = value
        check_given(name, metadata)
        self._set(staged, inode, {"ctime_ms": _now_ms(), "metadata": metadata})

    def _set(self, staged: StagedDrive, inode: Inode, changes: Mapping[str, Any]) -> None:
        stat = _known(inode)
        if _is_root(inode):
            self._vfs.inodes.restate(inode, replace(stat, **changes), inode.expires)
            return
        node = self._node(staged, inode)
        staged.set_node(node, **changes)
        self._vfs.inodes.restate(inode, node.stat, self._vfs.expiry(inode))

    async def _resize(self, staged: StagedDrive, inode: Inode, size: int, caller: int) -> None:
        if not kinds.S_ISREG(_known(inode).mode):
            raise OSError(errno.EINVAL, f"{inode.path} is not a file")
        node = self._node(staged, inode)
        if size > node.size:
            self._check_room(staged, size - node.size)
        await self._vfs.ask(node.edit(inode.path).truncate(size), inode, caller)
        self._written(inode, node)
        if not node.writers:
            staged.seal(node)

    # Files

    async def open(self, number: int, flags: int, caller: int) -> int:
        """Return a handle for writing a file, emptied first if `flags` say so."""
        staged = await self._ready()
        inode = await self._vfs.getattr(number, caller)
        if inode.is_dir:
            raise IsADirectory(f"{inode.path} is a directory")
        if not inode.attached and not inode.removed:
            raise OSError(errno.ESTALE, f"{inode.path} was replaced")
        await self._check_writable(staged, inode, caller)
        node = self._node(staged, inode)
        fh = self._opened(inode, node, caller)
        if flags & os.O_TRUNC and node.size:
            await node.edit(inode.path).truncate(0)
            self._written(inode, node)
        return fh

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        """Put bytes into an open file; return how many: all."""
        handle = self._vfs.files.get(fh)
        inode, node, staged = handle.inode, handle.inode.node, self._staged
        if staged is None or not handle.writes or not isinstance(node, Node):
            raise OSError(errno.EBADF, f"{inode.path} is not open for writing")
        growth = max(0, offset + len(data) - node.size)
        self._unchecked += max(growth, len(data))
        if self._unchecked >= ROOM_CHECKED_BYTES:
            self._check_room(staged, growth)
        await self._vfs.ask(node.edit(inode.path).write(offset, data), inode, handle.opener)
        self._written(inode, node)
        return len(data)

    async def flush(self, fh: int) -> None:
        """A program has closed the file: what it holds counts now."""
        handle = self._vfs.files.get(fh)
        if handle.writes and isinstance(handle.inode.node, Node):
            staged = await self._ready()
            staged.seal(handle.inode.node)
            if not staged.room.is_set():
                await self._vfs.ask(staged.room.wait(), handle.inode, handle.opener)

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
        now_ms = _now_ms()
        assert node.draft is not None
        node.stat = replace(node.stat, size=node.draft.size, mtime_ms=now_ms, ctime_ms=now_ms)
        self._vfs.inodes.restate(inode, node.stat, self._vfs.expiry(inode))

    def _check_room(self, staged: StagedDrive, growth: int) -> None:
        """Refuse what the disk has no room for: files are stored whole, with their holes, beside what is in the spool.

        So an error comes while somebody writes, not when all is closed and stored.
        """
        figures = self._vfs.statfs()
        self._unchecked = 0
        needed = growth + len(staged.spool.slots) * CHUNK_BYTES + SPARE_BYTES
        if needed > figures.f_bavail * figures.f_frsize:
            raise OSError(errno.ENOSPC, "the disk has no room for what is written")

    # Inside

    async def _ready(self) -> StagedDrive:
        await self._vfs.ready()
        if self._staged is None:
            raise NotWritable("the drive cannot be written through this mount")
        return self._staged

    async def _place(self, parent: int, caller: int) -> tuple[StagedDrive, Inode]:
        """Return where to change something, and a directory with its attributes in which that is allowed."""
        staged = await self._ready()
        directory = self._vfs.directory(parent)
        if not directory.attached:
            raise NotFound(f"{directory.path} does not exist any more")
        await self._vfs.getattr(parent, caller)
        await self._check_writable(staged, directory, caller)
        return staged, directory

    async def _named(self, parent: int, name: str, caller: int) -> tuple[StagedDrive, Inode, Inode]:
        staged, directory = await self._place(parent, caller)
        inode, _ = await self._vfs.find(directory, name, caller)
        if inode is None or inode.stat is None:
            raise NotFound(f"{directory.child_path(name)} does not exist")
        return staged, directory, inode

    async def _check_writable(self, staged: StagedDrive, inode: Inode, caller: int) -> None:
        """Raise NotWritable in a nested drive of somebody else, and in a version that cannot change."""
        if inode.pinned and not inode.removed:
            raise NotWritable(f"{inode.path} is in a version that cannot change")
        if inode.foreign and not inode.removed:
            await self._vfs.ask(staged.drive.own(inode.path), inode, caller)

    async def _check_same_drive(self, staged: StagedDrive, one: Inode, other: Inode, caller: int) -> None:
        if not one.foreign and not other.foreign:
            return
        first = await self._vfs.ask(staged.drive.own(one.path), one, caller)
        second = await self._vfs.ask(staged.drive.own(other.path), other, caller)
        if first.trie is not second.trie:
            raise OSError(errno.EXDEV, "the two places are in different drives")

    async def _check_empty(self, staged: StagedDrive, inode: Inode, caller: int) -> None:
        _check_no_mount(inode)
        if await self._vfs.ask(staged.list(inode.path), inode, caller):
            raise NotEmpty(f"the directory {inode.path} is not empty")

    async def _touch(self, directory: Inode, caller: int) -> None:
        """Note that the entries of a directory have changed now."""
        stat = _known(await self._vfs.getattr(directory.number, caller))
        now_ms = _now_ms()
        if _is_root(directory) or self._staged is None:
            stat = replace(stat, mtime_ms=now_ms, ctime_ms=now_ms)
            self._vfs.inodes.restate(directory, stat, directory.expires)
            return
        stat = self._staged.touch(directory.path, stat, now_ms)
        self._vfs.inodes.restate(directory, stat, self._vfs.expiry(directory))

    def _node(self, staged: StagedDrive, inode: Inode) -> Node:
        """Return the node of an inode, whether it still has a name or not."""
        known = inode.node if isinstance(inode.node, Node) else None
        if inode.removed:
            node = known or staged.new_node(_known(inode), (inode.path, _known(inode)))
        else:
            node = staged.pin(inode.path, _known(inode), known)
        if inode.handles and not inode.is_dir:
            inode.node = node  # whoever has it open sees what changes
        return node

    def _restated(self, path: str, stat: Stat) -> None:
        """What was changed at `path` is in the drive now: its attributes say where."""
        inode, rest = self._vfs.inodes.at(path)
        if not rest and not _is_root(inode):
            self._vfs.inodes.restate(inode, stat, inode.expires)
        elif len(rest) == 1:
            self._vfs.inodes.list_as(inode, rest[0], stat)

    def _stale(self, path: str) -> None:
        """Others have changed `path` while it was being changed here."""
        inode, rest = self._vfs.inodes.at(path)
        directory = inode if rest else inode.parent
        if directory is None:
            return
        if not rest:
            inode.expires = 0.0
        self._vfs.inodes.drop_listing(directory)
        if not inode.is_dir or rest:
            self._kernel.drop_entry(directory.number, to_bytes(path.rpartition("/")[2]))
        else:
            self._kernel.drop_attributes(inode.number)


def _is_root(inode: Inode) -> bool:
    """Tell whether it is the root of a drive, which has no attributes of its own there."""
    return inode.parent is None or (inode.stat is not None and inode.stat.mount is not None and inode.is_dir)


def _check_no_mount(inode: Inode) -> None:
    if inode.stat is not None and inode.stat.mount is not None:
        raise OSError(errno.EBUSY, f"{inode.path} is a nested drive: use ddrive unlink-drive")


def _known(inode: Inode) -> Stat:
    if inode.stat is None:
        raise OSError(errno.ESTALE, f"{inode.path} was replaced")
    return inode.stat


def _now_ms() -> int:
    """Return the time by the clock that the kernel takes for its own stamps: it never runs ahead of those."""
    return time.clock_gettime_ns(CLOCK_REALTIME_COARSE) // 1_000_000
