"""Verified blocks that are given to who waits for them but not kept on disk, because there is no room for them."""

PASSING_BYTES = 4 * 1024 * 1024  # of one feed; the oldest are dropped


class Passing:
    """The blocks that came last and were not kept, by index."""

    def __init__(self, max_bytes: int = PASSING_BYTES) -> None:
        self._max_bytes = max_bytes
        self._blocks: dict[int, bytes] = {}  # oldest first
        self._bytes = 0

    def __contains__(self, index: int) -> bool:
        return index in self._blocks

    def get(self, index: int) -> bytes | None:
        """Return a block if it is still here."""
        return self._blocks.get(index)

    def add(self, index: int, block: bytes) -> None:
        """Remember a block for a while; the newest one always."""
        self.drop(index)
        self._blocks[index] = block
        self._bytes += len(block)
        while self._bytes > self._max_bytes and len(self._blocks) > 1:
            self.drop(next(iter(self._blocks)))

    def drop(self, index: int) -> None:
        """Forget a block, if it is here."""
        self._bytes -= len(self._blocks.pop(index, b""))

    def take_all(self) -> dict[int, bytes]:
        """Return all blocks and forget them."""
        taken, self._blocks, self._bytes = self._blocks, {}, 0
        return taken
