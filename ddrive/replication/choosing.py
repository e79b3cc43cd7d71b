"""The next block to ask a peer for: what somebody waits for first, then read-ahead in order, then downloads."""

from collections.abc import Callable, Mapping
from typing import Protocol

from ddrive.ids import PeerId
from ddrive.replication.demand import BlockWish, DemandTable, Level
from ddrive.replication.peer import PeerState
from ddrive.replication.probing import LocalTree

LEVELS = tuple(Level)
WAITED_FOR = tuple(level for level in Level if level is not Level.BULK)
BEYOND_REQUESTS = 1  # at a time for blocks past our length, as each answer repeats the proof of the new length
BEYOND_URGENT = 4  # the same when somebody waits: a round trip costs more than a proof


class LocalBlocks(LocalTree, Protocol):
    """What is held here, as the feed knows it."""

    def has(self, index: int) -> bool: ...

    def next_missing(self, start: int, end: int) -> int | None: ...


class Choice:
    """Chooses among the wishes in `demand`, given the peers and which blocks are asked for already."""

    def __init__(
        self,
        local: LocalBlocks,
        demand: DemandTable,
        peers: Mapping[PeerId, PeerState],
        asked: Mapping[int, PeerId],
        is_tying: Callable[[], bool],
    ) -> None:
        """`is_tying`: whether the first block that we lack has to be proven before those behind it."""
        self._local = local
        self._demand = demand
        self._peers = peers
        self._asked = asked
        self._is_tying = is_tying

    def next_block(self, peer: PeerState, *, bulk: bool) -> int | None:
        """Return the block to ask this peer for next, or None when it is busy or has nothing that is wished.

        `bulk`: it may be one that nobody waits for.
        """
        in_flight = len(peer.asked)
        for level in LEVELS if bulk else WAITED_FOR:
            if not self._demand.waiting(level) and not self._demand.ranges(level):
                continue
            if in_flight >= (peer.urgent_limit if level is Level.URGENT else peer.limit):
                return None
            for index in self._demand.waiting(level):
                if peer.remote.has(index) and not self._local.has(index) and self.askable(peer, index, level):
                    return index
            for wish in self._demand.ranges(level):
                found = self._search(wish, peer)
                if found is not None:
                    return found
        return None

    def _search(self, wish: BlockWish, peer: PeerState) -> int | None:
        """Return the next block of a range to ask this peer for, moving the range's cursor for it."""
        position: int | None = wish.cursors.get(peer.id, wish.start)
        while position is not None and position < wish.end:
            index = peer.remote.next(position, wish.end)
            if index is None:
                break
            if index in self._asked:
                position = index + 1
            elif self._local.has(index):
                position = self._local.next_missing(index, wish.end)
            elif self.askable(peer, index, wish.level):
                wish.cursors[peer.id] = index + 1
                return index
            elif self._held_back(peer, index, wish.level):
                wish.cursors[peer.id] = index
                return None
            else:
                position = index + 1
        wish.cursors[peer.id] = wish.end
        return None

    def askable(self, peer: PeerState, index: int, level: Level) -> bool:
        """Tell whether `index`, which the peer announced and we lack, may be asked of it now."""
        if index in self._asked:
            return False
        return not peer.refuses(index) and not self._held_back(peer, index, level)

    def _held_back(self, peer: PeerState, index: int, level: Level) -> bool:
        """Tell whether `index` should wait for a first proof, or be left to a livelier peer."""
        if index >= self._local.length:
            allowed = BEYOND_URGENT if level is Level.URGENT else BEYOND_REQUESTS
            if peer.beyond >= allowed or (index > self._local.length and self._is_tying()):
                return True
        if not peer.stalled and not (peer.slow and level is not Level.BULK):
            return False
        return any(
            other.uploading and not other.lags and other.remote.has(index) and not other.refuses(index)
            for other in self._peers.values()
        )
