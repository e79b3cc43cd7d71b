"""A drive: a versioned file system in two feeds, one for entries and one for their bytes.

Reading is in `view`; this module adds what changes a drive, and opening and making one. Every change is one version of
the drive (two for a nested drive). A change goes to the drive that owns the path; only that one has to be writable.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ddrive.drive.content import content_name
from ddrive.drive.history import Log
from ddrive.drive.mounts import DriveTree, OwnDrive
from ddrive.drive.paths import DrivePath, drive_path, parent
from ddrive.drive.stat import (
    DIRECTORY_BIT,
    DIRECTORY_MODE,
    FILE_BIT,
    FILE_MODE,
    LINK_MODE,
    NO_METADATA,
    PERMISSION_BITS,
    Mount,
    Stat,
    encode_stat,
)
from ddrive.drive.tags import Tags
from ddrive.drive.view import DriveView
from ddrive.drive.writer import Content, NewEntry, blocks_of, store, store_stream
from ddrive.errors import (
    AlreadyExists,
    CrossesMount,
    InvalidPath,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotWritable,
)
from ddrive.ids import PublicKey
from ddrive.store.store import Store
from ddrive.trie import MountTrie


class Drive(DriveView):
    """A drive, to read and, where its secret key is at hand, to write. Made by `open_drive` and `checkout`."""

    @property
    def writable(self) -> bool:
        """Whether entries of the drive itself can be changed here."""
        return self.metadata.writable and not self.fixed

    @property
    def tags(self) -> Tags:
        """The names of versions."""
        return Tags(self, self._tree.store.dialect.tag_prefix)

    @property
    def dialect_name(self) -> str:
        """The family of peers that the drive is shared with."""
        return self._tree.store.dialect.name

    def log(self, first: int = 2) -> Log:
        """Return an asynchronous iterator over what the versions from `first` to this one brought, oldest first."""
        return Log(self, self._tree.store.dialect.tag_prefix, first)

    def checkout(self, version: int) -> "Drive":
        """Return the view of a fixed version, from 1 (empty) on. It shares the feeds of this one.

        Raises: NotFound when there is certainly no such version.
        """
        if version < 1 or (self.metadata.writable and version > self.metadata.length):
            raise NotFound(f"the drive has no version {version}, the newest is {self.metadata.length}")
        return Drive(self._tree, version)

    async def close(self) -> None:
        """Let go of the feeds. Other views of the same drive end with it."""
        await self._tree.close()

    # -- files and directories

    async def write_file(
        self,
        path: str,
        content: Content = b"",
        *,
        mode: int = FILE_MODE,
        uid: int = 0,
        gid: int = 0,
        mtime_ms: int | None = None,
        metadata: Mapping[str, bytes] = NO_METADATA,
    ) -> Stat:
        """Store a file, given as bytes or as (asynchronous) iterable of chunks, and return its attributes.

        An entry that is there is replaced, also a link. Without `mtime_ms` it is modified now.
        Raises: NotWritable, IsADirectory, NotADirectory when a part of the path is a file.
        """
        where = drive_path(path)
        await self._check_replaceable(where)
        own = await self.own(where)
        stat = _new(FILE_BIT | mode & PERMISSION_BITS, uid=uid, gid=gid, mtime_ms=mtime_ms, metadata=metadata)
        return await store_stream(own.trie, own.content, own.path, stat, blocks_of(content))

    async def mkdir(
        self, path: str, *, mode: int = DIRECTORY_MODE, uid: int = 0, gid: int = 0, mtime_ms: int | None = None
    ) -> None:
        """Make a directory; those on the way need not exist. Raises: AlreadyExists, NotADirectory, NotWritable."""
        stat = _new(DIRECTORY_BIT | mode & PERMISSION_BITS, uid=uid, gid=gid, mtime_ms=mtime_ms)
        await self._store_new(drive_path(path), stat)

    async def symlink(self, path: str, target: str, *, mtime_ms: int | None = None) -> None:
        """Make a symbolic link at `path` that leads to `target`. Raises: as `mkdir`, InvalidPath without target."""
        if not target:
            raise InvalidPath("a symbolic link needs a target")
        await self._store_new(drive_path(path), _new(LINK_MODE, mtime_ms=mtime_ms, linkname=target))

    async def unlink(self, path: str) -> None:
        """Remove a file or link. Raises: NotFound, IsADirectory, NotWritable."""
        where = drive_path(path)
        if (await self.lstat(where)).is_dir:
            raise IsADirectory(f"{path!r} is a directory")
        await self._remove(where)

    async def rmdir(self, path: str) -> None:
        """Remove an empty directory. Raises: NotFound, NotADirectory, NotEmpty, CrossesMount, NotWritable."""
        where = drive_path(path)
        stat = await self.lstat(where)
        if not stat.is_dir:
            raise NotADirectory(f"{path!r} is not a directory")
        if stat.mount is not None:
            raise CrossesMount(f"{path!r} is a nested drive: unmount it")
        owner = await (await self.trie()).owner(where)
        async for _ in owner.trie.trie.iterate("/" + owner.inner, recursive=False, gt=True):
            raise NotEmpty(f"the directory {path!r} is not empty")
        await self._remove(where)

    async def rename(self, old: str, new: str) -> None:
        """Move an entry with everything below it, as one version; what is at `new` is replaced if it is alike.

        Raises: NotFound, NotADirectory, IsADirectory, NotEmpty, CrossesMount, InvalidPath, NotWritable.
        """
        source, target = drive_path(old), drive_path(new)
        stat = await self.lstat(source)
        if source == target:
            return
        await self._check_parent(target)
        try:
            there = await self.lstat(target)
        except NotFound:
            there = None
        if there is not None and there.is_dir:
            if not stat.is_dir:
                raise IsADirectory(f"{new!r} is a directory")
            await self.rmdir(target)
        elif there is not None and stat.is_dir:
            raise NotADirectory(f"{new!r} is not a directory")
        await (await self._writable_trie()).rename(source, target)
        await self._keep_directory(parent(source))

    async def set_stat(self, path: str, **changes: Any) -> Stat:
        """Change attributes of an entry (`mode`: permissions, `uid`, `gid`, `mtime_ms`, `ctime_ms`, `metadata`).

        A directory without entry gets one. Content stays where it is. Raises: NotFound, NotWritable, InvalidPath.
        """
        if unknown := changes.keys() - {"mode", "uid", "gid", "mtime_ms", "ctime_ms", "metadata"}:
            raise TypeError(f"cannot change {', '.join(sorted(unknown))}")
        where = drive_path(path)
        if not where:
            raise InvalidPath("the root of a drive has no attributes of its own")
        trie = await self._writable_trie()
        old, entry = await self._entry(where)
        if "mode" in changes:
            changes["mode"] = old.mode & ~PERMISSION_BITS | changes["mode"] & PERMISSION_BITS
        stat = replace(old, **changes)
        flags = entry.node.flags if entry is not None and entry.node is not None else 0
        await trie.put(where, encode_stat(stat), flags=flags)
        return stat

    # -- nested drives

    async def mount(self, path: str, key: PublicKey, *, version: int | None = None, feed: bool = False) -> None:
        """Nest the drive `key` at `path`, at a fixed version or the newest; with `feed`, show a plain feed as a file.

        Raises: AlreadyExists, NotADirectory, InvalidKey, NotWritable.
        """
        where = drive_path(path)
        await self._check_new(where)
        if feed:
            plain = await self._tree.plain_feed(key)
            stat = _new(FILE_MODE, mount=Mount(key, version, True))
            await self._put(where, replace(stat, size=plain.byte_length, blocks=plain.length))
            return
        own = await self.own(where)
        stat = replace(
            _new(DIRECTORY_MODE, mount=Mount(key, version)),
            offset=own.content.length,
            byte_offset=own.content.byte_length,
        )
        await (await self._writable_trie()).mount(where, key, version=version, value=encode_stat(stat))

    async def unmount(self, path: str) -> None:
        """Take a nested drive or feed away; its content stays in the store. Raises: NotFound, NotWritable."""
        where = drive_path(path)
        stat = await self.lstat(where)
        if stat.mount is None:
            raise NotFound(f"nothing is mounted at {path!r}")
        trie = await self._writable_trie()
        await (trie.delete(where) if stat.mount.feed else trie.unmount(where))
        await self._keep_directory(parent(where))

    # -- many entries at once

    async def own(self, path: str) -> OwnDrive:
        """Return the drive to which what is at and below `path` belongs, to write to it. Raises: NotWritable."""
        trie = await self._writable_trie()
        where = drive_path(path)
        place = await trie.owner(where)
        if not place.trie.writable:
            raise NotWritable(f"the drive that {path!r} belongs to cannot be changed here")
        return OwnDrive(place.trie.trie, DrivePath(place.inner), await self._tree.content(place.trie))

    async def batch(self, entries: Sequence[NewEntry], removed: Sequence[str] = ()) -> None:
        """Store many entries of the drive itself: one append for all content, one for all entries.

        Paths are not checked against what is there: the caller knows. `removed` go first.
        Raises: NotWritable, InvalidPath.
        """
        trie = await self._writable_trie()
        checked = [entry._replace(path=drive_path(entry.path)) for entry in entries]
        content = await self._tree.content(trie)
        await store(trie.trie, content, checked, [drive_path(path) for path in removed])

    # -- inside

    async def _writable_trie(self) -> MountTrie:
        if self.fixed:
            raise NotWritable(f"version {self.version} of the drive is fixed: open the newest one")
        return await self.trie()

    async def _check_replaceable(self, path: DrivePath) -> None:
        """Raise when a file cannot be stored at `path`."""
        try:
            stat = await self.lstat(path)
        except NotFound:
            await self._check_parent(path)
            return
        if stat.is_dir:
            raise IsADirectory(f"'/{path}' is a directory")

    async def _check_new(self, path: DrivePath) -> None:
        """Raise when something is at `path`, or when nothing can be."""
        if await self.exists(path):
            raise AlreadyExists(f"'/{path}' exists already")
        await self._check_parent(path)

    async def _check_parent(self, path: DrivePath) -> None:
        """Raise NotADirectory when the nearest existing part of the way to `path` is no directory."""
        while path:
            path = parent(path)
            try:
                stat = await self.lstat(path)
            except NotFound:
                continue
            if not stat.is_dir:
                raise NotADirectory(f"'/{path}' is not a directory")
            return

    async def _store_new(self, path: DrivePath, stat: Stat) -> None:
        """Store an entry without content where there is none."""
        await self._check_new(path)
        own = await self.own(path)
        await store(own.trie, own.content, [NewEntry(own.path, stat)])

    async def _put(self, path: DrivePath, stat: Stat) -> None:
        await (await self._writable_trie()).put(path, encode_stat(stat))

    async def _remove(self, path: DrivePath) -> None:
        """Remove an entry; the directory it was in stays, even when it was one only because of this entry."""
        await (await self._writable_trie()).delete(path)
        await self._keep_directory(parent(path))

    async def _keep_directory(self, path: DrivePath) -> None:
        """Give a directory that would vanish with its last entry an entry of its own."""
        if path and not await self.exists(path):
            await self._store_new(path, _new(DIRECTORY_MODE))


async def open_drive(
    store: Store,
    *,
    key: PublicKey | None = None,
    name: str | None = None,
    create: bool = False,
    version: int | None = None,
) -> Drive:
    """Return the drive with this key, or the own one called `name` ("default" when neither is given).

    With `create` an own drive that does not exist yet is made. Waits for no peer: a drive of which nothing is known
    can be opened, and its root be shown, but everything else waits until somebody has it.
    Raises: NotFound for an own drive or version that does not exist.
    """
    if key is not None:
        metadata = await store.open_feed(key=key, live=version is None)
    else:
        metadata = await store.open_feed(name=name or "default", live=version is None)
    metadata.preload()
    tree = DriveTree(store, metadata)
    if metadata.writable and not metadata.length:
        if not create:
            raise NotFound("there is no such drive yet: create it first")
        content = await store.open_feed(name=content_name(metadata.key))
        await tree.live(content_key=content.key)
    drive = Drive(tree)
    return drive if version is None else drive.checkout(version)


def _new(mode: int, *, mtime_ms: int | None = None, **fields: Any) -> Stat:
    """Return the attributes of something made now."""
    now_ms = time.time_ns() // 1_000_000
    return Stat(mode, mtime_ms=now_ms if mtime_ms is None else mtime_ms, ctime_ms=now_ms, **fields)
