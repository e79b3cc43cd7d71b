"""Directories that were listed lately, so that listing one again costs no walk through the trie."""

from collections.abc import Sequence
from typing import NamedTuple

from ddrive.drive.walks import DirEntry
from ddrive.ids import PublicKey

MAX_LISTED = 16_384  # entries in all listings that are kept, some 5 MB


class ListedAt(NamedTuple):
    """What determines a listing: all that is at and below a path follows from the newest node there."""

    drive: PublicKey
    path: str
    newest: int


class Listings:
    """The listings of a drive and its nested drives; those unused for longest go first."""

    def __init__(self, limit: int = MAX_LISTED) -> None:
        self._limit = limit
        self._count = 0
        self._kept: dict[ListedAt, Sequence[DirEntry]] = {}  # the last one used at the end

    def get(self, place: ListedAt) -> Sequence[DirEntry] | None:
        """Return the listing of a directory if it is kept."""
        found = self._kept.pop(place, None)
        if found is not None:
            self._kept[place] = found
        return found

    def put(self, place: ListedAt, found: Sequence[DirEntry]) -> None:
        """Keep a listing, unless it alone is too large."""
        if len(found) > self._limit or place in self._kept:
            return
        self._kept[place] = found
        self._count += len(found)
        while self._count > self._limit:
            self._count -= len(self._kept.pop(next(iter(self._kept))))
