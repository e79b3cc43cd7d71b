"""A feed in memory with the methods a trie uses, whose blocks can be missing until the test delivers them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio

from ddrive.errors import LengthChanged
from ddrive.ids import BlockIndex, PublicKey


class FakeFeed:
    """All blocks are known to `blocks`; only those in `held` are here. `asked` counts waits for missing ones."""

    def __init__(self, blocks: Sequence[bytes] = (), *, writable: bool = True, key: bytes = b"\x11" * 32) -> None:
        self.blocks = list(blocks)
        self.held = set(range(len(self.blocks)))
        self.writable = writable
        self.key = PublicKey(key)
        self.wanted: list[int] = []  # open wishes
        self.asked: list[int] = []
        self.listeners: list[Any] = []
        self.appends = 0
        self.before_append: Callable[[], None] | None = None
        self._changed = trio.Event()

    @property
    def length(self) -> int:
        return len(self.blocks)

    def get_held(self, index: BlockIndex) -> bytes | None:
        return self.blocks[index] if index in self.held else None

    async def get(self, index: BlockIndex) -> bytes:
        if index not in self.held:
            self.asked.append(index)
            while index not in self.held:
                await self._changed.wait()
        return self.blocks[index]

    def deliver(self, *indexes: int) -> None:
        """Let missing blocks arrive."""
        for index in indexes:
            self.held.add(index)
            for listener in list(self.listeners):
                listener.stored(index, index + 1)
        self._wake()

    async def append(self, blocks: Sequence[bytes], *, expected_length: int | None = None) -> BlockIndex:
        await trio.lowlevel.checkpoint()
        if self.before_append is not None:
            self.before_append()
        if expected_length is not None and expected_length != self.length:
            raise LengthChanged("somebody else was first")
        start = self.length
        self.extend(blocks)
        self.appends += 1
        return BlockIndex(start)

    def extend(self, blocks: Sequence[bytes]) -> None:
        """Add blocks as if somebody else had appended them."""
        self.held.update(range(self.length, self.length + len(blocks)))
        self.blocks += blocks
        self._wake()

    async def wait_length(self, min_length: int) -> int:
        while self.length < min_length:
            await self._changed.wait()
        return self.length

    async def refresh(self) -> None:
        await trio.lowlevel.checkpoint()

    @contextmanager
    def _wish(self, indexes: list[int]) -> Iterator[None]:
        self.wanted += indexes
        try:
            yield
        finally:
            for index in indexes:
                self.wanted.remove(index)

    def want(self, start: BlockIndex, end: BlockIndex, *, urgent: bool = False) -> Any:
        return self._wish(list(range(start, end)))

    def subscribe(self, listener: Any) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
