"""Lets pins of drives follow their paths: by entries that come in, and by those held already when a drive is opened.

There may be many of the latter, so they are read a few at a time; until that is done nothing may be dropped.
"""

import logging
from collections import deque
from collections.abc import Callable

import trio

from ddrive.drive.walks import stat_or_none
from ddrive.errors import DriveError
from ddrive.feed import Feed
from ddrive.ids import PublicKey, short
from mountd.keeping_reach import content_key, nodes_in
from mountd.space_pins import Newer, Pins

LOOKED_THROUGH = 20_000  # newest entries of a pinned drive that is opened: half a second
ENTRIES_PER_TURN = 64  # about 2 ms

_log = logging.getLogger(__name__)


class Following:
    """Who keeps `pins` up to date; `repinned` is told of each feed of which other blocks are pinned now."""

    def __init__(self, pins: Pins, repinned: Callable[[PublicKey], None]) -> None:
        self._pins = pins
        self._repinned = repinned
        self._opened: deque[Feed] = deque()  # to be looked through
        self._wake = trio.Event()

    @property
    def is_behind(self) -> bool:
        """Whether pinned blocks may not be known to be pinned yet."""
        return bool(self._opened)

    def opened(self, feed: Feed) -> None:
        """Have a feed looked through by `catch_up` if anything of it is pinned."""
        if self._pins.of(feed.key):
            self._opened.append(feed)
            self._wake.set()

    def came(self, feed: Feed, start: int, end: int) -> None:
        """Let pins of a drive follow their paths, now that these entries of it are here."""
        if not self._pins.of(feed.key) or (content := content_key(feed)) is None:
            return
        for node in nodes_in(feed, start, end):
            stat = stat_or_none(node)
            if stat is not None and stat.is_file and stat.mount is None:
                newer = Newer(node.seq, content, (stat.offset, stat.offset + stat.blocks))
                if self._pins.follow(feed.key, node.key, newer):
                    self._repinned(content)

    async def catch_up(self) -> None:
        """Look through what was opened; other tasks get their turn in between."""
        self._wake = trio.Event()
        while self._opened:
            try:
                await self._look_through(self._opened[0])
            except (DriveError, OSError) as error:  # closed meanwhile, for one: it is looked through when opened again
                _log.warning("pins do not follow feed=%s error=%s", short(self._opened[0].key), error)
            self._opened.popleft()

    async def wait(self) -> None:
        """Return when there is something to catch up with."""
        await self._wake.wait()

    async def _look_through(self, feed: Feed) -> None:
        oldest = min((pin.version for pin in self._pins.of(feed.key)), default=feed.length)
        for start, end in feed.runs(max(oldest, feed.length - LOOKED_THROUGH), feed.length):
            for piece in range(start, end, ENTRIES_PER_TURN):
                self.came(feed, piece, min(end, piece + ENTRIES_PER_TURN))
                await trio.lowlevel.checkpoint()
