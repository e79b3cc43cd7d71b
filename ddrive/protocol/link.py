"""What a handler and its connection have to do with each other: plain calls both ways, none of which waits.

The bytes are moved by `ddrive.protocol.running`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from ddrive.dialect import Dialect
from ddrive.errors import LocalProtocolError, RemoteProtocolError
from ddrive.ids import ChannelId, DiscoveryKey, PublicKey, short
from ddrive.protocol.connection import Connection
from ddrive.protocol.messages import Extension, Message, Options
from ddrive.protocol.sharing import Share

HIGH_WATER_BYTES = 1024 * 1024  # queued output from which on `Link.room` is False, until it is a quarter of that
MAX_UNSENT_BYTES = 4 * 1024 * 1024  # with more unsent before yet another message the peer is dropped
UNSENT_AFTER_BYTES = 1024 * 1024  # likewise, behind what was queued while there was room: a block may have 8 MiB
FLUSH_S = 1.0  # for what is queued when we end the link

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """Why a link has ended.

    `lied` when the peer broke the protocol or sent what does not verify, `left` when it closed the connection.
    """

    reason: str
    lied: bool = False
    left: bool = False


class LinkHandler(Protocol):
    """What happens on links, as plain calls. `RemoteProtocolError` out of one of them ends the link."""

    def established(self, link: "Link") -> None:
        """The handshake is done: channels can be opened."""

    def channel_requested(self, link: "Link", discovery_key: DiscoveryKey) -> None:
        """The peer asks for a feed: answer with `open_channel`, now or later, or with `refuse`."""

    def channel_opened(self, link: "Link", channel: ChannelId) -> None:
        """Both sides have opened and the peer knows the key: messages can be sent."""

    def channel_closed(self, link: "Link", channel: ChannelId) -> None:
        """The peer left or refused; the channel has ended. Not called for `Link.close_channel`."""

    def received(self, link: "Link", channel: ChannelId, messages: Sequence[Message]) -> None:
        """Messages arrived together on an open channel; after a call that ends the link the others do not count."""

    def drained(self, link: "Link") -> None:
        """There is room again after there was none."""

    def closed(self, link: "Link") -> None:
        """The link and all its channels have ended. The last call, and only after `established`."""


class Link:
    """What a handler sees of a connection: plain calls that queue. After the end they do nothing."""

    def __init__(
        self,
        connection: Connection,
        handler: LinkHandler,
        address: str,
        share: Share,
    ) -> None:
        self.address = address  # of the peer, for messages
        self.end: LinkEnd | None = None
        self.on_stream_message: Callable[[Options | Extension], None] = lambda message: None
        self._connection = connection
        self._handler = handler
        self._share = share
        self._high_water_bytes = share.queue_bytes(HIGH_WATER_BYTES)
        self._unsent = 0  # bytes that the writer has taken and the stream has not
        self._most_unsent = MAX_UNSENT_BYTES
        self._is_full = False
        self._wake = trio.Event()
        self._receiving = trio.CancelScope()
        self._sending = trio.CancelScope()
        self._last_sent = trio.current_time()

    def __repr__(self) -> str:
        return f"<Link {short(self.remote_public_key) or '?'} {self.address}>"

    @property
    def remote_public_key(self) -> bytes:
        """The peer's static key, 32 bytes; empty without Noise."""
        return self._connection.remote_public_key

    @property
    def public_key(self) -> bytes:
        """Our static key, by which the peer knows us, 32 bytes; empty without Noise."""
        return self._connection.public_key

    @property
    def handshake_hash(self) -> bytes:
        """64 bytes that both sides share and nobody else has had; to be signed by a program that proves more."""
        return self._connection.handshake_hash

    def is_verified(self, key: PublicKey, dialect: Dialect) -> bool:
        """Tell whether the peer has opened the feed `key` and proven that it knows it: never without Noise."""
        return self._connection.is_verified(key, dialect)

    @property
    def bytes_sent(self) -> int:
        """Encrypted bytes handed out for sending so far."""
        return self._connection.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Encrypted bytes received so far."""
        return self._connection.bytes_received

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent."""
        return self._connection.pending_bytes + self._unsent

    @property
    def room(self) -> bool:
        """Whether more should be queued. Once this is False, `drained` follows."""
        if self.queued_bytes >= self._high_water_bytes:
            return False
        return self._share.slots.take(self, trio.current_time(), self._got_slot)

    def is_answering(self, channel: ChannelId) -> bool:
        """Tell whether the peer is in the middle of a long Data on `channel`."""
        return self._connection.is_answering(channel)

    def in_flight_bytes(self, most: int) -> int:
        """Return how much to ask of the peer at a time, at most `most`: what is urgent would wait for it."""
        return self._share.in_flight_bytes(most)

    def _got_slot(self) -> None:
        with self._failures_end_it():
            self._handler.drained(self)
        if not self.queued_bytes:
            self._share.slots.pause(self, trio.current_time())

    def open_channel(self, key: PublicKey, dialect: Dialect) -> ChannelId:
        """Ask for, or agree to, a channel about the feed `key`; `channel_opened` or `channel_closed` follows later."""
        channel = self._connection.open_channel(key, dialect)
        self._queued()
        return channel

    def close_channel(self, channel: ChannelId) -> None:
        """Leave a channel."""
        self._connection.close_channel(channel)
        self._queued()

    def requested(self) -> list[DiscoveryKey]:
        """Return the feeds that the peer asks for and that were neither opened nor refused."""
        return self._connection.requested()

    def refuse(self, discovery_key: DiscoveryKey) -> None:
        """Tell the peer that we do not take part in a feed that it asked for."""
        self._connection.refuse(discovery_key)
        self._queued()

    def send(self, channel: ChannelId, *messages: Message) -> None:
        """Queue messages; they are dropped when the channel or the link has ended meanwhile.

        Raises: LocalProtocolError when the channel is not open yet or a message is too large.
        """
        if self.end is not None:
            return
        had_room = self._takes_more()
        if self.end is not None:
            return
        try:
            self._connection.send(channel, *messages)
        except LocalProtocolError:
            if self._connection.was_closed(channel):
                return
            raise
        self._queued(had_room=had_room)

    def send_stream(self, message: Options | Extension) -> None:
        """Queue a message about the link itself; it is dropped when the link has ended meanwhile."""
        had_room = self._takes_more()
        if self.end is None:
            self._connection.send_stream(message)
            self._queued(had_room=had_room)

    def send_sign_of_life(self) -> None:
        """Send something that means nothing, so that the peer's system confirms it or the connection breaks."""
        if self._connection.established and self.end is None:
            self._last_sent = trio.current_time()
            self._connection.ping()
            self._wake.set()

    def disconnect(self, reason: str) -> None:
        """End the link; what is queued is still sent if that is quick."""
        self._finish(reason)

    def _takes_more(self) -> bool:
        """Tell whether there is room for any message; end the link when so much is unsent that none may follow.

        A peer on a slow line takes its time for a large block, and is sent small messages meanwhile.
        """
        queued = self.queued_bytes
        if queued > self._most_unsent:
            self._finish("the peer does not take what it is sent")
        return queued < self._high_water_bytes

    def _queued(self, *, had_room: bool = False) -> None:
        """Take note of new output."""
        if had_room:
            self._most_unsent = max(MAX_UNSENT_BYTES, self.queued_bytes + UNSENT_AFTER_BYTES)
        if self.queued_bytes >= self._high_water_bytes:
            self._is_full = True
        self._wake.set()

    def _finish(self, reason: str, *, lied: bool = False, left: bool = False) -> None:
        if self.end is None:
            self.end = LinkEnd(reason, lied, left)
            self._receiving.cancel()
            self._sending.deadline = min(self._sending.deadline, trio.current_time() + (0 if lied else FLUSH_S))
            self._wake.set()

    @contextmanager
    def _failures_end_it(self) -> Iterator[None]:
        """Turn what goes wrong into the end of this link, so that it stays the trouble of this link."""
        try:
            yield
        except RemoteProtocolError as error:
            self._finish(str(error), lied=True)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._finish("the connection was lost", left=True)
        except Exception as error:
            logger.exception("link failed peer=%s address=%s", short(self.remote_public_key), self.address)
            self._finish(f"internal error: {error!r}")
