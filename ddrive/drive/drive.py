"""A drive: a versioned file system in two feeds, one for entries and one for their bytes.

Reading is in `view`, changing in `changing`; this module adds open files, what concerns the drive as a whole, and
opening and making one.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from ddrive.drive import holdings
from ddrive.drive.changing import ChangingDrive
from ddrive.drive.handles import MODES, FileHandle, Mode, Spool
from ddrive.drive.history import Log
from ddrive.drive.mirroring import keep_all
from ddrive.drive.mounts import DriveTree
from ddrive.drive.paths import DrivePath, drive_path
from ddrive.drive.present import Present
from ddrive.drive.reaching import Reach
from ddrive.drive.rewriting import Outdated, Rewrite, Rewritten, longer, resized
from ddrive.drive.stat import FILE_BIT, FILE_MODE, NO_METADATA, PERMISSION_BITS, Stat
from ddrive.drive.streams import FileReceiveStream, FileSendStream
from ddrive.drive.tags import Tags
from ddrive.drive.watch import Watch
from ddrive.drive.writer import blocks_of, new_stat
from ddrive.errors import AlreadyExists, BadHandle, LengthChanged, NotFound, NotWritable, Unsupported
from ddrive.feed import Feed
from ddrive.feed.subscription import Subscription
from ddrive.ids import DiscoveryKey, PublicKey
from ddrive.store.derive import discovery_of
from ddrive.store.interface import Store, StoreEvent

_ATTEMPTS = 256  # at storing a file that others keep storing: each time one of them got through


class Info(NamedTuple):
    """To which drive a path belongs: its metadata feed, where it is nested ("" for the outer one), the path inside it.

    `version` is the one at which it is pinned there, None when its newest is shown.
    """

    feed: Feed
    mounted_at: DrivePath
    inner: DrivePath
    version: int | None
    writable: bool


class DriveFeeds(NamedTuple):
    """The two feeds of a drive."""

    metadata: Feed
    content: Feed


class Drive(ChangingDrive):
    """A drive, to read and, where its secret key is at hand, to write. Made by `open_drive` and `checkout`.

    `async with drive:` closes it at the end.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def dialect_name(self) -> str:
        """The family of peers that the drive is shared with."""
        return self._tree.store.dialect.name

    @property
    def discovery_key(self) -> DiscoveryKey:
        """The name under which peers look for the drive."""
        return discovery_of(self.key, self._tree.store.dialect)

    @property
    def peer_count(self) -> int:
        """How many peers carry the drive now."""
        return self.metadata.peer_count

    # -- open files and streams

    async def open_file(
        self,
        path: str,
        mode: str = "r",
        *,
        permissions: int = FILE_MODE,
        uid: int = 0,
        gid: int = 0,
        metadata: Mapping[str, bytes] = NO_METADATA,
    ) -> FileHandle:
        """Open a file, following links, as the built-in `open` does: `mode` is `r`, `w`, `x` or `a`, with `+` for both.

        What is written becomes one version when the file is closed, and nothing of it when the `async with` block is
        left by an exception. Then `a` adds to what the file has by then, the others replace it, and `x` raises
        AlreadyExists when there is one by then. The other options are for a file that is made.
        Raises: ValueError for another mode, NotFound, AlreadyExists, IsADirectory, NotADirectory, NotWritable.
        """
        chosen = MODES.get(mode.replace("b", ""))
        if chosen is None:
            raise ValueError(f"{mode!r} is no mode of an open file: {', '.join(MODES)}")
        if not chosen.write:
            where = await self.resolve(path)
            return FileHandle(path, chosen, await self.stat(where), await self.open(where), self._no_commit)
        where, stat = await self._to_write(path, chosen)
        reader = None if stat is None or chosen.truncate else await self.open(where)
        made = new_stat(FILE_BIT | permissions & PERMISSION_BITS, uid=uid, gid=gid, metadata=metadata)
        exclusive = chosen.exclusive

        async def commit(spool: Spool, appended: int | None) -> Stat:
            nonlocal exclusive
            if appended is None:
                stored = await self._store_file(where, made, lambda _: spool.blocks(), new=exclusive)
            else:
                stored = await self._store_file(
                    where, made, lambda old: longer(old, spool.blocks(appended)), follows=True
                )
            exclusive = False
            return stored

        return FileHandle(path, chosen, stat or made, reader, commit)

    def read_stream(self, path: str, start: int = 0, end: int | None = None) -> FileReceiveStream:
        """Return a trio `ReceiveStream` of the bytes `start` up to `end` of a file, which is opened at the first read.

        Raises, from the first read: as `open`.
        """
        return FileReceiveStream(lambda: self.open(path), start, end)

    def write_stream(
        self,
        path: str,
        *,
        mode: int = FILE_MODE,
        uid: int = 0,
        gid: int = 0,
        metadata: Mapping[str, bytes] = NO_METADATA,
    ) -> FileSendStream:
        """Return a trio `SendStream` that stores what it is sent as a file when it is closed; for `async with`.

        Leaving the block by an exception stores nothing. Raises, from the first write: as `write_file`.
        """
        return FileSendStream(lambda: self.open_file(path, "w", permissions=mode, uid=uid, gid=gid, metadata=metadata))

    async def append_file(self, path: str, data: bytes) -> Stat:
        """Store a file with `data` at its end, made when there is none. The whole file is stored again.

        Raises: as `open_file`.
        """
        where, _ = await self._to_write(path, MODES["a"])
        made = new_stat(FILE_MODE)
        return await self._store_file(where, made, lambda old: longer(old, blocks_of(data)), follows=True)

    async def truncate(self, path: str, size: int = 0) -> Stat:
        """Cut or lengthen a file; what is new is zeros. Raises: as `open_file`."""
        where, _ = await self._to_write(path, MODES["r+"])
        return await self._store_file(where, new_stat(FILE_MODE), lambda old: resized(old, size), follows=True)

    # -- about paths

    async def access(self, path: str, mode: int = os.F_OK) -> None:
        """Return when `path` leads to something, and with `os.W_OK` to something that can be changed here.

        Raises: as `stat`, NotWritable.
        """
        where = await self.resolve(path)
        await self._resolve(where)
        if mode & os.W_OK and not (await self.info(where)).writable:
            raise NotWritable(f"{path!r} belongs to a drive that cannot be changed here")

    async def info(self, path: str = "/") -> Info:
        """Return to which drive `path`, there or not, belongs; the place of a nested drive belongs to that one."""
        place = await (await self.trie()).owner(drive_path(path))
        version = None if place.mount is None else place.mount.version
        writable = place.trie.writable and not self.fixed
        return Info(place.trie.feed, DrivePath(place.base), DrivePath(place.inner), version, writable)

    async def feeds(self) -> dict[DrivePath, DriveFeeds]:
        """Return the feeds of the drive, under "", and of all nested drives, by where they are.

        Raises: TooManyLinks, and what opening a nested drive raises.
        """
        trie = await self.trie()
        found = {DrivePath(""): DriveFeeds(trie.feed, await self._tree.content(trie))}
        for path, _, _ in await trie.mounts(recursive=True):
            mounted = (await trie.owner(path)).trie
            found[DrivePath(path)] = DriveFeeds(mounted.feed, await self._tree.content(mounted))
        return found

    # -- versions

    @property
    def tags(self) -> Tags:
        """The names of versions."""
        return Tags(self, self._tree.store.dialect.tag_prefix)

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

    def snapshot(self) -> "Drive":
        """Return the view of the present version, which stays as it is."""
        return Drive(self._tree, self.version)

    async def refresh(self) -> int:
        """Return the version that is known when what connected peers have told of is proven. None of them is asked."""
        self._tree.lifetime.check()
        if not self.fixed:
            await self.metadata.refresh()
        return self.version

    def watch(self, path: str = "/") -> Watch:
        """Return an asynchronous iterator over what changes at and below `path` from its first step on.

        Each step gives the changes since the one before, never none. Nested drives are followed once they were looked
        into. A fixed version has no changes. Raises, from a step: Closed.
        """
        return Watch(self, drive_path(path), self._tree.lifetime)

    # -- what is held

    async def download(self, path: str = "/", *, done: holdings.Done | None = None, reach: Reach | None = None) -> None:
        """Fetch and keep everything at and below `path`; `done(path, usage)` is called for each complete file.

        With `reach` what cannot be had of nested drives is left out and listed there.
        Raises: NotFound, and what the feeds raise.
        """
        await self._tree.lifetime.wait(partial(holdings.download, self, path, done=done, reach=reach))

    async def clear(self, path: str = "/", *, reach: Reach | None = None) -> int:
        """Drop the held bytes of everything at and below `path`; return the number of blocks. Own files stay.

        Nested drives of which nothing is held are passed over; `reach` as for `download`.
        Raises: NotFound, NotWritable in a process that does not own the store.
        """
        return await holdings.clear(self, path, reach=reach)

    async def stats(self, path: str = "/", *, reach: Reach | None = None) -> dict[DrivePath, holdings.Usage]:
        """Return size, blocks and held blocks of each file with content at and below `path`. Raises: NotFound."""
        return await holdings.usage(self, path, reach=reach)

    async def mirror(self) -> None:
        """Fetch and keep all versions of the drive and its nested drives, also those to come; runs until cancelled."""
        await self._tree.lifetime.wait(partial(keep_all, self, self._tree))

    # -- the drive as a whole

    def events(self, *kinds: type[StoreEvent]) -> Subscription[StoreEvent]:
        """Return an iterator over what happens to the feeds of the drive and its nested drives (`ddrive.store.events`).

        Raises: Unsupported in a process that does not own the store; `follow` and `watch` work there too.
        """
        self._tree.lifetime.check()
        store = self._tree.store.owner
        if store is None:
            raise Unsupported("only the process that owns a store knows its events: follow the versions instead")
        return store.events(*kinds, about=lambda feed: feed in self._tree.opened)

    async def close(self) -> None:
        """Let go of the feeds. Other views of the same drive end with it, and reads under way: they raise Closed."""
        await self._tree.close()

    async def destroy(self) -> None:
        """Delete the files of the drive's two feeds here; nested drives stay. Nobody can use the drive any more.

        One of our own could only be made again empty: peers who have the old one would take that for a fork.
        Raises: Unsupported in a process that does not own the store.
        """
        store = self._tree.store.owner
        if store is None:
            raise Unsupported("only the process that owns a store can delete its feeds")
        content = await self.content()
        await self.close()
        for feed in (content, self.metadata):
            await store.forget(feed.key)

    # -- inside

    async def _to_write(self, path: str, mode: Mode) -> tuple[DrivePath, Stat | None]:
        """Return where `path` leads to and the attributes of the file there, None when it is to be made.

        Raises: as `open_file`.
        """
        where = drive_path(path)
        try:
            where, stat, _ = await self._resolve(where)
        except NotFound:
            if not mode.create:
                raise
            stat = None
        if stat is not None and mode.exclusive:
            raise AlreadyExists(f"{path!r} exists already")
        if stat is not None and stat.mount is not None and not stat.is_dir:
            raise NotWritable(f"{path!r} shows a feed: write to that")
        own = await self._holder(where)
        there = await Present(own.trie.snapshot(), where, own.path).replaceable(own.path)
        if there is not None and mode.exclusive:
            raise AlreadyExists(f"{path!r} is a link that leads nowhere")
        return where, stat

    async def _store_file(
        self, where: DrivePath, made: Stat, content: Rewritten, *, new: bool = False, follows: bool = False
    ) -> Stat:
        """Store the content of a file; its other attributes are those that it has by then, or those of `made`.

        `content` is given the file as it is. If what it yields `follows` from that, it is asked again when somebody
        else has stored the file meanwhile.
        Raises: AlreadyExists when the file should be `new` and is not; what `content` raises.
        """
        for _ in range(_ATTEMPTS):
            own = await self._holder(where)
            attempt = Rewrite(own, made, content, new=new, follows=follows)
            with suppress(Outdated):
                return await self._store_content(own, where, made, attempt.blocks(), attempt.final)
        raise LengthChanged(f"others keep storing '/{where}'")

    @staticmethod
    async def _no_commit(_: Spool, __: int | None) -> Stat:
        raise BadHandle("the file was opened to read")


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
        metadata = await store.open_feed(name=name or store.default_name, live=version is None)
    metadata.preload()
    tree = DriveTree(store, metadata)
    try:
        if metadata.unborn:
            if not create:
                raise NotFound("there is no such drive yet: create it first")
            await tree.make()
        drive = Drive(tree)
        return drive if version is None else drive.checkout(version)
    except BaseException:  # nobody else knows of what was opened
        await tree.close()
        raise
