"""Changing a drive: files, directories, links, attributes, nested drives, and many entries at once.

A change goes to the drive that owns the path; only that one has to be writable. It is decided on the version that it
follows (`present`), so that changes at the same time, in whatever process, do not lose each other.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from ddrive.drive.content import Block
from ddrive.drive.mounts import OwnDrive
from ddrive.drive.paths import DrivePath, drive_path
from ddrive.drive.present import Present
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
from ddrive.errors import InvalidPath, IsADirectory, LengthChanged, NotFound, NotWritable
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from ddrive.trie import Delete, MountPoint, MountTrie, Owner, Put, Trie
from ddrive.trie.mountpoint import mount_changes, removal

Decide = Callable[[Present, str], Awaitable[Sequence[Put | Delete]]]  # shown a drive, and the key of a path in it


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
        own = await self._holder(where)
        await Present(own.trie.snapshot(), where, own.path).replaceable(own.path)
        stat = new_stat(FILE_BIT | mode & PERMISSION_BITS, uid=uid, gid=gid, mtime_ms=mtime_ms, metadata=metadata)
        return await self._store_content(own, where, stat, blocks_of(content), lambda _, new: new)

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

        async def decide(present: Present, key: str) -> Sequence[Put | Delete]:
            node, stat = await present.existing(key)
            if stat.is_dir:
                raise IsADirectory(f"{path!r} is a directory")
            return [*removal(key, node), *await present.kept_directory(key)]

        await self._change(drive_path(path), decide)

    async def rmdir(self, path: str) -> None:
        """Remove an empty directory. Raises: NotFound, NotADirectory, NotEmpty, CrossesMount, NotWritable."""

        async def decide(present: Present, key: str) -> Sequence[Put | Delete]:
            await present.empty_directory(key)
            return [Delete("/" + key), *await present.kept_directory(key)]

        await self._change(drive_path(path), decide)

    async def rename(self, old: str, new: str) -> None:
        """Move an entry with everything below it, as one version; what is at `new` is replaced if it is alike.

        Raises: NotFound, NotADirectory, IsADirectory, NotEmpty, CrossesMount, InvalidPath, NotWritable.
        """
        source, target = drive_path(old), drive_path(new)
        if source == target:
            await self.lstat(source)
            return

        async def check(view: Trie, before: str, after: str) -> Sequence[Put | Delete]:
            present = Present(view, source, before)
            await present.check_move(before, after, merge=True)
            directory = before.rpartition("/")[0]
            return () if after.startswith(f"{directory}/") else await present.kept_directory(before)

        await (await self._writable_trie()).rename(source, target, check=check)

    async def set_stat(self, path: str, **changes: Any) -> Stat:
        """Change attributes of an entry (`mode`: permissions, `uid`, `gid`, `mtime_ms`, `ctime_ms`, `metadata`).

        A directory without entry gets one. Content stays where it is. Raises: NotFound, NotWritable, InvalidPath.
        """
        if unknown := changes.keys() - {"mode", "uid", "gid", "mtime_ms", "ctime_ms", "metadata"}:
            raise TypeError(f"cannot change {', '.join(sorted(unknown))}")

        def changed(old: Stat) -> Stat:
            if "mode" not in changes:
                return old._replace(**changes)
            mode = old.mode & ~PERMISSION_BITS | changes["mode"] & PERMISSION_BITS
            return old._replace(**changes | {"mode": mode})

        return await self._change_stat(drive_path(path), changed)

    async def set_metadata(self, path: str, name: str, value: bytes) -> Stat:
        """Store `value` with an entry under `name`; those of mounts are extended attributes. Raises: as `set_stat`."""
        return await self._change_stat(
            drive_path(path), lambda old: old._replace(metadata={**old.metadata, name: value})
        )

    async def remove_metadata(self, path: str, name: str) -> Stat:
        """Forget what is stored with an entry under `name`. Raises: NotFound when nothing is; as `set_stat`."""

        def changed(old: Stat) -> Stat:
            if name not in old.metadata:
                raise NotFound(f"{path!r} has no metadata {name!r}")
            return old._replace(metadata={key: value for key, value in old.metadata.items() if key != name})

        return await self._change_stat(drive_path(path), changed)

    async def copy(self, old: str, new: str) -> int:
        """Store an entry, with all that is below it, under another path too, as one version; return their number.

        No byte is stored again: both name the same blocks, and changing one leaves the other. A file or link at `new`
        is replaced. Raises: as `rename`, AlreadyExists when a directory is there.
        """
        source, target = drive_path(old), drive_path(new)

        async def check(view: Trie, before: str, after: str) -> Sequence[Put | Delete]:
            await Present(view, source, before).check_move(before, after, merge=False)
            return ()

        return await (await self._writable_trie()).copy(source, target, check=check)

    # -- nested drives

    async def mount(self, path: str, key: PublicKey, *, version: int | None = None, feed: bool = False) -> None:
        """Nest the drive `key` at `path`, at a fixed version or the newest; with `feed`, show a plain feed as a file.

        Raises: AlreadyExists, NotADirectory, InvalidKey, NotWritable.
        """
        where = drive_path(path)
        own = await self._holder(where)
        stat = new_stat(FILE_MODE if feed else DIRECTORY_MODE, mount=Mount(key, version, feed))
        if feed:
            plain = await self._tree.plain_feed(key)
            stat = stat._replace(size=plain.byte_length, blocks=plain.length)
        else:
            stat = stat._replace(offset=own.content.length, byte_offset=own.content.byte_length)

        async def decide(present: Present, inner: str) -> Sequence[Put | Delete]:
            await present.check_new(inner)
            value = encode_stat(stat)
            return [Put("/" + inner, value)] if feed else mount_changes(MountPoint(inner, key, version), value)

        await self._change(where, decide)

    async def unmount(self, path: str) -> None:
        """Take a nested drive or feed away; its content stays in the store. Raises: NotFound, NotWritable."""

        async def decide(present: Present, key: str) -> Sequence[Put | Delete]:
            node, stat = await present.existing(key)
            if stat.mount is None:
                raise NotFound(f"nothing is mounted at {path!r}")
            return [*removal(key, node), *await present.kept_directory(key)]

        await self._change(drive_path(path), decide)

    # -- many entries at once

    async def own(self, path: str) -> OwnDrive:
        """Return the drive to which what is at and below `path` belongs, to write to it. Raises: NotWritable."""
        return await self._owned(await (await self._writable_trie()).owner(drive_path(path)), path)

    async def bytes_feed(self, key: PublicKey) -> Feed:
        """Return a feed that files of this drive, or of one that is or was nested in it, have their bytes in."""
        return await self._tree.bytes_feed(key)

    async def batch(self, entries: Sequence[NewEntry], removed: Sequence[str] = ()) -> None:
        """Store many entries of the drive itself: one append for all content, one for all entries.

        Paths are not compared with what is there: the caller knows. `removed` go first.
        Raises: NotWritable, InvalidPath for a name that none can have.
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

    async def _holder(self, path: DrivePath) -> OwnDrive:
        """Return the drive that holds the entry `path` itself, to write to it. Raises: NotWritable."""
        return await self._owned(await (await self._writable_trie()).place(path), path)

    async def _owned(self, place: Owner, path: str) -> OwnDrive:
        if not place.trie.writable:
            raise NotWritable(f"the drive that {path!r} belongs to cannot be changed here")
        return OwnDrive(place.trie.trie, DrivePath(place.inner), await self._tree.content(place.trie))

    async def _change(self, path: DrivePath, decide: Decide) -> None:
        """Do what `decide` answers in the drive that holds the entry `path`, anew when somebody else comes first."""

        async def decided(view: Trie, key: str) -> Sequence[Put | Delete]:
            return await decide(Present(view, path, key), key)

        await (await self._writable_trie()).update(path, decided)

    async def _store_new(self, path: DrivePath, stat: Stat) -> None:
        """Store an entry without content where there is none."""
        content = (await self._holder(path)).content
        if stat.is_dir:
            stat = stat._replace(offset=content.length, byte_offset=content.byte_length)

        async def decide(present: Present, key: str) -> Sequence[Put | Delete]:
            await present.check_new(key)
            return [Put("/" + key, encode_stat(stat))]

        await self._change(path, decide)

    async def _store_content(
        self,
        own: OwnDrive,
        path: DrivePath,
        stat: Stat,
        blocks: AsyncGenerator[Block, None],
        final: Callable[[Stat | None, Stat], Stat],
    ) -> Stat:
        """Append the content of a file, then store its entry; return its attributes.

        These are what `final` answers when it is given those of the entry that is replaced by then, and `stat` with the
        place of the content; it may raise. Raises: LengthChanged when the path belongs to another drive by then.
        """

        async def store_entry(stat: Stat) -> Stat:
            stored = stat

            async def decide(present: Present, key: str) -> Sequence[Put | Delete]:
                nonlocal stored
                if present.trie.feed is not own.trie.feed:
                    raise LengthChanged(f"'/{path}' belongs to another drive by now: write it again")
                stored = final(await present.replaceable(key), stat)
                return [Put("/" + key, encode_stat(stored))]

            await self._change(path, decide)
            return stored

        return await store_stream(own.trie, own.content, own.path, stat, grouped(blocks), store_entry=store_entry)

    async def _change_stat(self, path: DrivePath, changed: Callable[[Stat], Stat]) -> Stat:
        """Store what `changed` makes of the attributes of an entry, and return that."""
        if not path:
            raise InvalidPath("the root of a drive has no attributes of its own")
        stored: list[Stat] = []

        async def decide(present: Present, key: str) -> Sequence[Put | Delete]:
            node, stat = await present.existing(key)
            stored.append(changed(stat))
            return [Put("/" + key, encode_stat(stored[-1]), node.flags if node is not None else 0)]

        await self._change(path, decide)
        return stored[-1]
