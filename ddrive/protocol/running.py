"""One connection on one stream: a reader task and a writer task, keep-alive and timeouts.

The reader awaits nothing but the stream and calls the handler synchronously for each event; whatever the handler
sends is queued, and the writer takes all of it at once: one small message costs about as much as a whole batch.
"""

import logging
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby

import trio

from ddrive.ids import ChannelId
from ddrive.protocol.connection import (
    END_BYTES,
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
from ddrive.protocol.link import Link, LinkEnd, LinkHandler
from ddrive.protocol.sending import sender
from ddrive.protocol.sharing import Bucket, Share

TIMEOUT_S = 20.0  # without received bytes; a sign of life goes out after half of it. Source: `hypercore-protocol`
HANDSHAKE_TIMEOUT_S = 20.0
MIN_BYTES_PER_S = 1024  # of a frame that takes longer than the timeout: a slower peer is dropped
SEND_BYTES = 128 * 1024  # handed to the stream at a time, and a small end: who takes less within the timeout is dropped
UNSENT_BYTES = SEND_BYTES + 2 * END_BYTES  # in the kernel: with the 128 KiB that trio sets it leaves a small rest
RECEIVE_BYTES = 512 * 1024  # asked of the stream at a time: eight blocks in one pass cost a quarter less than one
TURN_EVENTS = 48  # of one chunk between two turns of the writer; both sides of an exchange of small blocks work at once
GREETING_BYTES = 4096  # asked of a stranger at a time, until the handshake is done

logger = logging.getLogger(__name__)


class _RunningLink(Link):
    """A link with the tasks that move its bytes."""

    def __init__(
        self, connection: Connection, handler: LinkHandler, address: str, share: Share, stream: trio.abc.Stream
    ) -> None:
        super().__init__(connection, handler, address, share)
        self._stream = stream
        self._send_all = sender(stream)
        self._low_water_bytes = self._high_water_bytes // 4
        self._frame_began = 0.0  # when the unfinished frame of the peer began

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

    async def _read(self, timeout_s: float, handshake_timeout_s: float) -> None:
        connection, scope, down = self._connection, self._receiving, self._share.down
        most_bytes = RECEIVE_BYTES if down is None else down.piece_bytes
        handshake_deadline = trio.current_time() + handshake_timeout_s
        with self._failures_end_it(), scope:
            while True:
                _put_off(scope, timeout_s, math.inf if connection.established else handshake_deadline)
                chunk = await self._stream.receive_some(most_bytes if connection.established else GREETING_BYTES)
                if not chunk:
                    self._finish("the peer closed the connection", left=True)
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
        most_bytes = SEND_BYTES + END_BYTES if (up := self._share.up) is None else up.piece_bytes
        while data := self._connection.data_to_send(SEND_BYTES):
            rest = memoryview(data)
            while rest:
                self._unsent = len(rest)
                if up is not None and self.end is None:
                    self._sending.deadline = math.inf
                await _turn(up, len(rest[:most_bytes]))
                if self.end is None:
                    _put_off(self._sending, timeout_s)
                await self._send_all(rest[:most_bytes])
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
    link = _RunningLink(connection, handler, address, share or Share(), stream)
    if isinstance(stream, trio.SocketStream):
        with suppress(OSError):  # not over TCP
            stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    try:
        await link.run(timeout_s, handshake_timeout_s, timeout_s / 2 if keep_alive_s is None else keep_alive_s)
    finally:
        try:
            await trio.aclose_forcefully(stream)
        except Exception as error:  # of a stream that the program made itself
            logger.warning("cannot close stream address=%s error=%r", address, error)
    return link.end or LinkEnd("we ended it")
