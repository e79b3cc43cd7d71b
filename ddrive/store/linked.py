"""One link carries every feed of one or several stores: which channel is about which feed, and who opens it.

A feed that is opened later appears on all links that are up; what a peer asks for is opened from disk when it is held
and served, and refused otherwise. Stores of both dialects share a link, as a discovery key tells them apart.
"""

import logging
import os
from collections.abc import Callable, Sequence

import trio

from ddrive.dialect import Dialect
from ddrive.errors import DriveError, LocalProtocolError
from ddrive.feed.feed import Feed
from ddrive.ids import ChannelId, DiscoveryKey, PublicKey, short
from ddrive.protocol.link import Link, LinkEnd
from ddrive.protocol.messages import Message
from ddrive.protocol.running import run_link
from ddrive.replication.session import FeedSession
from ddrive.store.store import OwnedStore

STATIC_SECRET_BYTES = 32

logger = logging.getLogger(__name__)


class Replicator:
    """The `LinkHandler` of all links that carry the feeds of `stores`.

    `serves(discovery_key)` may refuse a feed, which is then neither offered nor agreed to; `gives(discovery_key)` may
    refuse to answer requests for one that is exchanged, which is then only fetched; `remember(key, dialect,
    link)` is told of each feed that a peer has proven to know.
    """

    def __init__(
        self,
        stores: Sequence[OwnedStore],
        *,
        serves: Callable[[DiscoveryKey], bool] = lambda discovery_key: True,
        gives: Callable[[DiscoveryKey], bool] = lambda discovery_key: True,
        remember: Callable[[PublicKey, Dialect, Link], None] = lambda key, dialect, link: None,
    ) -> None:
        self.stores = list(stores)
        self._serves = serves
        self._gives = gives
        self._remember = remember
        self._channels: dict[Link, dict[ChannelId, tuple[OwnedStore, FeedSession]]] = {}
        self._unsubscribe = [store.subscribe(self.feed_opened) for store in stores]

    @property
    def links(self) -> list[Link]:
        """The links that are up."""
        return list(self._channels)

    def sessions(self, link: Link) -> list[FeedSession]:
        """Return the exchanges that were asked for on a link."""
        return [session for _, session in self._channels.get(link, {}).values()]

    def close(self) -> None:
        """Hear of no more feeds, and end all links."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        for link in self.links:
            link.disconnect("we are leaving")

    def reconsider(self, store: OwnedStore, feed: Feed) -> None:
        """Ask `serves` and `gives` again about an open feed: offer it on all links, or leave its channels at once."""
        if self._serves(store.discovery_key(feed.key)):
            self.feed_opened(store, feed)
            return
        session = store.session(feed)
        for link, channels in self._channels.items():
            for channel in [number for number, (_, user) in channels.items() if user is session]:
                link.close_channel(channel)
                del channels[channel]
                session.remove_peer(link)

    # -- what stores tell us ---------------------------------------------------------------------------------------

    def feed_opened(self, store: OwnedStore, feed: Feed) -> None:
        """Offer a feed on all links."""
        for link in self.links:
            self._open(link, store, feed)

    def _open(self, link: Link, store: OwnedStore, feed: Feed) -> None:
        """Ask for, or agree to, a channel about `feed` on one link, if it is served."""
        if not self._serves(store.discovery_key(feed.key)):
            return
        session = store.session(feed)
        if not feed.forked:  # else the session has decided
            session.uploading = self._gives(store.discovery_key(feed.key))
        try:
            channel = link.open_channel(feed.key, store.dialect)
        except LocalProtocolError as error:
            logger.warning("no channel feed=%s address=%s reason=%s", short(feed.key), link.address, error)
            return
        if channel not in self._channels[link]:
            self._channels[link][channel] = (store, session)
            session.expect(link)

    # -- what links tell us ----------------------------------------------------------------------------------------

    def established(self, link: Link) -> None:
        """Offer every open feed."""
        self._channels[link] = {}
        for store in self.stores:
            for feed in store.feeds():
                self._open(link, store, feed)

    def channel_requested(self, link: Link, discovery_key: DiscoveryKey) -> None:
        """Open what the peer asks for, if it is held and served.

        One who does not know its key must not make us open it: that costs time, and others would be offered it.
        """
        for store in self.stores:
            key = store.known(discovery_key)
            if key is not None and link.is_verified(key, store.dialect):
                feed = self._held(store, discovery_key)
                if feed is not None:
                    self._open(link, store, feed)
                    return
        link.refuse(discovery_key)

    def _held(self, store: OwnedStore, discovery_key: DiscoveryKey) -> Feed | None:
        """Return a feed to serve, or None when it is not served or cannot be opened."""
        if not self._serves(discovery_key):
            return None
        try:
            return store.load(discovery_key)
        except (DriveError, OSError) as error:
            logger.warning("cannot serve feed=%s reason=%s", short(discovery_key), error)
            return None

    def channel_opened(self, link: Link, channel: ChannelId) -> None:
        """Start the exchange."""
        found = self._channels[link].get(channel)
        if found is not None:
            store, session = found
            self._remember(session.feed.key, store.dialect, link)
            session.add_peer(link, channel)

    def channel_closed(self, link: Link, channel: ChannelId) -> None:
        """End the exchange, or the hope for it."""
        found = self._channels[link].pop(channel, None)
        if found is not None:
            found[1].remove_peer(link)

    def received(self, link: Link, channel: ChannelId, messages: Sequence[Message]) -> None:
        """Hand messages to the exchange that they belong to."""
        found = self._channels[link].get(channel)
        if found is not None:
            found[1].received(link, messages)

    def drained(self, link: Link) -> None:
        """Let the exchanges answer what waits, in turns."""
        channels = self._channels.get(link, {})
        for channel in list(channels):
            if not link.room:
                return
            found = channels.pop(channel, None)
            if found is not None:
                channels[channel] = found  # at the end: first the others next time
                found[1].drained(link)

    def closed(self, link: Link) -> None:
        """End all exchanges of a link."""
        for _, session in self._channels.pop(link, {}).values():
            session.remove_peer(link)


async def replicate(store: OwnedStore, stream: trio.abc.Stream, *, initiator: bool, address: str = "") -> LinkEnd:
    """Exchange every feed of `store` over one stream until it ends, and return why it did."""
    if not all(callable(getattr(stream, name, None)) for name in ("receive_some", "send_all", "aclose")):
        raise TypeError(f"a store is exchanged over a stream of trio, not over {stream!r:.80}")
    if not isinstance(initiator, bool):
        raise TypeError(f"initiator is True or False: whether we dialled, not {initiator!r:.80}")
    replicator = Replicator([store])
    try:
        return await run_link(
            stream,
            initiator=initiator,
            handler=replicator,
            static_secret=os.urandom(STATIC_SECRET_BYTES),
            address=address,
        )
    finally:
        replicator.close()
