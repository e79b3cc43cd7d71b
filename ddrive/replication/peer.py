"""What one peer of one feed has, wants and owes us. State only; what follows from it is decided in `scheduler`."""

from dataclasses import dataclass, field
from math import inf

from ddrive.ids import PeerId
from ddrive.replication.blocks import REGION_BLOCKS, BlockSet
from ddrive.replication.promise import Promise

START_REQUESTS = 16  # in flight to a new peer
START_BYTES = 256 * 1024  # likewise: it may be slow, and somebody may have to wait behind them
MIN_REQUESTS = 2  # in flight to a peer that has been silent
MAX_REQUESTS = 192  # in flight to one peer when its blocks are small; with the urgent ones under 256, our own limit
URGENT_REQUESTS = 48  # more of them for blocks that somebody waits for: a walk through a tree asks for many at once
STALLED_URGENT_REQUESTS = 8  # the same while the peer is silent
MAX_IN_FLIGHT_BYTES = 4 * 1024 * 1024  # to one peer, by the average size of its blocks, and as much for urgent ones
USUAL_BYTES = 64 * 1024  # of a block, before any is known. Source: chunks of files in a drive
GROUPED_S = 0.02  # of a peer that never answered sooner, blocks are asked for one by one: it is far away
PROMPT_S = 1.0  # a peer that takes longer to answer gets no slot more, as somebody who waits would wait so long too
SLOW_S = 2.0  # one that takes longer than this gets so many as it answers in this time
FEW_REQUESTS = 4  # in flight to a slow peer, at least
SLOW_FOR_S = 30.0  # a peer that a quicker one had to overtake counts as slow
MAX_LATE = 1024  # overdue or cancelled requests remembered per peer
MAX_UNANSWERED_WANTS = 16  # as the npm peers
MAX_REGIONS = 1024  # Wants sent on one channel: a peer may claim any length


@dataclass(slots=True)
class Asked:
    """One request for a block in flight; `serial` orders the requests of a peer."""

    index: int
    sent_at: float
    serial: int
    beyond: bool  # lay past our length when it was sent


@dataclass(slots=True)
class Late:
    """A request that we gave up, whose answer is still welcome."""

    asked: Asked
    again: bool  # the block may be asked of the peer again: we took the request back, or it is long ago


@dataclass(slots=True, eq=False)
class Probe:
    """A request for proof nodes only: for the length of the feed, or for the place of byte `byte_offset`."""

    index: int
    sent_at: float
    length: int  # what the peer had announced then
    byte_offset: int = 0  # 0: asks for the length, or narrows a seek down without the peer's help
    seek: int | None = None  # the byte whose place is looked for
    serial: int = 0  # of the last request for a block before it
    overdue: bool = False


@dataclass(slots=True)
class PeerStats:
    """Blocks and bytes (values only) exchanged with one peer or in all, and what went wrong."""

    uploaded_blocks: int = 0
    uploaded_bytes: int = 0
    downloaded_blocks: int = 0
    downloaded_bytes: int = 0
    timeouts: int = 0
    verify_failures: int = 0


@dataclass(slots=True)
class FeedStats(PeerStats):
    """What was exchanged with all peers, and how many blocks were read here that were held, or had to be waited for."""

    cache_hits: int = 0
    cache_misses: int = 0


@dataclass(slots=True, eq=False)
class PeerState:
    """The scheduler's memory of one peer."""

    id: PeerId
    remote: BlockSet = field(default_factory=BlockSet)
    uploading: bool = True  # it serves requests
    downloading: bool = True  # it makes requests
    wanted: bool = False  # it sent a Want: announce to it what we come to hold
    wants_seen: int = 0
    old: bool = False  # it announces without length: an old peer that gets no Wants
    asked: dict[int, Asked] = field(default_factory=dict)
    late: dict[int, Late] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    regions_asked: set[int] = field(default_factory=set)
    regions_unanswered: set[int] = field(default_factory=set)
    slots: int = START_REQUESTS
    serial: int = 0
    answered_serial: int = 0  # the newest request that was answered: older ones were passed over
    data_at: float = 0.0  # last answer
    heard_at: float = 0.0  # last answer or bytes of one
    frame_at: float = 0.0  # last bytes of an answer that was not complete: a large one on a slow line
    stalled: bool = False  # it let a request time out and has given nothing since
    slow: bool = False  # a quicker peer had to overtake it
    slow_since: float = 0.0
    answer_s: float = 0.0  # that it takes to answer, a running mean
    quickest_s: float = inf  # the shortest that it took: how far away it is, as the others waited for one another, too
    beyond: int = 0  # requests in flight for blocks past our length: each answer brings a whole proof
    average_size: int = 0  # bytes of its blocks, a running mean
    most_bytes: int = MAX_IN_FLIGHT_BYTES  # in flight, by the average size
    doubted: int = 0  # announced lengths up to here were asked for and never proven
    unasked: int = 0  # of these, what is not asked for again, or not before the following time
    unasked_until: float = inf  # where it was only silent: a slow line has the same effect
    untying: int = 0  # the first block that we lacked when it could not show that longer trees go on from ours
    last_seek: int = 0  # byte offset it was asked for last: npm peers answer the same one only once
    promise: Promise = field(default_factory=Promise)  # to keep all nodes that it sends, in Want
    broken_promises: int = 0  # since an answer of it was good
    suspected: bool = False  # of another history of the feed: it was asked once more for a proof that did not verify
    stats: PeerStats = field(default_factory=PeerStats)

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        size = self.average_size or USUAL_BYTES
        return self.slots if size * self.slots <= self.most_bytes else max(MIN_REQUESTS, self.most_bytes // size)

    @property
    def urgent_limit(self) -> int:
        """How many requests may be in flight when another one is urgent."""
        more = STALLED_URGENT_REQUESTS if self.stalled else URGENT_REQUESTS
        size = self.average_size or USUAL_BYTES
        return self.limit + (more if size * more <= self.most_bytes else max(MIN_REQUESTS, self.most_bytes // size))

    @property
    def lags(self) -> bool:
        """Tell whether others are asked first."""
        return self.stalled or self.slow

    @property
    def refill(self) -> int:
        """How many requests have to be missing before more blocks are asked for that nobody waits for.

        Requests that go together are read, sent and answered together, which costs both sides a third less. When the
        peer is far away, though, each one that is missing leaves the network idle: 100 ms away, a tenth of the time.
        """
        return max(1, self.limit // 4) if self.quickest_s < GROUPED_S else 1

    @property
    def load(self) -> float:
        """How busy the peer is, as a share of its limit."""
        return len(self.asked) / self.limit

    @property
    def first_want_answered(self) -> bool:
        """Tell whether the peer has had its say about what it holds."""
        return not self.uploading or (0 in self.regions_asked and 0 not in self.regions_unanswered)

    def has_yet_to_say(self, index: int) -> bool:
        """Tell whether an answer about block `index` is still to come from a peer that serves requests."""
        region = index // REGION_BLOCKS
        if not self.uploading or self.old or len(self.regions_asked) >= MAX_REGIONS:
            return False
        return region not in self.regions_asked or region in self.regions_unanswered

    def take(self, index: int) -> Asked | None:
        """Remove and return the request for a block, whether it is in time or late."""
        asked = self.asked.pop(index, None)
        if asked is not None:
            self.beyond -= asked.beyond
            return asked
        late = self.late.pop(index, None)
        return None if late is None else late.asked

    def give_up(self, index: int, *, cancelled: bool) -> None:
        """Turn a request in flight into a late one, the oldest ones making room."""
        asked = self.asked.pop(index)
        self.beyond -= asked.beyond
        self.late.pop(index, None)
        self.late[index] = Late(asked, cancelled)
        if len(self.late) > MAX_LATE:
            del self.late[next(iter(self.late))]

    def refuses(self, index: int) -> bool:
        """Tell whether it has left a request for a block unanswered, lately, so that it is not asked again."""
        late = self.late.get(index) if self.late else None
        return late is not None and not late.again

    def overtaken(self, now: float) -> None:
        """Take note that others are quicker."""
        self.slow, self.slow_since, self.slots = True, now, MIN_REQUESTS

    @property
    def busy(self) -> bool:
        """Tell whether as many requests are in flight as may be, or as good as that."""
        return len(self.asked) > self.limit - self.refill

    def start_with(self, size: int) -> None:
        """Take note of the average size of blocks, which is known now."""
        self.average_size = size
        if size:
            self.slots = min(self.slots, max(FEW_REQUESTS, START_BYTES // size))

    def heard(self, asked: Asked | None, size: int, now: float, *, busy: bool) -> None:
        """Take an answer of `size` bytes into account: a peer kept busy gets one slot more, a slow one has fewer.

        `busy` is the peer's before the answer, or the answers that came with it, were taken out.
        """
        if asked is not None:
            waited_s = now - asked.sent_at
            if waited_s > SLOW_S:
                self.slots = max(FEW_REQUESTS, min(self.limit - 1, int(self.limit * SLOW_S / waited_s)))
            elif waited_s < PROMPT_S and busy and self.slots < MAX_REQUESTS:
                self.slots += 1
            self.answer_s += (waited_s - self.answer_s) / 8
            self.quickest_s = min(self.quickest_s, waited_s)
            self.answered_serial = max(self.answered_serial, asked.serial)
            if self.average_size:
                self.average_size += (size - self.average_size) // 16
            else:
                self.start_with(size)
        self.data_at = self.heard_at = now
        self.stalled = False

    def silent(self, asked: Asked, timeout_s: float, now: float) -> bool:
        """Tell whether an answer is overdue: nothing came for a while, or answers to younger requests only."""
        return self._is_silent_about(asked.sent_at, asked.serial + 1, timeout_s, now)

    def silent_about(self, probe: Probe, timeout_s: float, now: float) -> bool:
        """Tell the same of a probe; a seek is not waited for, as its byte can be found without the peer's help."""
        if probe.seek is not None:
            return now - probe.sent_at > timeout_s
        return self._is_silent_about(probe.sent_at, probe.serial + 1, timeout_s, now)

    def _is_silent_about(self, sent_at: float, next_serial: int, timeout_s: float, now: float) -> bool:
        return (
            (self.answered_serial >= next_serial and now - sent_at > timeout_s)
            or now - max(sent_at, self.heard_at) > timeout_s
            or now - max(sent_at, self.data_at, self.frame_at) > 4 * timeout_s
        )

    def doubt(self, length: int, until: float = inf) -> None:
        """Do not believe in an announced length before it is proven, nor ask for that again `until` then."""
        self.doubted = max(self.doubted, length)
        if length > self.unasked:
            self.unasked, self.unasked_until = length, until

    def end_doubts(self, now: float) -> None:
        """Ask again for what it was silent about a while ago."""
        if now > self.unasked_until:
            self.unasked, self.unasked_until = 0, inf

    def owes_since(self) -> float | None:
        """Return since when the peer owes an answer without giving any sign of life, or None when it owes nothing."""
        owed = list(self.asked.values())
        owed += [late.asked for late in self.late.values() if not late.again]
        times = [asked.sent_at for asked in owed if asked.serial > self.answered_serial]
        times += [probe.sent_at for probe in self.probes if not probe.byte_offset]
        return max(min(times), self.heard_at) if times else None

    @property
    def under_way(self) -> int:
        """How many answers may still come."""
        return len(self.asked) + len(self.late) + len(self.probes)

    def region_to_ask(self, start: int, end: int) -> int | None:
        """Return the first region of [start, end) that the peer was not asked about yet, if it may be asked now."""
        if self.old or len(self.regions_unanswered) >= MAX_UNANSWERED_WANTS:
            return None
        for region in range(start // REGION_BLOCKS, -(-end // REGION_BLOCKS)):
            if len(self.regions_asked) >= MAX_REGIONS:
                return None
            if region not in self.regions_asked:
                return region
        return None
