"""A feed as a stream: its blocks one after another, and values appended as they come."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import trio

from ddrive.errors import NotHeld, TooLarge
from ddrive.feed.owned import MAX_APPEND_BYTES
from ddrive.standalone.encodings import Encoding

READ_AHEAD_BLOCKS = 64  # wished for beyond the block that is read
WRITE_BATCH_BLOCKS = 128  # collected before they are appended together
WRITE_BATCH_BYTES = 1024 * 1024


class ReadSource(Protocol):
    """What a `ReadStream` reads."""

    @property
    def length(self) -> int: ...

    async def get_range(
        self, start: int, end: int, *, wait: bool, timeout: float | None, if_available: bool | None, value_encoding: Any
    ) -> list[Any]: ...

    async def wait_for_length(self, length: int, timeout: float | None) -> None: ...

    def has(self, start: int, end: int | None = None) -> bool: ...

    def wish(self, start: int, end: int) -> Any: ...


class ReadStream(trio.abc.ReceiveChannel[Any]):
    """The values of a feed in order. Iterate over it, or `receive` one at a time; made by `read_stream`."""

    def __init__(
        self,
        feed: ReadSource,
        start: int,
        end: int | None,
        *,
        live: bool,
        wait: bool,
        timeout: float | None,
        batch: int,
        if_available: bool | None,
        value_encoding: str | Encoding | None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"a batch has at least one block, not {batch}")
        self.position = start  # of the block that comes next
        self.end = end
        self._feed = feed
        self._live = live
        self._wait, self._timeout, self._if_available = wait, timeout, if_available
        self._batch, self._encoding = batch, value_encoding
        self._ready: list[Any] = []  # read and not handed out, last one first
        self._is_closed = False
        self._reading: trio.CancelScope | None = None  # while a task waits

    async def receive(self) -> Any:
        """Return the next value.

        Raises: trio.EndOfChannel behind the last one, trio.ClosedResourceError after `aclose`, trio.BusyResourceError
        while another task waits for a value; else as `get` of the feed, and the stream can be read again.
        """
        if self._is_closed:
            raise trio.ClosedResourceError
        if self._reading is not None:
            raise trio.BusyResourceError("another task reads this stream")
        if not self._ready:
            try:
                with trio.CancelScope() as self._reading:
                    await self._fill()
            finally:
                self._reading = None
            if self._is_closed:
                raise trio.ClosedResourceError
        self.position += 1
        return self._ready.pop()

    async def aclose(self) -> None:
        """Stop reading; a task that waits for a value gets trio.ClosedResourceError."""
        self._is_closed = True
        self._ready.clear()
        if self._reading is not None:
            self._reading.cancel()
        await trio.lowlevel.checkpoint()

    async def _fill(self) -> None:
        start = self.position
        if self.end is not None and start >= self.end:
            raise trio.EndOfChannel
        if start >= self._feed.length and self.end is None and not self._live:
            raise trio.EndOfChannel
        stop = start + self._batch if self.end is None else min(start + self._batch, self.end)
        if start >= self._feed.length:
            if not self._wait:
                raise NotHeld(f"the feed has {self._feed.length} blocks as far as is known here")
            if self.end is None:
                await self._feed.wait_for_length(start + 1, self._timeout)
        stop = max(start + 1, min(stop, self._feed.length))
        ahead = stop + READ_AHEAD_BLOCKS if self.end is None else min(stop + READ_AHEAD_BLOCKS, self.end)
        with self._feed.wish(start, max(stop, min(ahead, self._feed.length))):
            found = await self._feed.get_range(
                start,
                stop,
                wait=self._wait,
                timeout=self._timeout,
                if_available=self._if_available,
                value_encoding=self._encoding,
            )
        self._ready = found[::-1]


class WriteTarget(Protocol):
    """What a `WriteStream` appends to."""

    def encode(self, value: Any) -> bytes: ...

    async def append_blocks(self, blocks: Sequence[bytes], *, durable: bool) -> int: ...


class WriteStream(trio.abc.SendChannel[Any]):
    """Appends values as they come, several under one signature; made by `write_stream`.

    Leaving its `async with` block appends what is left; leaving it by an exception does not. What was taken in
    stays for the next attempt when an append is cancelled before it began; a batch that cannot be written is dropped.
    """

    def __init__(self, feed: WriteTarget, max_block_size: int | None, *, durable: bool) -> None:
        if max_block_size is not None and max_block_size < 1:
            raise ValueError(f"a block has at least one byte, not {max_block_size}")
        if max_block_size is not None and max_block_size > MAX_APPEND_BYTES:
            raise ValueError(f"a block has at most {MAX_APPEND_BYTES} bytes, not {max_block_size}")
        self.written = 0  # blocks appended so far
        self._feed = feed
        self._max_block_size = max_block_size
        self._durable = durable
        self._blocks: list[bytes] = []
        self._bytes = 0
        self._is_closed = False
        self._turn = trio.Lock()

    async def send(self, value: Any) -> None:
        """Take in a value; one whose bytes are longer than `max_block_size` is cut into several blocks.

        Raises: trio.ClosedResourceError, TooLarge, what the encoding raises (the value is not taken in then), and now
        and then what `append` of the feed raises, for this value and others before it.
        """
        if self._is_closed:
            raise trio.ClosedResourceError
        block = self._feed.encode(value)
        size = self._max_block_size or MAX_APPEND_BYTES
        if len(block) > size and self._max_block_size is None:
            raise TooLarge(f"a block has at most {size} bytes, not {len(block)}: give the stream a max_block_size")
        self._blocks += [block[start : start + size] for start in range(0, len(block), size)] or [b""]
        self._bytes += len(block)
        if len(self._blocks) >= WRITE_BATCH_BLOCKS or self._bytes >= WRITE_BATCH_BYTES:
            await self.flush()
        else:
            await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        """Append what was taken in and return when it is, durably unless the stream was made otherwise."""
        async with self._turn:
            (blocks, size), self._blocks, self._bytes = (self._blocks, self._bytes), [], 0
            if blocks:
                try:
                    await self._feed.append_blocks(blocks, durable=self._durable)
                except trio.Cancelled:  # before it began: afterwards it is finished
                    self._blocks[:0] = blocks
                    self._bytes += size
                    raise
                self.written += len(blocks)

    async def aclose(self) -> None:
        """Append what is left and take no more."""
        if not self._is_closed:
            self._is_closed = True
            await self.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            await self.aclose()
        else:
            self._is_closed = True
            self._blocks.clear()
