"""Help between peers for the tries of a store: every feed that holds a trie answers what its peers ask.

Whether a feed is a trie is told by its first block, so this also holds for nested drives, and for drives that only a
peer asked for. Nothing is asked here; reads do that (`ddrive.trie.extension`).
"""

from collections.abc import Callable

from ddrive.drive.assisting import assist
from ddrive.feed.feed import Feed
from ddrive.ids import BlockIndex
from ddrive.store.store import OwnedStore


def help_peers(store: OwnedStore) -> Callable[[], None]:
    """Answer the peers of all tries in `store`; until the result is called, also of those that are opened later."""
    for feed in store.feeds():
        _help(store, feed)
    return store.subscribe(_help)


def _help(store: OwnedStore, feed: Feed) -> None:
    """Look what the feed holds, now or as soon as its first block is here."""
    if not assist(store, feed):
        _FirstBlock(store, feed)


class _FirstBlock:
    """Listener of a feed of which nothing is known yet."""

    def __init__(self, store: OwnedStore, feed: Feed) -> None:
        self._store = store
        self._feed = feed
        self._leave = feed.subscribe(self)

    def stored(self, start: BlockIndex, end: BlockIndex) -> None:
        if start == 0:
            self._leave()
            assist(self._store, self._feed)

    def grew(self, length: int) -> None: ...
    def cleared(self, start: BlockIndex, end: BlockIndex) -> None: ...
    def nodes_stored(self) -> None: ...
