"""Past entries: of the whole database in the order in which they were made, and of one key.

Iterators of their own, so that leaving them early needs no clean-up.
"""

from collections.abc import Awaitable, Callable, Sequence

from ddrive.appdb.clock import knows, unseen
from ddrive.appdb.merge import Load, find
from ddrive.appdb.node import Entry, hashes_of
from ddrive.appdb.table import Pointer, pointer_to
from ddrive.appdb.writers import View

_ENTRIES_PER_TURN = 64


class History:
    """Asynchronous iterator over all entries of all writers, each after those its writer had seen; or in reverse.

    As the npm package does it, the very last block that an entry has seen of another feed does not hold it back, unless
    `strict`. Entries that have not seen each other come in the order of their feed numbers. The view is that of the
    first step. A step raises InvalidEntry when clocks contradict each other.
    """

    def __init__(
        self, load: Load, view: Callable[[], Awaitable[View]], *, reverse: bool = False, strict: bool = False
    ) -> None:
        self._load = load
        self._read_view = view
        self._slack = 0 if strict else 1
        self._reverse = reverse
        self._view: View | None = None
        self._pending: dict[int, Entry] = {}
        self._backwards: list[Pointer] = []
        self._given = 0

    def __aiter__(self) -> "History":
        return self

    async def __anext__(self) -> Entry:
        if self._view is None:
            await self._open()
        entry = await self._backward() if self._reverse else await self._forward()
        if entry is None:
            raise StopAsyncIteration
        return entry

    async def _open(self) -> None:
        self._view = await self._read_view()
        for number, length in enumerate(self._view.lengths):
            if length > 1:
                self._pending[number] = await _loaded(self._load, pointer_to(number, 1))
        while self._reverse and (entry := await self._forward()) is not None:
            self._backwards.append(entry.pointer)

    async def _backward(self) -> Entry | None:
        return await _loaded(self._load, self._backwards.pop()) if self._backwards else None

    async def _forward(self) -> Entry | None:
        if self._view is None or not self._pending:
            return None
        number = _next([self._pending[feed] for feed in sorted(self._pending)], self._slack)
        entry = self._pending[number]
        if entry.seq + 1 < self._view.lengths[number]:
            self._pending[number] = await _loaded(self._load, pointer_to(number, entry.seq + 1))
        else:
            del self._pending[number]
        self._given += 1
        if not self._given % _ENTRIES_PER_TURN:
            await self._load.give_way()
        return entry


class KeyHistory:
    """Asynchronous iterator over all nodes of a key, deletions included, each before those its writer had seen.

    The cost is that of a few gets per node. The view is that of the first step.
    """

    def __init__(self, load: Load, heads: Callable[[], Awaitable[Sequence[Entry]]], key: str) -> None:
        self._load = load
        self._heads = heads
        self._key = key
        self._hashes = hashes_of(key)
        self._pending: dict[Pointer, Entry] = {}
        self._earlier: Entry | None = None  # given last: what it replaced comes next
        self._opened = False

    def __aiter__(self) -> "KeyHistory":
        return self

    async def __anext__(self) -> Entry:
        if not self._opened:
            await self._add(await self._heads())
            self._opened = True
        if self._earlier is not None:
            await self._add(await seen_by(self._load, self._earlier))
            self._earlier = None
        if not self._pending:
            raise StopAsyncIteration
        entry = min(unseen(list(self._pending.values())), key=lambda entry: entry.feed, default=None)
        if entry is None:
            first = next(iter(self._pending.values()))
            raise first.fault("its clock and that of another block contradict each other")
        del self._pending[entry.pointer]
        self._earlier = entry
        return entry

    async def _add(self, heads: Sequence[Entry]) -> None:
        for entry in await find(self._load, heads, self._key, self._hashes):
            self._pending[entry.pointer] = entry


async def seen_by(load: Load, entry: Entry) -> list[Entry]:
    """Return the heads that the writer of `entry` had before it."""
    last: list[Entry] = []
    for number, seen in enumerate(entry.clock):
        seq = entry.seq - 1 if number == entry.feed else seen - 1
        if seq > 0:
            last.append(await _loaded(load, pointer_to(number, seq)))
    return unseen(last)


def _next(pending: list[Entry], slack: int) -> int:
    """Return the feed number of the entry that comes before all others."""
    for entry in pending:
        clock = entry.clock
        if not any(
            other is not entry and other.feed < len(clock) and clock[other.feed] > other.seq + slack
            for other in pending
        ):
            return entry.feed
    waits, blocks = pending[0], next(other for other in pending[1:] if knows(pending[0], other))
    raise waits.fault(f"its clock and that of {blocks.place} say in a circle that each came after the other")


async def _loaded(load: Load, pointer: Pointer) -> Entry:
    return load.peek(pointer) or await load.entry(pointer)
