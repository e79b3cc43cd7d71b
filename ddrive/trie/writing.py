"""Changes of a trie as they come, several in one append."""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import trio

from ddrive.trie.batch import Delete, Put

BATCH_CHANGES = 256  # collected before they are appended together
BATCH_BYTES = 1024 * 1024


class WriteStream(trio.abc.SendChannel[Put | Delete]):
    """Takes `Put` and `Delete`; made by `Trie.write_stream`.

    Leaving its `async with` block appends what is left; leaving it by an exception does not.
    """

    def __init__(self, batch: Callable[[Sequence[Put | Delete]], Awaitable[Any]]) -> None:
        self.written = 0  # changes appended so far
        self._append = batch
        self._changes: list[Put | Delete] = []
        self._bytes = 0
        self._turn = trio.Lock()
        self._is_closed = False

    async def send(self, value: Put | Delete) -> None:
        """Take in a change. Raises: trio.ClosedResourceError; when a batch is full, as `Trie.batch`."""
        if self._is_closed:
            raise trio.ClosedResourceError
        self._changes.append(value)
        self._bytes += len(value.key) + (len(value.value or b"") if isinstance(value, Put) else 0)
        if len(self._changes) >= BATCH_CHANGES or self._bytes >= BATCH_BYTES:
            await self.flush()
        else:
            await trio.lowlevel.checkpoint()

    async def flush(self) -> None:
        """Return when all that was taken in is done and durable. Raises: as `Trie.batch`; then it is dropped."""
        async with self._turn:
            changes, self._changes, self._bytes = self._changes, [], 0
            if changes:
                await self._append(changes)
                self.written += len(changes)

    async def aclose(self) -> None:
        """Do what is left and take no more. Raises: as `flush`."""
        if not self._is_closed:
            self._is_closed = True
            await self.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.aclose()
        else:
            self._is_closed = True
            self._changes.clear()
