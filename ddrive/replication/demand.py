"""What is wished for: blocks, places of byte offsets, lengths. Wishes are counted and kept as ranges.

The table knows neither peers nor our own blocks. It only remembers, per wish and peer, how far the search for the
next block to ask for has come, so that a range of a million blocks costs one object.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain

from ddrive.ids import PeerId
from ddrive.replication.blocks import REGION_BLOCKS

AHEAD_BLOCKS = 1024  # a range up to this long is read-ahead and goes before longer ones, which are downloads


class Level(IntEnum):
    """How soon a wish is served."""

    URGENT = 0  # somebody waits for this very block
    AHEAD = 1  # somebody will soon read it
    BULK = 2


@dataclass(slots=True, eq=False)
class BlockWish:
    """Blocks [start, end), wished `count` times; `cursors` say from where on to search for each peer."""

    start: int
    end: int
    level: Level
    count: int = 0
    cursors: dict[PeerId, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class OffsetWish:
    """The block that holds byte `byte_offset`, known to lie in [start, end)."""

    byte_offset: int
    start: int
    end: int
    count: int = 0


@dataclass(slots=True, eq=False)
class LengthWish:
    """At least `min_length` blocks."""

    min_length: int
    count: int = 0


Wish = BlockWish | OffsetWish | LengthWish


class DemandTable:
    """All wishes of one feed. Single blocks are looked up by number, ranges in the order of their level and age."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int, Level], BlockWish] = {}
        self._singles: dict[int, list[BlockWish]] = {}
        self._waiting: tuple[dict[int, BlockWish], ...] = tuple({} for _ in Level)  # singles asked of nobody yet
        self._ranges: tuple[list[BlockWish], ...] = tuple([] for _ in Level)
        self.far = 0  # wishes that reach past the first region of Want
        self.offsets: dict[tuple[int, int, int], OffsetWish] = {}
        self.lengths: dict[int, LengthWish] = {}

    def add_blocks(self, start: int, end: int, *, urgent: bool) -> BlockWish:
        """Count a wish for the blocks [start, end)."""
        level = Level.URGENT if urgent else Level.AHEAD if end - start <= AHEAD_BLOCKS else Level.BULK
        wish = self._blocks.get((start, end, level))
        if wish is None:
            wish = self._blocks[start, end, level] = BlockWish(start, end, level)
            self.far += end > REGION_BLOCKS
            if end - start == 1:
                self._singles.setdefault(start, []).append(wish)
            else:
                self._ranges[level].append(wish)
        if end - start == 1:
            self._waiting[level][start] = wish  # again, too: it may have come without being kept
        wish.count += 1
        return wish

    def add_offset(self, byte_offset: int, start: int, end: int) -> OffsetWish:
        """Count a wish for the place of a byte."""
        wish = self.offsets.setdefault((byte_offset, start, end), OffsetWish(byte_offset, start, end))
        wish.count += 1
        return wish

    def add_length(self, min_length: int) -> LengthWish:
        """Count a wish for a length."""
        wish = self.lengths.setdefault(min_length, LengthWish(min_length))
        wish.count += 1
        return wish

    def withdraw(self, wish: Wish) -> bool:
        """Take one count back and tell whether that was the last one."""
        wish.count -= 1
        if wish.count:
            return False
        if isinstance(wish, OffsetWish):
            del self.offsets[wish.byte_offset, wish.start, wish.end]
        elif isinstance(wish, LengthWish):
            del self.lengths[wish.min_length]
        else:
            self._forget(wish)
        return True

    def _forget(self, wish: BlockWish) -> None:
        """Remove a wish for blocks that nobody has any more."""
        del self._blocks[wish.start, wish.end, wish.level]
        self.far -= wish.end > REGION_BLOCKS
        if wish.end - wish.start > 1:
            self._ranges[wish.level].remove(wish)
            return
        others = self._singles[wish.start]
        others.remove(wish)
        if not others:
            del self._singles[wish.start]
        self._waiting[wish.level].pop(wish.start, None)

    def wants(self, index: int) -> bool:
        """Tell whether a wish covers block `index`."""
        return index in self._singles or any(
            wish.start <= index < wish.end for ranges in self._ranges for wish in ranges
        )

    def level(self, index: int) -> Level | None:
        """Return how soon block `index` is wished, None when nobody wishes it."""
        singles = self._singles.get(index, ())
        ranges = (wish for wish in chain.from_iterable(self._ranges) if wish.start <= index < wish.end)
        return min((wish.level for wish in chain(singles, ranges)), default=None)

    def waiting(self, level: Level) -> dict[int, BlockWish]:
        """Return the single blocks of a level that are asked of nobody; the caller must not change it."""
        return self._waiting[level]

    def ranges(self, level: Level) -> list[BlockWish]:
        """Return the ranges of a level, oldest first; the caller must not change the list."""
        return self._ranges[level]

    @property
    def blocks(self) -> list[BlockWish]:
        """Every wish for blocks, the more urgent ones first."""
        return sorted(self._blocks.values(), key=lambda wish: wish.level)

    def taken(self, index: int) -> None:
        """Note that `index` is asked of a peer or held, so that it is not looked at again."""
        if index in self._singles:
            for waiting in self._waiting:
                waiting.pop(index, None)

    def released(self, start: int, end: int) -> None:
        """Note that the blocks [start, end) have to be looked for again, from any peer."""
        for wish in chain.from_iterable(self._ranges):
            if wish.start < end and start < wish.end:
                low = max(start, wish.start)
                for peer, cursor in wish.cursors.items():
                    if cursor > low:
                        wish.cursors[peer] = low
        if len(self._singles) < end - start:
            again = [index for index in self._singles if start <= index < end]
        else:
            again = [index for index in range(start, end) if index in self._singles]
        for index in again:
            for wish in self._singles[index]:
                self._waiting[wish.level][index] = wish

    def announced(self, peer: PeerId, start: int) -> None:
        """Note that `peer` has new blocks from `start` on."""
        for wish in chain.from_iterable(self._ranges):
            if wish.cursors.get(peer, 0) > start:
                wish.cursors[peer] = max(start, wish.start)

    def forget_peer(self, peer: PeerId) -> None:
        """Drop what is remembered about `peer`."""
        for wish in chain.from_iterable(self._ranges):
            wish.cursors.pop(peer, None)
