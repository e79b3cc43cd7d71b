"""Vector clocks: what the writer of an entry had seen of every feed, and which entries nobody else has seen.

A clock is a tuple of block counts by feed number; numbers beyond its end count 0. Numbers belong to one process, blocks
carry them by the writer's own list. Nothing here reads blocks. Source: clocks of `hyperdb@3.5.0`.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

Clock = tuple[int, ...]


class Stamped(Protocol):
    """What has a place in a feed and a clock."""

    @property
    def feed(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def clock(self) -> Clock: ...


AnyStamped = TypeVar("AnyStamped", bound=Stamped)
_FEW = 6  # entries that are compared one with another
_COUNTED = tuple(range(512))  # the list of whoever numbers feeds as we do


def count(clock: Clock, feed: int) -> int:
    """Return how many blocks of that feed the clock has seen."""
    return clock[feed] if feed < len(clock) else 0


def knows(later: Stamped, earlier: Stamped) -> bool:
    """Tell whether the writer of `later` had seen `earlier`; each entry knows itself."""
    clock = later.clock
    return earlier.feed < len(clock) and clock[earlier.feed] > earlier.seq


def translate(clock: Sequence[int], numbers: tuple[int, ...]) -> Clock:
    """Return a clock by feed number, given one by the places of a list that holds `numbers`."""
    if numbers == _COUNTED[: len(numbers)]:
        return tuple(clock)
    found = [0] * (max(numbers, default=-1) + 1)
    for number, seen in zip(numbers, clock, strict=False):
        found[number] = seen
    return tuple(found)


def unseen(entries: Sequence[AnyStamped]) -> list[AnyStamped]:
    """Return those of `entries` (all different) that no other of them knows, in their order.

    The time grows with entries times feeds. Empty only when the clocks contradict each other, or for no entries.
    """
    if len(entries) <= _FEW:
        return [entry for entry in entries if not any(other is not entry and knows(other, entry) for other in entries)]
    best: dict[int, tuple[int, int]] = {}
    for feed in {entry.feed for entry in entries}:
        highest = second = 0
        for entry in entries:
            seen = count(entry.clock, feed)
            if seen > highest:
                highest, second = seen, highest
            elif seen > second:
                second = seen
        best[feed] = highest, second
    # an entry counts itself once with seq + 1, so it is seen by another when two clocks reach that
    return [entry for entry in entries if best[entry.feed][1] <= entry.seq]


def lost_in_circle(entries: Sequence[AnyStamped], heads: Sequence[AnyStamped]) -> AnyStamped | None:
    """Return an entry that no way of "was seen by" leads from to one of `heads`: its clock and others contradict."""
    reached = list(heads)
    rest = [entry for entry in entries if entry not in heads]
    for head in reached:
        met = [entry for entry in rest if knows(head, entry)]
        reached += met
        rest = [entry for entry in rest if entry not in met]
    return rest[0] if rest else None
