"""The directory tree that is imported: what is in it, and the bytes of its files.

All functions block and run in worker threads. Nothing is followed: a symbolic link is an entry; sockets, devices and,
in a mounted drive, the drives that are nested in it are reported and left alone.
"""

import errno
import os
import stat as modes
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from itertools import islice
from pathlib import Path

from ddrive.drive.below import Here, here_at
from ddrive.drive.content import APPEND_BYTES, BLOCK_BYTES
from ddrive.drive.deep import reachable
from ddrive.drive.ignore import IGNORE_FILES, Ignoring
from ddrive.drive.paths import PATH_BYTES_MAX, check_name, is_too_long, join
from ddrive.drive.stat import (
    NO_METADATA,
    PERMISSION_BITS,
    TOLD_ATTRIBUTES,
    USER_ATTRIBUTES,
    Stat,
    storable_ms,
    user_attributes,
)
from ddrive.errors import InvalidPath, SourceChanged
from ddrive.feed.file_blocks import FileBlocks, Place

LARGE_BYTES = APPEND_BYTES  # a file above that is not read whole
GROUP_BYTES = 64 * 1024 * 1024  # of a large file, appended without being read here
ATTEMPTS = 3  # at reading a file that changes meanwhile
IGNORE_FILE_BYTES_MAX = 1024 * 1024
_KINDS = (modes.S_IFREG, modes.S_IFDIR, modes.S_IFLNK)
_NS_PER_MS = 1_000_000
_DRIVE_KEY = "user.ddrive.key"
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_REPLACED = "it was replaced while it was imported"


Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class Found:
    """Something in the tree: its path in the tree and its attributes, or why it cannot be imported."""

    path: str
    stat: Stat
    refused: str = ""
    unreadable: bool = False  # it is one that could be imported, were it readable, or had another name
    identity: Identity | None = None  # which file it is


class Unreadable(Exception):
    """A file that cannot be read as a whole; the text says why."""


class Gone(Exception):
    """A file that is not there any more."""


def scan(root: Path, ignoring: Ignoring, only: Collection[str] | None = None) -> Iterator[Found]:
    """Yield everything below `root`, each directory before what is in it, names in order.

    With `only`, just these paths with all below them, and the directories above them; what is not there is passed over.
    """
    drive = _drive_at(str(root))
    pending = [""]
    if only is not None:
        pending = []
        entered = {""}
        for path, is_asked in with_parents(only):
            if path.rpartition("/")[0] not in entered:  # what was a directory may be a link by now, to anywhere
                continue
            found = _look_at(str(root), path, drive)
            if found is None or ignoring.leaves_out(path, is_directory=found.stat.is_dir):
                continue
            yield found
            if found.stat.is_dir and not found.refused:
                entered.add(path)
                pending += [path] if is_asked else []
    while pending:
        directory = pending.pop()
        below: list[str] = []
        for found in _in_directory(str(root), directory, drive):
            if found.path != directory and ignoring.leaves_out_here(found.path, is_directory=found.stat.is_dir):
                continue
            yield found
            if found.stat.is_dir and not found.refused:
                below.append(found.path)
        pending += reversed(below)


def _in_directory(root: str, directory: str, drive: bytes | None) -> Iterator[Found]:
    """Yield what is in a directory of the tree, names in order; the directory itself when it cannot be listed."""
    try:
        with here_at(root, directory, os.O_RDONLY) as here:
            for name in sorted(os.listdir(here.descriptor)):
                found = _look(here, name, join(directory, name), drive)
                if found is not None:
                    yield found
    except OSError as problem:
        if directory and problem.errno in (errno.ENOENT, errno.ENOTDIR):
            return  # it has gone
        yield Found(directory, Stat(0), problem.strerror or str(problem), unreadable=True)


def take(found: Iterator[Found], count: int) -> list[Found]:
    """Return the next `count` of an iterator; to be run in a thread."""
    return list(islice(found, count))


def with_parents(only: Collection[str]) -> list[tuple[str, bool]]:
    """Return these paths and the directories above them, with whether it is one of `only`; none below another one."""
    found: dict[str, bool] = {}
    for path in sorted(only):
        above = [path[:end] for end, character in enumerate(path) if character == "/"]
        if not any(found.get(directory) for directory in above):
            found.update(dict.fromkeys(above, False))
            found[path] = True
    return list(found.items())


def read_patterns(root: Path, directory: str) -> list[str]:
    """Return the lines of the ignore files in a directory of the tree."""
    lines: list[str] = []
    with suppress(OSError), reachable(str(root), directory) as place:
        for name in IGNORE_FILES:
            lines += _small_text(f"{place}/{name}").splitlines()
    return lines


def _small_text(place: str) -> str:
    """Return what an ignore file holds, "" when there is none that can be read."""
    try:
        with open(place, "rb", opener=_without_waiting) as file:
            is_file = modes.S_ISREG(os.fstat(file.fileno()).st_mode)
            return file.read(IGNORE_FILE_BYTES_MAX).decode("utf-8", "surrogateescape") if is_file else ""
    except OSError:
        return ""


def _without_waiting(path: str, flags: int) -> int:
    """Open a file for `open`, a FIFO also when nobody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def count_all(root: Path, ignoring: Ignoring) -> tuple[int, int]:
    """Return how many files there are and how many bytes they have."""
    files = size = 0
    for found in scan(root, ignoring):
        if found.stat.is_file and not found.refused:
            files += 1
            size += found.stat.size
    return files, size


def _look_at(root: str, path: str, drive: bytes | None) -> Found | None:
    """Return what is at `path` of the tree, None when it has gone. The tree itself may lie in a mounted `drive`."""
    try:
        directory, _, name = path.rpartition("/")
        with here_at(root, directory) as here:
            return _look(here, name, path, drive)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        return Found(path, Stat(0), problem.strerror or str(problem), unreadable=True)


def _look(here: Here, name: str, path: str, drive: bytes | None) -> Found | None:
    """Return what is in a directory under a name, which is at `path` of the tree, None when it has gone."""
    if is_too_long(path):
        return Found(path, Stat(0), f"its path is longer than {PATH_BYTES_MAX} bytes", unreadable=True)
    try:
        return _seen(here, name, path, drive)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        return Found(path, Stat(0), problem.strerror or str(problem), unreadable=True)


def _seen(here: Here, name: str, path: str, drive: bytes | None) -> Found:
    """Return what is in a directory under a name, which is at `path` of the tree. Raises: OSError."""
    try:
        check_name(name)
        status = os.stat(name, dir_fd=here.descriptor, follow_symlinks=False)
        kind = modes.S_IFMT(status.st_mode)
        if kind not in _KINDS:
            return Found(path, Stat(0), "not a file, directory or symbolic link")
        target = os.readlink(name, dir_fd=here.descriptor) if kind == modes.S_IFLNK else None
    except InvalidPath as problem:
        return Found(path, Stat(0), str(problem), unreadable=_is_storable(here, name))
    attributes = _attributes(here, name) if target is None else NO_METADATA
    if kind == modes.S_IFDIR and _drive_at(f"{here.place}/{name}") not in (None, drive):
        return Found(path, Stat(0), "a drive of its own is mounted there")
    kept = user_attributes(attributes)
    return Found(path, stat_of(status, target, kept), identity=(status.st_dev, status.st_ino))


def _is_storable(here: Here, name: str) -> bool:
    """Tell whether what is in a directory under a name is of a kind that drives hold."""
    try:
        return modes.S_IFMT(os.stat(name, dir_fd=here.descriptor, follow_symlinks=False).st_mode) in _KINDS
    except OSError:
        return False


def _drive_at(place: str) -> bytes | None:
    """Return the key of the mounted drive that a directory lies in, None when it lies in none."""
    try:
        return os.getxattr(place, _DRIVE_KEY, follow_symlinks=False)  # told, not listed
    except OSError:
        return None


def _attributes(here: Here, name: str) -> Mapping[str, bytes]:
    """Return the user's extended attributes of a file or directory; none where there is no such thing."""
    try:
        if here.path is not None and not os.listxattr(f"{here.path}/{name}", follow_symlinks=False):
            return NO_METADATA
        place = f"{here.place}/{name}"
        names = os.listxattr(place, follow_symlinks=False)
        return {
            name: os.getxattr(place, name, follow_symlinks=False)
            for name in names
            if name.startswith(USER_ATTRIBUTES) and not name.startswith(TOLD_ATTRIBUTES)
        }
    except OSError:
        return NO_METADATA


def stat_of(status: os.stat_result, target: str | None = None, metadata: Mapping[str, bytes] = NO_METADATA) -> Stat:
    """Return the attributes of a file, directory or link on disk; where its content is comes later."""
    kind = modes.S_IFMT(status.st_mode)
    return Stat(
        mode=kind | status.st_mode & PERMISSION_BITS,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == modes.S_IFREG else 0,
        mtime_ms=storable_ms(status.st_mtime_ns // _NS_PER_MS),
        ctime_ms=storable_ms(status.st_ctime_ns // _NS_PER_MS),
        linkname=target,
        metadata=metadata,
    )


def _open_file(root: str, found: Found) -> tuple[int, os.stat_result]:
    """Return a descriptor of a file of the tree, and what it says of itself. Raises: OSError.

    By its path, which is the fastest, unless that leads to another file than was found: then no link is followed.
    """
    with reachable(root, found.path) as place:
        descriptor = os.open(place, _FILE)
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino) == found.identity:
        return descriptor, status
    os.close(descriptor)
    directory, _, name = found.path.rpartition("/")
    with here_at(root, directory) as here:
        descriptor = os.open(name, _FILE, dir_fd=here.descriptor)
    return descriptor, os.fstat(descriptor)


class OpenFile:
    """A file of the tree that is being read, block by block.

    Raises: Unreadable, Gone, SourceChanged when it is not what was found.
    """

    def __init__(self, root: Path, found: Found) -> None:
        self._bytes = 0
        try:
            descriptor, status = _open_file(str(root), found)
        except OSError as problem:
            if problem.errno in (errno.ENOENT, errno.ENOTDIR):
                raise Gone from None
            if problem.errno in (errno.ELOOP, errno.ENXIO):  # a link, or a socket
                raise SourceChanged(_REPLACED) from None
            raise Unreadable(problem.strerror or str(problem)) from None
        if not modes.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise SourceChanged(_REPLACED)
        self._file = FileIO(descriptor)
        self.stat = stat_of(status, None, found.stat.metadata)
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

    def groups(self) -> Iterator[FileBlocks]:
        """Yield all blocks without reading them, `GROUP_BYTES` at a time."""
        for start in range(0, self.stat.size, GROUP_BYTES):
            end = min(start + GROUP_BYTES, self.stat.size)
            starts = range(start, end, BLOCK_BYTES)
            yield FileBlocks(self._file, [Place(at, min(BLOCK_BYTES, end - at)) for at in starts])
            self._bytes = end

    def _block(self) -> bytes:
        left = self.stat.size - self._bytes
        if left <= 0 < self._bytes:  # `check` shows whether it has become longer
            return b""
        size = min(BLOCK_BYTES, left) or BLOCK_BYTES  # a file of the kernel that says to be empty may have content
        block = os.read(self._file.fileno(), size)
        while 0 < len(block) < min(size, left):
            more = os.read(self._file.fileno(), size - len(block))  # a short read in the middle of a file
            if not more:
                break
            block += more
        self._bytes += len(block)
        return block

    def check(self) -> None:
        """Raise SourceChanged when the file changed while it was read, Unreadable when its size was never true."""
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.stat.size, self._modified_ns):
            raise SourceChanged("it changes while it is imported")
        if self._bytes != self.stat.size:
            raise Unreadable("it has more or fewer bytes than its size says")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that was read whole, or why that was not possible; `changes`: because it changes all the time."""

    found: Found
    blocks: list[bytes]
    changes: bool = False


def load(root: Path, wanted: list[Found]) -> list[Loaded]:
    """Return the content of these files, small enough to be held in memory together; what has gone is left out."""
    return [loaded for found in wanted if (loaded := _load(root, found)) is not None]


def _load(root: Path, found: Found) -> Loaded | None:
    why, changes = "", False
    for _ in range(ATTEMPTS):
        try:
            file = OpenFile(root, found)
            try:
                blocks = file.read(min(file.stat.size + BLOCK_BYTES, LARGE_BYTES))
                file.check()
            finally:
                file.close()
            return Loaded(Found(found.path, file.stat), blocks)
        except Gone:
            return None
        except (Unreadable, SourceChanged) as problem:
            why, changes = str(problem), isinstance(problem, SourceChanged)
    return Loaded(Found(found.path, found.stat, why, unreadable=not changes), [], changes)


def identity_at(root: Path) -> Identity | None:
    """Return what tells the directory at `root` from all others, None when there is none."""
    try:
        status = os.stat(root)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if modes.S_ISDIR(status.st_mode) else None


def is_gone(root: Path, path: str) -> bool:
    """Tell whether nothing is at a path of the tree; False when nobody can tell, as it lies where we may not look."""
    try:
        with reachable(str(root), path) as place:
            os.lstat(place)
    except ValueError:  # no system has such names
        return True
    except OSError as problem:
        return problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
    return False
