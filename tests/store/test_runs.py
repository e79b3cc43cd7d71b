"""Sets of blocks as runs, compared with sets of numbers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from ddrive.store.runs import Run, joined, within, without

RUNS = some.lists(some.tuples(some.integers(0, 40), some.integers(0, 40)), max_size=12)


def blocks(runs: list[Run]) -> set[int]:
    """Return the numbers of the blocks in `runs`."""
    return {block for start, end in runs for block in range(start, end)}


@given(RUNS, RUNS)
def test_runs_are_sets(first: list[Run], second: list[Run]) -> None:
    one, two = joined(first), joined(second)
    assert blocks(one) == blocks(first)
    assert all(end < following for (_, end), (following, _) in pairwise(one))
    rest = list(without(one, two))
    assert blocks(rest) == blocks(first) - blocks(second)
    assert joined(rest) == rest
    for start, end in two:
        assert blocks(within(one, start, end)) & set(range(start, end)) == blocks(one) & set(range(start, end))
        assert all(low < end and start < high for low, high in within(one, start, end))
