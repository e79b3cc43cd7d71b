"""One peer of one feed, as a program sees it."""

from ddrive.protocol.link import Link
from ddrive.replication.peer import PeerState, PeerStats
from ddrive.replication.session import FeedSession
from ddrive.standalone.arguments import check_blocks


class Peer:
    """A peer of a feed on one link, or of the link itself; the same object for as long as the link lasts."""

    def __init__(self, link: Link, session: FeedSession | None) -> None:
        self.link = link
        self._session = session
        self._stats = PeerStats()

    def __repr__(self) -> str:
        return f"<Peer {self.public_key[:4].hex()} {self.address}>"

    @property
    def public_key(self) -> bytes:
        """The key (32 bytes, X25519) whose secret the peer has proven to hold; empty on a link without Noise."""
        return self.link.remote_public_key

    @property
    def address(self) -> str:
        """Where the peer is, as far as the program said."""
        return self.link.address

    @property
    def is_open(self) -> bool:
        """Whether the exchange is going on."""
        return self._state() is not None

    @property
    def stats(self) -> PeerStats:
        """What was exchanged with this peer."""
        state = self._state()
        if state is not None:
            self._stats = state.stats
        return self._stats

    @property
    def remote_length(self) -> int:
        """How many blocks the peer claims the feed to have."""
        state = self._state()
        return 0 if state is None else state.remote.length

    def has(self, index: int) -> bool:
        """Tell whether the peer claims to hold block `index`."""
        check_blocks(index)
        state = self._state()
        return state is not None and state.remote.has(index)

    @property
    def uploading(self) -> bool:
        """Whether the peer says that it answers requests."""
        state = self._state()
        return state is not None and state.uploading

    @property
    def downloading(self) -> bool:
        """Whether the peer says that it makes requests."""
        state = self._state()
        return state is not None and state.downloading

    def disconnect(self, reason: str = "the program ended it") -> None:
        """End the link, with all feeds on it."""
        self.link.disconnect(reason)

    def _state(self) -> PeerState | None:
        return None if self._session is None else self._session.peer_state(self.link)
