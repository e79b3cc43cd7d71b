"""The inside of a feed that stands alone: its exchange, the links that carry it, what is told about it."""

from dataclasses import dataclass

import trio

from ddrive.crypto import discovery_key
from ddrive.dialect import Dialect
from ddrive.errors import Closed
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.storage import Directory
from ddrive.ids import DiscoveryKey, PublicKey
from ddrive.protocol.link import Link
from ddrive.replication.peer import FeedStats
from ddrive.replication.session import FeedSession
from ddrive.standalone.carrying import Carrying
from ddrive.standalone.encodings import BINARY, Encoding
from ddrive.standalone.peers import Peer
from ddrive.standalone.telling import Telling
from ddrive.standalone.waits import Waits


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What was chosen when a feed was opened, as far as it matters afterwards."""

    dialect: Dialect
    static_secret: bytes
    encoding: Encoding = BINARY
    if_available: bool = False
    stats: bool = True


class FeedHost:
    """A feed with all that belongs to it."""

    def __init__(self, log: FeedLog, directory: Directory, options: FeedOptions, nursery: trio.Nursery) -> None:
        self.feed = Feed(log)
        self.session = FeedSession(self.feed)
        self.feed.set_source(self.session)
        self._log = log
        self._directory = directory
        self._options = options
        self._nursery = nursery
        self._waits = Waits()
        self._links: list[Carrying] = []
        self._telling = Telling(self.feed, self.session, self._left)

    def __repr__(self) -> str:
        return f"<StandaloneFeed {self.feed.name} length={self.length} peers={len(self.peers)}>"

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def key(self) -> PublicKey:
        """The public key (32 bytes), which names the feed: whoever has it can read the feed."""
        return self.feed.key

    @property
    def discovery_key(self) -> DiscoveryKey:
        """The name (32 bytes) under which peers look for the feed; it does not give the key away."""
        return discovery_key(self.key, self.dialect.discovery_ns)

    @property
    def dialect(self) -> Dialect:
        """The family of peers that the feed is exchanged with."""
        return self._options.dialect

    @property
    def writable(self) -> bool:
        """Whether blocks can be appended here."""
        return self.feed.writable

    @property
    def readable(self) -> bool:
        """Whether blocks can be read: until the feed is closed."""
        return not self.feed.closed

    @property
    def closed(self) -> bool:
        """Whether the feed was closed."""
        return self.feed.closed

    @property
    def forked(self) -> bool:
        """Whether two histories signed by the author were seen: the first one is kept, and not passed on any more."""
        return self.feed.forked

    @property
    def length(self) -> int:
        """The number of blocks that the author is known to have signed."""
        return self.feed.length

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        return True

    @property
    def byte_length(self) -> int:
        """The number of bytes in all `length` blocks."""
        return self.feed.byte_length

    @property
    def remote_length(self) -> int:
        """The greatest length that a connected peer claims; `update` has it proven."""
        return self.session.remote_length()

    @property
    def stats(self) -> FeedStats | None:
        """Blocks and bytes exchanged with all peers since the feed was opened; None when opened without `stats`.

        `cache_hits` and `cache_misses` count the blocks that the program read and that were held, or were not.
        """
        return self.session.stats if self._options.stats else None

    @property
    def peers(self) -> list[Peer]:
        """The peers with which the feed is exchanged now; each has its own `stats` and `public_key`."""
        return self._telling.peers()

    # -- what links tell us ----------------------------------------------------------------------------------------

    def carried_by(self, carrying: Carrying) -> None:
        """Take note of a link that carries the feed. Raises: Closed."""
        if self.closed:
            raise Closed(f"feed {self.feed.name} is closed")
        self._links.append(carrying)

    def left_by(self, carrying: Carrying) -> None:
        """Take note of the end of that."""
        if carrying in self._links:
            self._links.remove(carrying)

    def _left(self, link: Link) -> None:
        """Let the link know whose peer takes part no more."""
        for carrying in list(self._links):
            if carrying.is_over(link):
                carrying.left(self)

    def _is_connecting(self) -> bool:
        """Tell whether some link may bring a peer soon."""
        return any(carrying.is_pending for carrying in self._links)
