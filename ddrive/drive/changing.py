"""Changing a drive: files, directories, links, attributes, nested drives, and many entries at once.

Every change is one version of the drive (two for a nested drive). A change goes to the drive that owns the path; only
that one has to be writable.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ddrive.drive.mounts import OwnDrive
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
from ddrive.drive.view import DriveView
from ddrive.drive.writer import Content, NewEntry, blocks_of, grouped, new_stat, store, store_stream
from ddrive.errors import (
    AlreadyExists,
    CrossesMount,
    InvalidPath,
    IsADirectory,
    LengthChanged,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotWritable,
)
from ddrive.ids import PublicKey
from ddrive.trie import MountTrie, TrieNode

_ATTEMPTS = 16  # at changing attributes that others change meanwhile


class ChangingDrive(DriveView):
    """What changes a drive. Base of `Drive`."""

    @property
    def writable(self) -> bool:
        """Whether entries of the drive itself can be changed here."""
        return self.metadata.writable and not self.fixed

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
        stat = new_stat(FILE_BIT | mode & PERMISSION_BITS, uid=uid, gid=gid, mtime_ms=mtime_ms, metadata=metadata)
        return await store_stream(own.trie, own.content, own.path, stat, grouped(blocks_of(content)))

    async def mkdir(
        self, path: str, *, mode: int = DIRECTORY_MODE, uid: int = 0, gid: int = 0, mtime_ms: int | None = None
    ) -> None:
        """Make a directory; those on the way need not exist. Raises: AlreadyExists, NotADirectory, NotWritable."""
        stat = new_stat(DIRECTORY_BIT | mode & PERMISSION_BITS, uid=uid, gid=gid, mtime_ms=mtime_ms)
        await self._store_new(drive_path(path), stat)

    async def symlink(self, path: str, target: str, *, mtime_ms: int | None = None) -> None:
        """Make a symbolic link at `path` that leads to `target`. Raises: as `mkdir`, InvalidPath without target."""
        if not target:
            raise InvalidPath("a symbolic link needs a target")
        await self._store_new(drive_path(path), new_stat(LINK_MODE, mtime_ms=mtime_ms, linkname=target))

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

        def changed(old: Stat) -> Stat:
            if "mode" not in changes:
                return replace(old, **changes)
            mode = old.mode & ~PERMISSION_BITS | changes["mode"] & PERMISSION_BITS
            return replace(old, **changes | {"mode": mode})

        return await self._change_stat(drive_path(path), changed)

    async def set_metadata(self, path: str, name: str, value: bytes) -> Stat:
        """Store `value` with an entry under `name`; those of mounts are extended attributes. Raises: as `set_stat`."""
        return await self._change_stat(
            drive_path(path), lambda old: replace(old, metadata={**old.metadata, name: value})
        )

    async def remove_metadata(self, path: str, name: str) -> Stat:
        """Forget what is stored with an entry under `name`. Raises: NotFound when nothing is; as `set_stat`."""

        def changed(old: Stat) -> Stat:
            if name not in old.metadata:
                raise NotFound(f"{path!r} has no metadata {name!r}")
            return replace(old, metadata={key: value for key, value in old.metadata.items() if key != name})

        return await self._change_stat(drive_path(path), changed)

    async def copy(self, old: str, new: str) -> int:
        """Store an entry, with all that is below it, under another path too, as one version; return their number.

        No byte is stored again: both name the same blocks, and changing one leaves the other. A file or link at `new`
        is replaced. Raises: as `rename`, AlreadyExists when a directory is there.
        """
        source, target = drive_path(old), drive_path(new)
        stat = await self.lstat(source)
        await self._check_parent(target)
        if await self.exists(target):
            if (await self.lstat(target)).is_dir:
                raise AlreadyExists(f"{new!r} is a directory")
            if stat.is_dir:
                raise NotADirectory(f"{new!r} is not a directory")
        return await (await self._writable_trie()).copy(source, target)

    # -- nested drives

    async def mount(self, path: str, key: PublicKey, *, version: int | None = None, feed: bool = False) -> None:
        """Nest the drive `key` at `path`, at a fixed version or the newest; with `feed`, show a plain feed as a file.

        Raises: AlreadyExists, NotADirectory, InvalidKey, NotWritable.
        """
        where = drive_path(path)
        await self._check_new(where)
        if feed:
            plain = await self._tree.plain_feed(key)
            stat = new_stat(FILE_MODE, mount=Mount(key, version, True))
            await self._put(where, replace(stat, size=plain.byte_length, blocks=plain.length))
            return
        own = await self.own(where)
        stat = replace(
            new_stat(DIRECTORY_MODE, mount=Mount(key, version)),
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

    async def _change_stat(self, path: DrivePath, changed: Callable[[Stat], Stat]) -> Stat:
        """Store what `changed` makes of the attributes of an entry, even when others change them meanwhile."""
        if not path:
            raise InvalidPath("the root of a drive has no attributes of its own")
        trie = await self._writable_trie()
        for _ in range(_ATTEMPTS):
            old, entry = await self._entry(path)
            seen = entry.node if entry is not None else None
            stat = changed(old)

            def unchanged(now: TrieNode | None, _: TrieNode | None, seen: TrieNode | None = seen) -> bool:
                return (now and now.seq) == (seen and seen.seq)

            flags = seen.flags if seen is not None else 0
            if await trie.put(path, encode_stat(stat), flags=flags, condition=unchanged) is not None:
                return stat
        raise LengthChanged(f"others keep changing '/{path}'")

    async def _put(self, path: DrivePath, stat: Stat) -> None:
        await (await self._writable_trie()).put(path, encode_stat(stat))

    async def _remove(self, path: DrivePath) -> None:
        """Remove an entry; the directory it was in stays, even when it was one only because of this entry."""
        await (await self._writable_trie()).delete(path)
        await self._keep_directory(parent(path))

    async def _keep_directory(self, path: DrivePath) -> None:
        """Give a directory that would vanish with its last entry an entry of its own."""
        if path and not await self.exists(path):
            await self._store_new(path, new_stat(DIRECTORY_MODE))
