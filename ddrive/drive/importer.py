"""Copying a directory tree into a drive: only what changed, many files per append.

The tree is walked twice at most (once to count, when progress is wanted) and never held in memory: what is found is
compared with the drive, read in worker threads and stored in batches. A batch that is stored stays, so an import that
was interrupted goes on where it stopped.
"""

import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from ddrive.drive.content import APPEND_BYTES, Block
from ddrive.drive.drive import Drive
from ddrive.drive.mounts import OwnDrive
from ddrive.drive.paths import join
from ddrive.drive.report import Progress, Refused, Tally
from ddrive.drive.source import (
    ATTEMPTS,
    LARGE_BYTES,
    Found,
    Ignore,
    OpenFile,
    Unreadable,
    count_all,
    load,
    scan,
    take,
)
from ddrive.drive.stat import KIND_BITS, Stat, decode_stat, encode_stat
from ddrive.drive.writer import NewEntry, store, store_stream
from ddrive.errors import CorruptStorage, NotADirectory
from ddrive.trie import MOUNT_FLAG, Delete

CHUNK_BYTES = 4 * 1024 * 1024  # of a large file, read with one hop to a thread
BATCH_ENTRIES = 1024  # stored with one append; the event loop is busy with them for about 0.1 s


@dataclass(slots=True)
class ImportReport:
    """What of the tree is now in the drive, and what could not be taken. `changed` entries were stored anew."""

    files: int = 0
    directories: int = 0
    links: int = 0
    bytes: int = 0
    changed: int = 0
    removed: int = 0
    refused: list[Refused] = field(default_factory=list)


async def import_tree(
    drive: Drive,
    source: Path,
    *,
    into: str = "/",
    delete: bool = False,
    ignore: Ignore | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Copy everything below the directory `source` to `into`; entries of equal size, time and mode are left alone.

    Modes, owners, times, links and empty directories are kept. Sockets, devices, what cannot be read and what changes
    all the time is refused and reported. With `delete`, entries that `source` lacks are removed (nested drives stay).
    `ignore(path, is_directory)` tells what to leave out, on both sides.
    Raises: NotADirectory, NotWritable, CrossesMount when `into` lies in a nested drive that is not writable, OSError.
    """
    source = Path(source)
    if not await trio.to_thread.run_sync(source.is_dir):
        raise NotADirectory(f"{source} is not a directory: only a directory can be imported")
    own = await drive.own(into)
    running = _Import(own, source)
    if progress is not None:
        running.tally = Tally(progress, *await trio.to_thread.run_sync(count_all, source, ignore))
    found = scan(source, ignore)
    while group := await trio.to_thread.run_sync(take, found, BATCH_ENTRIES):
        await running.group(group)
    await running.flush()
    if delete:
        await running.remove_others(ignore)
    return running.report


class _Import:
    """One running import."""

    def __init__(self, own: OwnDrive, source: Path) -> None:
        self.report = ImportReport()
        self.tally = Tally()
        self._own = own
        self._source = source
        self._empty = own.trie.version <= 1  # nothing to compare with
        self._mounts: list[str] | None = None
        self._entries: list[NewEntry] = []
        self._removed: list[str] = []
        self._bytes = 0  # of the entries gathered

    async def group(self, group: list[Found]) -> None:
        """Store what is new or changed among `group`."""
        to_read: list[Found] = []
        size = 0
        for found in group:
            why = found.refused or await self._why_not(found)
            if why:
                self._refuse(found.path, why)
            elif await self._is_stored(found):
                self._done(found.stat)
            elif not found.stat.is_file:
                self._add(found.path, found.stat, ())
            elif found.stat.size > LARGE_BYTES:
                await self._store_large(found)
            else:
                to_read.append(found)
                size += found.stat.size
            if size >= APPEND_BYTES:
                await self._read(to_read)
                to_read, size = [], 0
        await self._read(to_read)
        await self.flush()

    async def flush(self) -> None:
        """Store what was gathered."""
        entries, removed = self._entries, self._removed
        self._entries, self._removed, self._bytes = [], [], 0
        if not entries and not removed:
            return
        await store(self._own.trie, self._own.content, entries, removed)
        self.report.changed += len(entries)
        for entry in entries:
            self._done(entry.stat)

    async def remove_others(self, ignore: Ignore | None) -> None:
        """Remove the entries that the source does not have; nested drives stay."""
        own = self._own
        walk = own.trie.snapshot().iterate(own.path, gt=True)
        keys: list[str] = []
        async for node in walk:
            below = node.key[len(own.path) :].lstrip("/")
            old = _decoded(node.value)
            if node.flags != MOUNT_FLAG and not (ignore and ignore(below, old is not None and old.is_dir)):
                keys.append(node.key)
            if len(keys) >= BATCH_ENTRIES:
                await self._remove_missing(keys)
                keys = []
        await self._remove_missing(keys)

    async def _remove_missing(self, keys: list[str]) -> None:
        """Remove those entries that stand for nothing in the source."""
        skipped = len(self._own.path)

        def missing() -> list[str]:
            return [key for key in keys if not os.path.lexists(self._source / key[skipped:].lstrip("/"))]

        gone = await trio.to_thread.run_sync(missing)
        if gone:
            await self._own.trie.batch([Delete(key) for key in gone])
            self.report.removed += len(gone)

    async def _why_not(self, found: Found) -> str:
        """Return why something cannot be stored in this drive, "" when it can."""
        if self._mounts is None:
            self._mounts = [] if self._empty else await self._own.mount_paths()
        path = join(self._own.path, found.path)
        for mount in self._mounts:
            if path == mount or path.startswith(mount + "/"):
                return "a nested drive is mounted there"
            if mount.startswith(path + "/") and not found.stat.is_dir:
                return "a nested drive is mounted below it"
        return ""

    async def _is_stored(self, found: Found) -> bool:
        """Tell whether the drive has this already; takes note of what has to go first when it has not.

        A file of which only mode or owner changed is stored with the content it has.
        """
        if self._empty:
            return False
        path, stat = join(self._own.path, found.path), found.stat
        node = await self._own.trie.get(path)
        old = None if node is None else _decoded(node.value)
        if not stat.is_dir and (old is None or old.is_dir) and await self._own.trie.newest(path) is not None:
            self._removed += [below.key for below in await self._own.trie.list(path)]
            return False
        if old is None or _kept(old) != _kept(stat):
            return False
        if (old.mode, old.uid, old.gid) != (stat.mode, stat.uid, stat.gid):
            changed = replace(old, mode=stat.mode, uid=stat.uid, gid=stat.gid, ctime_ms=stat.ctime_ms)
            await self._own.trie.put(path, encode_stat(changed))
            self.report.changed += 1
        return True

    async def _read(self, wanted: list[Found]) -> None:
        """Read files that fit in memory together, and gather them."""
        if not wanted:
            return
        for file in await trio.to_thread.run_sync(load, self._source, wanted):
            if file.found.refused:
                self._refuse(file.found.path, file.found.refused)
            else:
                self._add(file.found.path, file.found.stat, file.blocks)
        if self._bytes >= APPEND_BYTES:
            await self.flush()

    async def _store_large(self, found: Found) -> None:
        """Store a file piece by piece, once more from the start when it changes meanwhile."""
        why = ""
        for _ in range(ATTEMPTS):
            try:
                file = await trio.to_thread.run_sync(OpenFile, self._source, found)
                try:
                    own = self._own
                    path = join(own.path, found.path)
                    stat = await store_stream(own.trie, own.content, path, file.stat, self._chunks(file))
                finally:
                    file.close()
            except Unreadable as problem:
                why = str(problem)
                continue
            self.report.changed += 1
            self._done(stat, counted=True)
            return
        self._refuse(found.path, why)

    async def _chunks(self, file: OpenFile) -> AsyncGenerator[Block, None]:
        """Yield the blocks of a large file, then check that it stayed what it was."""
        while blocks := await trio.to_thread.run_sync(file.read, CHUNK_BYTES):
            for block in blocks:
                yield block
            self.tally.add_bytes(sum(map(len, blocks)))
        file.check()

    def _add(self, path: str, stat: Stat, blocks: Sequence[Block]) -> None:
        self._entries.append(NewEntry(join(self._own.path, path), stat, blocks))
        self._bytes += stat.size

    def _refuse(self, path: str, why: str) -> None:
        self.report.refused.append(Refused(path, why))

    def _done(self, stat: Stat, *, counted: bool = False) -> None:
        """Count something that is in the drive now."""
        if stat.is_dir:
            self.report.directories += 1
        elif stat.is_symlink:
            self.report.links += 1
        else:
            self.report.files += 1
            self.report.bytes += stat.size
            self.tally.add_file(0 if counted else stat.size)


def _kept(stat: Stat) -> tuple[object, ...]:
    """Return what tells whether something is unchanged; owner and permissions do not touch content."""
    return stat.mode & KIND_BITS, stat.size, stat.mtime_ms, stat.linkname


def _decoded(value: bytes | None) -> Stat | None:
    """Return stored attributes, None when they make no sense and are to be replaced."""
    try:
        return decode_stat(value)
    except CorruptStorage:
        return None
