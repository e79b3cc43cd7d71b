"""What the scheduler asks about our own blocks, answered by the log of the feed."""

from ddrive.feed.log import FeedLog
from ddrive.ids import BlockIndex

FIRST_WINDOW = 64  # blocks looked at first when the end of a held run is searched; doubled each time


class HeldBlocks:
    """The scheduler's `LocalBlocks` over a `FeedLog`."""

    def __init__(self, log: FeedLog) -> None:
        self._log = log
        self.has = log.has

    @property
    def length(self) -> int:
        """Proven blocks."""
        return self._log.length

    @property
    def byte_length(self) -> int:
        """Bytes in the proven blocks."""
        return self._log.byte_length

    def locate(self, byte_offset: int) -> tuple[BlockIndex, int] | None:
        """Return the block of a byte and the place in it, None when nodes are missing."""
        return self._log.locate(byte_offset)

    def byte_offset(self, index: int) -> int | None:
        """Return where a block starts, None when nodes are missing."""
        return self._log.byte_offset(index)

    def next_missing(self, start: int, end: int) -> int | None:
        """Return the first block of [start, end) that is not held, or None."""
        position, window = start, FIRST_WINDOW
        while position < end:
            limit = min(position + window, end)
            runs = self._log.runs(position, limit)
            if not runs or runs[0][0] > position:
                return position
            if runs[0][1] < limit:
                return runs[0][1]
            position, window = limit, window * 2
        return None
