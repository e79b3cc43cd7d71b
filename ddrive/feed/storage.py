"""Byte files behind one synchronous interface, on disk or in memory, and the directory that holds a feed's files.

Calls run on the event loop: a `pread` from the page cache takes about a microsecond, a hop to a thread some hundreds.
Only `sync` waits for the platter, and callers put it into a thread when `Directory.blocking` says so.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ddrive.errors import StorageLocked
from ddrive.feed.hashing import Buffer
from ddrive.feed.uncached import UNCACHED_BYTES, write_pieces

KEY, SECRET_KEY, TREE, SIGNATURES, BITFIELD, DATA = "key", "secret_key", "tree", "signatures", "bitfield", "data"
FORKED = "forked"  # evidence of two histories under one key; not known to npm peers
FILE_NAMES = (KEY, SECRET_KEY, TREE, SIGNATURES, BITFIELD, DATA, "name", FORKED)

_PUNCH_HOLE_KEEP_SIZE = 0x03  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE of <linux/falloc.h>
_LARGE_BYTES = 4096  # pieces of this size on average cost less to write one by one than to join
_NODE_BYTES = 256  # smaller on average are the nodes of a trie, which are read again soon
_ZEROS = bytes(1 << 16)
_MAX_PIECES = os.sysconf("SC_IOV_MAX")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def read_small(directory: "Directory", name: str, max_bytes: int) -> bytes:
    """Return the content of a small file, empty when there is none."""
    try:
        storage = directory.open(name, create=False)
    except FileNotFoundError:
        return b""
    try:
        return storage.read(0, max_bytes)
    finally:
        storage.close()


def write_small(directory: "Directory", name: str, content: bytes) -> None:
    """Write a small file and return when its content is durable."""
    storage = directory.open(name, create=True)
    try:
        storage.write(0, content)
        storage.truncate(len(content))
        storage.sync()
    finally:
        storage.close()


def _cut(pieces: Sequence[Buffer], place: int) -> tuple[list[Buffer], list[Buffer]]:
    """Return the first `place` bytes of `pieces`, and what follows."""
    for number, piece in enumerate(pieces):
        if place < len(piece):
            view = memoryview(piece)
            return [*pieces[:number], view[:place]], [view[place:], *pieces[number + 1 :]]
        place -= len(piece)
    return [*pieces], []


class Storage(Protocol):
    """One random-access byte file."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`: fewer only at the end of the file."""

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`; a gap before it reads as zeros."""

    def write_all(self, offset: int, pieces: Sequence[Buffer]) -> None:
        """Write all pieces one after the other from `offset` on."""

    def write_through(self, offset: int, pieces: Sequence[Buffer]) -> None:
        """Do as `write_all`, for what is to be durable soon and is not read again soon, unless it is small."""

    def size(self) -> int:
        """Return the size of the file in bytes."""

    def truncate(self, size: int) -> None:
        """Set the size of the file in bytes."""

    def punch(self, offset: int, size: int) -> None:
        """Free the range on disk: it reads as zeros, the size of the file stays."""

    def extents(self) -> list[tuple[int, int]]:
        """Return the half-open ranges that may hold something other than zeros, in order."""

    def preload(self, size: int) -> None:
        """Say that the first `size` bytes are going to be read in no particular order. A hint; waits for nothing."""

    def unload(self, offset: int, size: int) -> None:
        """Say that the range has been read and is not needed again soon. A hint; may be called from any thread."""

    def sync(self) -> None:
        """Return when everything written is durable. May be called from another thread."""

    def close(self) -> None:
        """Give the file back."""


class Directory(Protocol):
    """A place that holds the files of one feed."""

    @property
    def blocking(self) -> bool:
        """Whether `Storage.sync` waits for a disk and so belongs into a thread."""

    def open(self, name: str, *, create: bool) -> Storage:
        """Return the file `name`.

        Raises: FileNotFoundError when it is absent and `create` is false.
        """

    def exists(self, name: str) -> bool:
        """Tell whether there is a file `name`."""

    def lock(self) -> None:
        """Become the only owner until `close`.

        Raises: StorageLocked when somebody else is.
        """

    def sync(self) -> None:
        """Return when the names of the files are durable."""

    def close(self) -> None:
        """Give up the lock."""

    def remove(self) -> None:
        """Delete the files of the feed."""


class FileStorage:
    """A file on disk, read and written through its descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]
        while data and (missing := size - sum(map(len, pieces))):
            data = os.pread(self._fd, missing, offset + size - missing)
            pieces.append(data)
        return b"".join(pieces)

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`."""
        written = os.pwrite(self._fd, data, offset)
        while written < len(data):
            written += os.pwrite(self._fd, memoryview(data)[written:], offset + written)

    def write_all(self, offset: int, pieces: Sequence[Buffer]) -> None:
        """Write all pieces one after the other from `offset` on; large ones without putting them together first."""
        size = sum(map(len, pieces))
        if len(pieces) == 1 or size < len(pieces) * _LARGE_BYTES or len(pieces) > _MAX_PIECES:
            self.write(offset, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        elif (written := os.pwritev(self._fd, pieces, offset)) < size:
            self.write(offset + written, b"".join(pieces)[written:])

    def write_through(self, offset: int, pieces: Sequence[Buffer]) -> None:
        """Write all pieces past the kernel's cache, unless they are little together or the nodes of a trie."""
        size = sum(map(len, pieces))
        if size < max(UNCACHED_BYTES, len(pieces) * _NODE_BYTES):
            self.write_all(offset, pieces)
            return
        # the pages at both ends stay in the cache: what is written beside them would wait until they are read again
        head, tail = -offset % _PAGE_BYTES, (offset + size) % _PAGE_BYTES
        first, rest = _cut(pieces, head)
        whole, last = _cut(rest, size - head - tail)
        if size < len(pieces) * _LARGE_BYTES:
            whole = [b"".join(whole)]
        self.write(offset, b"".join(first))
        written = offset + head
        for start in range(0, len(whole), _MAX_PIECES):
            some = whole[start : start + _MAX_PIECES]
            count, wanted = write_pieces(self._fd, some, written), sum(map(len, some))
            if count < wanted:
                self.write(written + count, b"".join(some)[count:])
            written += wanted
        self.write(written, b"".join(last))

    def size(self) -> int:
        """Return the size of the file in bytes."""
        return os.fstat(self._fd).st_size

    def truncate(self, size: int) -> None:
        """Set the size of the file in bytes."""
        os.ftruncate(self._fd, size)

    def punch(self, offset: int, size: int) -> None:
        """Free the range on disk; where the file system cannot, write zeros."""
        end = min(offset + size, self.size())
        if end <= offset:
            return
        if _libc.fallocate(self._fd, _PUNCH_HOLE_KEEP_SIZE, offset, end - offset) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(code, os.strerror(code))
        for start in range(offset, end, len(_ZEROS)):
            self.write(start, _ZEROS[: end - start])

    def extents(self) -> list[tuple[int, int]]:
        """Return the ranges that are not holes."""
        found: list[tuple[int, int]] = []
        end, size = 0, self.size()
        with suppress(OSError):  # ENXIO: nothing but a hole follows
            while end < size:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
                end = os.lseek(self._fd, start, os.SEEK_HOLE)
                found.append((start, end))
        return found

    def preload(self, size: int) -> None:
        """Have the kernel read the first `size` bytes into its cache in large pieces."""
        os.posix_fadvise(self._fd, 0, size, os.POSIX_FADV_WILLNEED)

    def unload(self, offset: int, size: int) -> None:
        """Have the kernel drop the range from its cache, as far as it is on disk."""
        os.posix_fadvise(self._fd, offset, size, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Return when everything written is durable."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FileDirectory:
    """A directory on disk; one that is `read_only` is a view of what another process owns."""

    blocking = True

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._read_only = read_only
        self._lock_fd = -1

    def open(self, name: str, *, create: bool) -> FileStorage:
        """Return the file `name`, made when `create` is true."""
        if self._read_only:
            return FileStorage(os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC))
        if create:
            self.path.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return FileStorage(os.open(self.path / name, flags, 0o600 if name == SECRET_KEY else 0o644))

    def exists(self, name: str) -> bool:
        """Tell whether there is a file `name`."""
        return (self.path / name).exists()

    def lock(self) -> None:
        """Lock the file `bitfield`, as npm peers do. Source: feed.md section 4.4."""
        self.path.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path / BITFIELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise StorageLocked(f"{self.path} is in use by another process") from error
        self._lock_fd = fd

    def sync(self) -> None:
        """Return when the names in the directory, and its own in its parent, are durable."""
        for path in (self.path, self.path.parent):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Give up the lock."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def remove(self) -> None:
        """Delete the files of the feed, and the directory when nothing else is in it."""
        for name in FILE_NAMES:
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()


class MemoryStorage:
    """A file in memory."""

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return bytes(self._content[offset : offset + size])

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`."""
        if offset > len(self._content):
            self._content.extend(bytes(offset - len(self._content)))
        self._content[offset : offset + len(data)] = data

    def write_all(self, offset: int, pieces: Sequence[Buffer]) -> None:
        """Write all pieces one after the other from `offset` on."""
        self.write(offset, b"".join(pieces))

    def write_through(self, offset: int, pieces: Sequence[Buffer]) -> None:
        """Write all pieces."""
        self.write_all(offset, pieces)

    def size(self) -> int:
        """Return the size of the file in bytes."""
        return len(self._content)

    def truncate(self, size: int) -> None:
        """Set the size of the file in bytes."""
        del self._content[size:]
        self._content.extend(bytes(size - len(self._content)))

    def punch(self, offset: int, size: int) -> None:
        """Overwrite the range with zeros."""
        end = min(offset + size, len(self._content))
        if end > offset:
            self._content[offset:end] = bytes(end - offset)

    def extents(self) -> list[tuple[int, int]]:
        """Return the whole file as one range."""
        return [(0, len(self._content))] if self._content else []

    def preload(self, size: int) -> None:
        """Do nothing."""

    def unload(self, offset: int, size: int) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """Do nothing: the content belongs to the directory."""


class MemoryDirectory:
    """A directory in memory, for tests and for feeds that need not outlive the process."""

    blocking = False

    def __init__(self, files: dict[str, bytearray] | None = None) -> None:
        self.files = {} if files is None else files
        self._locked = False

    def open(self, name: str, *, create: bool) -> Storage:
        """Return the file `name`, made when `create` is true."""
        if name not in self.files:
            if not create:
                raise FileNotFoundError(name)
            self.files[name] = bytearray()
        return MemoryStorage(self.files[name])

    def exists(self, name: str) -> bool:
        """Tell whether there is a file `name`."""
        return name in self.files

    def lock(self) -> None:
        """Become the only owner until `close`."""
        if self._locked:
            raise StorageLocked("the feed in memory is in use")
        self._locked = True

    def sync(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """Give up the lock."""
        self._locked = False

    def remove(self) -> None:
        """Delete the files of the feed."""
        for name in FILE_NAMES:
            self.files.pop(name, None)
