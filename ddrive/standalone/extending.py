"""Messages of a program to the peers of a feed, beside the blocks; or to the peer of a link, beside all feeds.

Both sides register the same name. Who has not, never sees a message. Source: wire.md section 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ddrive.errors import UndecodableBlock
from ddrive.feed.subscription import Source, Subscription
from ddrive.protocol.link import Link
from ddrive.replication.extensions import Extensions
from ddrive.standalone.encodings import Encoding, decode, message_encoding_of
from ddrive.standalone.peers import Peer


@dataclass(frozen=True, slots=True)
class ExtensionMessage:
    """A message of a peer."""

    peer: Peer
    value: Any


@dataclass(frozen=True, slots=True)
class ExtensionError:
    """A message of a peer that is not of the extension's encoding; the link stays."""

    peer: Peer
    error: UndecodableBlock


class FeedExtension:
    """An extension that is in use; iterate over `messages()`."""

    def __init__(
        self, extensions: Extensions, name: str, encoding: str | Encoding, peer_of: Callable[[Link], Peer]
    ) -> None:
        self.name = name
        self._encoding = message_encoding_of(encoding)
        self._peer_of = peer_of
        self._messages: Source[ExtensionMessage] = Source()
        self._errors: Source[ExtensionError] = Source()
        self._extension = extensions.register(name, self._received)

    def __repr__(self) -> str:
        return f"<FeedExtension {self.name}>"

    def messages(self) -> Subscription[ExtensionMessage]:
        """Return an iterator over the messages from now on."""
        return self._messages.subscribe()

    def errors(self) -> Subscription[ExtensionError]:
        """Return an iterator over the messages that could not be decoded."""
        return self._errors.subscribe()

    def send(self, value: Any, peer: Peer) -> None:
        """Queue a message to one peer; nothing happens when it has gone."""
        self._extension.send(peer.link, self._encoding.encode(value))

    def broadcast(self, value: Any) -> None:
        """Queue a message to all peers."""
        self._extension.broadcast(self._encoding.encode(value))

    def close(self) -> None:
        """Take the extension out of use; iterators come to their end."""
        self._extension.close()
        self._messages.close()
        self._errors.close()

    def _received(self, link: Link, payload: bytes) -> None:
        peer = self._peer_of(link)
        try:
            value = decode(self._encoding, payload, f"a message of extension {self.name}")
        except UndecodableBlock as error:
            self._errors.publish(ExtensionError(peer, error))
        else:
            self._messages.publish(ExtensionMessage(peer, value))
