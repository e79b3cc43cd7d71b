"""What happens to a feed, as values that a program can wait for one after another (`ddrive.feed.subscription`)."""

from dataclasses import dataclass, field

from ddrive.standalone.peers import Peer


@dataclass(frozen=True, slots=True)
class Appended:
    """The feed has `length` blocks now: we appended and it is durable, or a peer proved it."""

    length: int


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A block came from a peer, was verified and stored."""

    index: int
    block: bytes = field(repr=False)
    peer: Peer


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A block is on its way to a peer."""

    index: int
    block: bytes = field(repr=False)
    peer: Peer


@dataclass(frozen=True, slots=True)
class Synced:
    """All `length` blocks are held, after a download."""

    length: int


@dataclass(frozen=True, slots=True)
class Cleared:
    """The blocks `start` up to `end` are not held any more."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class FeedClosed:
    """The feed was closed; no event follows."""


@dataclass(frozen=True, slots=True)
class PeerAdded:
    """The feed was asked for on a link."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerOpened:
    """The peer has proven that it knows the feed; the exchange begins."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerRemoved:
    """The exchange with the peer is over, or did not come about."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class RemoteUpdate:
    """The peer said which blocks it holds."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The peer confirms that it has stored `length` blocks from `start`, where we asked for that with `ack`."""

    start: int
    length: int
    peer: Peer
