"""Writing a drive's tree, of any version and from any path down, into a directory.

What is there already with the same size and time is left as it is, so an export that was interrupted goes on where it
stopped; a file that was not whole then is begun again. Nested drives are entered like directories, but never in a
circle. What cannot be written or does not verify, file content and all of nested drives that cannot be had is listed in
the report and does not stop the rest; for want of entries of the drive itself the export ends with an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

import trio

from ddrive.drive.drive import Drive
from ddrive.drive.holdings import wanting
from ddrive.drive.lifetime import at_once
from ddrive.drive.paths import DrivePath, drive_path, join, parent
from ddrive.drive.reaching import Reach
from ddrive.drive.reader import FileReader
from ddrive.drive.report import Notice, Progress, Refused, Tally
from ddrive.drive.restoring import AttributesLost, Blocked, blocked
from ddrive.drive.stat import Stat
from ddrive.drive.target import Directory, File, Output, write_all
from ddrive.drive.walks import DirEntry, Inside
from ddrive.errors import CorruptStorage, DiskFull, ImpossibleEntry, InvalidProof, NameTooLong, NotFound, NotHeld

SMALL_BYTES = 1024 * 1024  # files up to that are gathered and written with one hop to a thread
GATHERED_BYTES = 8 * 1024 * 1024
GATHERED_FILES = 256
CHUNK_BYTES = 4 * 1024 * 1024  # of a large file
OPEN_LEVELS = 64  # directories above these are opened again on the way back


@dataclass(slots=True)
class ExportReport:
    """What the target now holds, and what is not in it. `hostile_names` were left out of listings.

    Of those refused, `unwritten` could not be written, or removed, as the target is or their path is too long, and what
    is held here of `unverified` ones is not what their author signed.
    """

    files: int = 0
    directories: int = 0
    links: int = 0
    bytes: int = 0
    written: int = 0  # of all these, what was not there already
    removed: int = 0
    hostile_names: int = 0
    unwritten: int = 0
    unverified: int = 0
    refused: list[Refused] = field(default_factory=list)


@dataclass(slots=True)
class _Level:
    """A directory that is being written: where, what is still to come, what gathered so far."""

    path: DrivePath
    directory: Directory
    stat: Stat | None  # None: the target itself, whose mode and times stay
    below: list[tuple[DrivePath, Stat]]  # directories still to be entered, in reverse
    drives: frozenset[bytes]  # keys of the drives we are inside of
    inside: Inside | None  # the innermost of the nested ones


async def export_tree(
    drive: Drive,
    path: str,
    dest: Path,
    *,
    delete: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    notice: Notice | None = None,
    reach: Reach | None = None,
) -> ExportReport:
    """Write what is at and below `path` into the directory `dest`, which is made if need be.

    A file at `path` is written into `dest` under its name. Without `delete` things are only added and updated; with
    it, what the drive lacks is removed and a directory in the place of a file is replaced.
    Directories there that hold secret keys are left as they are, and what is mounted is not removed.
    Modes (without set-user-id and set-group-id), times, link targets and extended attributes of the user are restored,
    owners are not. With `dry_run` nothing is written or removed. `notice` hears of each path of the drive that is, or
    would be. `reach` decides how long a nested drive is waited for, and the content of the drive itself (as one at the
    path ""), and lists what could not be had.
    Raises: NotFound, DiskFull, UnusablePlace or OSError when `dest` cannot be used, and what reading raises.
    """
    reach = reach or Reach()
    export = _Export(drive, reach, delete=delete, dry_run=dry_run, notice=notice)
    start = drive_path(path)
    if progress is not None:
        export.tally = await _tally(drive, start, progress, reach)
    hostile_before = drive.hostile_names
    stat = await drive.stat(start)
    root = await trio.to_thread.run_sync(Directory.look if dry_run else Directory.root, Path(dest))
    try:
        if stat.is_dir:
            await export.tree(start, root)
        else:
            try:
                await export.file(start, root, stat)
            finally:
                root.close()
    except DiskFull as problem:
        raise DiskFull(f"{problem} ({dest}): free some space there, then export again: it goes on from there") from None
    export.report.hostile_names = drive.hostile_names - hostile_before
    export.report.refused += reach.refused
    export.report.unverified += reach.unverified
    return export.report


class _Export:
    """One running export."""

    def __init__(self, drive: Drive, reach: Reach, *, delete: bool, dry_run: bool, notice: Notice | None) -> None:
        self.report = ExportReport()
        self._reach = reach
        self.tally = Tally()
        self._drive = drive
        self._delete = delete
        self._dry_run = dry_run
        self._notice = notice

    async def tree(self, start: DrivePath, root: Directory) -> None:
        """Write the directory `start` and all below it."""
        levels = [_Level(start, root, None, [], frozenset([self._drive.key]), None)]
        try:
            levels[0].below = await self._fill(levels[0])
            while levels:
                level = levels[-1]
                if level.below:
                    deeper = self._enter(level, *level.below.pop())
                    if deeper is not None:
                        levels.append(deeper)
                        if len(levels) > OPEN_LEVELS + 1:  # the target itself stays open
                            levels[-OPEN_LEVELS - 1].directory.suspend()
                        deeper.below = await self._fill(deeper)
                    continue
                self._return(levels)
                if level.stat is not None:
                    self._finish(level.path, level.directory, level.stat)
                level.directory.close()
        finally:
            for level in levels:
                level.directory.close()

    def _return(self, levels: list[_Level]) -> None:
        """Leave the last directory and open the one above it again, if need be; one that has gone is left out."""
        left = levels.pop()
        if not levels or not levels[-1].directory.is_suspended:
            return
        try:
            levels[-1].directory.resume("..", left.directory)
        except Blocked:
            self._find(levels)

    def _find(self, levels: list[_Level]) -> None:
        """Open the last directory again from the target down, or the next one above it that is still there."""
        for above, level in pairwise(levels):
            if level.directory.is_suspended:
                try:
                    level.directory.resume(level.path.rpartition("/")[2], above.directory)
                except Blocked as problem:
                    first = levels.index(level)
                    for lost in levels[first:]:
                        self._blocked(lost.path, problem)
                    del levels[first:]
                    return
                if above is not levels[0]:
                    above.directory.suspend()

    async def file(self, path: DrivePath, root: Directory, stat: Stat) -> None:
        """Write a single file or link."""
        entry = DirEntry(path.rpartition("/")[2], stat)
        if not self._dry_run:
            await trio.to_thread.run_sync(root.tidy, {entry.name})
        await self._entries(parent(path), root, [entry], None)

    def _enter(self, level: _Level, path: DrivePath, stat: Stat) -> _Level | None:
        """Return the level for a directory of `level`; None when it cannot be entered."""
        drives, inside = level.drives, level.inside
        if stat.mount is not None:
            if stat.mount.key in drives:
                self._refuse(path, "it is a drive that contains itself")
                return None
            drives |= {stat.mount.key}
            inside = Inside(path, stat.mount.key, stat.mount.version)
        name = path.rpartition("/")[2]
        try:
            if self._dry_run:
                directory = level.directory.look_into(name)
            else:
                directory = level.directory.enter(name, replace=self._delete)
        except Blocked as problem:
            self._blocked(path, problem)
            return None
        self.report.directories += 1
        if directory.is_new:
            self._wrote(path)
        return _Level(path, directory, stat, [], drives, inside)

    async def _fill(self, level: _Level) -> list[tuple[DrivePath, Stat]]:
        """Write the files and links of a directory; return the directories in it, in reverse."""
        try:
            entries = await self._reach.attempt(level.inside, level.path, partial(self._drive.list, level.path))
        except NameTooLong as problem:
            self._blocked(level.path, Blocked(str(problem)))
            return []
        except NotFound as problem:  # only an entry whose own name nobody can look up told of it
            if level.stat is None:
                raise
            self._refuse(level.path, str(problem))
            return []
        if entries is None:
            return []
        if not (self._dry_run or level.directory.is_new):
            await trio.to_thread.run_sync(level.directory.tidy, {name for name, _ in entries})
        below = [(join(level.path, name), stat) for name, stat in entries if stat.is_dir]
        if self._delete:
            await self._remove_others(level, {name for name, _ in entries})
        files = [entry for entry in entries if not entry.stat.is_dir]
        await self._entries(level.path, level.directory, files, level.inside)
        return below[::-1]

    async def _entries(
        self, path: DrivePath, directory: Directory, entries: list[DirEntry], inside: Inside | None
    ) -> None:
        """Write files and links of one directory."""
        gathered: list[DirEntry] = []
        size = 0
        for name, stat in entries:
            if not (stat.is_file or stat.is_symlink):
                self._refuse(join(path, name), "not a file, directory or symbolic link")
            elif directory.is_current(name, stat, mend=not self._dry_run, exact=self._delete):
                self._done(join(path, name), stat, written=False)
            elif self._dry_run:
                self._done(join(path, name), stat, written=True)
            elif stat.size > SMALL_BYTES or stat.mount is not None:
                await self._large(join(path, name), directory, name, stat, inside)
            else:
                gathered.append(DirEntry(name, stat))
                size += stat.size
            if size >= GATHERED_BYTES or len(gathered) >= GATHERED_FILES:
                await self._small(path, directory, gathered, inside)
                gathered, size = [], 0
        await self._small(path, directory, gathered, inside)

    async def _small(
        self, path: DrivePath, directory: Directory, entries: list[DirEntry], inside: Inside | None
    ) -> None:
        """Write small files and links: all that is missing of them is asked for at once."""
        outputs = [Output(name, stat) for name, stat in entries if stat.is_symlink]
        readers: list[tuple[DirEntry, FileReader]] = []
        for entry in entries:
            if entry.stat.is_file:
                with self._verifying(join(path, entry.name)):
                    readers.append((entry, await self._drive.open(join(path, entry.name))))
        with wanting(reader for _, reader in readers):
            for entry, reader in readers:
                where = join(path, entry.name)
                with self._verifying(where):
                    data = await self._read(reader, 0, reader.size, inside, where)
                    if data is not None:
                        outputs.append(Output(entry.name, entry.stat, data))
        if outputs:
            await self._write(path, directory, outputs)

    async def _large(self, path: DrivePath, directory: Directory, name: str, stat: Stat, inside: Inside | None) -> None:
        """Write a file piece by piece; of one that turns out not to verify, or cannot be had, nothing is written."""
        if stat.mount is not None:
            inside = Inside(path, stat.mount.key, stat.mount.version)
        with self._verifying(path):
            reader = await self._reach.attempt(inside, path, partial(self._drive.open, path))
            if reader is None:
                return
            try:
                creating = partial(directory.create, name, replace=self._delete)
                with await trio.to_thread.run_sync(creating) as file:
                    if not await self._copy(reader, file, inside, path):
                        return
                    await trio.to_thread.run_sync(file.finish, stat)
                self._done(path, stat._replace(size=reader.size), written=True, counted=True)  # a feed's is a claim
            except (Blocked, OSError) as problem:
                self._blocked(path, problem)
            finally:
                await reader.aclose()

    @contextmanager
    def _verifying(self, path: DrivePath) -> Iterator[None]:
        """Turn what does not verify into a line of the report."""
        try:
            yield
        except (CorruptStorage, InvalidProof) as problem:
            self._refuse(path, str(problem))
            self.report.unverified += not isinstance(problem, ImpossibleEntry)
        except NameTooLong as problem:
            self._blocked(path, Blocked(str(problem)))

    async def _copy(self, reader: FileReader, file: File, inside: Inside | None, path: DrivePath) -> bool:
        """Write the content of a file; tell whether all of it could be had."""
        for position in range(0, reader.size, CHUNK_BYTES):
            data = await self._read(reader, position, CHUNK_BYTES, inside, path)
            if data is None:
                return False
            await trio.to_thread.run_sync(file.write, [data])
            self.tally.add_bytes(len(data))
        return True

    async def _read(self, file: FileReader, at: int, size: int, inside: Inside | None, path: DrivePath) -> bytes | None:
        """Return some of the content of a file, None when it could not be had."""
        drive = inside or Inside(DrivePath(""), self._drive.key)
        if held := file.held(at, size):
            with suppress(NotHeld), at_once():
                return await file.read(at, size)
            held = file.damaged(at, size)  # else it has gone from the cache since, and is fetched again
        return await self._reach.attempt(drive, path, partial(file.read, at, size), held=held)

    async def _write(self, path: DrivePath, directory: Directory, outputs: list[Output]) -> None:
        """Write what was gathered."""
        if not outputs:
            return
        writing = partial(write_all, directory, outputs, replace=self._delete)
        refused = await trio.to_thread.run_sync(writing)
        for output in outputs:
            if output.name in refused:
                self._blocked(join(path, output.name), refused[output.name])
            else:
                self._done(join(path, output.name), output.stat, written=True)

    async def _remove_others(self, level: _Level, names: set[str]) -> None:
        """Remove what the drive does not have."""
        present = await trio.to_thread.run_sync(level.directory.names)
        for name in sorted(set(present) - names):
            try:
                kept = await trio.to_thread.run_sync(partial(level.directory.remove, name, dry_run=self._dry_run))
            except Blocked as problem:
                kept = [(name, str(problem))]
            for stays, why in kept:
                self._blocked(join(level.path, stays), Blocked(why))
            if not kept:
                self.report.removed += 1
                self._tell("del", join(level.path, name))

    def _finish(self, path: DrivePath, directory: Directory, stat: Stat) -> None:
        if self._dry_run:
            return
        try:
            directory.finish(stat, exact=self._delete)
        except (Blocked, OSError) as problem:
            self._blocked(path, problem)

    def _blocked(self, path: str, problem: Blocked | OSError) -> None:
        """Take note of what the target does not take. Raises: DiskFull."""
        cause = blocked(problem) if isinstance(problem, OSError) else problem
        if not isinstance(cause, Blocked):
            raise cause
        self._refuse(path, str(cause))
        self.report.unwritten += not isinstance(cause, AttributesLost)

    def _refuse(self, path: str, why: str) -> None:
        self.report.refused.append(Refused(path, why))

    def _tell(self, kind: Literal["put", "del"], path: str) -> None:
        if self._notice is not None:
            self._notice(kind, path)

    def _wrote(self, path: str) -> None:
        self.report.written += 1
        self._tell("put", path)

    def _done(self, path: str, stat: Stat, *, written: bool, counted: bool = False) -> None:
        """Count a file or link that is in place."""
        if written:
            self._wrote(path)
        if stat.is_symlink:
            self.report.links += 1
            return
        self.report.files += 1
        self.report.bytes += stat.size
        self.tally.add_file(0 if counted else stat.size)


async def _tally(drive: Drive, start: DrivePath, progress: Progress, reach: Reach) -> Tally:
    """Return a count that knows how much there is to export."""
    stats = [await drive.stat(start)]
    if stats[0].is_dir:
        stats = [stat async for _, stat in drive.walk(start, reach=reach)]
    sizes = [stat.size for stat in stats if stat.is_file]
    return Tally(progress, len(sizes), sum(sizes))


__all__ = ["ExportReport", "Progress", "Refused", "export_tree"]
