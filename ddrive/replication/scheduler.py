"""Which block to ask of which peer: events in, actions out. No clock, no sockets, no disk.

The rules: a block is asked of one peer at a time; what somebody waits for goes first, then read-ahead in order, then
downloads; peers that have a block share the work by their free slots; a request that stays silent, or that somebody
waits for while another peer is quicker, is asked elsewhere, and its late answer is still welcome. The bytes of an
answer are verified by the feed before `answered` is called.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ddrive.ids import BlockIndex, PeerId
from ddrive.protocol.messages import Cancel, Data, Message, Request, Status
from ddrive.replication.blocks import REGION_BLOCKS
from ddrive.replication.choosing import Choice, LocalBlocks
from ddrive.replication.demand import BlockWish, DemandTable, LengthWish, Level, OffsetWish, Wish
from ddrive.replication.overtaking import Overtaking
from ddrive.replication.peer import MAX_IN_FLIGHT_BYTES, MIN_REQUESTS, SLOW_FOR_S, Asked, PeerState
from ddrive.replication.probing import Prober
from ddrive.replication.regions import want, wants

REQUEST_TIMEOUT_S = 5.0  # a silent request is asked elsewhere
DROP_AFTER_S = 20.0  # a peer that owes answers and stays silent is dropped
PAUSE_S = 5.0  # when what arrives cannot be stored
MAX_BROKEN_PROMISES = 16  # answers of a peer in a row that we did not take; then it is to blame for what it sends
LATE_S = 30.0  # a peer that left a request unanswered may be asked for the block again


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message` to the peer; the digest of a Request is filled in when it is sent."""

    peer: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection of the peer."""

    peer: PeerId
    reason: str


Action = Send | Drop


class Scheduler:
    """The requests of one feed to all its peers. Times are seconds of one clock, given by the caller."""

    def __init__(
        self,
        local: LocalBlocks,
        *,
        downloading: bool = True,
        eager_length: bool = False,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self.peers: dict[PeerId, PeerState] = {}
        self.demand = DemandTable()
        self.downloading = downloading
        self._local = local
        self._timeout_s = request_timeout_s
        self._asked: dict[int, PeerId] = {}  # block -> the one peer that it is asked of
        self._tips: set[int] = set()  # blocks asked for without a wish, to follow the length
        self._prober = Prober(local, self.demand, self.peers, eager=eager_length)
        self._choice = Choice(local, self.demand, self.peers, self._asked, lambda: self._prober.is_tying)
        self._overtaking = Overtaking(self.peers, self.demand)
        self._paused_until = 0.0
        self._last_id = 0

    @property
    def eager_length(self) -> bool:
        """Tell whether the last block of each peer is fetched as soon as it is announced."""
        return self._prober.eager

    def settled(self) -> bool:
        """Tell whether every peer has said what it holds and the lengths that they announced are proven."""
        return self._prober.settled()

    def set_eager_length(self, now: float) -> list[Action]:
        """Fetch from now on the last block of each peer as soon as it is announced."""
        self._prober.eager = True
        return self._fill(now)

    # -- peers -----------------------------------------------------------------------------------------------------

    def add_peer(self, now: float, most_bytes: int = MAX_IN_FLIGHT_BYTES) -> tuple[PeerState, list[Action]]:
        """Take in a new peer, of which so many bytes are asked at a time."""
        self._last_id += 1
        peer = PeerState(PeerId(self._last_id), heard_at=now, data_at=now, most_bytes=most_bytes)
        if self._local.length:
            peer.start_with(self._local.byte_length // self._local.length)
        self.peers[peer.id] = peer
        return peer, self._ask_regions(peer)

    def remove_peer(self, peer: PeerState, now: float) -> list[Action]:
        """Forget a peer and ask the others for what it owed."""
        if self.peers.pop(peer.id, None) is None:
            return []
        for index in list(peer.asked):
            self._release(peer, index, cancelled=False)
        self.demand.forget_peer(peer.id)
        return self._fill(now)

    def has(self, peer: PeerState, start: int, end: int, now: float) -> list[Action]:
        """Note that the peer announced [start, end)."""
        peer.remote.add(start, end)
        return self._news(peer, start, now)

    def has_bits(self, peer: PeerState, start: int, length: int, packed: bytes, now: float) -> list[Action]:
        """Note the peer's answer to a Want: bits, most significant first, for `length` blocks from `start`."""
        peer.remote.add_bits(start, packed)
        if length <= 1:
            peer.old = True
        region, offset = divmod(start, REGION_BLOCKS)
        if offset == 0 and length >= REGION_BLOCKS:
            peer.regions_unanswered.discard(region)
            if region == 0:
                peer.promise.want_answered()
        return self._news(peer, start, now)

    def _news(self, peer: PeerState, start: int, now: float) -> list[Action]:
        """React to new claims of the peer from `start` on."""
        if not self.downloading:
            return []
        self.demand.announced(peer.id, start)
        return self._ask_regions(peer) + self._fill(now, peer)

    def lacks(self, peer: PeerState, start: int, end: int, now: float) -> list[Action]:
        """Note that the peer no longer holds [start, end), and ask others for what it owed of it."""
        if start == 0 and end >= peer.remote.length:
            peer.remote.clear()
        else:
            peer.remote.remove(start, end)
        lost = [index for index in peer.asked if start <= index < end]
        for index in lost:
            self._release(peer, index, cancelled=False)
            peer.late.pop(index, None)
        return self._fill(now) if lost else []

    def status(self, peer: PeerState, status: Status, now: float) -> list[Action]:
        """Note whether the peer serves requests; one that does not owes nothing any more."""
        peer.downloading = status.downloading
        if status.uploading == peer.uploading:
            return []
        peer.uploading = status.uploading
        if not peer.uploading:
            peer.regions_asked.clear()
            peer.regions_unanswered.clear()
            peer.promise.wants = 0
            peer.probes.clear()
            for index in list(peer.asked):
                self._release(peer, index, cancelled=True)
            return self._fill(now)
        return self._ask_regions(peer) + self._fill(now)

    def progress(self, peer: PeerState, now: float, *, answering: bool = False) -> None:
        """Note that bytes arrive from the peer: a long answer may be, or (`answering`) is, under way."""
        peer.heard_at = now
        if answering:
            peer.frame_at = now

    # -- wishes ----------------------------------------------------------------------------------------------------

    def read_soon(self, index: int) -> bool:
        """Tell whether somebody waits for block `index` or reads what is before it, and not only keeps it."""
        level = self.demand.level(index)
        return level is not None and level is not Level.BULK

    def want_blocks(self, start: int, end: int, now: float, *, urgent: bool) -> tuple[BlockWish, list[Action]]:
        """Count a wish for the blocks [start, end)."""
        wish = self.demand.add_blocks(start, end, urgent=urgent)
        if end - start == 1 and (start in self._asked or self._local.has(start)):
            self.demand.taken(start)
            lags = start in self._asked and self.peers[self._asked[start]].slow
            return wish, self._overtake(now) + self._fill(now) if lags else []
        return wish, self._ask_all_regions() + self._fill(now)

    def want_offset(self, byte_offset: int, start: int, end: int, now: float) -> tuple[OffsetWish, list[Action]]:
        """Count a wish for the nodes that locate a byte of the blocks [start, end)."""
        return self.demand.add_offset(byte_offset, start, end), self._fill(now)

    def want_length(self, min_length: int, now: float) -> tuple[LengthWish, list[Action]]:
        """Count a wish for a proof of at least `min_length` blocks."""
        return self.demand.add_length(min_length), self._fill(now)

    def withdraw(self, wish: Wish, now: float) -> list[Action]:
        """Take a wish back; what is in flight for nobody else is cancelled."""
        if not self.demand.withdraw(wish) or not isinstance(wish, BlockWish):
            return []
        if wish.end - wish.start == 1:
            in_flight = [wish.start] if wish.start in self._asked else []
        else:
            in_flight = [index for index in self._asked if wish.start <= index < wish.end]
        actions: list[Action] = []
        for index in in_flight:
            if index not in self._tips and not self.demand.wants(index):
                peer = self.peers[self._asked[index]]
                self._release(peer, index, cancelled=True)
                actions.append(Send(peer.id, Cancel(BlockIndex(index))))
        return actions + self._fill(now) if actions else []

    # -- answers ---------------------------------------------------------------------------------------------------

    def expects(self, peer: PeerState, data: Data) -> bool:
        """Tell whether the peer was asked for this, lately or long ago; anything else is not even hashed."""
        if data.value is not None:
            if data.index in peer.asked or data.index in peer.late:
                return True
            return any(probe.byte_offset for probe in peer.probes)  # a seek is answered with the block it finds
        return any(probe.index == data.index or probe.byte_offset for probe in peer.probes)

    def answered(self, peer: PeerState, sizes: Mapping[BlockIndex, int], now: float) -> list[Action]:
        """Note verified answers: blocks with their sizes in bytes; return what to ask next."""
        busy, grew, actions = peer.busy, False, list[Action]()
        for index, size in sizes.items():
            if index not in peer.asked:
                actions += self.stored(index, index + 1)
            asked = peer.take(index)
            if asked is None:
                self._prober.answered(peer, index)
            peer.heard(asked, size, now, busy=busy)
            self._asked.pop(index, None)
            self._tips.discard(index)
            self.demand.taken(index)
            grew = grew or asked is None or asked.beyond
        if self.demand.offsets:
            self._prober.resolve()
        return actions + self._fill(now, None if grew or actions else peer)

    def proven(self, peer: PeerState, index: int, now: float) -> list[Action]:
        """Note a verified answer of nodes only, for block `index`; return what to ask next."""
        peer.heard(None, 0, now, busy=False)
        self._prober.answered(peer, index)
        return self._fill(now)

    @property
    def can_tie(self) -> bool:
        """Tell whether a peer can show that longer trees go on from ours: then they have to be shown to."""
        return self._prober.can_tie()

    def untied(self, peer: PeerState, index: int, now: float) -> list[Action]:
        """Note an answer about `index` that was not stored, as its longer tree was not shown to go on from ours."""
        self._prober.note_untied()
        if index in peer.asked:
            self._release(peer, index, cancelled=True)
        peer.probes = [probe for probe in peer.probes if probe.index != index or probe.seek is not None]
        return self.dropped(peer, verified=True) + self._tie(peer, now)

    def dropped(self, peer: PeerState, *, verified: bool = False) -> list[Action]:
        """Note that an answer was not stored: the peer is told, and may be wrong about us until it hears that.

        `verified`: it was good, there was only no room for it.
        """
        peer.broken_promises = 0 if verified else peer.broken_promises + 1
        if not peer.promise.break_it(peer.under_way) or not peer.uploading or 0 not in peer.regions_asked:
            return []
        peer.promise.wants += 1
        return [Send(peer.id, want(0))]

    def excuses(self, peer: PeerState, index: int) -> bool:
        """Take a block that did not verify back; tells whether that may be because we had not kept our promise."""
        if peer.broken_promises > MAX_BROKEN_PROMISES or not peer.promise.excuse():
            return False
        if index in peer.asked:
            self._release(peer, index, cancelled=True)
        elif peer.late.pop(index, None) is None:
            peer.probes = [probe for probe in peer.probes if probe.index != index and not probe.byte_offset]
        return True

    def failed(self, peer: PeerState, index: int, now: float) -> None:
        """Note that an answer could not be stored: nothing is asked of anybody for a while."""
        self._paused_until = now + PAUSE_S
        if index in peer.asked:
            self._release(peer, index, cancelled=True)

    def stored(self, start: int, end: int) -> list[Action]:
        """Note that [start, end) came to be held in another way; requests for it are cancelled."""
        actions: list[Action] = []
        for index in [index for index in self._asked if start <= index < end]:
            peer = self.peers[self._asked[index]]
            self._release(peer, index, cancelled=True)
            actions.append(Send(peer.id, Cancel(BlockIndex(index))))
        return actions

    def cleared(self, start: int, end: int, now: float) -> list[Action]:
        """Note that [start, end) is not held any more: wishes that cover it count again."""
        self.demand.released(start, end)
        return self._fill(now)

    def tick(self, now: float) -> list[Action]:
        """Give up what is silent, ask it elsewhere, and drop peers that stay silent altogether."""
        actions: list[Action] = []
        for peer in list(self.peers.values()):
            self._give_up_silent(peer, now)
            owes_since = peer.owes_since()
            if owes_since is not None and now - owes_since > DROP_AFTER_S:
                actions.append(Drop(peer.id, "it owes answers and stays silent"))
            peer.slow = peer.slow and now - peer.slow_since <= SLOW_FOR_S
        return actions + self._overtake(now) + self._fill(now)

    def _overtake(self, now: float) -> list[Action]:
        """Take back what a slow peer owes and a quicker one is to be asked for."""
        actions: list[Action] = []
        for peer, indexes in self._overtaking.lost(now):
            peer.overtaken(now)
            for index in indexes:
                self._release(peer, index, cancelled=True)
                actions.append(Send(peer.id, Cancel(BlockIndex(index))))
        for probe in self._overtaking.seeks(now):
            probe.overdue = True
        return actions

    def _give_up_silent(self, peer: PeerState, now: float) -> None:
        """Release the overdue requests of a peer, and forget the long overdue ones."""
        silent = [asked.index for asked in peer.asked.values() if peer.silent(asked, self._timeout_s, now)]
        for index in silent:
            if index in self._tips:
                peer.doubt(index + 1, now + LATE_S)
            self._release(peer, index, cancelled=False)
        overdue = self._prober.give_up_silent(peer, self._timeout_s, now)
        if silent or overdue:
            peer.stats.timeouts += len(silent) + overdue
            peer.stalled = True
            peer.slots = MIN_REQUESTS
        for index, late in peer.late.items():
            if not late.again and now - late.asked.sent_at > LATE_S:
                late.again = True  # and its answer may still be on a slow line
                self.demand.announced(peer.id, index)

    def _release(self, peer: PeerState, index: int, *, cancelled: bool) -> None:
        """Take a block in flight back from a peer, so that it can be asked of another one."""
        peer.give_up(index, cancelled=cancelled)
        self._asked.pop(index, None)
        self._tips.discard(index)
        self.demand.released(index, index + 1)

    # -- choosing --------------------------------------------------------------------------------------------------

    def _ask_all_regions(self) -> list[Action]:
        return [action for peer in self.peers.values() for action in self._ask_regions(peer)]

    def _ask_regions(self, peer: PeerState) -> list[Action]:
        """Ask the peer which blocks it holds, if it may be asked for blocks."""
        if not self.downloading or not peer.uploading:
            return []
        return [Send(peer.id, question) for question in wants(peer, self.demand)]

    def _fill(self, now: float, only: PeerState | None = None) -> list[Action]:
        """Use free slots, of all peers or of one: the least busy peer gets the next block."""
        if not self.downloading or now < self._paused_until:
            return []
        actions = self._probe(now) if self._prober.has_work else []
        if only is not None:
            bulk = not only.busy
            while only.uploading and (index := self._choice.next_block(only, bulk=bulk)) is not None:
                actions += self._ask(only, index, now)
            return actions
        ready = {peer: not peer.busy for peer in self.peers.values() if peer.uploading}
        while ready:
            peer = min(ready, key=lambda peer: (peer.lags, peer.load))
            index = self._choice.next_block(peer, bulk=ready[peer])
            if index is None:
                del ready[peer]
            else:
                actions += self._ask(peer, index, now)
        return actions

    def _probe(self, now: float) -> list[Action]:
        """Ask for what tells lengths and the places of bytes."""
        actions: list[Action] = []
        for peer, request in self._prober.requests(now):
            if request.hash or request.bytes:
                actions.append(Send(peer.id, request))
            elif self._choice.askable(peer, request.index, Level.URGENT):
                self._tips.add(request.index)
                actions += self._ask(peer, request.index, now)
        return actions

    def _tie(self, peer: PeerState, now: float) -> list[Action]:
        """Ask for what ties longer trees to ours, unless that is under way."""
        if self._local.length in self._asked or (tie := self._prober.tie(now, peer)) is None:
            return []
        return [Send(tie[0].id, tie[1])]

    def _ask(self, peer: PeerState, index: int, now: float) -> list[Action]:
        """Note that `index` is now asked of `peer`; what ties it to our tree is asked for before it."""
        actions = self._tie(peer, now) if index > self._local.length else []
        peer.serial += 1
        beyond = index >= self._local.length
        peer.beyond += beyond
        peer.late.pop(index, None)
        peer.asked[index] = Asked(index, now, peer.serial, beyond)
        self._asked[index] = peer.id
        self.demand.taken(index)
        return [*actions, Send(peer.id, Request(BlockIndex(index)))]
