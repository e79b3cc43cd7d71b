"""One connection on one stream: a reader task and a writer task, keep-alive and timeouts.

The reader awaits nothing but the stream and calls the handler synchronously for each event; whatever the handler
sends is queued, and the writer takes all of it at once: one small message costs about as much as a whole batch.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import trio

from ddrive.dialect import Dialect
from ddrive.errors import LocalProtocolError, RemoteProtocolError
from ddrive.ids import ChannelId, DiscoveryKey, PublicKey, short
from ddrive.protocol.connection import (
    ChannelClosed,
    ChannelOpened,
    ChannelRequested,
    Connection,
    Established,
    Event,
    Received,
    StreamReceived,
)
from ddrive.protocol.handshake import Authenticate
from ddrive.protocol.hsalsa20 import NONCE_BYTES
from ddrive.protocol.messages import Extension, Message, Options
from ddrive.protocol.sharing import Bucket, Share

TIMEOUT_S = 20.0  # without received bytes; a sign of life goes out after half of it. Source: `hypercore-protocol`
HANDSHAKE_TIMEOUT_S = 20.0
HIGH_WATER_BYTES = 1024 * 1024  # queued output from which on `Link.room` is False, until it is a quarter of that
MAX_UNSENT_BYTES = 4 * 1024 * 1024  # with more unsent before yet another message the peer is dropped
MIN_BYTES_PER_S = 1024  # of a frame that takes longer than the timeout: a slower peer is dropped
SEND_BYTES = 128 * 1024  # handed to the stream at a time: a peer that takes less within the timeout is dropped
RECEIVE_BYTES = 512 * 1024  # asked of the stream at a time: eight blocks in one pass cost a quarter less than one
TURN_EVENTS = 48  # of one chunk between two turns of the writer; both sides of an exchange of small blocks work at once
GREETING_BYTES = 4096  # asked of a stranger at a time, until the handshake is done
FLUSH_S = 1.0  # for what is queued when we end the link

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """Why a link has ended; `lied` when the peer broke the protocol or sent what does not verify."""

    reason: str
    lied: bool = False


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
        stream: trio.abc.Stream,
        address: str,
        share: Share,
    ) -> None:
        self.address = address  # of the peer, for messages
        self.end: LinkEnd | None = None
        self.on_stream_message: Callable[[Options | Extension], None] = lambda message: None
        self._connection = connection
        self._handler = handler
        self._stream = stream
        self._share = share
        self._high_water_bytes = share.queue_bytes(HIGH_WATER_BYTES)
        self._low_water_bytes = self._high_water_bytes // 4
        self._unsent = 0  # bytes that the writer has taken and the stream has not
        self._is_full = False
        self._wake = trio.Event()
        self._receiving = trio.CancelScope()
        self._sending = trio.CancelScope()
        self._last_sent = trio.current_time()
        self._frame_began = 0.0  # when the unfinished frame of the peer began

    def __repr__(self) -> str:
        return f"<Link {short(self.remote_public_key) or '?'} {self.address}>"

    @property
    def remote_public_key(self) -> bytes:
        """The peer's static key, 32 bytes."""
        return self._connection.remote_public_key

    @property
    def handshake_hash(self) -> bytes:
        """64 bytes that both sides share and nobody else has had; to be signed by a program that proves more."""
        return self._connection.handshake_hash

    def is_verified(self, key: PublicKey, dialect: Dialect) -> bool:
        """Tell whether the peer has opened the feed `key` and proven that it knows it."""
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
        if self.queued_bytes > MAX_UNSENT_BYTES:
            self._finish("the peer does not take what it is sent")
            return
        try:
            self._connection.send(channel, *messages)
        except LocalProtocolError:
            if self._connection.was_closed(channel):
                return
            raise
        self._queued()

    def send_stream(self, message: Options | Extension) -> None:
        """Queue a message about the link itself; it is dropped when the link has ended meanwhile."""
        if self.queued_bytes > MAX_UNSENT_BYTES:
            self._finish("the peer does not take what it is sent")
        if self.end is None:
            self._connection.send_stream(message)
            self._queued()

    def send_sign_of_life(self) -> None:
        """Send something that means nothing, so that the peer's system confirms it or the connection breaks."""
        if self._connection.established and self.end is None:
            self._last_sent = trio.current_time()
            self._connection.ping()
            self._wake.set()

    def disconnect(self, reason: str) -> None:
        """End the link; what is queued is still sent if that is quick."""
        self._finish(reason)

    def _queued(self) -> None:
        """Take note of new output."""
        if self.queued_bytes >= self._high_water_bytes:
            self._is_full = True
        self._wake.set()

    def _finish(self, reason: str, *, lied: bool = False) -> None:
        if self.end is None:
            self.end = LinkEnd(reason, lied)
            self._receiving.cancel()
            self._sending.deadline = min(self._sending.deadline, trio.current_time() + (0 if lied else FLUSH_S))
            self._wake.set()

    async def run(self, timeout_s: float, handshake_timeout_s: float, keep_alive_s: float) -> None:
        """Move bytes until the link ends; afterwards `end` says why."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, timeout_s, handshake_timeout_s)
                nursery.start_soon(self._keep_alive, keep_alive_s)
                await self._write(timeout_s)
                nursery.cancel_scope.cancel()
        finally:
            self._finish("we ended it")
            self._share.slots.leave(self, trio.current_time())
            if self._connection.established:
                with self._failures_end_it():
                    self._handler.closed(self)

    @contextmanager
    def _failures_end_it(self) -> Iterator[None]:
        """Turn what goes wrong into the end of this link, so that it stays the trouble of this link."""
        try:
            yield
        except RemoteProtocolError as error:
            self._finish(str(error), lied=True)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._finish("the connection was lost")
        except Exception as error:
            logger.exception("link failed peer=%s address=%s", short(self.remote_public_key), self.address)
            self._finish(f"internal error: {error!r}")

    async def _read(self, timeout_s: float, handshake_timeout_s: float) -> None:
        connection, scope, down = self._connection, self._receiving, self._share.down
        most_bytes = RECEIVE_BYTES if down is None else down.piece_bytes
        handshake_deadline = trio.current_time() + handshake_timeout_s
        with self._failures_end_it(), scope:
            while True:
                _put_off(scope, timeout_s, math.inf if connection.established else handshake_deadline)
                chunk = await self._stream.receive_some(most_bytes if connection.established else GREETING_BYTES)
                if not chunk:
                    self._finish("the peer closed the connection")
                    return
                events = connection.receive_data(bytes(chunk))
                while len(events) > TURN_EVENTS:
                    self._tell_all(events[:TURN_EVENTS])
                    del events[:TURN_EVENTS]
                    await self._let_write()
                self._tell_all(events)
                if connection.pending_bytes:
                    self._queued()
                if self._drips(len(chunk), timeout_s):
                    self._finish("the peer sends too slowly")
                    return
                if down is not None:
                    scope.deadline = math.inf
                await _turn(down, len(chunk))
        if scope.cancelled_caught:
            self._finish("the peer is silent" if connection.established else "the handshake took too long")

    def _drips(self, received_bytes: int, timeout_s: float) -> bool:
        """Tell whether the peer takes very long for the frame that it has begun: what is kept of it costs memory."""
        held, now = self._connection.unfinished_bytes, trio.current_time()
        if held <= received_bytes:  # it began with the chunk that was just received, if there is one
            self._frame_began = now
        return now - self._frame_began > timeout_s + held / MIN_BYTES_PER_S

    async def _let_write(self) -> None:
        """Send what answers the first messages of a chunk, so that the peer has work while we do the others."""
        if self._connection.pending_bytes and self.end is None:
            self._queued()
            await trio.lowlevel.checkpoint()

    async def _write(self, timeout_s: float) -> None:
        self._wake.set()  # the handshake
        with self._failures_end_it(), self._sending:
            while self.end is None:
                await self._wake.wait()
                self._wake = trio.Event()
                self._tell_all(self._connection.take_events())
                await self._send_queued(timeout_s)
            if not self.end.lied:
                await self._send_queued(timeout_s)
        if self._sending.cancelled_caught:
            self._finish("the peer does not take what it is sent")

    async def _send_queued(self, timeout_s: float) -> None:
        most_bytes = SEND_BYTES if (up := self._share.up) is None else up.piece_bytes
        while data := self._connection.data_to_send(SEND_BYTES):
            rest = memoryview(data)
            while rest:
                self._unsent = len(rest)
                if up is not None and self.end is None:
                    self._sending.deadline = math.inf
                await _turn(up, len(rest[:most_bytes]))
                if self.end is None:
                    _put_off(self._sending, timeout_s)
                await self._stream.send_all(rest[:most_bytes])
                self._last_sent = trio.current_time()
                rest = rest[most_bytes:]
            self._unsent = 0
            if self._is_full and self.queued_bytes < self._low_water_bytes:
                self._is_full = False
                self._handler.drained(self)
        if self.end is None:
            self._sending.deadline = math.inf
        self._share.slots.pause(self, trio.current_time())

    async def _keep_alive(self, interval_s: float) -> None:
        """Send a sign of life whenever nothing was sent for an interval."""
        while True:
            await trio.sleep_until(self._last_sent + interval_s)
            if trio.current_time() >= self._last_sent + interval_s:
                self._last_sent = trio.current_time()
                if not self.queued_bytes:
                    self.send_sign_of_life()

    def _tell_all(self, events: list[Event]) -> None:
        """Call the handler for each event, and for those that its own calls cause."""
        while events:
            for channel, run in groupby(events, _channel_of):
                if self.end is not None:
                    return
                if channel is None:
                    self._tell_each(run)
                else:
                    messages = [event.message for event in run if isinstance(event, Received)]
                    logger.debug("received address=%s channel=%d messages=%s", self.address, channel, messages)
                    self._handler.received(self, channel, messages)
            events = self._connection.take_events()

    def _tell_each(self, events: Iterable[Event]) -> None:
        for event in events:
            if self.end is None:
                self._tell(event)

    def _tell(self, event: Event) -> None:
        handler = self._handler
        if isinstance(event, ChannelOpened):
            handler.channel_opened(self, event.channel)
        elif isinstance(event, ChannelClosed):
            handler.channel_closed(self, event.channel)
        elif isinstance(event, ChannelRequested):
            handler.channel_requested(self, event.discovery_key)
        elif isinstance(event, StreamReceived):
            self.on_stream_message(event.message)
        elif isinstance(event, Established):
            handler.established(self)


def _channel_of(event: Event) -> ChannelId | None:
    """Return the channel of a message, so that those which arrived together can be told together."""
    return event.channel if isinstance(event, Received) else None


def _put_off(scope: trio.CancelScope, timeout_s: float, latest: float = math.inf) -> None:
    """Let what `scope` is waiting for take `timeout_s` more, or up to a sixteenth more, but not beyond `latest`.

    Setting a deadline costs some microseconds, so one that is far enough away stays.
    """
    now = trio.current_time()
    if not now + timeout_s <= scope.deadline <= min(now + 2 * timeout_s, latest):
        scope.deadline = min(now + timeout_s * 17 / 16, latest)


async def _turn(bucket: Bucket | None, count: int) -> None:
    """Return when `count` bytes may pass; at once without a limit."""
    if bucket is not None:
        await trio.sleep_until(bucket.reserve(count, trio.current_time()))


async def run_link(
    stream: trio.abc.Stream,
    *,
    initiator: bool,
    handler: LinkHandler,
    static_secret: bytes,
    address: str = "",
    timeout_s: float = TIMEOUT_S,
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
    keep_alive_s: float | None = None,
    authenticate: Authenticate | None = None,
    encrypted: bool = True,
    noise: bool = True,
    share: Share | None = None,
) -> LinkEnd:
    """Run one connection on `stream`, which is closed afterwards, and return why it has ended.

    `initiator` is normally the side that dialled; `static_secret` is our X25519 secret key (32 bytes). Neither the
    peer nor the handler makes this raise. A sign of life is sent after `keep_alive_s`, by default half of `timeout_s`,
    without other output. `authenticate(remote_public_key)` refuses a peer by False or an exception. `encrypted` and
    `noise` are false only in tests, on both sides. `share` is what this link has in common with the others.
    """
    connection = Connection(
        initiator=initiator,
        static_secret=static_secret,
        nonce=os.urandom(NONCE_BYTES),
        authenticate=authenticate,
        encrypted=encrypted,
        noise=noise,
    )
    link = Link(connection, handler, stream, address, share or Share())
    try:
        await link.run(timeout_s, handshake_timeout_s, timeout_s / 2 if keep_alive_s is None else keep_alive_s)
    finally:
        await trio.aclose_forcefully(stream)
    return link.end or LinkEnd("we ended it")
