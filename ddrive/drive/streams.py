"""The bytes of a file as trio streams, for whatever takes or gives one."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import trio

from ddrive.drive.handles import FileHandle
from ddrive.drive.reader import FileReader

CHUNK_BYTES = 256 * 1024


class FileReceiveStream(trio.abc.ReceiveStream):
    """Gives the bytes of a file; `async for chunk in stream` too. Made by `Drive.read_stream`."""

    def __init__(self, opened: Callable[[], Awaitable[FileReader]], start: int = 0, end: int | None = None) -> None:
        """`opened` opens the file; called at the first read."""
        self._open = opened
        self._reader: FileReader | None = None
        self._position = max(0, start)
        self._end = end
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if data := await self.receive_some():
            return data
        raise StopAsyncIteration

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, none at the end. Raises: as `FileReader.read`, trio.ClosedResourceError."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("the stream is closed")
        if self._reader is None:
            self._reader = await self._open()
        end = self._reader.size if self._end is None else self._end
        data = await self._reader.read(self._position, min(max_bytes or CHUNK_BYTES, end - self._position))
        self._position += len(data)
        return data

    async def aclose(self) -> None:
        """Withdraw every wish."""
        self._closed = True
        if self._reader is not None:
            await self._reader.aclose()
        await trio.lowlevel.checkpoint()


class FileSendStream(trio.abc.SendStream):
    """Takes the bytes of a file, which is stored when the stream is closed. Made by `Drive.write_stream`.

    When the `async with` block is left by an exception, nothing is stored.
    """

    def __init__(self, opened: Callable[[], Awaitable[FileHandle]]) -> None:
        """`opened` opens the file for writing; called at the first write, or at the end."""
        self._open = opened
        self._handle: FileHandle | None = None
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Take in bytes. Raises: trio.ClosedResourceError, OSError of the disk."""
        await trio.lowlevel.checkpoint()
        await (await self._opened()).write(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Store the file as one version. Raises: as `Drive.write_file`."""
        if not self._closed:
            handle = await self._opened()
            self._closed = True
            await handle.aclose()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.aclose()
        elif self._handle is not None:
            self._closed = True
            await self._handle.abandon()

    async def _opened(self) -> FileHandle:
        if self._closed:
            raise trio.ClosedResourceError("the stream is closed")
        if self._handle is None:
            self._handle = await self._open()
        return self._handle
