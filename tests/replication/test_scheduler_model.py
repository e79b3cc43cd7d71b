"""Random histories: whatever happens, the books of the scheduler agree and what can be fetched is fetched."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.ids import BlockIndex
from ddrive.protocol.messages import Data, Status
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
            for peer in list(self.peers.values()):
                for index in list(peer.asked):
                    if index in peer.asked:
                        self.bench.answer(peer, index)
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
