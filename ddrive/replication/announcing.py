"""What we tell peers about the blocks that we hold.

A peer that has sent one Want hears of every new block from then on, whatever region it asked about. Blocks that are
downloaded are announced together, a few times a second; our own at once. Source: wire.md section 7.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from ddrive.errors import RemoteProtocolError
from ddrive.feed import rle
from ddrive.feed.log import FeedLog
from ddrive.ids import BlockIndex
from ddrive.protocol.messages import Have, Message, Unhave, Want
from ddrive.replication.blocks import REGION_BLOCKS
from ddrive.replication.peer import PeerState

WANT_UNIT = 8192  # a Want is answered when start and length are multiples of it. Source: `hypercore`
MAX_WANTS = 4096  # answered on one channel; npm peers ask once per region
AT_ONCE = 64  # downloaded runs that may wait for the next `flush`


class Listener(Protocol):
    """A peer that can be told something."""

    @property
    def state(self) -> PeerState: ...

    def send(self, message: Message) -> None: ...


class Announcer:
    """The announcements of one feed to all its peers."""

    def __init__(self, log: FeedLog, peers: Callable[[], Iterable[Listener]]) -> None:
        self._log = log
        self._peers = peers
        self._fresh: list[tuple[int, int, Listener]] = []  # downloaded and not yet announced, with the giver

    def wanted(self, peer: Listener, want: Want) -> None:
        """Answer a Want.

        Raises: RemoteProtocolError when the peer has asked too often.
        """
        if want.start % WANT_UNIT or want.length % WANT_UNIT:
            return
        peer.state.wants_seen += 1
        if peer.state.wants_seen > MAX_WANTS:
            raise RemoteProtocolError(f"more than {MAX_WANTS} Wants on one channel")
        first, peer.state.wanted = not peer.state.wanted, True
        last = BlockIndex(self._log.signed_length - 1)
        if first and last >= 0 and self._log.has(last):
            peer.send(Have(last))
        packed = self._log.bitfield_bytes(want.start, min(want.length, REGION_BLOCKS))
        peer.send(Have(want.start, want.length, rle.encode(packed)))

    def stored(self, start: int, end: int, giver: Listener | None) -> None:
        """Announce new blocks to all but the peer that they came from; those we appended ourselves have none."""
        if giver is None:
            self._announce(start, end, None)
            return
        if self._fresh and self._fresh[-1][1:] == (start, giver):
            self._fresh[-1] = (self._fresh[-1][0], end, giver)
        else:
            self._fresh.append((start, end, giver))
        if len(self._fresh) >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Announce what was downloaded since the last time."""
        fresh, self._fresh = self._fresh, []
        for start, end, giver in fresh:
            self._announce(start, end, giver)

    def cleared(self, start: int, end: int) -> None:
        """Take the announcement of blocks back."""
        self.flush()
        for peer in self._peers():
            if peer.state.wanted:
                peer.send(Unhave(BlockIndex(start), end - start))

    def _announce(self, start: int, end: int, giver: Listener | None) -> None:
        for peer in self._peers():
            if peer.state.wanted and peer is not giver and not peer.state.remote.covers(start, end):
                peer.send(Have(BlockIndex(start), end - start))
