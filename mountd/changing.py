"""What every change through a mount begins with: which place is meant, may it be changed, what is known of it."""

import errno

from ddrive.drive.stat import Stat
from ddrive.errors import NotEmpty, NotFound, NotWritable
from ddrive.ids import PublicKey
from mountd.committing import Committer
from mountd.follower import KernelCache
from mountd.inodes import Inode, to_bytes
from mountd.moments import now_ms
from mountd.nodes import Node
from mountd.staged import StagedDrive
from mountd.vfs import Vfs


class Changing:
    """The drive of a mount that is written to. Base of `editing.Editor`."""

    def __init__(self, vfs: Vfs, kernel: KernelCache) -> None:
        self._vfs = vfs
        self._kernel = kernel
        self._staged: StagedDrive | None = None
        self._committer: Committer | None = None

    def set_drive(self, staged: StagedDrive, committer: Committer) -> None:
        """From now on changes go to `staged`."""
        self._staged, self._committer = staged, committer
        staged.on_stat, staged.on_stale = self._restated, self._stale
        self._vfs.node_at = staged.node

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
        """Raise NotWritable in a nested drive of somebody else, and in a version that cannot change.

        Raises also: OSError (ESTALE) in a nested drive that was taken out. Else the inode knows its drive then.
        """
        inode.content = staged.content_key
        if inode.pinned and not inode.removed:
            raise NotWritable(f"{inode.path} is in a version that cannot change")
        if inode.foreign and not inode.removed:
            own = await self._vfs.ask(staged.drive.own(inode.path), inode, caller)
            if own.trie.feed is staged.metadata and not is_feed(inode):
                raise OSError(errno.ESTALE, f"the drive that had {inode.path} is not there any more")
            inode.content = own.content.key

    async def _check_same_drive(self, staged: StagedDrive, one: Inode, other: Inode, caller: int) -> None:
        if not one.foreign and not other.foreign:
            return
        first = await self._vfs.ask(staged.drive.own(one.path), one, caller)
        second = await self._vfs.ask(staged.drive.own(other.path), other, caller)
        if first.trie is not second.trie:
            raise OSError(errno.EXDEV, "the two places are in different drives")

    async def _check_empty(self, staged: StagedDrive, inode: Inode, caller: int) -> None:
        check_no_mount(inode)
        if await self._vfs.ask(staged.list(inode.path), inode, caller):
            raise NotEmpty(f"the directory {inode.path} is not empty")

    async def _touch(self, directory: Inode, caller: int) -> None:
        """Note that the entries of a directory have changed now."""
        stat = known(await self._vfs.getattr(directory.number, caller))
        at_ms = now_ms()
        if is_root(directory) or self._staged is None:
            stat = stat._replace(mtime_ms=at_ms, ctime_ms=at_ms)
            self._vfs.inodes.restate(directory, stat, directory.expires)
            return
        stat = self._staged.touch(directory.path, stat, at_ms, bytes_of(directory))
        self._vfs.inodes.restate(directory, stat, self._vfs.expiry(directory))

    def _node(self, staged: StagedDrive, inode: Inode) -> Node:
        """Return the node of an inode, whether it still has a name or not."""
        before = inode.node if isinstance(inode.node, Node) else None
        if not inode.attached:  # nothing, or something else, has its name now
            node = before or staged.new_node(known(inode), (inode.path, known(inode)), bytes_of(inode))
        else:
            node = staged.pin(inode.path, known(inode), before, bytes_of(inode))
        if inode.handles and not inode.is_dir:
            inode.node = node  # whoever has it open sees what changes
        return node

    def _restated(self, path: str, stat: Stat, feed: PublicKey | None) -> None:
        """What was changed at `path` is in the drive with the bytes in `feed` now: its attributes say where."""
        inode, rest = self._vfs.inodes.at(path)
        if feed is not None and not self._is_of(inode, feed):
            self._stale(path)  # another drive is nested there by now, or none: these are no attributes of what it has
        elif not rest and not is_root(inode):
            self._vfs.inodes.restate(inode, stat, inode.expires)
        elif len(rest) == 1:
            self._vfs.inodes.list_as(inode, rest[0], stat)

    def _is_of(self, inode: Inode, feed: PublicKey) -> bool:
        """Tell whether an inode, or what is in that directory, is of the drive with the bytes in `feed`."""
        known = bytes_of(inode)
        if known is None and not inode.foreign and self._staged is not None:
            known = self._staged.content_key or feed
        return known == feed

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


def is_root(inode: Inode) -> bool:
    """Tell whether it is the root of a drive, which has no attributes of its own there."""
    return inode.parent is None or (inode.stat is not None and inode.stat.mount is not None and inode.is_dir)


def is_feed(inode: Inode) -> bool:
    """Tell whether it is a plain feed that is shown as a file."""
    return inode.stat is not None and inode.stat.mount is not None and inode.stat.mount.feed


def bytes_of(inode: Inode) -> PublicKey | None:
    """Return the key of the feed with the bytes of its drive, if its directory or itself was asked to be changed."""
    return inode.content if inode.content or inode.parent is None or is_root(inode) else inode.parent.content


def check_no_mount(inode: Inode) -> None:
    """Raise OSError (EBUSY) at the place of a nested drive."""
    if inode.stat is not None and inode.stat.mount is not None:
        raise OSError(errno.EBUSY, f"{inode.path} is a nested drive: use ddrive unlink-drive")


def known(inode: Inode) -> Stat:
    """Return the attributes of an inode. Raises: OSError (ESTALE) when they are not known any more."""
    if inode.stat is None:
        raise OSError(errno.ESTALE, f"{inode.path} was replaced")
    return inode.stat
