"""Requests for proof nodes: how long the feed is, and in which block a byte lies.

A peer's announced length is a claim until a proof of it has arrived. A byte is located by the sizes of the tree's
nodes: the peer is asked to seek and to send the block that it finds, which saves whoever wants to read it a round trip.
When it does not answer, the place is narrowed down by asking for the nodes of a block that is likely to be near, each
answer splitting the range in which the byte can be.
"""

from collections.abc import Iterator
from typing import Protocol

from ddrive.ids import BlockIndex, PeerId
from ddrive.protocol.messages import Request
from ddrive.replication.demand import DemandTable, OffsetWish
from ddrive.replication.peer import PeerState, Probe

PROBE_KEPT_S = 120.0  # an overdue answer is welcome for this long
DOUBTED_S = 60.0  # after which a length is asked for again of a peer that was silent about it
MAX_ATTEMPTS = 64  # to locate one byte between two ticks: a tree is at most 52 levels high


class LocalTree(Protocol):
    """What is known here of the feed's tree."""

    @property
    def length(self) -> int: ...

    @property
    def byte_length(self) -> int: ...

    def locate(self, byte_offset: int) -> tuple[int, int] | None: ...

    def byte_offset(self, index: int) -> int | None: ...


class Prober:
    """Decides which proof nodes to ask of whom; `eager` asks for the last block itself as soon as it is announced."""

    def __init__(self, local: LocalTree, demand: DemandTable, peers: dict[PeerId, PeerState], *, eager: bool) -> None:
        self.eager = eager
        self._local = local
        self._demand = demand
        self._peers = peers
        self._attempts: dict[int, int] = {}  # byte offset -> requests sent to locate it
        self._untied_at = 0  # our length when a longer tree came that did not show that it goes on from ours

    @property
    def has_work(self) -> bool:
        """Tell whether `requests` may have something to ask."""
        return bool(self.eager or self._demand.lengths or self._demand.offsets or self.is_tying)

    def requests(self, now: float) -> Iterator[tuple[PeerState, Request]]:
        """Yield what to ask now; a request with neither `hash` nor `bytes` is for the last block of an eager feed."""
        if self.is_tying and (tie := self.tie(now)) is not None:
            yield tie
        if self.eager or self._demand.lengths:
            yield from self._ask_lengths(now)
        if self._demand.offsets:
            yield from self._ask_offsets(now)

    def answered(self, peer: PeerState, index: int) -> None:
        """Note that nodes came from the peer: the probe for `index`, and each seek that they resolve, is over."""
        answered = next((probe for probe in peer.probes if probe.index == index), None)
        if answered is None:
            answered = next((probe for probe in peer.probes if probe.byte_offset), None)
        if answered is None:
            return
        peer.probes.remove(answered)
        if answered.seek is None and self._local.length <= answered.index:
            if answered.index == answered.length - 1:
                peer.doubt(answered.length)
            peer.untying = max(peer.untying, answered.index)
        self.resolve()

    def resolve(self) -> None:
        """Forget the seeks whose byte can be located now."""
        for peer in self._peers.values():
            if peer.probes:
                peer.probes = [
                    probe for probe in peer.probes if probe.seek is None or self._local.locate(probe.seek) is None
                ]

    def give_up_silent(self, peer: PeerState, timeout_s: float, now: float) -> int:
        """Mark overdue probes, forget long overdue ones, and return how many became overdue."""
        self._attempts.clear()
        peer.end_doubts(now)
        overdue = [probe for probe in peer.probes if not probe.overdue and peer.silent_about(probe, timeout_s, now)]
        for probe in overdue:
            probe.overdue = True
            if probe.seek is None:
                peer.doubt(probe.length, now + DOUBTED_S)
                peer.untying = max(peer.untying, probe.index)
        peer.probes = [probe for probe in peer.probes if not probe.overdue or now - probe.sent_at <= PROBE_KEPT_S]
        return sum(not probe.byte_offset for probe in overdue)

    def tie(self, now: float, first: PeerState | None = None) -> tuple[PeerState, Request] | None:
        """Return what to ask, `first` rather than others, so that longer trees can be tied to ours; None if it was.

        A longer tree may be of another history than ours. A proof of the first block that we lack shows whether it is:
        the nodes to the left of the way up from it are our roots.
        """
        index = self._local.length
        probes = [probe for peer in self._peers.values() for probe in peer.probes if probe.seek is None]
        if any(probe.index == index and not probe.overdue for probe in probes):
            return None
        able = [peer for peer in self._peers.values() if self._ties(peer)]
        if not able:
            return None
        peer = first if first is not None and first in able else able[0]
        return peer, self._probe(peer, index, now)

    def can_tie(self) -> bool:
        """Tell whether a peer can show that longer trees go on from ours, as far as we know."""
        return any(self._ties(peer) for peer in self._peers.values())

    def note_untied(self) -> None:
        """Note that a longer tree came before it was shown to go on from ours."""
        self._untied_at = self._local.length

    @property
    def is_tying(self) -> bool:
        """Tell whether nothing beyond our length should be asked for until the longer trees are tied to ours."""
        return 0 < self._untied_at == self._local.length and self.can_tie()

    def _ties(self, peer: PeerState) -> bool:
        index = self._local.length
        return peer.uploading and 0 < index != peer.untying and peer.remote.has(index)

    def settled(self) -> bool:
        """Tell whether every peer has said what it holds and the lengths that they announced are proven."""
        return all(
            not peer.uploading
            or (peer.first_want_answered and peer.remote.length <= max(self._local.length, peer.doubted))
            for peer in self._peers.values()
        )

    def _ask_lengths(self, now: float) -> Iterator[tuple[PeerState, Request]]:
        """Ask the peer that announced most, unless an answer under way will prove as much."""
        wished = any(length > self._local.length for length in self._demand.lengths)
        if not wished and not self.eager:
            return
        reach = self._local.length
        for peer in self._peers.values():
            reach = max([reach, *(probe.length for probe in peer.probes if probe.seek is None and not probe.overdue)])
            if peer.beyond:
                reach = max([reach, *(asked.index + 1 for asked in peer.asked.values() if asked.beyond)])
        for peer in sorted(self._peers.values(), key=lambda peer: peer.remote.length, reverse=True):
            target = peer.remote.length
            if target <= reach:
                return
            if not peer.uploading or target <= peer.unasked:
                continue
            if self.eager:
                yield peer, Request(BlockIndex(target - 1))
            else:
                yield peer, self._probe(peer, self._local.length if self._ties(peer) else target - 1, now)
            reach = target

    def _probe(
        self, peer: PeerState, index: int, now: float, *, byte_offset: int = 0, seek: int | None = None
    ) -> Request:
        """Note and return a request for the nodes of block `index`."""
        peer.probes.append(Probe(index, now, peer.remote.length, byte_offset, seek, peer.serial))
        return Request(BlockIndex(index), bytes=byte_offset, hash=not byte_offset)

    def _ask_offsets(self, now: float) -> Iterator[tuple[PeerState, Request]]:
        """Ask for the place of each wished byte that no request under way will tell."""
        asked = {probe.seek for peer in self._peers.values() for probe in peer.probes if not probe.overdue}
        for wish in list(self._demand.offsets.values()):
            offset = wish.byte_offset
            if offset in asked or self._attempts.get(offset, 0) >= MAX_ATTEMPTS:
                continue
            if self._local.locate(offset) is not None:
                continue
            found = self._choose(wish)
            if found is None:
                continue
            peer, index = found
            self._attempts[offset] = self._attempts.get(offset, 0) + 1
            asked.add(offset)
            fresh = offset != peer.last_seek and offset > 0
            if fresh:
                peer.last_seek = offset
            yield peer, self._probe(peer, index, now, byte_offset=offset if fresh else 0, seek=offset)

    def _choose(self, wish: OffsetWish) -> tuple[PeerState, int] | None:
        """Return a peer and the block to ask it about: near the byte, announced by the peer, and not known yet."""
        low, high, guess = self._narrow(wish)
        overdue = {peer.id for peer in self._peers.values() for probe in peer.probes if probe.seek == wish.byte_offset}
        ready = [peer for peer in self._peers.values() if peer.uploading]
        for peer in sorted(ready, key=lambda peer: (peer.lags, peer.id in overdue, peer.load)):
            index = peer.remote.next(guess, high)
            if index is None:
                index = peer.remote.next(low, guess)
            if index is not None:
                return peer, index
        return None

    def _narrow(self, wish: OffsetWish) -> tuple[int, int, int]:
        """Return the blocks [low, high) in which the byte lies by the sizes known here, and a guess among them."""
        length = self._local.length
        if wish.byte_offset >= self._local.byte_length:
            return (max(length, wish.start), 1 << 52, max(length, wish.start))
        low, high, first_byte, last_byte = 0, length, 0, self._local.byte_length
        while high - low > 1:
            middle = low + (1 << ((high - low - 1).bit_length() - 1))  # where the left subtree ends
            edge = self._local.byte_offset(middle)
            if edge is None:
                break
            if wish.byte_offset < edge:
                high, last_byte = middle, edge
            else:
                low, first_byte = middle, edge
        share = (wish.byte_offset - first_byte) / max(last_byte - first_byte, 1)
        guess = low + int(share * (high - low))
        if wish.start < high and low < wish.end:
            low, high = max(low, wish.start), min(high, wish.end)
        return low, high, min(max(guess, low), high - 1)
