"""Who may append to a feed while a large file is being appended, piece by piece, and how long others wait for its end.

The blocks of a file lie side by side: when somebody appends in between, the file has to be appended once more. So its
writer reserves the end of the feed; others wait in the order in which they came. They wait for 20 seconds, or for as
long as that file has taken already when that is longer; then it loses its place. So a file is repeated at most once in
twice the time, however many others there are, and nobody waits without bound for one that takes long, or stands still.
"""

from collections import deque
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import trio

from ddrive.errors import LengthChanged
from ddrive.feed.feed import Feed

WAIT_S = 20.0  # for somebody who has just begun


@dataclass(slots=True, eq=False)
class _Reservation:
    """A place in the queue of those who want the end of a feed for themselves; the first has it.

    `took_s`: how long its file had taken before, when it has lost its place.
    """

    owner: object
    took_s: float
    since: float = field(default_factory=trio.current_time)
    used: float = field(default_factory=trio.current_time)  # when something was appended last
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def wait_s(self) -> float:
        """How long somebody who comes now waits for the end of this one."""
        return max(WAIT_S, self.took_s + self.used - self.since)


class Reservations:
    """Those of one feed. Each owner has one at a time."""

    def __init__(self) -> None:
        self._queue: deque[_Reservation] = deque()

    def check(self, owner: object) -> None:
        """Take note that `owner` is about to append. Raises: LengthChanged when the end is reserved for another."""
        if self._queue:
            first = self._queue[0]
            if first.owner is not owner:
                raise LengthChanged("somebody else is appending a large file to that feed")
            first.used = trio.current_time()

    async def reserve(self, owner: object, took_s: float) -> None:
        """Return when the end is reserved for `owner`, whose file has taken `took_s` already; at once when it is."""
        await trio.lowlevel.checkpoint()  # who has changed their mind already shall not get it
        if self._queue and self._queue[0].owner is owner:
            return
        mine = _Reservation(owner, took_s)
        self._queue.append(mine)
        try:
            while mine in self._queue and (first := self._queue[0]) is not mine:  # or its owner has ended it
                with trio.move_on_after(first.wait_s):
                    await first.ended.wait()
                self._end(first)
        except trio.Cancelled:
            self._end(mine)
            raise
        mine.since = mine.used = trio.current_time()

    def end(self, owner: object) -> None:
        """Let others append: `owner` has ended, or gone."""
        for each in [each for each in self._queue if each.owner is owner]:
            self._end(each)

    def _end(self, each: _Reservation) -> None:
        if each in self._queue:
            self._queue.remove(each)
        each.ended.set()


_of_feeds: WeakKeyDictionary[Feed, Reservations] = WeakKeyDictionary()


def reservations(feed: Feed) -> Reservations:
    """Return the reservations of the end of `feed`, which this process owns."""
    return _of_feeds.setdefault(feed, Reservations())
