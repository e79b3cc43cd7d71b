"""What could be dropped from the cache, in the order in which it would be: the least recently used first.

Content of others' drives is counted by segments of a feed (16 blocks, 1 MiB of a usual file). Feeds of the second tier
(entries of drives) go only when nothing of the first is left. The caller says what was stored, dropped and used, and
does the dropping; times are seconds since 1970.
"""

from collections import OrderedDict
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from ddrive.ids import DiscoveryKey


class Tier(IntEnum):
    """In which order feeds are dropped from."""

    CONTENT = 0
    ENTRIES = 1


class Segment(NamedTuple):
    """A part of a feed."""

    feed: DiscoveryKey
    number: int


class _Held(NamedTuple):
    size: int
    used_at: float


NEVER: Final = 0.0


class Ledger:
    """The segments of which something is held that may be dropped."""

    def __init__(self) -> None:
        self._tiers: tuple[OrderedDict[Segment, _Held], ...] = tuple(OrderedDict() for _ in Tier)
        self._tier_of: dict[DiscoveryKey, Tier] = {}
        self._known_use: dict[Segment, float] = {}  # of segments that are not counted yet
        self.bytes = 0

    def add_feed(self, feed: DiscoveryKey, tier: Tier) -> None:
        """Count a feed from now on; one that is counted already may change its tier."""
        old = self._tier_of.get(feed)
        self._tier_of[feed] = tier
        if old is not None and old is not tier:
            for segment in [segment for segment in self._tiers[old] if segment.feed == feed]:
                self._tiers[tier][segment] = self._tiers[old].pop(segment)

    def forget_feed(self, feed: DiscoveryKey) -> None:
        """Count a feed no longer."""
        tier = self._tier_of.pop(feed, None)
        if tier is not None:
            held = self._tiers[tier]
            for segment in [segment for segment in held if segment.feed == feed]:
                self.bytes -= held.pop(segment).size

    def changed(self, segment: Segment, by: int, now: float) -> None:
        """Note that so many bytes of a segment came, which is a use of it, or (less than 0) went."""
        tier = self._tiers[self._tier_of[segment.feed]]
        held = tier.get(segment, _Held(0, self._known_use.pop(segment, NEVER)))
        self._put(segment, max(0, held.size + by), now if by > 0 else held.used_at, newest=by > 0)

    def recount(self, segment: Segment, size: int) -> None:
        """Set how many bytes of a segment are held, as the feed itself shows; its last use stays."""
        tier = self._tiers[self._tier_of[segment.feed]]
        held = tier.get(segment)
        used_at = self._known_use.pop(segment, NEVER) if held is None else held.used_at
        self._put(segment, size, used_at, newest=False)

    def used(self, segment: Segment, now: float) -> None:
        """Note that something of a segment was read."""
        tier = self._tier_of.get(segment.feed)
        if tier is not None and (held := self._tiers[tier].get(segment)) is not None:
            self._put(segment, held.size, now, newest=True)

    def sort(self) -> None:
        """Put the segments into the order of their last use, after many were counted anew."""
        for tier in self._tiers:
            for segment, _ in sorted(tier.items(), key=lambda item: item[1].used_at):
                tier.move_to_end(segment)

    def oldest(self) -> Segment | None:
        """Return the segment that should go first, None when nothing may be dropped."""
        return next((segment for tier in self._tiers for segment in tier), None)

    def postpone(self, segment: Segment) -> None:
        """Let a segment that cannot go now be the last one to go."""
        self._tiers[self._tier_of[segment.feed]].move_to_end(segment)

    # -- kept over restarts

    def uses(self) -> dict[DiscoveryKey, list[tuple[int, int]]]:
        """Return for each feed its segments with their last use in whole seconds."""
        result: dict[DiscoveryKey, list[tuple[int, int]]] = {}
        for tier in self._tiers:
            for segment, held in tier.items():
                if held.used_at:
                    result.setdefault(segment.feed, []).append((segment.number, int(held.used_at)))
        return result

    def remember(self, feed: DiscoveryKey, uses: Iterable[tuple[int, int]]) -> None:
        """Take over what `uses` returned earlier, for segments that are counted later."""
        for number, used_at in uses:
            self._known_use[Segment(feed, number)] = float(used_at)

    def counted_all(self) -> None:
        """Note that every feed was counted: uses of what is not held are forgotten."""
        self._known_use.clear()
        self.sort()

    # -- inside

    def _put(self, segment: Segment, size: int, used_at: float, *, newest: bool) -> None:
        tier = self._tiers[self._tier_of[segment.feed]]
        old = tier.get(segment)
        self.bytes += size - (old.size if old is not None else 0)
        if not size:
            tier.pop(segment, None)
            return
        tier[segment] = _Held(size, used_at)
        if newest:
            tier.move_to_end(segment)
        elif old is None:
            tier.move_to_end(segment, last=False)
