"""Keeping all of a drive here, and making one drive like another."""

from typing import NamedTuple

import trio

from ddrive.drive.changing import ChangingDrive
from ddrive.drive.mounts import DriveTree
from ddrive.drive.paths import DrivePath, drive_path
from ddrive.drive.stat import Stat
from ddrive.drive.streams import FileReceiveStream
from ddrive.drive.view import DriveView
from ddrive.drive.writer import NewEntry, blocks_of
from ddrive.errors import InvalidPath
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from ddrive.trie import MountTrie

_TOGETHER_BYTES = 8 * 1024 * 1024  # of small files that are stored as one version each but in one append
_SMALL_BYTES = 1024 * 1024
_TOGETHER_ENTRIES = 1024


async def keep_all(drive: DriveView, tree: DriveTree) -> None:
    """Fetch and keep every block of the drive and of all drives nested in it, old ones and those to come, for ever."""
    async with trio.open_nursery() as nursery:
        keeping = _Keeping(tree, nursery)
        keeping.keep(drive.metadata)
        await keeping.follow(await drive.trie())


class _Keeping:
    """The feeds that are fetched; a nested drive that nobody has holds up no other."""

    def __init__(self, tree: DriveTree, nursery: trio.Nursery) -> None:
        self._tree = tree
        self._nursery = nursery
        self._kept: set[PublicKey] = set()
        self._entered: set[tuple[PublicKey, int | None]] = set()

    def keep(self, feed: Feed) -> None:
        """Fetch every block of a feed from now on."""
        if feed.key not in self._kept:
            self._kept.add(feed.key)
            self._nursery.start_soon(_keep, feed)

    async def follow(self, trie: MountTrie) -> None:
        """Keep a drive and all that is nested in it, for ever."""
        self.keep(trie.feed)
        self.keep(await self._tree.content(trie))
        while True:
            length = trie.feed.length
            for path, mount, _ in await trie.mounts():
                if (mount.key, mount.version) not in self._entered:
                    self._entered.add((mount.key, mount.version))
                    self._nursery.start_soon(self._enter, trie, path)
            await trie.feed.wait_length(length + 1)

    async def _enter(self, trie: MountTrie, path: str) -> None:
        await self.follow((await trie.owner(path)).trie)


async def _keep(feed: Feed) -> None:
    """Fetch every block, for ever."""
    length = 0
    while True:
        length = await feed.wait_length(length + 1)
        await feed.download(0, length)


class MirrorReport(NamedTuple):
    """What was done: entries stored, removed, and left as they were; bytes of the files that were stored."""

    stored: int
    removed: int
    same: int
    bytes: int


async def mirror(source: DriveView, target: ChangingDrive, path: str = "/", *, delete: bool = True) -> MirrorReport:
    """Make what is at and below the directory `path` of `target` like that of `source`.

    Files that have equal size, time and attributes count as equal. Nested drives become nested drives, their content is
    not copied. `delete` removes what `source` does not have. Raises: NotFound, NotWritable, and what reading raises.
    """
    return await _Mirror(source, target, drive_path(path)).run(delete)


class _Mirror:
    def __init__(self, source: DriveView, target: ChangingDrive, start: DrivePath) -> None:
        self._source = source
        self._target = target
        self._start = start
        self._batch: list[NewEntry] = []
        self._batch_bytes = 0
        self._stored = self._removed = self._same = self._bytes = 0

    async def run(self, delete: bool) -> MirrorReport:
        if not (await self._source.stat(self._start)).is_dir:
            raise InvalidPath(f"'/{self._start}' is not a directory")
        there = await _entries(self._target, self._start)
        wanted: set[DrivePath] = set()
        async for path, stat in self._source.walk(self._start, mounts=False):
            wanted.add(path)
            old = there.get(path)
            if old is not None and _alike(old, stat):
                self._same += 1
                continue
            if old is not None and (old.is_dir != stat.is_dir or old.mount != stat.mount):
                await self._remove(path, old, there)
            await self._store(path, stat)
        await self._flush()
        if delete:
            for path in sorted(there.keys() - wanted, key=lambda path: path.count("/"), reverse=True):
                await self._remove(path, there[path], {})
        return MirrorReport(self._stored, self._removed, self._same, self._bytes)

    async def _store(self, path: DrivePath, stat: Stat) -> None:
        self._stored += 1
        if stat.mount is not None:
            await self._flush()
            await self._target.mount(path, stat.mount.key, version=stat.mount.version, feed=stat.mount.feed)
            return
        if not stat.is_file or stat.size <= _SMALL_BYTES:
            data = await self._source.read_file(path) if stat.is_file else b""
            self._batch.append(NewEntry(path, stat, [block async for block in blocks_of(data)]))
            self._batch_bytes += len(data)
            if self._batch_bytes > _TOGETHER_BYTES or len(self._batch) >= _TOGETHER_ENTRIES:
                await self._flush()
            return
        await self._flush()
        async with FileReceiveStream(lambda: self._source.open(path)) as content:
            self._bytes += stat.size
            await self._target.write_file(
                path,
                content,
                mode=stat.mode,
                uid=stat.uid,
                gid=stat.gid,
                mtime_ms=stat.mtime_ms,
                metadata=stat.metadata,
            )

    async def _flush(self) -> None:
        if self._batch:
            await self._target.batch(self._batch)
            self._bytes += self._batch_bytes
            self._batch, self._batch_bytes = [], 0

    async def _remove(self, path: DrivePath, stat: Stat, there: dict[DrivePath, Stat]) -> None:
        """Remove an entry of the target, with what is below it as far as `there` knows it."""
        await self._flush()
        below = [inner for inner in there if inner.startswith(f"{path}/")]
        for inner in sorted(below, key=lambda inner: inner.count("/"), reverse=True):
            await self._remove(inner, there.pop(inner), {})
        if stat.mount is not None:
            await self._target.unmount(path)
        elif stat.is_dir:
            await self._target.rmdir(path)
        else:
            await self._target.unlink(path)
        self._removed += 1


async def _entries(target: DriveView, start: DrivePath) -> dict[DrivePath, Stat]:
    if not await target.exists(start):
        return {}
    return {path: stat async for path, stat in target.walk(start, mounts=False)}


def _alike(old: Stat, new: Stat) -> bool:
    """Tell whether nothing has to be done for an entry that is like `new` elsewhere."""
    if old.mount is not None and old.mount == new.mount:
        return True  # the other attributes of such an entry are told by what is nested, or say when that was done
    if old.is_dir and new.is_dir:
        return (old.mode, old.mount) == (new.mode, new.mount)
    names = ("mode", "uid", "gid", "size", "mtime_ms", "linkname", "mount", "metadata")
    return all(getattr(old, name) == getattr(new, name) for name in names)
