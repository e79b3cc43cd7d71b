"""What the layers above need of a store, whether this process owns it or sees what another one owns.

Declared apart from both: who only reads through an engine loads nothing of the exchange with peers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ddrive.dialect import Dialect
from ddrive.feed.feed import Feed
from ddrive.feed.source import ExtensionRegistry
from ddrive.feed.subscription import Subscription
from ddrive.ids import PublicKey


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """Something that happened to `feed`. The kinds are in `ddrive.store.events`."""

    feed: Feed


class Exchange(Protocol):
    """The exchange of one feed with its peers."""

    @property
    def extensions(self) -> ExtensionRegistry:
        """The messages of other layers about the feed."""


class StoreOwner(Protocol):
    """A store in the process that owns it."""

    @property
    def dialect(self) -> Dialect:
        """The family of peers that the feeds are shared with."""

    def session(self, feed: Feed) -> Exchange:
        """Return the exchange of an open feed. Raises: Closed when the feed is not open in this store."""

    def events(self, *kinds: type[StoreEvent], about: Callable[[Feed], bool] | None = None) -> Subscription[StoreEvent]:
        """Return an iterator over what happens to the feeds from now on: events of these classes, or all."""

    async def forget(self, key: PublicKey) -> None:
        """Close the feed and delete its files."""


class Store(Protocol):
    """What everything above feeds needs: feeds by key, or by name where they can be written."""

    @property
    def dialect(self) -> Dialect:
        """The family of peers that the feeds are shared with."""

    @property
    def default_name(self) -> str:
        """The name of the feed that is meant when none is given."""

    @property
    def owner(self) -> StoreOwner | None:
        """The store behind this one, None for a view of what another process owns."""

    async def open_feed(
        self, *, key: PublicKey | None = None, name: bytes | str | None = None, live: bool = False
    ) -> Feed:
        """Return the feed with this key, or the one that this name determines; one object per feed.

        `live`: follow it, fetching the last block as soon as a peer announces it.
        """
