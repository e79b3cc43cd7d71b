"""The directory tree that is imported: what is in it, and the bytes of its files.

All functions block and run in worker threads. Nothing is followed: a symbolic link is an entry, other file systems,
sockets and devices are reported and left alone.
"""

import os
import stat as modes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ddrive.drive.content import APPEND_BYTES, BLOCK_BYTES
from ddrive.drive.paths import check_name, join
from ddrive.drive.stat import PERMISSION_BITS, Stat
from ddrive.errors import InvalidPath

LARGE_BYTES = APPEND_BYTES  # a file above that is not read whole
ATTEMPTS = 3  # at reading a file that changes meanwhile
_NS_PER_MS = 1_000_000

Ignore = Callable[[str, bool], bool]  # (path below the source, whether it is a directory) -> leave it out


@dataclass(frozen=True, slots=True)
class Found:
    """Something in the tree: its path in the tree and its attributes, or why it cannot be imported."""

    path: str
    stat: Stat
    refused: str = ""


class Unreadable(Exception):
    """A file that cannot be read as a whole; the text says why."""


def scan(root: Path, ignore: Ignore | None) -> Iterator[Found]:
    """Yield everything below `root`, each directory before what is in it, names in order."""
    pending = [""]
    while pending:
        directory = pending.pop()
        below: list[str] = []
        try:
            with os.scandir(root / directory) as entries:
                names = sorted(entries, key=lambda entry: entry.name)
        except OSError as problem:
            yield Found(directory, Stat(0), problem.strerror or str(problem))
            continue
        for entry in names:
            found = _look_at(entry, join(directory, entry.name))
            if ignore is not None and ignore(found.path, found.stat.is_dir):
                continue
            yield found
            if found.stat.is_dir and not found.refused:
                below.append(found.path)
        pending += reversed(below)


def take(found: Iterator[Found], count: int) -> list[Found]:
    """Return the next `count` of an iterator; to be run in a thread."""
    return list(islice(found, count))


def count_all(root: Path, ignore: Ignore | None) -> tuple[int, int]:
    """Return how many files there are and how many bytes they have."""
    files = size = 0
    for found in scan(root, ignore):
        if found.stat.is_file and not found.refused:
            files += 1
            size += found.stat.size
    return files, size


def _look_at(entry: "os.DirEntry[str]", path: str) -> Found:
    """Return what a directory entry is."""
    try:
        check_name(entry.name)
        status = entry.stat(follow_symlinks=False)
        kind = modes.S_IFMT(status.st_mode)
        if kind not in (modes.S_IFREG, modes.S_IFDIR, modes.S_IFLNK):
            return Found(path, Stat(0), "not a file, directory or symbolic link")
        target = os.readlink(entry.path) if kind == modes.S_IFLNK else None
    except InvalidPath as problem:
        return Found(path, Stat(0), str(problem))
    except OSError as problem:
        return Found(path, Stat(0), problem.strerror or str(problem))
    return Found(path, stat_of(status, target))


def stat_of(status: os.stat_result, target: str | None = None) -> Stat:
    """Return the attributes of a file, directory or link on disk; where its content is comes later."""
    kind = modes.S_IFMT(status.st_mode)
    return Stat(
        mode=kind | status.st_mode & PERMISSION_BITS,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == modes.S_IFREG else 0,
        mtime_ms=status.st_mtime_ns // _NS_PER_MS,
        ctime_ms=status.st_ctime_ns // _NS_PER_MS,
        linkname=target,
    )


class OpenFile:
    """A file of the tree that is being read, block by block. Raises Unreadable when it is not what was found."""

    def __init__(self, root: Path, found: Found) -> None:
        self._bytes = 0
        try:
            self._descriptor = os.open(root / found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as problem:
            raise Unreadable(problem.strerror or str(problem)) from None
        status = os.fstat(self._descriptor)
        if not modes.S_ISREG(status.st_mode):
            self.close()
            raise Unreadable("it was replaced while it was imported")
        self.stat = stat_of(status)
        self._modified_ns = status.st_mtime_ns

    def read(self, size: int) -> list[bytes]:
        """Return the next blocks, about `size` bytes; none at the end."""
        blocks: list[bytes] = []
        try:
            while size > 0 and (block := self._block()):
                blocks.append(block)
                size -= len(block)
        except OSError as problem:
            raise Unreadable(problem.strerror or str(problem)) from None
        return blocks

    def _block(self) -> bytes:
        block = os.read(self._descriptor, BLOCK_BYTES)
        while 0 < len(block) < BLOCK_BYTES and self._bytes + len(block) < self.stat.size:
            more = os.read(self._descriptor, BLOCK_BYTES - len(block))  # a short read in the middle of a file
            if not more:
                break
            block += more
        self._bytes += len(block)
        return block

    def check(self) -> None:
        """Raise Unreadable when the file changed while it was read."""
        now = os.fstat(self._descriptor)
        if self._bytes != self.stat.size or (now.st_size, now.st_mtime_ns) != (self.stat.size, self._modified_ns):
            raise Unreadable("it changes while it is imported")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that was read whole, or why that was not possible."""

    found: Found
    blocks: list[bytes]


def load(root: Path, wanted: list[Found]) -> list[Loaded]:
    """Return the content of these files, small enough to be held in memory together."""
    return [_load(root, found) for found in wanted]


def _load(root: Path, found: Found) -> Loaded:
    why = ""
    for _ in range(ATTEMPTS):
        try:
            file = OpenFile(root, found)
            try:
                blocks = file.read(min(file.stat.size + BLOCK_BYTES, LARGE_BYTES))
                file.check()
            finally:
                file.close()
            return Loaded(Found(found.path, file.stat), blocks)
        except Unreadable as problem:
            why = str(problem)
    return Loaded(Found(found.path, found.stat, why), [])
