"""What a program may choose for one peer of a feed, and what it may watch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ddrive.ids import BlockIndex
from ddrive.protocol.link import Link
from ddrive.protocol.messages import Data


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How a feed is exchanged with one peer."""

    live: bool = True  # False: the exchange ends when both sides have what they want
    ack: bool = False  # ask for a receipt for each block that we send
    download: bool = True  # ask the peer for blocks
    upload: bool = True  # answer the peer's requests


DEFAULT_OPTIONS = PeerOptions()


class PeerObserver(Protocol):
    """Who is told what happens with the peers of a feed, by plain calls that must not raise."""

    def downloaded(self, link: Link, index: BlockIndex, value: bytes) -> None:
        """A block came from the peer, was verified and stored."""

    def uploaded(self, link: Link, answers: Sequence[Data]) -> None:
        """The blocks in some answers are on their way to the peer."""

    def acknowledged(self, link: Link, start: BlockIndex, length: int) -> None:
        """The peer confirms that it has stored blocks that we sent."""

    def announced(self, link: Link) -> None:
        """The peer said what it holds."""

    def peer_added(self, link: Link) -> None:
        """The feed was asked for on a link; whether its peer takes part is not known yet."""

    def peer_opened(self, link: Link) -> None:
        """The peer has proven that it knows the feed, and the exchange begins."""

    def peer_removed(self, link: Link) -> None:
        """The exchange with the peer is over, or did not come about; may be called again for the same link."""
