"""Which requests a quicker peer takes over from a slow one, so that nobody who waits does so for the slowest.

A peer is slow when somebody waits for a block that it was asked for longer ago than a quicker one takes, or when it is
the last one to owe something. What is asked of it is then taken back, and while quicker peers have a block it is asked
for downloads only. State only; the requests are made by `scheduler`.
"""

from collections.abc import Iterator, Mapping

from ddrive.ids import PeerId
from ddrive.replication.demand import DemandTable, Level
from ddrive.replication.peer import Asked, PeerState, Probe

PATIENCE_S = 0.75  # nobody is overtaken sooner: less is noticed by no one, and a busy machine is no slow peer
TIMES_SLOWER = 2  # nor who takes less than so many times as long as the quicker one


class Overtaking:
    """Looks at all peers of a feed and the wishes."""

    def __init__(self, peers: Mapping[PeerId, PeerState], demand: DemandTable) -> None:
        self._peers = peers
        self._demand = demand

    def lost(self, now: float) -> Iterator[tuple[PeerState, list[int]]]:
        """Yield slow peers, and the blocks to take back from each: what is read now, or all that is left."""
        for peer in self._peers.values():
            levels = {asked.index: self._demand.level(asked.index) for asked in self._late(peer, now)}
            if any(self._is_overtaken(peer, peer.asked[index], level, now) for index, level in levels.items()):
                indexes = [index for index in peer.asked if self._has_quicker(peer, index, now)]
                is_read = Level.URGENT in levels.values()
                yield peer, [index for index in indexes if not is_read or self._demand.level(index) is not Level.BULK]

    def seeks(self, now: float) -> Iterator[Probe]:
        """Yield the seeks that a quicker peer should be asked for."""
        for peer in self._peers.values():
            others = [other for other in self._peers.values() if other is not peer]
            for probe in peer.probes:
                waited_s = now - probe.sent_at
                is_due = probe.seek is not None and not probe.overdue and waited_s > PATIENCE_S
                if is_due and any(self._is_quicker(other, waited_s, now) for other in others):
                    yield probe

    def _late(self, peer: PeerState, now: float) -> list[Asked]:
        if not peer.asked or len(self._peers) < 2:
            return []
        return [asked for asked in peer.asked.values() if peer.slow or now - asked.sent_at > PATIENCE_S]

    def _is_overtaken(self, peer: PeerState, asked: Asked, level: Level | None, now: float) -> bool:
        """Tell whether a block is waited for here, and would come sooner from somebody else."""
        for other in self._others(peer, asked.index):
            has_room = len(other.asked) < other.urgent_limit if level is Level.URGENT else not other.asked
            if has_room and self._is_quicker(other, now - asked.sent_at, now, known=peer.slow):
                return True
        return False

    def _has_quicker(self, peer: PeerState, index: int, now: float) -> bool:
        return any(self._is_quicker(other, 0.0, now, known=True) for other in self._others(peer, index))

    def _others(self, peer: PeerState, index: int) -> Iterator[PeerState]:
        for other in self._peers.values():
            if other is not peer and other.remote.has(index) and not other.refuses(index):
                yield other

    @staticmethod
    def _is_quicker(other: PeerState, waited_s: float, now: float, *, known: bool = False) -> bool:
        """Tell whether `other` goes on answering, and sooner than `waited_s`, unless that is `known`."""
        if not other.uploading or other.stalled or other.slow:
            return False
        oldest = min((asked.sent_at for asked in other.asked.values()), default=now)
        answers = now - max(oldest, other.data_at) <= PATIENCE_S
        return answers and (known or waited_s > TIMES_SLOWER * other.answer_s)
