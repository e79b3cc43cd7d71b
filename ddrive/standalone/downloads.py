"""Downloads that go on by themselves until they are complete or taken back."""

import random
from collections.abc import Callable, Generator, Sequence
from typing import Any

import trio

from ddrive.errors import Closed, Withdrawn
from ddrive.feed.feed import Feed
from ddrive.ids import BlockIndex
from ddrive.replication.asking import ENDLESS
from ddrive.replication.session import FeedSession


class Download:
    """A download under way: await it to wait for its end, or let it be."""

    def __init__(
        self,
        feed: Feed,
        session: FeedSession,
        pieces: Sequence[tuple[int, int]],
        forget: Callable[["Download"], None],
    ) -> None:
        self.start = min((start for start, _ in pieces), default=0)
        self.end = max((end for _, end in pieces), default=0)
        self._feed = feed
        self._forget = forget
        wanted = [(start, end) for start, end in pieces if feed.held(start, end) < end - start]
        self._singles = {start for start, end in wanted if end - start == 1}
        self._ranges = [(start, end) for start, end in wanted if end - start > 1]
        self._missing = self._count()
        self._ended = trio.Event()
        self._withdrawn = False
        self._withdraw: list[Callable[[], None]] = []
        self._leave = feed.subscribe(self)
        for start, end in wanted:
            self._withdraw.append(session.want_blocks(BlockIndex(start), BlockIndex(end), urgent=False))
        self._look()

    def __repr__(self) -> str:
        return f"<Download {self.start}..{self.end} {'done' if self.done else 'under way'}>"

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait().__await__()

    @property
    def done(self) -> bool:
        """Whether everything is held."""
        return self._ended.is_set() and not self._withdrawn and not self._missing

    async def wait(self) -> None:
        """Return when everything is held; a download without an end never returns.

        Raises: Withdrawn after `cancel`, Closed when the feed was closed.
        """
        await self._ended.wait()
        if self._withdrawn:
            what = f"from {self.start} on" if self.end == ENDLESS else f"{self.start} to {self.end}"
            raise Withdrawn(f"the download of blocks {what} of feed {self._feed.name} was cancelled")
        if self._missing:
            raise Closed(f"feed {self._feed.name} was closed during a download")

    def cancel(self) -> None:
        """Ask for no more blocks; what has arrived stays. Nothing happens when the download is over."""
        if not self._ended.is_set():
            self._withdrawn = True
            self.finish()

    def finish(self) -> None:
        """Let go of everything and wake who waits."""
        self._leave()
        for withdraw in self._withdraw:
            withdraw()
        self._withdraw.clear()
        self._ended.set()
        self._forget(self)

    def _look(self) -> None:
        if self._missing <= 0 and not self._ended.is_set():
            self._missing = self._count()
            if not self._missing:
                self.finish()

    def _count(self) -> int:
        """Return how many blocks are missing."""
        ranges = sum(end - start - self._feed.held(start, end) for start, end in self._ranges)
        return ranges + sum(not self._feed.has(index) for index in self._singles)

    def _overlap(self, start: int, end: int) -> int:
        """Return how many of the blocks `start` up to `end` are asked for."""
        ranges = sum(max(0, min(end, last) - max(start, first)) for first, last in self._ranges)
        if len(self._singles) < end - start:
            return ranges + sum(start <= index < end for index in self._singles)
        return ranges + sum(index in self._singles for index in range(start, end))

    # -- what the feed tells us

    def stored(self, start: BlockIndex, end: BlockIndex) -> None:
        """Count what is there now."""
        self._missing -= self._overlap(start, end)
        self._look()

    def cleared(self, start: BlockIndex, end: BlockIndex) -> None:
        """Count what is missing again."""
        self._missing += self._overlap(start, end)

    def grew(self, length: int) -> None:
        """Nothing to do."""

    def nodes_stored(self) -> None:
        """Nothing to do."""


def pieces_of(start: int, end: int | None, blocks: Sequence[int] | None, *, linear: bool) -> list[tuple[int, int]]:
    """Return the ranges to be wished for, in this order.

    What is not linear starts somewhere in the middle, so that peers who download the same from one source soon have
    something for each other.
    """
    if blocks is not None:
        return [(index, index + 1) for index in dict.fromkeys(blocks)]
    if end is None:
        return [(start, ENDLESS)]
    if linear or end - start < 2:
        return [(start, end)] if end > start else []
    middle = random.randrange(start + 1, end)
    return [(middle, end), (start, middle)]
