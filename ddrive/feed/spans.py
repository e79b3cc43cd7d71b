"""Ranges of bytes, half-open and joined where they touch."""

from bisect import bisect_left, bisect_right

MAX_SPANS = 16384  # in memory at a time, some 1.5 MiB: with more of them all are forgotten


class Spans:
    """Bytes of which something is known that may be forgotten at any time."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Add the bytes `start` up to `end`."""
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        elif len(self._starts) >= MAX_SPANS:
            self.clear()
            first = last = 0
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def cover(self, start: int, end: int) -> bool:
        """Tell whether the bytes `start` up to `end` are all in one span."""
        found = bisect_right(self._starts, start) - 1
        return found >= 0 and end <= self._ends[found]

    def clear(self) -> None:
        """Forget all of them."""
        self._starts.clear()
        self._ends.clear()
