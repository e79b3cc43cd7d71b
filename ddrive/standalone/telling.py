"""The events of a feed that stands alone, and the peers that they are about."""

from collections.abc import Callable, Sequence

from ddrive.feed.feed import Feed
from ddrive.feed.subscription import Source, Subscription
from ddrive.ids import BlockIndex
from ddrive.protocol.link import Link
from ddrive.protocol.messages import Data
from ddrive.replication.session import FeedSession
from ddrive.standalone.events import (
    Acknowledged,
    Appended,
    Cleared,
    Downloaded,
    FeedClosed,
    PeerAdded,
    PeerOpened,
    PeerRemoved,
    RemoteUpdate,
    Synced,
    Uploaded,
)
from ddrive.standalone.peers import Peer

Event = (
    Appended
    | Downloaded
    | Uploaded
    | Synced
    | Cleared
    | FeedClosed
    | PeerAdded
    | PeerOpened
    | PeerRemoved
    | RemoteUpdate
    | Acknowledged
)


class Telling:
    """Listens to a feed and watches its peers, and tells the program what happens.

    `left(link)` is called when the peer at the other end of a link takes part no more.
    """

    def __init__(self, feed: Feed, session: FeedSession, left: Callable[[Link], None]) -> None:
        self._feed = feed
        self._session = session
        self._left = left
        self._events: Source[Event] = Source()
        self._peers: dict[Link, Peer] = {}
        self._synced_length = 0
        self._unsubscribe = feed.subscribe(self)
        session.observer = self

    def subscribe(self, *kinds: type[Event]) -> Subscription[Event]:
        """Return an iterator over what happens from now on, of the given kinds or of all."""
        return self._events.subscribe(*kinds)

    def peers(self) -> list[Peer]:
        """Return the peers with which the feed is exchanged now."""
        return [self._peers[link] for link in self._session.links() if link in self._peers]

    def peer(self, link: Link) -> Peer:
        """Return the peer at the other end of a link."""
        peer = self._peers.get(link)
        if peer is None:
            peer = self._peers[link] = Peer(link, self._session)
        return peer

    def stop(self) -> None:
        """Hear nothing more of the feed."""
        self._unsubscribe()

    def close(self) -> None:
        """Tell of the end of the feed, and no more."""
        self._events.publish(FeedClosed())
        self._events.close()

    # -- what the exchange tells us --------------------------------------------------------------------------------

    def downloaded(self, link: Link, index: BlockIndex, value: bytes) -> None:
        """Tell of a block that came, and of the last one that was missing."""
        if self._events.listens(Downloaded):
            self._events.publish(Downloaded(index, value, self.peer(link)))
        length = self._feed.length
        if self._events.listens(Synced) and self._synced_length != length == self._feed.held(0, length):
            self._synced_length = length
            self._events.publish(Synced(length))

    def uploaded(self, link: Link, answers: Sequence[Data]) -> None:
        """Tell of blocks that go out."""
        if self._events.listens(Uploaded):
            for answer in answers:
                self._events.publish(Uploaded(answer.index, answer.value or b"", self.peer(link)))

    def acknowledged(self, link: Link, start: BlockIndex, length: int) -> None:
        """Tell of a receipt."""
        self._events.publish(Acknowledged(start, length, self.peer(link)))

    def announced(self, link: Link) -> None:
        """Tell of an announcement."""
        if self._events.listens(RemoteUpdate):
            self._events.publish(RemoteUpdate(self.peer(link)))

    def peer_added(self, link: Link) -> None:
        """Tell of a peer that may take part."""
        self._events.publish(PeerAdded(self.peer(link)))

    def peer_opened(self, link: Link) -> None:
        """Tell of a peer that takes part."""
        self._events.publish(PeerOpened(self.peer(link)))

    def peer_removed(self, link: Link) -> None:
        """Tell of a peer that takes part no more."""
        peer = self._peers.pop(link, None)
        if peer is not None:
            self._events.publish(PeerRemoved(peer))
        self._left(link)

    # -- what the feed tells us ------------------------------------------------------------------------------------

    def stored(self, start: BlockIndex, end: BlockIndex) -> None:
        """Nothing to do: downloads count for themselves."""

    def grew(self, length: int) -> None:
        """Tell of growth."""
        self._events.publish(Appended(length))

    def cleared(self, start: BlockIndex, end: BlockIndex) -> None:
        """Tell of blocks that went."""
        self._synced_length = 0
        self._events.publish(Cleared(start, end))

    def nodes_stored(self) -> None:
        """Nothing to do."""
