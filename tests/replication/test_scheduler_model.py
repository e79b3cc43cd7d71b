"""Random histories: whatever happens, the books of the scheduler agree and what can be fetched is fetched."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.ids import BlockIndex
from ddrive.protocol.messages import Data, Status
from ddrive.replication import demand
from ddrive.replication.choosing import BEYOND_REQUESTS, BEYOND_URGENT
from ddrive.replication.demand import Level
from ddrive.replication.peer import MAX_IN_FLIGHT_BYTES, PeerState
from tests.replication.test_scheduler import Bench, Local

BLOCKS = 60
block = st.integers(0, BLOCKS - 1)
peer = st.integers(0, 3)
events = st.one_of(
    st.tuples(st.just("join"), peer, block, block),
    st.tuples(st.just("have"), peer, block, block),
    st.tuples(st.just("lack"), peer, block, block),
    st.tuples(st.just("leave"), peer),
    st.tuples(st.just("want"), block, block, st.booleans()),
    st.tuples(st.just("want_one"), block, st.booleans()),
    st.tuples(st.just("withdraw"), st.integers(0, 5)),
    *(st.tuples(st.just("answer"), peer, st.integers(0, 70)) for _ in range(4)),
    st.tuples(st.just("want"), block, block, st.booleans()),
    st.tuples(st.just("late"), peer, st.integers(0, 70)),
    st.tuples(st.just("clear"), block, block),
    st.tuples(st.just("status"), peer, st.booleans()),
    st.tuples(st.just("append")),
    st.tuples(st.just("tick"), st.sampled_from([0.25, 3.0, 6.0, 31.0])),
)

large_size = st.sampled_from([10, 10_000, 400_000, 5_000_000])
window_bytes = st.sampled_from([1, 3 * 65_536, 5 * 65_536, MAX_IN_FLIGHT_BYTES])
download_events = st.one_of(
    events,
    st.tuples(st.just("join_narrow"), peer, block, block, window_bytes),
    *(st.tuples(st.just("answer_some"), peer, st.integers(1, 20), large_size) for _ in range(8)),
    st.tuples(st.just("want"), st.integers(0, 9), st.integers(40, BLOCKS - 1), st.just(False)),
    st.tuples(st.just("want_one"), block, st.just(True)),
    st.tuples(st.just("tick"), st.sampled_from([0.0, 0.01, 0.8])),
)


class World:
    """Up to four peers of one feed, and the wishes made so far."""

    def __init__(self) -> None:
        self.bench = Bench(Local(0))
        self.peers = {}
        self.wishes = []
        self.join(0, 0, BLOCKS - 1)
        self.join(1, 0, BLOCKS // 2)

    def do(self, event) -> None:
        getattr(self, event[0])(*event[1:])
        self.check()

    def join(self, number, one, other):
        if number not in self.peers:
            self.peers[number] = self.bench.join((min(one, other), max(one, other) + 1))

    def have(self, number, one, other):
        if number in self.peers:
            start, end = min(one, other), max(one, other) + 1
            self.bench.run(self.bench.scheduler.has(self.peers[number], start, end, self.bench.now))

    def lack(self, number, one, other):
        if number in self.peers:
            start, end = min(one, other), max(one, other) + 1
            self.bench.run(self.bench.scheduler.lacks(self.peers[number], start, end, self.bench.now))

    def leave(self, number):
        if number in self.peers:
            self.bench.leave(self.peers.pop(number))

    def want(self, one, other, urgent):
        self.wishes.append(self.bench.want(min(one, other), max(one, other) + 1, urgent=urgent))

    def want_one(self, index, urgent):
        self.wishes.append(self.bench.want(index, urgent=urgent))

    def withdraw(self, number):
        if number < len(self.wishes):
            self.bench.withdraw(self.wishes.pop(number))

    def answer(self, number, which):
        if number in self.peers and self.peers[number].asked:
            self._give(number, sorted(self.peers[number].asked), which)

    def late(self, number, which):
        if number in self.peers and self.peers[number].late:
            self._give(number, sorted(self.peers[number].late), which)

    def _give(self, number, indexes, which):
        self.bench.answer(self.peers[number], indexes[which % len(indexes)])

    def clear(self, one, other):
        start, end = min(one, other), max(one, other) + 1
        self.bench.local.held -= set(range(start, end))
        self.bench.run(self.bench.scheduler.cleared(start, end, self.bench.now))

    def status(self, number, uploading):
        if number in self.peers:
            status = Status(uploading=uploading, downloading=True)
            self.bench.run(self.bench.scheduler.status(self.peers[number], status, self.bench.now))

    def append(self):
        self.bench.local.length = max(self.bench.local.length, BLOCKS // 2)

    def tick(self, seconds):
        self.bench.tick(seconds)
        for number, peer in list(self.peers.items()):
            if peer.id in self.bench.dropped:
                self.leave(number)

    def check(self):
        scheduler = self.bench.scheduler
        asked = {}
        for peer in self.peers.values():
            assert peer.beyond == sum(request.beyond for request in peer.asked.values())
            for index in peer.asked:
                assert index not in asked, "asked of two peers"
                assert index not in self.bench.local.held, "asked though it is held"
                assert peer.remote.has(index), "asked of a peer that did not announce it"
                assert scheduler.demand.wants(index), "asked though nobody wishes it"
                assert scheduler.expects(peer, Data(BlockIndex(index), b""))
                asked[index] = peer.id
        assert scheduler._asked == asked

    def finish(self):
        """Let every peer serve and answer until nothing moves."""
        for number in list(self.peers):
            self.status(number, True)
        for _ in range(400):
            for number, peer in list(self.peers.items()):
                for index in list(peer.asked):
                    if index in peer.asked:
                        self._give(number, [index], 0)
                        self.check()
            self.tick(1.0)
        for wish in self.wishes:
            for index in range(wish.start, wish.end):
                if any(peer.remote.has(index) for peer in self.peers.values()):
                    assert index in self.bench.local.held, f"{index} was never fetched"


@given(st.lists(events, min_size=20, max_size=80))
@settings(max_examples=150, deadline=None)
def test_the_books_agree_and_everything_is_fetched_in_the_end(history):
    world = World()
    for event in history:
        world.do(event)
    world.finish()


@given(st.lists(events, min_size=20, max_size=80))
@settings(max_examples=100, deadline=None)
def test_what_nobody_wishes_any_more_is_cancelled(history):
    world = World()
    for event in history:
        world.do(event)
    while world.wishes:
        world.withdraw(0)
    assert all(not peer.asked for peer in world.peers.values())


class Downloads(World):
    """Windows of many sizes, and ranges so long that nobody waits for them: no free slot waits for a tick."""

    def __init__(self) -> None:
        self.asked_before: dict[PeerState, set[int]] = {}
        super().__init__()

    def join_narrow(self, number, one, other, most_bytes):
        if number not in self.peers:
            scheduler = self.bench.scheduler
            self.peers[number], actions = scheduler.add_peer(self.bench.now, most_bytes)
            self.bench.run(actions)
            self.have(number, one, other)

    def answer_some(self, number, count, size):
        """Several answers arrive together."""
        if number in self.peers and self.peers[number].asked:
            self._take(self.peers[number], list(self.peers[number].asked)[:count], size)

    def _give(self, number, indexes, which):
        self._take(self.peers[number], [indexes[which % len(indexes)]], 10)

    def _take(self, peer, indexes, size):
        local = self.bench.local
        local.held |= set(indexes)
        if max(indexes) >= local.length:  # its proof is one of the whole length
            local.length = peer.remote.length
        self.bench.run(
            self.bench.scheduler.answered(peer, dict.fromkeys(map(BlockIndex, indexes), size), self.bench.now)
        )

    def append(self):
        super().append()
        self.tick(0.0)

    def check(self):
        super().check()
        scheduler, local = self.bench.scheduler, self.bench.local
        missing = {index: scheduler.demand.level(index) for index in range(BLOCKS) if not local.has(index)}
        levels = {index: level for index, level in missing.items() if level is not None}
        for peer in self.peers.values():
            new = [levels[index] for index in peer.asked if index not in self.asked_before.get(peer, ())]
            if new:
                limit = peer.urgent_limit if Level.URGENT in new else peer.limit
                assert len(peer.asked) <= limit, "more in flight than may be"
            for index, level in levels.items():
                if index not in scheduler._asked and self._may_be_asked(peer, index, level):
                    assert not self._has_room(peer, level), f"{index} is not asked for, although there is room"
        self.asked_before = {peer: set(peer.asked) for peer in self.peers.values()}

    def _has_room(self, peer: PeerState, level: Level) -> bool:
        if level is Level.BULK:
            assert peer.asked or peer.refill <= peer.limit, "nothing in flight whose answer would make room"
            return len(peer.asked) <= peer.limit - peer.refill
        return len(peer.asked) < (peer.urgent_limit if level is Level.URGENT else peer.limit)

    def _may_be_asked(self, peer: PeerState, index: int, level: Level) -> bool:
        """Tell whether nothing but a lack of slots keeps a block from being asked of a peer."""
        scheduler, length = self.bench.scheduler, self.bench.local.length
        if not peer.uploading or not peer.remote.has(index) or peer.refuses(index):
            return False
        if index >= length and peer.beyond >= (BEYOND_URGENT if level is Level.URGENT else BEYOND_REQUESTS):
            return False
        if index > length and scheduler._prober.is_tying:
            return False
        return not peer.lags or not any(other.uploading and not other.lags for other in self.peers.values())


@pytest.fixture
def _short_downloads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let ranges of a few blocks count as downloads."""
    monkeypatch.setattr(demand, "AHEAD_BLOCKS", 8)


@pytest.mark.usefixtures("_short_downloads")
@given(st.lists(download_events, min_size=20, max_size=80))
@settings(max_examples=80, deadline=None)
def test_every_wished_block_that_a_peer_has_is_asked_for_without_waiting_for_a_tick(history):
    world = Downloads()
    for event in history:
        world.do(event)
    world.finish()
