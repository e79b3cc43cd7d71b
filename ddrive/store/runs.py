"""Sets of blocks as half-open runs in order: joining them, and taking some out of others."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

Run = tuple[int, int]


def joined(runs: Iterable[Run]) -> list[Run]:
    """Return the same blocks as runs in order that neither overlap nor touch."""
    result: list[Run] = []
    for start, end in sorted(run for run in runs if run[0] < run[1]):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def within(runs: Sequence[Run], start: int, end: int) -> list[Run]:
    """Return those of `runs`, which are in order without overlaps, that reach into the blocks `start` up to `end`."""
    first = bisect_right(runs, start, key=lambda run: run[1])
    last = bisect_left(runs, end, first, key=lambda run: run[0])
    return list(runs[first:last])


def without(runs: Iterable[Run], taken: Iterable[Run]) -> Iterator[Run]:
    """Yield the blocks of `runs` that are not in `taken`; both are in order without overlaps."""
    cuts = iter(taken)
    cut = next(cuts, None)
    for start, end in runs:
        while start < end:
            while cut is not None and cut[1] <= start:
                cut = next(cuts, None)
            if cut is None or cut[0] >= end:
                yield start, end
                break
            if start < cut[0]:
                yield start, cut[0]
            start = cut[1]
