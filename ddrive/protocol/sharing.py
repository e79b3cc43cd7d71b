"""How links share the line: so many bytes a second in all, and so many peers that are sent blocks at a time.

Links take turns, so that each gets as much as the others that want something. Nothing here sleeps; the time is given,
in seconds of any steady clock.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

BURST_S: Final = 0.25  # of the rate may be used later, if it was not used at once
PIECES_PER_S: Final = 8  # a turn is so long that this many fit into a second
SMALLEST_PIECE_BYTES: Final = 1024
LARGEST_PIECE_BYTES: Final = 128 * 1024
LEAST_QUEUE_BYTES: Final = 128 * 1024
WAITED_S: Final = 0.5  # of the rate are queued, or asked for, at a time: what is urgent waits for so long
MANY: Final = 1 << 30  # places, where their number has no limit
TURN_S: Final = 5.0  # after which a peer that is sent blocks lets another one have its place, if one waits


class Bucket:
    """A rate in bytes a second. Whoever reserves first goes first."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.piece_bytes = max(SMALLEST_PIECE_BYTES, min(LARGEST_PIECE_BYTES, rate // PIECES_PER_S))
        self._next_s = 0.0

    def reserve(self, count: int, now: float) -> float:
        """Reserve `count` bytes, and return the time from which on they may pass; it may be over already."""
        start_s = max(self._next_s, now - BURST_S)
        self._next_s = start_s + count / self.rate
        return start_s


class Slots:
    """A number of places; who gets one is told so, in the order in which they asked."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._holders: dict[Hashable, float] = {}  # since when
        self._waiting: dict[Hashable, Callable[[], None]] = {}

    def take(self, who: Hashable, now: float, granted: Callable[[], None]) -> bool:
        """Tell whether `who` has a place or gets one now; otherwise `granted()` will be called when it gets one."""
        if who in self._holders and not self._waiting:
            return True
        if len(self._holders) >= self._count:
            for holder in [holder for holder, since in self._holders.items() if now - since >= TURN_S]:
                del self._holders[holder]
        if who not in self._holders:
            self._waiting.setdefault(who, granted)
            self._grant(now, asking=who)
        return who in self._holders

    def pause(self, who: Hashable, now: float) -> None:
        """Give the place of `who` back, as there is nothing to be sent to `who` right now."""
        if self._holders.pop(who, None) is not None:
            self._grant(now)

    def leave(self, who: Hashable, now: float) -> None:
        """Take neither place nor wait for one any more."""
        self._waiting.pop(who, None)
        if self._holders.pop(who, None) is not None:
            self._grant(now)

    def _grant(self, now: float, asking: Hashable = None) -> None:
        """Give out free places; who is `asking` right now is not told."""
        while self._waiting and len(self._holders) < self._count:
            who = next(iter(self._waiting))
            granted = self._waiting.pop(who)
            self._holders[who] = now
            if who is not asking:
                granted()


@dataclass(frozen=True, slots=True)
class Share:
    """What all links of an engine share: bytes sent and received (None: any number), and places to be sent blocks."""

    up: Bucket | None = None
    down: Bucket | None = None
    slots: Slots = field(default_factory=lambda: Slots(MANY))

    def queue_bytes(self, most: int) -> int:
        """Return how much may be queued for a peer, at most `most`: half a second's worth where the rate is limited."""
        return most if self.up is None else max(LEAST_QUEUE_BYTES, min(most, int(self.up.rate * WAITED_S)))

    def in_flight_bytes(self, most: int) -> int:
        """Return how much should be asked of a peer at a time, at most `most`; likewise."""
        return most if self.down is None else min(most, int(self.down.rate * WAITED_S))
