"""Reading the files of a feed that another process owns.

A view needs no lock and no trust: it believes a length only with the author's signature over the stored roots, and a
block only when it agrees with its leaf. That check is repeated at every read of a block, because the owner may free its
space at any moment; of a block that was checked a part is read alone as long as the owner has cleared nothing since.
Which blocks are held the owner has to say: its bits reach the disk late.
"""

from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Protocol

from ddrive.errors import CorruptStorage, DriveError
from ddrive.feed import flat, merkle
from ddrive.feed.ahead import LoadAhead
from ddrive.feed.bitfield import Bitfield
from ddrive.feed.layout import FeedFiles
from ddrive.feed.reading import StoredFeed
from ddrive.feed.recovery import signed_roots
from ddrive.feed.spans import Spans
from ddrive.feed.storage import Directory
from ddrive.ids import Node, PublicKey, short

_UNKNOWN = -1
NOTED_BYTES = 16 * 1024  # of a block on average: of smaller ones parts are not worth a look at what was cleared


class ClearedCount(Protocol):
    """How often blocks were cleared, as the owner of the files tells readers."""

    def now(self) -> int:
        """Return the count: odd while something is being cleared, or while nobody knows."""

    def close(self) -> None:
        """Ask no more."""


class FeedView(StoredFeed):
    """A feed whose files another process owns, as far as that process told.

    With an `executor`, `load_ahead` reads and checks blocks in its threads.
    """

    def __init__(self, directory: Directory, key: PublicKey, executor: Executor | None = None) -> None:
        files = FeedFiles(directory, read_only=True)
        super().__init__(directory, files, Bitfield(), key)
        self.behind = False
        self._ahead = LoadAhead(executor, unload=True) if executor is not None else None
        self._cleared: ClearedCount | None = None
        self._checked = Spans()  # of the content, bytes of blocks that agreed with their leaves
        self._checked_at = _UNKNOWN  # the count of what was cleared when they did
        self.clears: int | None = None  # the count when the owner told last which blocks it holds

    def ask(self, cleared: ClearedCount | None) -> None:
        """Let `cleared` tell from now on whether what was checked is still there; without it all is checked again."""
        if self._cleared is not None:
            self._cleared.close()
        self._cleared = cleared
        self._checked.clear()
        self._checked_at = _UNKNOWN

    def adopt(self, length: int, runs: Iterable[tuple[int, int]]) -> None:
        """Replace what is known: the owner has `length` blocks proven and holds those in `runs` (half-open).

        Raises: CorruptStorage when the files do not prove that length.
        """
        self._bits = Bitfield()
        self._checked.clear()
        self._starts.clear()
        self._pairs.clear()
        self._files.forget_nodes()
        for start, end in runs:
            self.mark_held(start, end)
        self.grow(length)

    def mark_held(self, start: int, end: int) -> None:
        """Take note that the owner holds the blocks `start` up to `end`."""
        self._bits.set_blocks(start, end, True)

    def mark_cleared(self, start: int, end: int) -> None:
        """Take note that the owner does not hold the blocks `start` up to `end` any more."""
        self._bits.set_blocks(start, end, False)
        self._checked.clear()

    def grow(self, length: int) -> None:
        """Take over a longer feed, after checking its signature.

        Raises: CorruptStorage when the files do not prove that length.
        """
        if length <= self.length:
            return
        roots = signed_roots(self._files, self.key, length)
        if roots is None:
            self._files.forget_nodes()
            roots = signed_roots(self._files, self.key, length)
        if roots is None:
            raise CorruptStorage(f"the files of feed {short(self.key)} do not prove {length} blocks")
        self.length, self.roots, self.byte_length = length, roots, merkle.total_size(roots)

    def close(self) -> None:
        """Give the files back."""
        self.closed = True
        if self._ahead is not None:
            self._ahead.close()
        if self._cleared is not None:
            self._cleared.close()
            self._cleared = None
        self._files.close()

    def _node(self, number: int) -> Node | None:
        # beyond the length the owner may just be writing
        return self._files.node(number) if flat.right_span(number) < 2 * self.length else None

    def _leaves(self, start: int, end: int) -> list[tuple[bytes, int]] | None:
        return self._files.leaves(start, end) if end <= self.length else None

    def _stamp(self) -> int:
        if self._cleared is None or self.byte_length < NOTED_BYTES * self.length:
            return _UNKNOWN
        count = self._cleared.now()
        return _UNKNOWN if count & 1 else count

    def _note_verified(self, blocks: range, stamp: int, content: range) -> None:
        if stamp == _UNKNOWN or stamp < self._checked_at:
            return
        if stamp > self._checked_at:
            self._checked.clear()
            self._checked_at = stamp
        self._checked.add(content.start, content.stop)

    def _is_checked(self, start: int, end: int) -> bool:
        return self._checked.cover(start, end)

    def _is_unchanged(self) -> bool:
        return self._stamp() == self._checked_at

    def _lose(self, index: int) -> DriveError:
        self._checked.clear()
        error = super()._lose(index)
        if self._cleared is None or self._cleared.now() != self.clears:  # it may have gone, which nobody has told yet
            self._gone_bad.set_blocks(index, index + 1, False)
        return error

    def _settled(self, start: int, end: int) -> bool:
        return False
