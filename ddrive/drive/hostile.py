"""Counts the entries of a drive that are never shown: names no kernel takes, keys that are no text, no valid `Stat`.

Only what is held of the metadata feed is looked at, each block once; a long history is looked at over several calls.
"""

import trio

from ddrive.drive.paths import is_hostile
from ddrive.drive.stat import decode_stat
from ddrive.errors import CorruptStorage
from ddrive.feed import Feed
from ddrive.trie.node import InvalidNode, TrieNode, decode_node

MAX_COUNTED = 100_000  # then more are not told apart from those counted already
_BLOCKS_PER_TURN = 64  # about 2 ms


class HostileNames:
    """What was found so far in one metadata feed. An entry that was replaced or deleted later still counts."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, int]] = []  # runs of blocks that were looked at, in order
        self._found: set[str | int] = set()  # keys, or the numbers of blocks without one

    @property
    def count(self) -> int:
        """How many different entries were found."""
        return len(self._found)

    async def look(self, feed: Feed, limit_s: float) -> int:
        """Look at what is new in `feed`, for `limit_s` seconds at most, and return the count."""
        with trio.move_on_after(limit_s):
            for start, end in feed.runs(1, feed.length):
                for first, last in self._unseen(start, end):
                    for piece in range(first, last, _BLOCKS_PER_TURN):
                        stop = min(last, piece + _BLOCKS_PER_TURN)
                        for seq in range(piece, stop):
                            self._look_at(feed, seq)
                        self._note(piece, stop)
                        await trio.lowlevel.checkpoint()
        return self.count

    def _unseen(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of [start, end) that were not looked at."""
        missing = []
        for first, last in self._seen:
            if last <= start or first >= end:
                continue
            if first > start:
                missing.append((start, first))
            start = max(start, last)
        if start < end:
            missing.append((start, end))
        return missing

    def _note(self, start: int, end: int) -> None:
        runs: list[tuple[int, int]] = []
        for first, last in sorted([*self._seen, (start, end)]):
            if runs and first <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(runs[-1][1], last))
            else:
                runs.append((first, last))
        self._seen = runs

    def _look_at(self, feed: Feed, seq: int) -> None:
        try:
            block = feed.get_held(seq)
            found: str | int | None = None if block is None else _hostile(decode_node(seq, block, feed.name))
        except InvalidNode:
            found = seq
        except CorruptStorage:
            return
        if found is not None and len(self._found) < MAX_COUNTED:
            self._found.add(found)


def _hostile(node: TrieNode) -> str | None:
    """Return the key of an entry that is not shown, None for one that is, or that is no entry."""
    if node.hidden or not node.key:
        return None
    if node.garbled or any(is_hostile(part) for part in node.parts):
        return node.key
    if node.value is not None:
        try:
            decode_stat(node.value)
        except CorruptStorage:
            return node.key
    return None
