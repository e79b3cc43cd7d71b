"""What a feed does about its own disk: read it again, and tell who waits for a block that it has lost for good."""

from collections.abc import Callable
from logging import getLogger

import trio

from ddrive.feed.appending import AppendableFeed
from ddrive.feed.auditing import Audited
from ddrive.feed.log import FeedLog
from ddrive.feed.losing import lost_error, shown_runs
from ddrive.feed.source import BlockSource
from ddrive.feed.view import FeedView

AUDIT_BLOCKS = 64  # read between two turns of other tasks

_log = getLogger(__name__)


class CheckedFeed(AppendableFeed):
    """The part of a feed that knows that disks lose what they were given."""

    def __init__(self, log: FeedLog | FeedView, *, name: str = "") -> None:
        super().__init__(log, name=name)
        self._source: BlockSource | None = None

    def check_lost(self, start: int, end: int) -> None:
        """Raise CorruptStorage when our disk has lost some of the blocks `start` up to `end` and nobody else has it."""
        if end == start + 1:
            self.look_for(start)
        if isinstance(self.log, FeedLog) and (lost := self.log.lost_own(start, end)):
            gone = [index for index in lost if self._source is None or self._source.availability(index) is False]
            if gone:
                raise lost_error(self.log.key, gone)

    def look_for(self, index: int) -> None:
        """Look on the disk for a block of ours that is not listed: it is there, was cleared, or is damaged."""
        log = self.log
        if not isinstance(log, FeedLog) or not log.writable or log.behind or log.has(index) or index >= log.length:
            return
        if not log.lost(index, index + 1) and log.audit(index, index + 1).restored:
            self._audience.stored(index, index + 1)

    def watch_lost(self, watcher: Callable[[int, int], None]) -> Callable[[], None]:
        """Give `watcher` the runs of blocks that are wished for, lost here and held by nobody else."""
        return self._audience.watch_lost(watcher)

    def report_lost(self, start: int, end: int) -> None:
        """Blocks `start` up to `end` are wished for, and lost on the disk of their author; nobody else has them."""
        self._audience.lost(start, end)

    def check_again(self, index: int) -> None:
        """Read block `index` and the nodes that prove it from disk again, whatever is known of them."""
        for bad in self._owned().audit(index, index + 1).bad:
            self._audience.cleared(bad, bad + 1)

    async def audit(self) -> Audited:
        """Read all held blocks again, and look for others that are there, though the bitfield does not list them.

        Bad blocks, and those that were lost when the feed was opened, do not count as held afterwards; found ones do.
        """
        log, good, bad, restored = self._owned(), 0, list[int](), list[int]()
        extents = log.begin_audit()
        for start in range(0, self.length, AUDIT_BLOCKS):
            self._check_open()
            end = min(start + AUDIT_BLOCKS, self.length)
            found = log.audit(start, end, extents)
            good, restored = good + found.good, restored + found.restored
            bad += sorted({*found.bad, *log.lost(start, end)})
            for index in found.restored:
                self._audience.stored(index, index + 1)
            for index in found.bad:
                self._audience.cleared(index, index + 1)
            await trio.lowlevel.checkpoint()
        if any(log.byte_offset(index) != log.end_offset(index) for index in restored):  # empty ones may be of no peer
            _log.warning(
                "%d blocks of feed %s are held though its bitfield did not list them: %s",
                len(restored),
                self.name,
                shown_runs(restored),
            )
        return Audited(good, bad, restored)
