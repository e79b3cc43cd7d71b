"""Open files with a position, to read and write anywhere in them, and the spool that holds what is written.

The format stores a file whole, so what is written lies in a spool until the file is closed: then all of it becomes one
version. Whoever leaves the `async with` block by an exception changes nothing. Reading alone needs no spool.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from io import SEEK_CUR, SEEK_END, SEEK_SET, BytesIO
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import trio

from ddrive.drive.content import BLOCK_BYTES, Block
from ddrive.drive.reader import FileReader
from ddrive.drive.stat import Stat
from ddrive.errors import BadHandle

MEMORY_BYTES = 4 * 1024 * 1024  # of a spool; a larger one is an unnamed file on disk
_COPY_BYTES = 4 * 1024 * 1024  # taken over at a time from the file as it was


class Mode(NamedTuple):
    """What may be done with an open file."""

    read: bool
    write: bool
    create: bool  # when there is none
    exclusive: bool  # only when there is none
    truncate: bool
    append: bool  # every write goes to the end


MODES: Mapping[str, Mode] = {
    "r": Mode(True, False, False, False, False, False),
    "r+": Mode(True, True, False, False, False, False),
    "w": Mode(False, True, True, False, True, False),
    "w+": Mode(True, True, True, False, True, False),
    "x": Mode(False, True, True, True, True, False),
    "x+": Mode(True, True, True, True, True, False),
    "a": Mode(False, True, True, False, False, True),
    "a+": Mode(True, True, True, False, False, True),
}


class Spool:
    """The bytes of a file that is being written."""

    def __init__(self) -> None:
        self.size = 0
        self._file: IO[bytes] = BytesIO()
        self._on_disk = False

    async def write(self, offset: int, data: Block) -> None:
        """Write `data` at `offset`; a gap before it reads as zeros. Raises: OSError of the disk."""
        end = offset + len(data)
        if not self._on_disk and end > MEMORY_BYTES:
            await self._move_to_disk()
        if self._on_disk:
            await trio.to_thread.run_sync(_write_all, self._file.fileno(), data, offset)
        else:
            self._file.seek(offset)
            self._file.write(data)
        self.size = max(self.size, end)

    async def read(self, offset: int, size: int) -> bytes:
        """Return the bytes `offset` up to `offset + size`, fewer at the end."""
        size = max(0, min(size, self.size - offset))
        if self._on_disk:
            return await trio.to_thread.run_sync(_read_all, self._file.fileno(), size, offset)
        self._file.seek(offset)
        return self._file.read(size)

    async def truncate(self, size: int) -> None:
        """Cut or lengthen the file; what is new reads as zeros."""
        if not self._on_disk and size > MEMORY_BYTES:
            await self._move_to_disk()
        if self._on_disk:
            await trio.to_thread.run_sync(os.ftruncate, self._file.fileno(), size)
        else:
            self._file.truncate(size)
            self._file.seek(0, SEEK_END)
            self._file.write(bytes(size - self._file.tell()))
        self.size = size

    async def blocks(self, start: int = 0) -> AsyncGenerator[Block, None]:
        """Yield everything from `start` on, in blocks as they are stored."""
        for offset in range(start, self.size, BLOCK_BYTES):
            yield await self.read(offset, BLOCK_BYTES)

    def close(self) -> None:
        """Drop all that was written."""
        self._file.close()

    async def _move_to_disk(self) -> None:
        assert isinstance(self._file, BytesIO)
        held = self._file.getvalue()
        self._file = await trio.to_thread.run_sync(_unnamed_file, held)
        self._on_disk = True


Commit = Callable[[Spool, int | None], Awaitable[Stat]]  # stores a file, or adds what is in the spool from there on


class FileHandle:
    """An open file at a position, as the built-in `open` gives one in binary mode. Made by `Drive.open_file`.

    Several tasks may use one; what each does is done as a whole, one after the other.
    """

    def __init__(self, path: str, mode: Mode, stat: Stat, reader: FileReader | None, commit: Commit) -> None:
        """`reader`: of the file as it is, None for a new one; `commit` stores it when it is closed."""
        self.path = path
        self._mode = mode
        self._stat = stat
        self._reader = reader
        self._commit = commit
        self._spool: Spool | None = None
        self._appended = 0 if mode.append else None  # from here on the spool holds what goes to the file's end
        self._position = 0
        self._turn = trio.Lock()
        self._closed = False
        self._dirty = mode.write and (mode.truncate or reader is None)
        if self._dirty:
            self._spool = Spool()

    def __repr__(self) -> str:
        return f"<FileHandle {self.path!r} at {self._position} of {self.size}>"

    @property
    def size(self) -> int:
        """The number of bytes now, with what was written."""
        if self._spool is not None:
            return self._spool.size
        return self._reader.size if self._reader is not None else 0

    @property
    def stat(self) -> Stat:
        """The attributes as they were stored last."""
        return self._stat

    async def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, or all to the end; fewer only where the file ends. Raises: BadHandle."""
        async with self._turn:
            data = await self._read(self._position, self.size - self._position if size < 0 else size)
            self._position += len(data)
            return data

    async def read_at(self, offset: int, size: int) -> bytes:
        """Return the bytes `offset` up to `offset + size`; the position stays. Raises: BadHandle."""
        async with self._turn:
            return await self._read(offset, size)

    async def write(self, data: Block | bytearray) -> int:
        """Write at the position, or at the end of a file opened for appending; return the number of bytes.

        Raises: BadHandle, OSError of the disk.
        """
        async with self._turn:
            offset = self.size if self._mode.append else self._position
            await self._write(offset, data)
            self._position = offset + len(data)
            return len(data)

    async def write_at(self, offset: int, data: Block | bytearray) -> int:
        """Write at `offset`; the position stays. Raises: BadHandle, also for a file opened for appending."""
        if self._mode.append or offset < 0:
            raise BadHandle(f"{self.path} was opened for appending" if self._mode.append else "no negative offsets")
        async with self._turn:
            await self._write(offset, data)
            return len(data)

    async def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file, by default at the position; return its size. Raises: BadHandle."""
        async with self._turn:
            wanted = self._position if size is None else size
            await (await self._writable()).truncate(wanted)
            self._appended = None
            return wanted

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move the position, counted from the start, the position or the end; return it."""
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    async def commit(self) -> Stat:
        """Store what was written as a version now, and go on; return the attributes. Raises: as `Drive.write_file`."""
        async with self._turn:
            return await self._store()

    async def aclose(self) -> None:
        """Store what was written as one version and close. Closing twice is fine. Raises: as `Drive.write_file`."""
        async with self._turn:
            if not self._closed:
                try:
                    await self._store()
                finally:
                    await self._release()

    async def abandon(self) -> None:
        """Close without storing what was written since the last `commit`."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                await self._release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.aclose() if kind is None else self.abandon())

    # -- inside

    async def _read(self, offset: int, size: int) -> bytes:
        self._check(self._mode.read, "reading")
        if self._spool is not None:
            return await self._spool.read(offset, size)
        return await self._reader.read(offset, size) if self._reader is not None else b""

    async def _write(self, offset: int, data: Any) -> None:
        await (await self._writable()).write(offset, memoryview(data).cast("B"))

    async def _writable(self) -> Spool:
        """Return the spool, with the file as it is in it."""
        self._check(self._mode.write, "writing")
        if self._spool is None:
            assert self._reader is not None
            spool = Spool()
            try:
                for offset in range(0, self._reader.size, _COPY_BYTES):
                    await spool.write(offset, await self._reader.read(offset, _COPY_BYTES))
            except BaseException:
                spool.close()
                raise
            self._spool = spool
            self._appended = spool.size if self._mode.append else None
        self._dirty = True
        return self._spool

    async def _store(self) -> Stat:
        self._check(True, "")
        if self._dirty and self._spool is not None:
            self._stat = await self._commit(self._spool, self._appended)
            self._appended = self._spool.size if self._mode.append else None
            self._dirty = False
        return self._stat

    async def _release(self) -> None:
        self._closed = True
        if self._spool is not None:
            self._spool.close()
        if self._reader is not None:
            await self._reader.aclose()

    def _check(self, allowed: bool, what: str) -> None:
        if self._closed:
            raise BadHandle(f"{self.path} is closed")
        if not allowed:
            raise BadHandle(f"{self.path} was not opened for {what}")


def _unnamed_file(held: bytes) -> IO[bytes]:
    """Return a file without a name that holds these bytes."""
    file = TemporaryFile(buffering=0)  # noqa: SIM115 (it lives as long as its spool)
    try:
        _write_all(file.fileno(), held, 0)
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    return file


def _write_all(descriptor: int, data: Block, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read_all(descriptor: int, size: int, offset: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(descriptor, size, offset)):
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)
