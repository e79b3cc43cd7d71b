"""Several defaults in one store: a namespace has a default feed of its own and shares everything else.

The feeds are named as those of the npm stores are: the default feed of a namespace is called like the namespace.
"""

from collections import Counter

import trio

from ddrive.dialect import Dialect
from ddrive.feed.feed import Feed
from ddrive.ids import PublicKey
from ddrive.store.derive import child_namespace
from ddrive.store.store import OwnedStore


class Namespace:
    """A view of a store. Made by `namespace`; `close` gives back the feeds that were opened through it."""

    def __init__(self, store: OwnedStore, name: str) -> None:
        self.store = store
        self.default_name = name
        self._uses: Counter[Feed] = Counter()

    def __repr__(self) -> str:
        return f"<Namespace {self.default_name!r} of {self.store.path}>"

    @property
    def dialect(self) -> Dialect:
        """The family of peers that the feeds are shared with."""
        return self.store.dialect

    @property
    def owner(self) -> OwnedStore:
        """The store that the namespace is part of."""
        return self.store

    async def open_feed(
        self, *, key: PublicKey | None = None, name: bytes | str | None = None, live: bool = False
    ) -> Feed:
        """Return a feed as the store does; without key and name the default one of the namespace."""
        wanted = self.default_name if key is None and name is None else name
        feed = await self.store.open_feed(key=key, name=wanted, live=live)
        self._uses[feed] += 1
        return feed

    async def release(self, feed: Feed) -> None:
        """Take one `open_feed` of this view back."""
        if self._uses[feed]:
            self._uses[feed] -= 1
            await self.store.release(feed)

    def feeds(self) -> list[Feed]:
        """Return the feeds that are in use through this view."""
        return [feed for feed, uses in self._uses.items() if uses]

    def namespace(self, name: bytes | str) -> "Namespace":
        """Return a namespace inside this one."""
        return Namespace(self.store, child_namespace(self.default_name, name))

    async def close(self) -> None:
        """Give back all feeds, also when the caller is cancelled."""
        uses, self._uses = self._uses, Counter()
        with trio.CancelScope(shield=True):
            for feed in uses.elements():
                await self.store.release(feed)


def namespace(store: OwnedStore, name: bytes | str) -> Namespace:
    """Return the namespace `name` of a store."""
    return Namespace(store, child_namespace(None, name))
