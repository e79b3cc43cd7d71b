"""Copying a directory tree into a drive: only what changed, many files per append.

The tree is walked twice at most (once to count, when progress is wanted) and never held in memory: what is found is
compared with the drive by size and time, then, where only the time differs, by content; what is new is read in worker
threads and stored in batches. A batch that is stored stays, and content that was appended before an interruption is
found again, so an import that was interrupted goes on where it stopped.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import trio

from ddrive.drive.apart import Apart
from ddrive.drive.content import APPEND_BYTES, Block, Spare
from ddrive.drive.drive import Drive
from ddrive.drive.ignore import Ignore, Ignoring
from ddrive.drive.mounts import OwnDrive
from ddrive.drive.paths import PATH_BYTES_MAX, is_too_long, join
from ddrive.drive.report import Notice, Progress, Refused, Tally
from ddrive.drive.source import (
    ATTEMPTS,
    LARGE_BYTES,
    Found,
    Gone,
    OpenFile,
    Unreadable,
    count_all,
    identity_at,
    is_gone,
    load,
    read_patterns,
    scan,
    take,
    with_parents,
)
from ddrive.drive.stat import Stat, decode_stat
from ddrive.drive.stored import find_spare, holds, placed, renewed, same_attributes, same_content, values_in
from ddrive.drive.writer import NewEntry, blocks_of, store, store_stream
from ddrive.errors import CorruptStorage, NotADirectory, SourceChanged
from ddrive.trie import MOUNT_FLAG, Delete

CHUNK_BYTES = 4 * 1024 * 1024  # of a large file that is compared, read with one hop to a thread
LISTED_MIN = 8  # entries of one directory to compare, for which the drive's are listed rather than looked up
BATCH_ENTRIES = 1024  # stored with one append; the event loop is busy with them for about 0.1 s


@dataclass(slots=True)
class ImportReport:
    """What of the tree is now in the drive, and what could not be taken.

    `changed` entries were stored anew. Of those refused, `unsettled` changed while they were read, again and again:
    they can be imported when they rest; and `unreadable` could not be read, for want of permission mostly, or have
    names that are not UTF-8. `secret` was left out as it holds secret keys, and is not among the refused.
    """

    files: int = 0
    directories: int = 0
    links: int = 0
    bytes: int = 0
    changed: int = 0
    removed: int = 0
    refused: list[Refused] = field(default_factory=list)
    secret: list[Refused] = field(default_factory=list)
    unsettled: int = 0
    unreadable: int = 0


async def import_tree(
    drive: Drive | None,
    source: Path,
    *,
    into: str = "/",
    delete: bool = False,
    dry_run: bool = False,
    only: Collection[str] | None = None,
    patterns: Sequence[str] = (),
    ignore: Ignore | None = None,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> ImportReport:
    """Copy everything below the directory `source` to `into`; entries of equal size, time and mode are left alone.

    Modes, owners, times, links, empty directories and extended attributes of the user are kept. Sockets, devices, what
    cannot be read and what changes all the time is refused and reported. With `delete`, entries that `source` lacks are
    removed (nested drives stay, and what lies where we may not look). What ignore files in the tree, `patterns` (lines
    as in `.gitignore`) or `ignore(path, is_directory)` leave out is left out on both sides, and so are directories that
    hold secret keys: state directories of engines, stores, and feeds of one's own. `only` these paths below
    `source`, with all below them and the directories above them, are looked at. With `dry_run` nothing is stored or
    removed, and a `drive` that is None counts as empty.
    Raises: NotADirectory, NotWritable, CrossesMount when `into` lies in a nested drive that is not writable, OSError.
    """
    source = Path(source)
    if not await trio.to_thread.run_sync(source.is_dir):
        raise NotADirectory(f"{source} is not a directory: only a directory can be imported")
    own = None if drive is None else await drive.own(into)
    apart = Apart(str(source), ignore)
    ignoring = Ignoring(partial(read_patterns, source), patterns, apart.leaves_out)
    running = _Import(own, source, dry_run=dry_run or own is None, lists=only is None, notice=notice)
    if progress is not None:
        running.tally = Tally(progress, *await trio.to_thread.run_sync(count_all, source, ignoring))
    if own is not None and not dry_run:
        running.spare = await find_spare(own)
    found = scan(source, ignoring, only)
    while group := await trio.to_thread.run_sync(take, found, BATCH_ENTRIES):
        await running.group(group)
    await running.flush()
    await running.check_source()
    if delete and own is not None:
        await running.remove_others(own, ignoring, only)
    running.report.secret = apart.found
    return running.report


class _Import:
    """One running import; `own` None is an empty drive."""

    def __init__(
        self, own: OwnDrive | None, source: Path, *, dry_run: bool, lists: bool, notice: Notice | None
    ) -> None:
        """`lists`: whether whole directories are compared."""
        self.report = ImportReport()
        self.tally = Tally()
        self.spare: Spare | None = None
        self._own = own
        self._source = source
        self._identity = identity_at(source)
        self._dry_run = dry_run
        self._notice = notice
        self._empty = own is None or own.trie.version <= 1  # nothing to compare with
        self._lists = lists
        self._listed: tuple[str, dict[str, bytes | None]] | None = None  # what the drive has in one directory
        self._mounts: list[str] | None = None
        self._entries: list[NewEntry] = []
        self._removed: list[str] = []
        self._bytes = 0  # of the entries gathered

    async def group(self, group: list[Found]) -> None:
        """Store what is new or changed among `group`."""
        to_read: list[tuple[Found, Stat | None]] = []
        size = 0
        together = Counter(found.path.rpartition("/")[0] for found in group)
        for found in group:
            why = found.refused or await self._why_not(found)
            if why:
                self._refuse(found.path, why, unreadable=found.unreadable)
                continue
            old = await self._old(found, together[found.path.rpartition("/")[0]])
            if old is not None and same_content(old, found.stat):
                self._keep(found.path, old, found.stat)
            elif not found.stat.is_file or (self._dry_run and (old is None or old.size != found.stat.size)):
                self._add(found.path, renewed(old, found.stat), ())
            elif found.stat.size > LARGE_BYTES:
                await self._store_large(found, old)
            else:
                to_read.append((found, old))
                size += found.stat.size
            if size >= APPEND_BYTES:
                await self._read(to_read)
                to_read, size = [], 0
        await self._read(to_read)
        await self.flush()

    async def check_source(self) -> None:
        """Raise NotADirectory when the source itself is not there any more: all in it would count as gone."""
        if await trio.to_thread.run_sync(identity_at, self._source) != self._identity:
            raise NotADirectory(f"{self._source} was moved or unmounted while it was imported: import it again")

    async def flush(self) -> None:
        """Store what was gathered."""
        entries, removed = self._entries, self._removed
        self._entries, self._removed, self._bytes = [], [], 0
        if not entries and not removed:
            return
        if self._own is not None and not self._dry_run:
            await store(self._own.trie, self._own.content, entries, removed, spare=self.spare)
        for entry in entries:
            self._changed(entry.path)
            self._done(entry.stat)

    # -- removing

    async def remove_others(self, own: OwnDrive, ignoring: Ignoring, only: Collection[str] | None) -> None:
        """Remove the entries that the source does not have; nested drives stay."""
        keys: list[str] = []
        asked = [""] if only is None else [path for path, is_asked in with_parents(only) if is_asked]
        for path in asked:
            where = join(own.path, path)
            async for node in own.trie.snapshot().iterate(where, gt=where == own.path):
                below = node.key[len(own.path) :].lstrip("/")
                old = _decoded(node.value)
                is_directory = old is not None and old.is_dir
                if node.flags != MOUNT_FLAG and not ignoring.leaves_out(below, is_directory=is_directory):
                    keys.append(node.key)
                if len(keys) >= BATCH_ENTRIES:
                    await self._remove_missing(own, keys)
                    keys = []
        await self._remove_missing(own, keys)

    async def _remove_missing(self, own: OwnDrive, keys: list[str]) -> None:
        """Remove those entries that stand for nothing in the source; none when the source itself has gone."""
        skipped = len(own.path)

        def missing() -> list[str]:
            gone = [key for key in keys if is_gone(self._source, key[skipped:].lstrip("/"))]
            return gone if identity_at(self._source) == self._identity else []

        gone = await trio.to_thread.run_sync(missing)
        if gone and not self._dry_run:
            await own.trie.batch([Delete(key) for key in gone])
        self.report.removed += len(gone)
        for key in gone:
            self._tell("del", key)

    # -- comparing

    async def _why_not(self, found: Found) -> str:
        """Return why something cannot be stored in this drive, "" when it can."""
        if self._mounts is None:
            self._mounts = [] if self._own is None or self._empty else await self._own.mount_paths()
        path = self._place(found.path)
        if is_too_long(path):
            return f"its path is longer than {PATH_BYTES_MAX} bytes"
        for mount in self._mounts:
            if path == mount or path.startswith(mount + "/"):
                return "a nested drive is mounted there"
            if mount.startswith(path + "/") and not found.stat.is_dir:
                return "a nested drive is mounted below it"
        return ""

    async def _old(self, found: Found, together: int) -> Stat | None:
        """Return what the drive has there, None when it has nothing of the kind; takes note of what has to go first.

        `together`: how many entries of that directory are compared now.
        """
        if self._own is None or self._empty:
            return None
        path = self._place(found.path)
        directory, _, name = path.rpartition("/")
        if self._lists and together >= LISTED_MIN and (self._listed is None or self._listed[0] != directory):
            self._listed = directory, await values_in(self._own.trie, directory)
        value = None
        if self._listed is not None and self._listed[0] == directory:
            if name not in self._listed[1]:
                return None
            value = self._listed[1][name]
        if value is None:
            node = await self._own.trie.get(path)
            value = None if node is None else node.value
        old = None if value is None else _decoded(value)
        if not found.stat.is_dir and (old is None or old.is_dir) and await self._own.trie.newest(path) is not None:
            self._removed += [below.key for below in await self._own.trie.list(path)]
            return None
        return None if old is not None and old.mount is not None else old

    async def _holds(self, old: Stat | None, found: Found, chunks: AsyncGenerator[Block, None]) -> bool:
        """Tell whether the drive has these bytes of a file already, though its time is another one."""
        if self._own is None or old is None or not old.is_file or old.size != found.stat.size:
            return False
        return await holds(self._own.content, old, chunks)

    # -- storing

    def _keep(self, path: str, old: Stat, new: Stat) -> None:
        """Store new attributes, if they are new, with the content that is there."""
        if same_attributes(old, new):
            self._done(new)
        else:
            self._entries.append(NewEntry(self._place(path), placed(old, new), placed=True))

    async def _read(self, wanted: list[tuple[Found, Stat | None]]) -> None:
        """Read files that fit in memory together, and gather them."""
        if not wanted:
            return
        files = await trio.to_thread.run_sync(load, self._source, [found for found, _ in wanted])
        before = {found.path: old for found, old in wanted}
        for file in files:
            found, old = file.found, before[file.found.path]
            if found.refused:
                self._refuse(found.path, found.refused, unsettled=file.changes, unreadable=found.unreadable)
            elif old is not None and await self._holds(old, found, blocks_of(b"".join(file.blocks))):
                self._keep(found.path, old, found.stat)
            else:
                self._add(found.path, renewed(old, found.stat), file.blocks)
        if self._bytes >= APPEND_BYTES:
            await self.flush()

    async def _store_large(self, found: Found, old: Stat | None) -> None:
        """Store a file piece by piece, once more from the start when it changes meanwhile."""
        why, changes = "", False
        for _ in range(ATTEMPTS):
            try:
                if old is not None and old.size == found.stat.size:
                    async with _opened(self._source, found) as file:
                        if await self._holds(old, found, self._chunks(file)):
                            self._keep(found.path, old, file.stat)
                            return
                if self._own is None or self._dry_run:
                    self._changed(self._place(found.path))
                    self._done(found.stat)
                    return
                async with _opened(self._source, found) as file:
                    path, stat = self._place(found.path), renewed(old, file.stat)
                    groups = self._groups(file)
                    stored = await store_stream(self._own.trie, self._own.content, path, stat, groups, spare=self.spare)
            except Gone:
                return
            except (Unreadable, SourceChanged) as problem:
                why, changes = str(problem), isinstance(problem, SourceChanged)
                continue
            self._changed(path)
            self._done(stored, counted=True)
            return
        self._refuse(found.path, why, unsettled=changes, unreadable=not changes)

    async def _chunks(self, file: OpenFile) -> AsyncGenerator[Block, None]:
        """Yield the blocks of a large file, then check that it stayed what it was."""
        while blocks := await trio.to_thread.run_sync(file.read, CHUNK_BYTES):
            for block in blocks:
                yield block
        file.check()

    async def _groups(self, file: OpenFile) -> AsyncGenerator[Sequence[Block], None]:
        """Yield the blocks of a large file where they are, count them, then check that it stayed what it was."""
        for group in file.groups():
            yield group
            self.tally.add_bytes(sum(group.sizes))
        file.check()

    # -- counting

    def _place(self, path: str) -> str:
        """Return where something of the tree is in its drive."""
        return path if self._own is None else join(self._own.path, path)

    def _add(self, path: str, stat: Stat, blocks: Sequence[Block]) -> None:
        self._entries.append(NewEntry(self._place(path), stat, blocks))
        self._bytes += stat.size

    def _refuse(self, path: str, why: str, *, unsettled: bool = False, unreadable: bool = False) -> None:
        self.report.refused.append(Refused(path, why))
        self.report.unsettled += unsettled
        self.report.unreadable += unreadable

    def _changed(self, path: str) -> None:
        self.report.changed += 1
        self._tell("put", path)

    def _tell(self, kind: Literal["put", "del"], path: str) -> None:
        if self._notice is not None:
            self._notice(kind, path)

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


@asynccontextmanager
async def _opened(source: Path, found: Found) -> AsyncGenerator[OpenFile, None]:
    """Give a file of the tree, opened. Raises: Unreadable, Gone, SourceChanged."""
    file = await trio.to_thread.run_sync(OpenFile, source, found)
    try:
        yield file
    finally:
        file.close()


def _decoded(value: bytes | None) -> Stat | None:
    """Return stored attributes, None when they make no sense and are to be replaced."""
    try:
        return decode_stat(value)
    except CorruptStorage:
        return None
