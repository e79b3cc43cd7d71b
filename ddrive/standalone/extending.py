"""Messages of a program to the peers of a feed, beside the blocks; or to the peer of a link, beside all feeds.

Both sides register the same name. Who has not, never sees a message. Source: wire.md section 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ddrive.errors import TooLarge, UndecodableBlock
from ddrive.feed.subscription import Source, Subscription
from ddrive.protocol.framing import MAX_BODY_BYTES
from ddrive.protocol.link import Link
from ddrive.replication.extensions import Extensions
from ddrive.standalone.arguments import check_kind
from ddrive.standalone.encodings import Encoding, decode, message_encoding_of
from ddrive.standalone.peers import Peer

MAX_PAYLOAD_BYTES = MAX_BODY_BYTES - 8  # the number of the extension goes before it


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
    """An extension that is in use; iterate over `messages()`. It ends when its name is registered anew."""

    def __init__(
        self, extensions: Extensions, name: str, encoding: str | Encoding, peer_of: Callable[[Link], Peer]
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of an extension is text, not {name!r:.80}")
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
        """Queue a message to one peer; nothing happens when it has gone.

        A peer that has not taken 4 MiB of what was queued loses its link with the next message.
        Raises: TooLarge, and what the encoding raises.
        """
        check_kind("a message goes to a peer, as `feed.peers` lists them", peer, Peer)
        self._extension.send(peer.link, self._payload(value))

    def broadcast(self, value: Any) -> None:
        """Queue a message to all peers. Raises: as `send`."""
        self._extension.broadcast(self._payload(value))

    def close(self) -> None:
        """Take the extension out of use; iterators come to their end."""
        self._extension.close()
        self._messages.close()
        self._errors.close()

    def _payload(self, value: Any) -> bytes:
        payload = self._encoding.encode(value)
        check_kind(
            f"a message of extension {self.name} is bytes when it is encoded", payload, (bytes, bytearray, memoryview)
        )
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise TooLarge(
                f"a message of extension {self.name} has at most {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}"
            )
        return bytes(payload)

    def _received(self, link: Link, payload: bytes) -> None:
        peer = self._peer_of(link)
        try:
            value = decode(self._encoding, payload, f"a message of extension {self.name}")
        except UndecodableBlock as error:
            self._errors.publish(ExtensionError(peer, error))
        else:
            self._messages.publish(ExtensionMessage(peer, value))
