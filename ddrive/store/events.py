"""What happens to the feeds of a store, as values to iterate over (`ddrive.feed.subscription`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ddrive.feed.feed import Feed
from ddrive.feed.subscription import Source
from ddrive.ids import BlockIndex
from ddrive.protocol.link import Link
from ddrive.protocol.messages import Data
from ddrive.store.interface import StoreEvent


@dataclass(frozen=True, slots=True)
class FeedOpened(StoreEvent):
    """The feed was opened: by us, or because a peer asked for it."""


@dataclass(frozen=True, slots=True)
class FeedClosed(StoreEvent):
    """The feed was closed, as nobody used it any more, or deleted."""


@dataclass(frozen=True, slots=True)
class Grown(StoreEvent):
    """The feed has `length` blocks now; for the metadata feed of a drive that is a new version."""

    length: int


@dataclass(frozen=True, slots=True)
class Cleared(StoreEvent):
    """The blocks `start` up to `end` are not held any more."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Downloaded(StoreEvent):
    """A block came from a peer, was verified and stored."""

    index: int
    link: Link = field(repr=False)


@dataclass(frozen=True, slots=True)
class Uploaded(StoreEvent):
    """A block is on its way to a peer."""

    index: int
    link: Link = field(repr=False)


@dataclass(frozen=True, slots=True)
class PeerOpened(StoreEvent):
    """The peer at the other end of `link` has proven that it knows the feed; the exchange begins."""

    link: Link


@dataclass(frozen=True, slots=True)
class PeerRemoved(StoreEvent):
    """The exchange with the peer is over."""

    link: Link


class FeedWatcher:
    """Tells the events of one feed: listener of the feed, observer of its session."""

    def __init__(self, feed: Feed, events: Source[StoreEvent]) -> None:
        self._feed = feed
        self._events = events
        self._opened: set[Link] = set()

    # FeedListener

    def stored(self, start: BlockIndex, end: BlockIndex) -> None: ...
    def nodes_stored(self) -> None: ...

    def grew(self, length: int) -> None:
        self._events.publish(Grown(self._feed, length))

    def cleared(self, start: BlockIndex, end: BlockIndex) -> None:
        self._events.publish(Cleared(self._feed, start, end))

    # PeerObserver

    def downloaded(self, link: Link, index: BlockIndex, value: bytes) -> None:
        if self._events.listens(Downloaded):
            self._events.publish(Downloaded(self._feed, index, link))

    def uploaded(self, link: Link, answers: Sequence[Data]) -> None:
        if self._events.listens(Uploaded):
            for answer in answers:
                self._events.publish(Uploaded(self._feed, answer.index, link))

    def acknowledged(self, link: Link, start: BlockIndex, length: int) -> None: ...
    def announced(self, link: Link) -> None: ...
    def peer_added(self, link: Link) -> None: ...

    def peer_opened(self, link: Link) -> None:
        self._opened.add(link)
        self._events.publish(PeerOpened(self._feed, link))

    def peer_removed(self, link: Link) -> None:
        if link in self._opened:
            self._opened.discard(link)
            self._events.publish(PeerRemoved(self._feed, link))
