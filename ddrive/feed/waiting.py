"""Who follows one feed: the tasks that wait for something to happen to it, and the listeners that are told.

A wait says only that looking again is worth while: who wakes up checks, and waits again if need be. Leaving a wait, in
whatever way, leaves nothing behind.
"""

from collections.abc import Callable

import trio

from ddrive.feed.source import FeedListener
from ddrive.ids import BlockIndex


class _Range:
    """A task that waits until all blocks of a range are held."""

    __slots__ = ("end", "event", "full", "lost", "missing", "start")

    def __init__(self, start: int, end: int, missing: int) -> None:
        self.start, self.end, self.missing, self.event = start, end, missing, trio.Event()
        self.full = False  # there is no room for one of them
        self.lost = range(0)  # nobody has these of them


class _Block:
    """Tasks that wait for one block."""

    __slots__ = ("event", "lost")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.lost = False  # nobody has it


class Waiters:
    """The waiting tasks of one feed."""

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._ranges: list[_Range] = []
        self._lengths: list[tuple[int, trio.Event]] = []
        self._news: trio.Event | None = None  # somebody waits for anything at all

    async def block(self, index: int) -> bool:
        """Return when block `index` was stored; False: it is lost, and nobody has it."""
        waiting = self._blocks.setdefault(index, _Block())
        try:
            await waiting.event.wait()
        finally:
            if self._blocks.get(index) is waiting and waiting.event.statistics().tasks_waiting == 0:
                del self._blocks[index]
        return not waiting.lost

    async def blocks(self, start: int, end: int, missing: int) -> _Range:
        """Return when `missing` blocks of the range from `start` up to `end` were stored, or why that cannot be."""
        waiting = _Range(start, end, missing)
        self._ranges.append(waiting)
        try:
            await waiting.event.wait()
        finally:
            self._ranges.remove(waiting)
        return waiting

    async def length(self, min_length: int) -> None:
        """Return when the feed grew to at least `min_length` blocks."""
        entry = (min_length, trio.Event())
        self._lengths.append(entry)
        try:
            await entry[1].wait()
        finally:
            self._lengths.remove(entry)

    async def news(self) -> None:
        """Return when anything was stored."""
        if self._news is None:
            self._news = trio.Event()
        await self._news.wait()

    def stored(self, start: int, end: int) -> None:
        """Wake who waits for some of the blocks `start` up to `end`."""
        if self._blocks:
            reached = [start] if end - start == 1 else [index for index in self._blocks if start <= index < end]
            for index in reached:
                self._wake(index)
        for waiting in self._ranges:
            waiting.missing -= max(0, min(end, waiting.end) - max(start, waiting.start))
            if waiting.missing <= 0:
                waiting.event.set()
        self.changed()

    def passed(self, index: int) -> None:
        """Wake who waits for block `index`, which is here but cannot be kept."""
        self._wake(index)
        for waiting in self._ranges:
            if waiting.start <= index < waiting.end:
                waiting.full = True
                waiting.event.set()
        self.changed()

    def lost(self, start: int, end: int) -> None:
        """Wake who waits for some of the blocks `start` up to `end`, which the disk has lost and nobody else has."""
        for index in [index for index in self._blocks if start <= index < end]:
            self._wake(index, lost=True)
        for waiting in self._ranges:
            if waiting.start < end and start < waiting.end:
                waiting.lost = range(max(start, waiting.start), min(end, waiting.end))
                waiting.event.set()

    def grew(self, length: int) -> None:
        """Wake who waits for at most `length` blocks."""
        for min_length, event in self._lengths:
            if min_length <= length:
                event.set()
        self.changed()

    def changed(self) -> None:
        """Wake who waits for anything."""
        if self._news is not None:
            self._news.set()
            self._news = None

    def wake_all(self) -> None:
        """Wake everybody: the feed was closed."""
        for index in list(self._blocks):
            self._wake(index)
        for waiting in self._ranges:
            waiting.event.set()
        for _, event in self._lengths:
            event.set()
        self.changed()

    def _wake(self, index: int, *, lost: bool = False) -> None:
        waiting = self._blocks.pop(index, None)
        if waiting is not None:
            waiting.lost = lost
            waiting.event.set()


class Audience:
    """The waiting tasks and the listeners of one feed; tasks are woken first, listeners told in order of coming."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self._listeners: list[FeedListener] = []
        self._passing: list[Callable[[int, bytes], None]] = []
        self._losing: list[Callable[[int, int], None]] = []

    def subscribe(self, listener: FeedListener) -> Callable[[], None]:
        """Tell `listener` of changes until the returned function is called."""
        self._listeners.append(listener)

        def leave() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return leave

    def watch_passing(self, watcher: Callable[[int, bytes], None]) -> Callable[[], None]:
        """Give `watcher` each block that there is no room for until the returned function is called."""
        self._passing.append(watcher)
        return lambda: self._passing.remove(watcher) if watcher in self._passing else None

    def watch_lost(self, watcher: Callable[[int, int], None]) -> Callable[[], None]:
        """Give `watcher` each run of lost blocks that are wished for, until the returned function is called."""
        self._losing.append(watcher)
        return lambda: self._losing.remove(watcher) if watcher in self._losing else None

    def lost(self, start: int, end: int) -> None:
        """Blocks `start` up to `end` are wished for, the disk has lost them, and nobody else has them."""
        self.waiters.lost(start, end)
        for watcher in tuple(self._losing):
            watcher(start, end)

    def passed(self, index: int, block: bytes) -> None:
        """Block `index` came and there is no room for it."""
        self.waiters.passed(index)
        for watcher in tuple(self._passing):
            watcher(index, block)

    def stored(self, start: int, end: int) -> None:
        """Blocks `start` up to `end` are held now."""
        self.waiters.stored(start, end)
        for listener in tuple(self._listeners):
            listener.stored(BlockIndex(start), BlockIndex(end))

    def grew(self, length: int) -> None:
        """The feed has `length` blocks now."""
        self.waiters.grew(length)
        for listener in tuple(self._listeners):
            listener.grew(length)

    def cleared(self, start: int, end: int) -> None:
        """Blocks `start` up to `end` are not held any more."""
        for listener in tuple(self._listeners):
            listener.cleared(BlockIndex(start), BlockIndex(end))

    def nodes_stored(self) -> None:
        """Proof nodes arrived."""
        self.waiters.changed()
        for listener in tuple(self._listeners):
            listener.nodes_stored()
