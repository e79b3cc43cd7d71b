"""The whole protocol of one connection as a machine: received bytes in, events and bytes to send out.

It neither reads the clock nor makes random numbers; `link` does that and moves the bytes. Everything that a peer can
do wrong ends in `RemoteProtocolError`; what we do wrong, in `LocalProtocolError`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from ddrive.dialect import Dialect
from ddrive.errors import LocalProtocolError, RemoteProtocolError
from ddrive.ids import ChannelId, DiscoveryKey, PublicKey
from ddrive.protocol.channels import Channel, ChannelTable
from ddrive.protocol.cipher import StreamCipher
from ddrive.protocol.codec import CLOSE, DATA, OPEN, decode, encode_pieces
from ddrive.protocol.framing import MAX_BODY_BYTES, PING, Frame, FrameReader, frame_head
from ddrive.protocol.handshake import Authenticate, Handshake, static_public_key
from ddrive.protocol.messages import Close, Extension, Message, Open, Options

MAX_EARLY_BYTES = 64 * 1024  # of messages on channels that we have not opened, per connection; more are dropped
END_BYTES = 4096  # of output that is sent with what goes before it
STREAM_NUMBER = 0  # in place of a channel's: the connection itself is meant
_OF_CHANNELS = (Open, Close)  # which are sent by calls of their own
_EARLY_MESSAGE_BYTES = 256  # what a kept message costs beside its body


@dataclass(frozen=True, slots=True)
class Established:
    """The handshake is done; the peer holds the secret of this static key."""

    remote_public_key: bytes


@dataclass(frozen=True, slots=True)
class ChannelRequested:
    """The peer opened a feed that we have not opened on this connection. It may not know the feed's key."""

    discovery_key: DiscoveryKey


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """Both sides have opened the feed, and the peer has proven that it knows the key."""

    channel: ChannelId


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The peer closed or refused the channel, or does not know the key of the feed that it asked for."""

    channel: ChannelId


class Received(NamedTuple):  # the most frequent one: this kind is made quickest
    """A message on an open channel."""

    channel: ChannelId
    message: Message


@dataclass(frozen=True, slots=True)
class StreamReceived:
    """A message about the connection itself, not about a feed."""

    message: Options | Extension


Event = StreamReceived | Established | ChannelRequested | ChannelOpened | ChannelClosed | Received


class Connection:
    """One side of one connection.

    `nonce` are 24 random bytes, made for this connection alone: all that we send is encrypted with them.
    `authenticate` may refuse the peer by its key. Without `noise` there is no handshake and no proof of anything,
    without `encrypted` all can be read on the way; both sides have to agree on that beforehand, for tests.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        static_secret: bytes,
        nonce: bytes,
        ephemeral_secret: bytes | None = None,
        authenticate: Authenticate | None = None,
        encrypted: bool = True,
        noise: bool = True,
    ) -> None:
        if encrypted and not noise:
            raise LocalProtocolError("without the handshake there are no keys to encrypt with")
        self._handshake = Handshake(
            initiator=initiator,
            static_secret=static_secret,
            nonce=nonce,
            ephemeral_secret=ephemeral_secret,
            authenticate=authenticate,
        )
        self._handshake_output = self._handshake.start() if noise else b""
        self._is_encrypted = encrypted
        self._static_secret = static_secret if noise else b""
        self._reader = FrameReader()
        self._reader.max_body_bytes = MAX_EARLY_BYTES  # until the peer has proven that it knows one of our feeds
        self._channels: ChannelTable | None = None if noise else ChannelTable(None)
        self._events: list[Event] = [] if noise else [Established(b"")]
        self._early_bytes = 0
        self._output: list[bytes] = []  # frames, not yet encrypted
        self._failed = False
        self.pending_bytes = len(self._handshake_output)  # what `data_to_send` would return
        self.bytes_sent = 0  # as encrypted, handshake included
        self.bytes_received = 0

    @property
    def established(self) -> bool:
        """Whether the handshake is done."""
        return self._channels is not None

    @property
    def remote_public_key(self) -> bytes:
        """The peer's static key, 32 bytes; empty before the handshake is done."""
        return self._handshake.keys.remote_public_key if self._handshake.keys else b""

    @property
    def public_key(self) -> bytes:
        """Our static key, 32 bytes; empty without Noise."""
        return static_public_key(self._static_secret) if self._static_secret else b""

    @property
    def handshake_hash(self) -> bytes:
        """64 bytes that both sides share and nobody else had; empty before the handshake is done."""
        return self._handshake.keys.handshake_hash if self._handshake.keys else b""

    @property
    def unfinished_bytes(self) -> int:
        """How much of a frame is kept that the peer has begun and not finished."""
        return self._reader.held_bytes

    def is_answering(self, channel: ChannelId) -> bool:
        """Tell whether the unfinished frame is a Data of `channel`: a large block on a slow line."""
        head = self._reader.held_head
        if head is None or head[1] != DATA or self._channels is None:
            return False
        found = self._channels.of_remote(head[0])
        return found is not None and found.id == channel

    def receive_data(self, chunk: bytes) -> list[Event]:
        """Return what the next received bytes mean, in order, after the events of our own calls.

        Raises: RemoteProtocolError when they break the protocol; the connection is of no use from then on.
        """
        if self._failed:
            raise RemoteProtocolError("the peer has broken the protocol before")
        self.bytes_received += len(chunk)
        try:
            if self._channels is None:
                chunk = self._shake_hands(chunk)
            if chunk:
                self._take_in(chunk)
        except RemoteProtocolError:
            self._failed = True
            raise
        return self.take_events()

    def take_events(self) -> list[Event]:
        """Return the events that our own calls have caused since the last call of this or `receive_data`."""
        events, self._events = self._events, []
        return events

    def data_to_send(self, enough_bytes: int | None = None) -> bytes | bytearray:
        """Return pending output, encrypted, to be sent in this order: all, or as much as makes `enough_bytes`.

        Small ends of what was begun go with it, up to `END_BYTES`: a send by itself would cost as much as a large one.
        """
        data: bytes | bytearray = self._handshake_output
        self._handshake_output = b""
        self.pending_bytes -= len(data)
        if self._output:
            output = bytearray().join(self._take_output(enough_bytes))
            self.pending_bytes -= len(output)
            if self._is_encrypted:
                self._encrypt.apply_in_place(output)
            data = data + output if data else output
        self.bytes_sent += len(data)
        return data

    def _take_output(self, enough_bytes: int | None) -> list[bytes]:
        """Return the first pieces of the output, and remove them."""
        if enough_bytes is None or self.pending_bytes <= enough_bytes:
            pieces, self._output = self._output, []
            return pieces
        total = count = 0
        while total < enough_bytes:
            total += len(self._output[count])
            count += 1
        most_bytes = total + END_BYTES
        while count < len(self._output) and (total := total + len(self._output[count])) <= most_bytes:
            count += 1
        pieces = self._output[:count]
        del self._output[:count]
        return pieces

    def open_channel(self, key: PublicKey, dialect: Dialect) -> ChannelId:
        """Ask for, or agree to, a channel about the feed `key`; the same feed gives the same channel while it lasts.

        `ChannelOpened` follows when the peer has done the same, `ChannelClosed` when it does not know the key.
        Raises: LocalProtocolError before the handshake is done or with too many channels.
        """
        table = self._table()
        channel, is_new = table.open_local(key, dialect)
        if is_new:
            self._send(channel.local, Open(channel.discovery_key, table.capability(key, dialect)))
            if channel.remote:
                self._opened(channel)
        elif not channel.local:
            self._early_bytes -= channel.early_bytes
            self._send_refusal(table, channel.discovery_key)
            self._events.append(ChannelClosed(channel.id))
        return channel.id

    def is_open(self, channel: ChannelId) -> bool:
        """Tell whether messages can be sent on `channel`."""
        found = self._table().get(channel)
        return found is not None and found.is_open

    def was_closed(self, channel: ChannelId) -> bool:
        """Tell whether `channel` was one of this connection and has ended."""
        table = self._table()
        return table.was_issued(channel) and table.get(channel) is None

    def send(self, channel: ChannelId, *messages: Message) -> None:
        """Queue messages.

        Raises: LocalProtocolError when the channel is not open, a message is too large or opens or closes channels.
        """
        found = self._channels.get(channel) if self._channels else None
        if found is None or not found.remote:
            raise LocalProtocolError(f"channel {channel} is not open")
        for message in messages:
            if isinstance(message, _OF_CHANNELS):
                raise LocalProtocolError("channels are opened and closed by calls, not by messages")
            self._send(found.local, message)

    def send_stream(self, message: Options | Extension) -> None:
        """Queue a message about the connection itself.

        Raises: LocalProtocolError before the handshake is done.
        """
        self._table()
        self._send(STREAM_NUMBER, message)

    def is_verified(self, key: PublicKey, dialect: Dialect) -> bool:
        """Tell whether the peer has opened the feed `key` and proven that it knows it: never without Noise."""
        return self._table().is_verified(key, dialect)

    def close_channel(self, channel: ChannelId) -> None:
        """Leave the channel; nothing happens when it has ended already. No event follows."""
        table = self._table()
        found = table.get(channel)
        if found is not None:
            table.dismiss(found)
            self._send(found.local, Close())
            table.free_number(found.local)

    def requested(self) -> list[DiscoveryKey]:
        """Return the feeds that the peer has opened and that we have neither opened nor refused."""
        return self._table().requested()

    def refuse(self, discovery_key: DiscoveryKey) -> None:
        """Tell the peer that we do not take part in a feed that it opened; nothing happens when it did not."""
        table = self._table()
        channel = table.of_feed(discovery_key)
        if channel is not None and not channel.local:
            self._early_bytes -= channel.early_bytes
            table.dismiss(channel)
            self._send_refusal(table, discovery_key)

    def ping(self) -> None:
        """Queue a sign of life."""
        self._table()
        self._queue(PING)

    def _table(self) -> ChannelTable:
        if self._channels is None:
            raise LocalProtocolError("the handshake is not done")
        return self._channels

    def _queue(self, data: bytes) -> None:
        self._output.append(data)
        self.pending_bytes += len(data)

    def _send(self, number: int, message: Message) -> None:
        kind, pieces = encode_pieces(message)
        size = sum(map(len, pieces))
        head = frame_head(number, kind, size)
        self._output += (head, *pieces)
        self.pending_bytes += len(head) + size

    def _send_refusal(self, table: ChannelTable, discovery_key: DiscoveryKey) -> None:
        """Send the same bytes no matter whether we lack the feed or the peer lacks its key."""
        number = table.take_number()
        self._send(number, Close(discovery_key))
        table.free_number(number)

    def _shake_hands(self, chunk: bytes) -> bytes:
        """Return the received bytes that lie behind the handshake."""
        answer = self._handshake.receive(chunk)
        self._handshake_output += answer
        self.pending_bytes += len(answer)
        keys = self._handshake.keys
        if keys is None:
            return b""
        self._channels = ChannelTable(keys)
        self._encrypt = StreamCipher(keys.tx_key, keys.tx_nonce)
        self._decrypt = StreamCipher(keys.rx_key, keys.rx_nonce)
        self._events.append(Established(keys.remote_public_key))
        return self._handshake.rest

    def _take_in(self, chunk: bytes) -> None:
        """Decrypt `chunk` as a whole and turn its frames into events."""
        table = self._table()
        for frame in self._reader.feed(self._decrypt.apply(chunk) if self._is_encrypted else chunk):
            number, kind, body = frame
            channel = table.of_remote(number)
            if kind in (OPEN, CLOSE):
                self._take_in_control(table, frame)
            elif number == STREAM_NUMBER:
                if isinstance(message := decode(kind, body), Options | Extension):
                    self._events.append(StreamReceived(message))
            elif channel is not None:
                message = decode(kind, body)
                if message is None:
                    continue
                if channel.local:
                    self._events.append(Received(channel.id, message))
                else:
                    self._keep_early(channel, message, len(body))

    def _take_in_control(self, table: ChannelTable, frame: Frame) -> None:
        message = decode(frame.kind, frame.body)
        if isinstance(message, Open):
            channel = table.open_remote(frame.channel, message)
            if channel is None:
                self._send_refusal(table, message.discovery_key)
            elif channel.local:
                self._opened(channel)
            else:
                self._events.append(ChannelRequested(channel.discovery_key))
        elif isinstance(message, Close):
            channel = table.close_remote(frame.channel, message.discovery_key)
            if channel is not None and channel.local:
                self._send(channel.local, Close())
                table.free_number(channel.local)
                self._events.append(ChannelClosed(channel.id))
            elif channel is not None:
                self._early_bytes -= channel.early_bytes

    def _opened(self, channel: Channel) -> None:
        self._reader.max_body_bytes = MAX_BODY_BYTES
        self._events.append(ChannelOpened(channel.id))
        self._events += (Received(channel.id, message) for message in channel.early)
        self._early_bytes -= channel.early_bytes
        channel.early, channel.early_bytes = [], 0

    def _keep_early(self, channel: Channel, message: Message, body_bytes: int) -> None:
        """Keep what the peer sends right after its Open until we have opened too, or refused."""
        cost = body_bytes + _EARLY_MESSAGE_BYTES
        if self._early_bytes + cost <= MAX_EARLY_BYTES:
            channel.early.append(message)
            channel.early_bytes += cost
            self._early_bytes += cost
