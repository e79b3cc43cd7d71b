"""One peer of one feed, as a program sees it."""

from ddrive.protocol.link import Link
from ddrive.replication.peer import PeerStats
from ddrive.replication.session import FeedSession


class Peer:
    """A peer on one link; the same object for as long as the link lasts."""

    def __init__(self, link: Link, session: FeedSession) -> None:
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
        return self.link in self._session.links()

    @property
    def stats(self) -> PeerStats:
        """What was exchanged with this peer."""
        self._stats = self._session.peer_stats().get(self.link, self._stats)
        return self._stats

    @property
    def remote_length(self) -> int:
        """How many blocks the peer claims the feed to have."""
        state = self._session.peer_state(self.link)
        return 0 if state is None else state.remote.length

    def has(self, index: int) -> bool:
        """Tell whether the peer claims to hold block `index`."""
        state = self._session.peer_state(self.link)
        return state is not None and state.remote.has(index)

    @property
    def uploading(self) -> bool:
        """Whether the peer says that it answers requests."""
        peer = self._session.peer_state(self.link)
        return peer is not None and peer.uploading

    @property
    def downloading(self) -> bool:
        """Whether the peer says that it makes requests."""
        state = self._session.peer_state(self.link)
        return state is not None and state.downloading

    def disconnect(self, reason: str = "the program ended it") -> None:
        """End the link, with all feeds on it."""
        self.link.disconnect(reason)
