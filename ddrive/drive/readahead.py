"""When to ask for blocks before they are read, and how far.

A reader that jumps about gets nothing it did not ask for; one that goes straight on gets a window that grows with the
length of its run. The window never leaves the file, and the wish for it is withdrawn on a jump and at the end.
"""

from contextlib import ExitStack

from ddrive.feed import Feed

WINDOW_MIN_BYTES = 128 * 1024  # one read of the kernel
WINDOW_MAX_BYTES = 4 * 1024 * 1024  # hides 50 ms of round trip at 80 MB/s
LOAD_BYTES = 3 * 1024 * 1024  # of held blocks, read from disk and checked ahead of the reader
LOAD_STEP_BYTES = 1024 * 1024  # loaded at a time: what the kernel asks for at a time, so that nothing has to be joined
_REORDERED_BYTES = 512 * 1024  # reads of the kernel's own read-ahead may overtake each other by that much


class ReadAhead:
    """The read-ahead of one open file whose blocks end before `last`, of `mean_bytes` each on average."""

    def __init__(self, feed: Feed, last: int, mean_bytes: int) -> None:
        self._feed = feed
        self._last = last
        self._mean_bytes = mean_bytes
        self._wish = ExitStack()
        self._wished = 0  # blocks before this one are wished for
        self._loaded = 0  # blocks before this one are loaded from disk
        self._reached = -1  # byte that the run of reads has come to
        self._run_bytes = 0

    @property
    def in_run(self) -> bool:
        """Whether the read noted last goes on where others came to."""
        return self._run_bytes > 0

    def blocks_to(self, block: int, size: int) -> int:
        """Return the end of the blocks that hold about `size` bytes from `block` on."""
        return min(self._last, block + -(-size // self._mean_bytes))

    def note(self, offset: int, end: int) -> None:
        """Take note of a read of the bytes `offset` up to `end`, before it is done."""
        running = self._run_bytes > 0
        in_order = offset == self._reached
        near = running and self._reached - _REORDERED_BYTES <= offset <= self._reached + _REORDERED_BYTES // 2
        if in_order or near:
            self._run_bytes += end - offset
            self._reached = max(self._reached, end)
        else:
            self.stop()
            self._reached = end

    def fetch_from(self, block: int, bytes_wanted: int) -> None:
        """Wish for the window behind the next `bytes_wanted` bytes, the first of which is in `block`."""
        if not self._run_bytes:
            return
        self._load_from(block, bytes_wanted)
        window = min(WINDOW_MAX_BYTES, max(WINDOW_MIN_BYTES, 2 * self._run_bytes))
        if self.blocks_to(block, bytes_wanted + window // 2) <= self._wished:
            return
        end = self.blocks_to(block, bytes_wanted + window)
        self._wished = end
        if self._feed.held(block, end) == end - block:
            return
        new_wish = ExitStack()
        new_wish.enter_context(self._feed.want(block, end))
        self._wish.close()  # after the new wish stands, so that nothing is cancelled in between
        self._wish = new_wish

    def _load_from(self, block: int, bytes_wanted: int) -> None:
        """Have held blocks behind the next `bytes_wanted` bytes read from disk."""
        size = bytes_wanted + min(LOAD_BYTES, self._run_bytes) // LOAD_STEP_BYTES * LOAD_STEP_BYTES
        if self.blocks_to(block, size - LOAD_STEP_BYTES) < self._loaded:
            return
        start, end = max(self._loaded, self.blocks_to(block, bytes_wanted)), self.blocks_to(block, size)
        if end > start:
            self._loaded = end
            self._feed.load_ahead(start, end)

    def stop(self) -> None:
        """Withdraw the wish; the next read starts a new run."""
        self._wish.close()
        self._wished = self._loaded = 0
        self._run_bytes = 0
        self._reached = -1
