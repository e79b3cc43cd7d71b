"""Feeds of which nothing is held and that no connected peer has: most are drives that are nested in others.

Whoever reads a nested drive finds it on the peers that are there; only when that fails are strangers asked.
"""

from collections.abc import Callable, Mapping

from ddrive.ids import DiscoveryKey
from ddrive.store.store import OwnedStore
from mountd.finding import Topic


class Lonely:
    """Looks for such feeds. `may_ask` tells whether strangers may be asked for a topic."""

    def __init__(self, stores: Mapping[str, OwnedStore], may_ask: Callable[[DiscoveryKey], bool]) -> None:
        self._stores = stores
        self._may_ask = may_ask
        self._before: set[DiscoveryKey] = set()  # lonely at the last look

    def topics(self) -> dict[DiscoveryKey, Topic]:
        """Return what to look for: what is lonely now and was so the last time, which the caller asks every moment."""
        now = {
            store.discovery_key(feed.key): Topic(store.dialect, announce=False)
            for store in self._stores.values()
            for feed in store.feeds()
            if not (feed.length or feed.writable or store.session(feed).peer_count)
        }
        before, self._before = self._before, set(now)
        return {topic: about for topic, about in now.items() if topic in before and self._may_ask(topic)}
