"""Waiting for changes in a trie."""

from collections.abc import Callable
from typing import Self

from ddrive.feed import Feed
from ddrive.trie.diff import Change, Diff


class Watch:
    """Asynchronous iterator over changes of the trie of a feed: per step those since the step before, never none.

    Entries that were stored again as they were, as a delete does with a neighbour, are left out.
    """

    def __init__(self, feed: Feed, diff: Callable[[int, int], Diff], *, ended: bool) -> None:
        """`diff(new, old)` gives the changes from version `old` to `new`; `ended`: there will be none."""
        self._feed = feed
        self._diff = diff
        self._version = feed.length
        self._ended = ended

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Change]:
        while not self._ended:
            version = await self._feed.wait_length(self._version + 1)
            changes = [change async for change in self._diff(version, max(1, self._version)) if _differs(change)]
            self._version = version
            if changes:
                return changes
        raise StopAsyncIteration


def _differs(change: Change) -> bool:
    left, right = change.left, change.right
    return left is None or right is None or (left.value, left.flags) != (right.value, right.flags)
