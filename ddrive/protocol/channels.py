"""The channels of one connection: which feed each number of either side means, and who has proven to know it.

Each side numbers its own channels, and a message carries its sender's number. A feed is open when both sides have
sent an Open for it and the peer's carried the capability, the proof that it knows the feed's public key. Our callers
see `ChannelId`s, which are never used twice on a connection; the numbers on the wire are, as soon as they are free.
"""

import heapq
from dataclasses import dataclass, field
from hmac import compare_digest

from ddrive.crypto import capability, discovery_key
from ddrive.dialect import Dialect
from ddrive.errors import LocalProtocolError, RemoteProtocolError
from ddrive.ids import ChannelId, DiscoveryKey, PublicKey, short
from ddrive.protocol.handshake import SessionKeys
from ddrive.protocol.messages import Message, Open

MAX_STRANGERS = 128  # feeds that the peer opened and we did not; more are refused
MAX_CHANNELS = 1024  # numbers on the wire stay at or below; peers give out the lowest free ones
NO_CHANNEL = ChannelId(0)


@dataclass(slots=True, eq=False)
class Channel:
    """One feed on one connection; a side that has not opened it has number 0."""

    discovery_key: DiscoveryKey
    id: ChannelId = NO_CHANNEL
    expected: bytes = b""  # the capability that the peer has to send; known once we have opened
    local: int = 0  # our number on the wire
    remote: int = 0  # the peer's
    remote_capability: bytes | None = None
    early: list[Message] = field(default_factory=list)  # what the peer sent before we opened
    early_bytes: int = 0

    @property
    def is_open(self) -> bool:
        """Whether both sides have opened and the peer's proof was right."""
        return self.local > 0 and self.remote > 0


class ChannelTable:
    """All channels of one connection. Decides and remembers, sends nothing.

    Without `keys` (a connection without Noise, for tests) nobody has to prove anything.
    """

    def __init__(self, keys: SessionKeys | None) -> None:
        self._keys = keys
        self._channels: dict[DiscoveryKey, Channel] = {}
        self._by_id: dict[ChannelId, Channel] = {}
        self._by_remote: dict[int, Channel | None] = {}  # None: we are done with it, the peer has yet to close it
        self._next_id = 1
        self._fresh_number = 1  # no number from here on has been used
        self._freed_numbers: list[int] = []  # a heap
        self._strangers = 0

    def get(self, channel: ChannelId) -> Channel | None:
        """Return the channel that we have open, or have asked the peer to open."""
        return self._by_id.get(channel)

    def of_feed(self, key: DiscoveryKey) -> Channel | None:
        """Return the channel of a feed, no matter which side opened it."""
        return self._channels.get(key)

    def requested(self) -> list[DiscoveryKey]:
        """Return the feeds that the peer has opened and that we have neither opened nor refused."""
        return [name for name, channel in self._channels.items() if not channel.local]

    def of_remote(self, number: int) -> Channel | None:
        """Return the channel that the peer means by `number`; None when messages on it are to be ignored."""
        return self._by_remote.get(number)

    def was_issued(self, channel: ChannelId) -> bool:
        """Tell whether `channel` is, or once was, a channel of ours."""
        return 0 < channel < self._next_id

    def capability(self, key: PublicKey, dialect: Dialect) -> bytes | None:
        """Return the proof that we know `key`, for this connection only."""
        keys = self._keys
        if keys is None:
            return None
        return capability(key, dialect.capability_ns, tx_key=keys.tx_key, rx_key=keys.rx_key)

    def _expected_capability(self, key: PublicKey, dialect: Dialect) -> bytes:
        keys = self._keys
        if keys is None:
            return b""
        return capability(key, dialect.capability_ns, tx_key=keys.rx_key, rx_key=keys.tx_key)

    def _proves(self, received: bytes | None, expected: bytes) -> bool:
        return self._keys is None or compare_digest(received or b"", expected)

    def is_verified(self, key: PublicKey, dialect: Dialect) -> bool:
        """Tell whether the peer has opened the feed `key` and proven that it knows it."""
        channel = self._channels.get(discovery_key(key, dialect.discovery_ns))
        if channel is None or not channel.remote or self._keys is None:
            return False
        return self._proves(channel.remote_capability, self._expected_capability(key, dialect))

    def open_local(self, key: PublicKey, dialect: Dialect) -> tuple[Channel, bool]:
        """Return the channel of our feed `key` and whether to send an Open for it.

        Without a number (`local` 0) it is refused: the peer had opened it and does not know the key.
        Raises: LocalProtocolError when there are too many.
        """
        name = discovery_key(key, dialect.discovery_ns)
        channel = self._channels.get(name)
        if channel is not None and channel.local:
            return channel, False
        if len(self._by_id) >= MAX_CHANNELS:
            raise LocalProtocolError(f"over {MAX_CHANNELS} channels on one connection")
        expected = self._expected_capability(key, dialect)
        if channel is None:
            channel = self._channels[name] = Channel(name)
        elif self._proves(channel.remote_capability, expected):
            self._strangers -= 1
        else:
            channel.id = self._issue()
            self.dismiss(channel)
            return channel, False
        channel.expected = expected
        channel.id = self._issue()
        channel.local = self.take_number()
        self._by_id[channel.id] = channel
        return channel, True

    def open_remote(self, number: int, message: Open) -> Channel | None:
        """Return the channel that the peer's Open is about; None when it is one stranger too many.

        Raises: RemoteProtocolError for a number or a feed that is taken, or a false proof of a feed we have opened.
        """
        if not 0 < number <= MAX_CHANNELS:
            raise RemoteProtocolError(f"{number} is no number for a channel")
        name = message.discovery_key
        channel = self._channels.get(name)
        if self._by_remote.get(number) is not None or (channel is not None and channel.remote):
            raise RemoteProtocolError(f"channel {number} or feed {short(name)} is opened twice")
        if channel is None:
            if self._strangers >= MAX_STRANGERS:
                self._by_remote[number] = None
                return None
            channel = self._channels[name] = Channel(name)
            self._strangers += 1
        channel.remote_capability = message.capability
        if channel.local and not self._proves(message.capability, channel.expected):
            raise RemoteProtocolError(f"the peer does not know the key of the feed {short(name)} that it opened")
        channel.remote = number
        self._by_remote[number] = channel
        return channel

    def close_remote(self, number: int, name: DiscoveryKey | None) -> Channel | None:
        """Take in the peer's Close and return the channel that has ended, if any; `local` is then still ours.

        `name` is the feed that the peer refuses without having opened it.
        """
        if number in self._by_remote:
            channel = self._by_remote.pop(number)
        else:
            channel = self._channels.get(name) if name is not None else None
            if channel is not None and channel.remote:
                return None  # opened under another number: that number has to be closed
        if channel is not None:
            channel.remote = 0
            self._forget(channel)
        return channel

    def dismiss(self, channel: Channel) -> None:
        """Forget `channel` from our side; until the peer closes it too, its messages on it are ignored."""
        if channel.remote:
            self._by_remote[channel.remote] = None
        self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        del self._channels[channel.discovery_key]
        if channel.local:
            del self._by_id[channel.id]
        else:
            self._strangers -= 1
        channel.early.clear()

    def _issue(self) -> ChannelId:
        self._next_id += 1
        return ChannelId(self._next_id - 1)

    def take_number(self) -> int:
        """Return our lowest free number and mark it as used."""
        if self._freed_numbers:
            return heapq.heappop(self._freed_numbers)
        self._fresh_number += 1
        return self._fresh_number - 1

    def free_number(self, number: int) -> None:
        """Let `number` be used again."""
        heapq.heappush(self._freed_numbers, number)
