"""The POSIX meaning of changes through a mount, by inode number; `Vfs` is the same for reading.

Knows nothing of pyfuse3. What the kernel has checked already (permissions, kinds, loops of directories) is not checked
again, unless others may have changed the drive since.
"""

import errno
import os
import stat as kinds
from collections.abc import Callable, Mapping
from typing import Any

import trio

from ddrive.drive.stat import DIRECTORY_BIT, FILE_BIT, LINK_MODE, PERMISSION_BITS, Stat
from ddrive.errors import IsADirectory, NotADirectory, NotFound, TimedOut
from mountd.changing import bytes_of, check_no_mount, is_root, known
from mountd.inodes import Inode, to_bytes
from mountd.moments import now_ms
from mountd.nodes import Node
from mountd.openfiles import Caller, OpenFiles
from mountd.staged import StagedDrive
from mountd.xattrs import LINK_AS_IS, check_given

MOVE_S = 30.0  # for a directory to move in the drive before the program is told that this takes long
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
MADE_OF_BITS = (kinds.S_IFREG, kinds.S_IFIFO, kinds.S_IFSOCK)  # what mknod can make: the kernel does the rest


class Editor(OpenFiles):
    """Changes of one mounted drive."""

    # New entries

    async def create(self, parent: int, name: str, mode: int, flags: int, who: Caller) -> tuple[int, Inode]:
        """Make a file and open it to write; return its handle and inode."""
        staged, directory = await self._place(parent, who.pid)
        inode, _ = await self._vfs.find(directory, name, who.pid)
        if inode is not None:
            if flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, f"{inode.path} exists")
            fh = await self.open(inode.number, flags, who)
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
        at_ms = now_ms()
        return Stat(mode, who.uid, gid, mtime_ms=at_ms, ctime_ms=at_ms, **fields)

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
        check_no_mount(inode)
        node = staged.node(inode.path)
        staged.remove(inode.path, bytes_of(directory))
        self._vanished(inode, node)
        await self._touch(directory, caller)

    def _vanished(self, inode: Inode, node: Node | None) -> None:
        """Take note that an entry has no name any more; what only it used is given back once nobody reads it."""
        if inode.stat is not None:
            inode.stat = inode.stat._replace(ctime_ms=now_ms())
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
        check_no_mount(target)
        if target.is_dir and not source.is_dir:
            raise IsADirectory(f"{target.path} is a directory")
        if source.is_dir and not target.is_dir:
            raise NotADirectory(f"{target.path} is not a directory")
        if target.is_dir:
            await self._check_empty(staged, target, caller)

    async def _move(self, staged: StagedDrive, source: Inode, directory: Inode, name: str, caller: int) -> None:
        if source.is_dir:
            work = self._move_directory(staged, source, directory, name)
            await self._vfs.ask(work, source, caller, here=True)
            return
        path = directory.child_path(name)
        stat = self._node(staged, source).stat._replace(ctime_ms=now_ms())
        replaced = staged.node(path)
        self._arrived(source, directory, name, staged.move(source.path, path, stat).stat, replaced)

    async def _move_directory(self, staged: StagedDrive, source: Inode, directory: Inode, name: str) -> None:
        """Move a directory in the drive itself, as one change; what is not committed yet moves along.

        Whoever follows the drive hears of it when it has moved here too. One that has begun goes on when its caller is
        killed or has waited too long: nothing is committed before, as it could be stored where the directory was.
        """
        old, new = source.path, directory.child_path(name)
        if self._committer is None or new.startswith(old + "/"):
            raise OSError(errno.EINVAL, f"{old} cannot be moved into itself")
        committer, is_waited_for = self._committer, True

        async def move(begin: Callable[[], None]) -> None:
            former = source.parent
            async with committer.alone(), staged.batching:
                begin()
                has_more = await committer.move(old, new)
                if source.attached and directory.attached:
                    self._arrived(source, directory, name, known(source), None)
            self._vfs.epoch += 1
            if not is_waited_for and former is not None:  # the kernel was told that it failed
                self._kernel.drop_entry(former.number, to_bytes(old.rpartition("/")[2]))
                self._kernel.drop_entry(directory.number, to_bytes(name))
            if has_more:  # as durable as the move is in the drive
                await staged.spool.sync()

        try:
            with trio.move_on_after(MOVE_S):
                await committer.lasting.see_through(move)
                return
        finally:
            is_waited_for = False
        raise TimedOut(f"{old} is not moved to {new} yet: look where it is before you try again")

    def _arrived(self, source: Inode, directory: Inode, name: str, stat: Stat, replaced: Node | None) -> None:
        """Take note that an entry is at another place, where `replaced` was."""
        target = directory.children.get(name)
        if target is not None:
            self._vanished(target, replaced)
        self._vfs.inodes.move(source, directory, name)
        self._vfs.inodes.restate(source, stat, self._vfs.expiry(source))

    def _exchange(self, staged: StagedDrive, source: Inode, target: Inode) -> None:
        if source.is_dir or target.is_dir:
            raise OSError(errno.EINVAL, "directories cannot be exchanged")
        inodes, at_ms = self._vfs.inodes, now_ms()
        nodes = self._node(staged, source), self._node(staged, target)
        stats = [node.stat._replace(ctime_ms=at_ms) for node in nodes]
        staged.swap(source.path, target.path, stats)
        inodes.swap(source, target)
        for inode, stat in zip((source, target), stats, strict=True):
            inodes.restate(inode, stat, self._vfs.expiry(inode))

    # Attributes

    async def set_attributes(self, number: int, size: int | None, changes: Mapping[str, Any], caller: int) -> Inode:
        """Change the size or attributes (`mode` without kind, `uid`, `gid`, `mtime_ms`); return the inode."""
        staged = await self._ready()
        inode = await self._vfs.getattr(number, caller)
        stat = known(inode)
        await self._check_writable(staged, inode, caller)
        if size is not None and size != stat.size:
            await self._resize(staged, inode, size, caller)
            stat = known(inode)
        elif size is not None:
            changes = {"mtime_ms": now_ms(), **changes}
        if "mode" in changes:
            changes = {**changes, "mode": kinds.S_IFMT(stat.mode) | changes["mode"] & PERMISSION_BITS}
        if changes:
            self._set(staged, inode, {"ctime_ms": now_ms(), **changes})
        return inode

    async def set_xattr(self, number: int, name: str, value: bytes | None, caller: int) -> None:
        """Give an extended attribute a value, or take it away. Raises: OSError (ENODATA, EOPNOTSUPP, ENOSPC)."""
        staged = await self._ready()
        inode = await self._vfs.getattr(number, caller)
        await self._check_writable(staged, inode, caller)
        metadata = dict(known(inode).metadata)
        if value is None and name not in metadata:
            raise OSError(errno.ENODATA, f"no attribute {name}")
        metadata.pop(name, None)
        if value is not None:
            metadata[name] = value
        check_given(name, metadata if value is not None else {})  # what is taken away needs no room
        self._set(staged, inode, {"ctime_ms": now_ms(), "metadata": metadata})

    def _set(self, staged: StagedDrive, inode: Inode, changes: Mapping[str, Any]) -> None:
        stat = known(inode)
        if is_root(inode):
            self._vfs.inodes.restate(inode, stat._replace(**changes), inode.expires)
            return
        node = self._node(staged, inode)
        staged.set_node(node, **changes)
        self._vfs.inodes.restate(inode, node.stat, self._vfs.expiry(inode))
