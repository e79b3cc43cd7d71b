"""One link that carries feeds which no store manages: which channel is about which feed, and when all is done.

Each feed that is added is offered to the peer. A feed that the peer asks for and that was not added is refused, or,
with `keep_unknown`, reported and left open until the program has decided.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Protocol

import trio

from ddrive.crypto import discovery_key
from ddrive.dialect import Dialect
from ddrive.errors import Closed, LocalProtocolError
from ddrive.feed.subscription import Source
from ddrive.ids import ChannelId, DiscoveryKey, PublicKey, short
from ddrive.protocol.handshake import Authenticate
from ddrive.protocol.link import Link, LinkEnd
from ddrive.protocol.messages import Extension, Message, Options
from ddrive.protocol.running import HANDSHAKE_TIMEOUT_S, TIMEOUT_S, run_link
from ddrive.replication.extensions import Extensions
from ddrive.replication.observing import PeerOptions
from ddrive.replication.session import FeedSession
from ddrive.standalone.arguments import check_seconds, shown
from ddrive.standalone.encodings import Encoding
from ddrive.standalone.extending import FeedExtension
from ddrive.standalone.hooks import check_hooks
from ddrive.standalone.peers import Peer

GRACE_S = 1.0  # for the peer to end a link on which all is done, before we do

logger = logging.getLogger(__name__)


class Carried(Protocol):
    """A feed that a link can carry."""

    @property
    def key(self) -> PublicKey: ...

    @property
    def dialect(self) -> Dialect: ...

    @property
    def session(self) -> FeedSession: ...

    def carried_by(self, carrying: "Carrying") -> None:
        """The link carries the feed from now on."""

    def left_by(self, carrying: "Carrying") -> None:
        """The link does not carry the feed any more."""


def _check_carried(feed: object) -> None:
    """Raise TypeError for what no link can carry."""
    if isinstance(feed, type) or not (hasattr(feed, "session") and callable(getattr(feed, "carried_by", None))):
        raise TypeError(f"a link carries feeds that open_feed has opened, not {shown(feed)}")


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How one link behaves, apart from what it carries; the defaults are those of the npm peers.

    Raises: ValueError for what no link can do.
    """

    static_secret: bytes  # X25519, 32 bytes
    address: str = ""  # of the peer, for messages
    timeout_s: float | None = TIMEOUT_S  # without received bytes; None: never
    handshake_timeout_s: float | None = HANDSHAKE_TIMEOUT_S  # None: never
    keep_alive_s: float | None = None  # None: half of the timeout
    authenticate: Authenticate | None = None
    encrypted: bool = True
    noise: bool = True

    def __post_init__(self) -> None:
        if self.encrypted and not self.noise:
            raise ValueError("without noise there are no keys to encrypt with: give encrypted=False, too")
        if self.authenticate is not None and not self.noise:
            raise ValueError("without noise the peer has no key that on_authenticate could look at")
        check_hooks(on_authenticate=self.authenticate)
        for name, seconds in (
            ("timeout", self.timeout_s),
            ("handshake_timeout", self.handshake_timeout_s),
            ("keep_alive", self.keep_alive_s),
        ):
            check_seconds(name, seconds)
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} is a time above 0 s, not {seconds}")


@dataclass(frozen=True, slots=True)
class _Entry:
    feed: Carried
    options: PeerOptions


class Carrying:
    """A link under way or ended, with the feeds on it; the `LinkHandler` of the link."""

    def __init__(self, feeds: Sequence[Carried], options: PeerOptions, *, keep_unknown: bool) -> None:
        self.link: Link | None = None
        self.end: LinkEnd | None = None
        self.unknown: Source[DiscoveryKey] = Source()  # feeds that the peer asks for and that are not carried
        self.connected = trio.Event()
        self.ended = trio.Event()
        self._extensions = Extensions(self)  # of the link itself
        self._registered: dict[str, FeedExtension] = {}
        self._peer: Peer | None = None  # the other end, for messages about no feed
        self._options = options
        self._keep_unknown = keep_unknown
        self._feeds: dict[tuple[PublicKey, str], _Entry] = {}
        self._channels: dict[ChannelId, _Entry] = {}
        self._all_done = trio.Event()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._patience_s = inf  # with a peer that says nothing to a feed on a link that is not to stay
        for feed in feeds:
            self.add(feed)

    def __len__(self) -> int:
        return len(self._feeds)

    def __bool__(self) -> bool:
        return True

    @property
    def is_pending(self) -> bool:
        """Whether the handshake is still to be done."""
        return self.link is None and self.end is None

    def is_over(self, link: Link) -> bool:
        """Tell whether `link` is the connection: none is, of one that ended before the handshake was done."""
        return self.link is link

    def add(self, feed: Carried, options: PeerOptions | None = None) -> None:
        """Carry one more feed, now or from the handshake on; one that is carried already changes nothing.

        `options` are by default those of the link.
        Raises: Closed when the link has ended, or the feed is closed.
        """
        _check_carried(feed)
        if options is not None and not isinstance(options, PeerOptions):
            raise TypeError(f"the options of a feed are ddrive.standalone.PeerOptions, not {shown(options)}")
        if self.end is not None:
            raise Closed("the link has ended")
        name = feed.key, feed.dialect.name
        if name in self._feeds:
            return
        feed.carried_by(self)
        entry = self._feeds[name] = _Entry(feed, options or self._options)
        if self.link is not None:
            self._open(self.link, entry)

    def remove(self, feed: Carried) -> None:
        """Carry a feed no more."""
        _check_carried(feed)
        entry = self._feeds.get((feed.key, feed.dialect.name))
        if entry is None or entry.feed is not feed:
            return
        channels = [channel for channel, other in self._channels.items() if other is entry]
        self._forget(entry)
        if self.link is not None:
            for channel in channels:
                self.link.close_channel(channel)
            feed.session.remove_peer(self.link)

    def register_extension(self, name: str, encoding: str | Encoding = "binary") -> FeedExtension:
        """Return the extension `name` of the link itself: messages that are about no feed. They end with the link.

        Raises: as `register_extension` of a feed, Closed when the link has ended.
        """
        if self.end is not None:
            raise Closed("the link has ended")
        extension = FeedExtension(self._extensions, name, encoding, self._peer_of)
        if (before := self._registered.get(name)) is not None:
            before.close()
        self._registered[name] = extension
        return extension

    def close(self, reason: str = "we ended it") -> None:
        """End the link for `reason`; what is queued is still sent if that is quick."""
        if self.link is not None:
            self.link.disconnect(reason)
        else:
            self.end = self.end or LinkEnd(reason)
            self._scope.cancel()

    async def run(self, stream: trio.abc.Stream, *, initiator: bool, options: LinkOptions) -> LinkEnd:
        """Exchange the feeds over `stream` until the link ends, and return why it did."""
        self._patience_s = inf if options.timeout_s is None else options.timeout_s
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._end_when_done)
                with self._scope:
                    self.end = await run_link(
                        stream,
                        initiator=initiator,
                        handler=self,
                        static_secret=options.static_secret,
                        address=options.address,
                        timeout_s=inf if options.timeout_s is None else options.timeout_s,
                        handshake_timeout_s=inf if options.handshake_timeout_s is None else options.handshake_timeout_s,
                        keep_alive_s=options.keep_alive_s,
                        authenticate=options.authenticate,
                        encrypted=options.encrypted,
                        noise=options.noise,
                    )
                nursery.cancel_scope.cancel()
        finally:
            self.end = self.end or LinkEnd("we ended it")
            for entry in list(self._feeds.values()):
                self._forget(entry)
            self.connected.set()
            self.ended.set()
            self.unknown.close()
            for extension in self._registered.values():
                extension.close()
        return self.end

    async def _end_when_done(self) -> None:
        await self._all_done.wait()
        await trio.sleep(GRACE_S)
        self.close("all is done")

    # -- what feeds tell us ----------------------------------------------------------------------------------------

    def left(self, feed: Carried) -> None:
        """The exchange of a feed is over on this link: one that is not to stay ends with its last feed.

        On one that stays, the peer may ask for the feed again: it may have known it too late.
        """
        entry = self._feeds.get((feed.key, feed.dialect.name))
        if entry is None or entry.feed is not feed:
            return
        self._drop_channels(entry)
        if not entry.options.live:
            self._forget(entry)
            if not self._channels:
                self._all_done.set()

    def _drop_channels(self, entry: _Entry) -> None:
        for channel in [channel for channel, other in self._channels.items() if other is entry]:
            del self._channels[channel]

    def _forget(self, entry: _Entry) -> None:
        self._feeds.pop((entry.feed.key, entry.feed.dialect.name), None)
        self._drop_channels(entry)
        entry.feed.left_by(self)

    # -- what the link tells us ------------------------------------------------------------------------------------

    def established(self, link: Link) -> None:
        """Offer every feed."""
        self.link = link
        link.on_stream_message = partial(self._stream_message, link)
        if self._extensions.names:
            self.send_options(link)
        self.connected.set()
        for entry in list(self._feeds.values()):
            self._open(link, entry)

    def _peer_of(self, link: Link) -> Peer:
        self._peer = self._peer or Peer(link, None)
        return self._peer

    def _stream_message(self, link: Link, message: Options | Extension) -> None:
        if isinstance(message, Options):
            self._extensions.learn(link, message)
        else:
            self._extensions.received(link, message)

    # -- what the extensions of the link ask for -------------------------------------------------------------------

    def links(self) -> list[Link]:
        """Return the link when it is up."""
        return [] if self.link is None else [self.link]

    def send(self, link: Link, message: Message) -> None:
        """Send a message of an extension, on this link only: the numbers of extensions are its own."""
        if isinstance(message, Extension) and link is self.link:
            link.send_stream(message)

    def send_options(self, link: Link) -> None:
        """Tell the peer our extensions."""
        link.send_stream(Options(self._extensions.names))

    # -- channels --------------------------------------------------------------------------------------------------

    def _open(self, link: Link, entry: _Entry) -> None:
        try:
            channel = link.open_channel(entry.feed.key, entry.feed.dialect)
        except LocalProtocolError as error:
            logger.warning("no channel feed=%s address=%s reason=%s", short(entry.feed.key), link.address, error)
            return
        if channel not in self._channels:
            self._channels[channel] = entry
            entry.feed.session.expect(link)
            if self._nursery is not None and not entry.options.live:
                self._nursery.start_soon(self._give_up_unanswered, link, channel, entry)

    async def _give_up_unanswered(self, link: Link, channel: ChannelId, entry: _Entry) -> None:
        """Let a link that is not to stay end though the peer does not answer: npm peers say nothing to a wrong key."""
        await trio.sleep(self._patience_s)
        if self._channels.get(channel) is entry and link not in entry.feed.session.links():
            self.remove(entry.feed)
            if not self._channels:
                self._all_done.set()

    def channel_requested(self, link: Link, discovery_key: DiscoveryKey) -> None:
        """Agree to a feed that is carried; let the program decide about another one, or refuse it."""
        entry = self._entry_of(discovery_key)
        if entry is not None:
            self._open(link, entry)
            return
        self.unknown.publish(discovery_key)
        if not self._keep_unknown:
            link.refuse(discovery_key)

    def _entry_of(self, requested: DiscoveryKey) -> _Entry | None:
        for entry in self._feeds.values():
            if discovery_key(entry.feed.key, entry.feed.dialect.discovery_ns) == requested:
                return entry
        return None

    def channel_opened(self, link: Link, channel: ChannelId) -> None:
        """Start the exchange of a feed."""
        entry = self._channels.get(channel)
        if entry is not None:
            entry.feed.session.add_peer(link, channel, entry.options)

    def channel_closed(self, link: Link, channel: ChannelId) -> None:
        """End the exchange of a feed, or the hope for it; the last one of a link that is not to stay ends it."""
        entry = self._channels.pop(channel, None)
        if entry is None:
            return
        entry.feed.session.remove_peer(link)
        if self._all_done.is_set() and not self._channels:
            link.disconnect("all is done")

    def received(self, link: Link, channel: ChannelId, messages: Sequence[Message]) -> None:
        """Hand messages to the exchange that they belong to."""
        entry = self._channels.get(channel)
        if entry is not None:
            entry.feed.session.received(link, messages)

    def drained(self, link: Link) -> None:
        """Let the exchanges answer what waits, in turns."""
        for channel in list(self._channels):
            if not link.room:
                return
            entry = self._channels.pop(channel, None)
            if entry is not None:
                self._channels[channel] = entry  # at the end: first the others next time
                entry.feed.session.drained(link)

    def closed(self, link: Link) -> None:
        """End all exchanges."""
        for entry in list(self._channels.values()):
            entry.feed.session.remove_peer(link)
