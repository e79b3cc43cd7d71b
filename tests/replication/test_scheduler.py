"""The scheduler against scripted peers: events in, actions out."""

import pytest

from ddrive.ids import BlockIndex, PeerId
from ddrive.protocol.messages import Cancel, Data, Request, Status, Want
from ddrive.replication.blocks import REGION_BLOCKS
from ddrive.replication.peer import MAX_REQUESTS, START_REQUESTS
from ddrive.replication.scheduler import Drop, Scheduler, Send


class Local:
    """A feed of `length` proven blocks of 10 bytes, of which `held` are here."""

    def __init__(self, length: int = 0, held: set[int] | None = None) -> None:
        self.length = length
        self.held = held or set()
        self.edges: dict[int, int] = {}  # block -> byte offset where it starts, as far as known
        self.byte_length = 10 * length

    def has(self, index: int) -> bool:
        return index in self.held

    def next_missing(self, start: int, end: int) -> int | None:
        return next((index for index in range(start, end) if index not in self.held), None)

    def locate(self, byte_offset: int) -> tuple[int, int] | None:
        index = byte_offset // 10
        return (index, byte_offset % 10) if index in self.edges and index + 1 in self.edges else None

    def byte_offset(self, index: int) -> int | None:
        return self.edges.get(index)


class Bench:
    """A scheduler whose peers answer when told to."""

    def __init__(self, local: Local, **options: object) -> None:
        self.local = local
        self.scheduler = Scheduler(local, **options)  # type: ignore[arg-type]
        self.now = 0.0
        self.sent: list[Send] = []
        self.dropped: list[PeerId] = []

    def run(self, actions):
        for action in actions:
            if isinstance(action, Drop):
                self.dropped.append(action.peer)
            else:
                self.sent.append(action)
        return [action.message for action in actions if isinstance(action, Send)]

    def join(self, *spans: tuple[int, int]):
        peer, actions = self.scheduler.add_peer(self.now)
        self.run(actions)
        for start, end in spans:
            self.run(self.scheduler.has(peer, start, end, self.now))
        return peer

    def leave(self, peer):
        return self.run(self.scheduler.remove_peer(peer, self.now))

    def want(self, start: int, end: int | None = None, *, urgent: bool = True):
        end = start + 1 if end is None else end
        wish, actions = self.scheduler.want_blocks(start, end, self.now, urgent=urgent)
        self.run(actions)
        return wish

    def withdraw(self, wish):
        return self.run(self.scheduler.withdraw(wish, self.now))

    def answer(self, peer, index: int, size: int = 10):
        assert self.scheduler.expects(peer, Data(BlockIndex(index), b""))
        self.local.held.add(index)
        self.local.length = max(self.local.length, peer.remote.length)
        return self.run(self.scheduler.answered(peer, {BlockIndex(index): size}, self.now))

    def tick(self, seconds: float):
        self.now += seconds
        return self.run(self.scheduler.tick(self.now))

    def asked(self, peer) -> list[int]:
        """The block numbers asked of `peer` so far, in order."""
        return [send.message.index for send in self.sent if send.peer == peer.id and isinstance(send.message, Request)]


def test_a_new_peer_is_asked_what_it_holds_at_once():
    bench = Bench(Local())
    bench.join()
    assert [send.message for send in bench.sent] == [Want(BlockIndex(0), REGION_BLOCKS)]


def test_a_writer_asks_nothing():
    bench = Bench(Local(), downloading=False)
    bench.join((0, 10))
    bench.want(3)
    assert bench.sent == []


def test_a_block_is_asked_only_of_a_peer_that_announced_it():
    bench = Bench(Local(10))
    without, having = bench.join((0, 3)), bench.join((3, 10))
    bench.want(5)
    assert (bench.asked(without), bench.asked(having)) == ([], [5])


def test_a_block_is_asked_of_one_peer_at_a_time():
    bench = Bench(Local(10))
    peers = [bench.join((0, 10)) for _ in range(3)]
    bench.want(5)
    bench.want(5)
    bench.want(4, 6)
    assert sorted(index for peer in peers for index in bench.asked(peer)) == [4, 5]


def test_a_range_is_shared_between_the_peers_that_have_it():
    bench = Bench(Local(12))
    peers = [bench.join((0, 12)) for _ in range(3)]
    bench.want(0, 12, urgent=False)
    assert [len(bench.asked(peer)) for peer in peers] == [4, 4, 4]
    assert sorted(index for peer in peers for index in bench.asked(peer)) == list(range(12))


def test_a_range_is_asked_in_order():
    bench = Bench(Local(100))
    peer = bench.join((0, 100))
    bench.want(7, 100, urgent=False)
    while len(bench.asked(peer)) < 50:
        bench.answer(peer, min(peer.asked))
    assert bench.asked(peer) == list(range(7, 57))


def test_urgent_blocks_go_before_read_ahead_and_read_ahead_before_downloads():
    bench = Bench(Local(10_000))
    bench.want(0, 10_000, urgent=False)
    bench.want(5_000, 5_003, urgent=False)
    bench.want(9_999)
    bench.want(9_998)
    peer = bench.join((0, 10_000))
    assert bench.asked(peer)[:7] == [9_999, 9_998, 5_000, 5_001, 5_002, 0, 1]


def test_an_urgent_block_is_asked_though_all_slots_are_taken():
    bench = Bench(Local(1000))
    peer = bench.join((0, 1000))
    bench.want(0, 500, urgent=False)
    assert bench.asked(peer) == list(range(START_REQUESTS))
    bench.want(900)
    assert bench.asked(peer)[-1] == 900


def test_a_busy_peer_gets_more_slots_up_to_the_limit():
    bench = Bench(Local(2000))
    peer = bench.join((0, 2000))
    bench.want(0, 2000, urgent=False)
    for _ in range(500):
        bench.answer(peer, min(peer.asked))
    assert peer.slots == MAX_REQUESTS
    assert MAX_REQUESTS - peer.refill < len(peer.asked) <= MAX_REQUESTS


def test_the_window_of_a_peer_far_away_stays_full():
    bench = Bench(Local(2000))
    peer = bench.join((0, 2000))
    bench.want(0, 2000, urgent=False)
    missing = []
    for _ in range(200):
        bench.now = peer.asked[min(peer.asked)].sent_at + 0.1
        bench.answer(peer, min(peer.asked))
        missing.append(peer.limit - len(peer.asked))
    assert not any(missing[20:])


def test_a_peer_nearby_is_asked_for_downloads_in_groups():
    bench = Bench(Local(2000))
    peer = bench.join((0, 2000))
    bench.want(0, 2000, urgent=False)
    bench.answer(peer, min(peer.asked))
    bench.now += 0.1  # the others wait for one another
    groups = [asked for _ in range(400) if (asked := len(bench.answer(peer, min(peer.asked))))]
    assert len(groups) < 60


def test_big_blocks_take_fewer_slots():
    bench = Bench(Local(2000))
    peer = bench.join((0, 2000))
    bench.want(0, 2000, urgent=False)
    for _ in range(300):
        bench.answer(peer, min(peer.asked), size=1024 * 1024)
    assert len(peer.asked) == 4


def test_before_a_proof_is_known_one_request_of_a_range_goes_out():
    bench = Bench(Local(0))
    peer = bench.join((0, 100))
    bench.want(0, 50, urgent=False)
    assert bench.asked(peer) == [0]
    bench.answer(peer, 0)
    assert bench.asked(peer)[:4] == [0, 1, 2, 3]


def test_a_wish_of_a_million_blocks_stays_one_object():
    bench = Bench(Local(10**6))
    wish = bench.want(0, 10**6, urgent=False)
    peer = bench.join((0, 10**6))
    assert len(bench.asked(peer)) == START_REQUESTS
    assert wish.cursors == {peer.id: START_REQUESTS}


def test_a_silent_request_is_asked_elsewhere_after_the_timeout():
    bench = Bench(Local(10), request_timeout_s=5)
    silent = bench.join((0, 10))
    bench.want(3, 5, urgent=False)
    other = bench.join((0, 10))
    bench.want(7, urgent=False)
    assert bench.asked(other) == [7]
    bench.tick(4)
    assert bench.asked(other) == [7]
    bench.scheduler.progress(other, bench.now)
    bench.tick(2)
    assert bench.asked(other) == [7, 3, 4]
    assert silent.stats.timeouts == 2


def test_arriving_bytes_keep_a_request_alive():
    bench = Bench(Local(10), request_timeout_s=5)
    slow = bench.join((0, 10))
    bench.want(3)
    for _ in range(4):
        bench.scheduler.progress(slow, bench.now)
        bench.tick(4)
    assert (slow.stats.timeouts, slow.stalled) == (0, False)


def test_a_block_that_takes_minutes_is_waited_for_while_it_arrives():
    bench = Bench(Local(10), request_timeout_s=5)
    slow = bench.join((0, 10))
    bench.want(3)
    for _ in range(60):
        bench.tick(4)
        bench.scheduler.progress(slow, bench.now, answering=True)
    assert bench.asked(slow) == [3]
    bench.tick(21)
    assert slow.stats.timeouts == 1


def test_a_length_is_asked_for_again_of_a_peer_that_was_silent_about_it():
    bench = Bench(Local(10))
    slow = bench.join((0, 10), (19, 20))
    bench.run(bench.scheduler.want_length(20, bench.now)[1])
    for _ in range(180):
        bench.scheduler.progress(slow, bench.now)
        bench.tick(1)
    assert [index for index in bench.asked(slow) if index == 10 or index == 19] == [19, 19, 19]
    assert slow.doubted == 20, "meanwhile nobody counts on it"


def test_a_length_is_waited_for_while_a_large_block_arrives():
    bench = Bench(Local(10))
    slow = bench.join((0, 10), (19, 20))
    bench.run(bench.scheduler.want_length(20, bench.now)[1])
    for _ in range(180):
        bench.scheduler.progress(slow, bench.now, answering=True)
        bench.tick(1)
    assert (bench.asked(slow), slow.doubted) == ([19], 0)
    assert bench.scheduler.expects(slow, Data(BlockIndex(19), None))


def test_a_probe_that_younger_requests_overtook_is_given_up():
    bench = Bench(Local(10), request_timeout_s=5)
    peer = bench.join((0, 10), (19, 20))
    bench.run(bench.scheduler.want_length(20, bench.now)[1])
    for index in range(6):
        bench.want(index)
        bench.answer(peer, index)
        bench.local.length = 10
        bench.tick(1)
    assert peer.doubted == 20


def test_an_answer_is_welcome_however_late_it_comes():
    bench = Bench(Local(10))
    slow = bench.join((0, 10))
    first = bench.want(3)
    bench.withdraw(first)
    bench.want(4)
    for _ in range(60):
        bench.scheduler.progress(slow, bench.now)
        bench.tick(1)
    assert bench.asked(slow).count(4) > 1, "it is asked again half a minute later"
    assert bench.scheduler.expects(slow, Data(BlockIndex(3), b"late"))


def test_what_somebody_waits_for_comes_from_a_quicker_peer():
    bench = Bench(Local(1000))
    slow, quick = bench.join((0, 1000)), bench.join((0, 1000))
    bench.want(0, 900, urgent=False)
    theirs = bench.asked(slow)
    for _ in range(4):
        for index in list(quick.asked):
            bench.answer(quick, index)
        bench.scheduler.progress(slow, bench.now)
        bench.tick(0.25)
    assert bench.asked(slow) == theirs, "it has time as long as nobody waits"
    bench.want(theirs[0])
    done = bench.tick(0.25)
    assert [message.index for message in done if isinstance(message, Cancel)] == theirs
    assert theirs[0] in quick.asked
    for index in list(quick.asked):
        bench.answer(quick, index)
    assert set(theirs) <= set(bench.asked(quick)), "what will be read next goes with it"
    bench.want(950, 960, urgent=False)
    bench.want(999)
    assert bench.asked(slow) == theirs, "it is left alone while the other one is there"
    bench.leave(quick)
    assert len(bench.asked(slow)) > len(theirs)


def test_a_slow_peer_still_helps_with_downloads():
    bench = Bench(Local(10_000))
    slow, quick = bench.join((0, 10_000)), bench.join((0, 10_000))
    bench.want(0, 10_000, urgent=False)
    bench.want(min(slow.asked))
    for _ in range(12):
        for index in list(quick.asked):
            bench.answer(quick, index)
        bench.tick(0.25)
    assert slow.slow
    assert 0 < len(slow.asked) <= START_REQUESTS


def test_nobody_is_overtaken_when_all_are_slow():
    bench = Bench(Local(1000))
    peers = [bench.join((0, 1000)) for _ in range(3)]
    bench.want(0, 200, urgent=False)
    bench.want(0)
    before = [bench.asked(peer) for peer in peers]
    for _ in range(15):
        bench.tick(0.25)
    assert [bench.asked(peer) for peer in peers] == before


def test_the_end_of_a_download_does_not_wait_for_the_slowest():
    bench = Bench(Local(4000))
    slow, quick = bench.join((0, 4000)), bench.join((0, 4000))
    bench.want(0, 2000, urgent=False)
    for _ in range(40):
        for index in list(quick.asked):
            bench.answer(quick, index)
        bench.scheduler.progress(slow, bench.now)
        bench.tick(0.25)
    assert bench.local.held == set(range(2000))


def test_a_request_that_younger_ones_overtook_is_asked_elsewhere():
    bench = Bench(Local(100), request_timeout_s=5)
    first = bench.join((0, 100))
    bench.want(50)
    other = bench.join((50, 51))
    bench.want(0, 100, urgent=False)
    for _ in range(6):
        bench.answer(first, min(first.asked))
        bench.tick(1)
    assert bench.asked(other) == [50]


def test_a_late_answer_is_accepted_and_the_other_peer_is_told():
    bench = Bench(Local(10), request_timeout_s=5)
    late = bench.join((0, 10))
    bench.want(3)
    other = bench.join((0, 10))
    bench.tick(6)
    assert bench.answer(late, 3) == [Cancel(BlockIndex(3))]
    assert bench.sent[-1].peer == other.id
    assert bench.scheduler.expects(other, Data(BlockIndex(3), b""))


def test_a_silent_peer_is_not_asked_again_while_others_can_serve():
    bench = Bench(Local(10_000), request_timeout_s=5)
    silent, lively = bench.join((0, 10_000)), bench.join((0, 10_000))
    bench.want(0, 10_000, urgent=False)
    for _ in range(12):
        for index in list(lively.asked):
            bench.answer(lively, index)
        bench.tick(0.5)
    count = len(bench.asked(silent))
    for _ in range(12):
        for index in list(lively.asked):
            bench.answer(lively, index)
        bench.tick(0.5)
    assert len(bench.asked(silent)) == count
    assert set(range(START_REQUESTS)) <= bench.local.held


def test_a_peer_that_owes_answers_for_long_is_dropped():
    bench = Bench(Local(10))
    peer = bench.join((0, 10))
    bench.want(3)
    for _ in range(19):
        bench.tick(1)
    assert bench.dropped == []
    bench.tick(2)
    assert bench.dropped == [peer.id]


def test_an_idle_peer_is_never_dropped():
    bench = Bench(Local(10))
    bench.join((0, 10))
    bench.tick(1000)
    assert bench.dropped == []


def test_the_requests_of_a_lost_peer_go_to_another():
    bench = Bench(Local(10))
    lost = bench.join((0, 10))
    bench.want(2, 6, urgent=False)
    other = bench.join((0, 10))
    bench.leave(lost)
    assert bench.asked(other) == [2, 3, 4, 5]


def test_the_last_wish_withdrawn_cancels():
    bench = Bench(Local(10))
    peer = bench.join((0, 10))
    first, second = bench.want(3), bench.want(3)
    assert bench.withdraw(first) == []
    assert bench.withdraw(second) == [Cancel(BlockIndex(3))]
    assert bench.scheduler.expects(peer, Data(BlockIndex(3), b"late"))


def test_a_range_keeps_a_block_in_flight_that_another_wish_gave_up():
    bench = Bench(Local(10))
    bench.join((0, 10))
    bench.want(0, 8, urgent=False)
    single = bench.want(3)
    assert bench.withdraw(single) == []


def test_a_cancelled_block_can_be_asked_again():
    bench = Bench(Local(10))
    peer = bench.join((0, 10))
    bench.withdraw(bench.want(3))
    bench.want(3)
    assert bench.asked(peer) == [3, 3]


def test_withdrawing_a_range_cancels_what_is_in_flight_of_it():
    bench = Bench(Local(100))
    bench.join((0, 100))
    wish = bench.want(10, 14, urgent=False)
    assert bench.withdraw(wish) == [Cancel(BlockIndex(index)) for index in range(10, 14)]


def test_a_block_that_a_peer_gives_up_is_asked_elsewhere():
    bench = Bench(Local(10))
    peer = bench.join((0, 10))
    bench.want(3)
    other = bench.join((0, 10))
    bench.run(bench.scheduler.lacks(peer, 3, 4, bench.now))
    assert bench.asked(other) == [3]


def test_a_peer_that_stops_uploading_is_asked_no_more():
    bench = Bench(Local(10))
    peer = bench.join((0, 10))
    bench.want(3)
    other = bench.join((0, 10))
    bench.run(bench.scheduler.status(peer, Status(uploading=False, downloading=True), bench.now))
    assert bench.asked(other) == [3]
    bench.want(4)
    assert bench.asked(peer) == [3]


def test_a_cleared_block_is_asked_again_while_a_wish_covers_it():
    bench = Bench(Local(10))
    peer = bench.join((0, 10))
    bench.want(0, 4, urgent=False)
    for index in range(4):
        bench.answer(peer, index)
    bench.local.held.discard(2)
    bench.run(bench.scheduler.cleared(2, 3, bench.now))
    assert bench.asked(peer) == [0, 1, 2, 3, 2]


def test_a_block_that_came_and_was_not_kept_is_asked_for_again_when_it_is_wished_anew():
    bench = Bench(Local(10))
    peer = bench.join((0, 10))
    first = bench.want(5)
    bench.run(bench.scheduler.answered(peer, {BlockIndex(5): 10}, bench.now))
    assert bench.asked(peer) == [5]
    assert bench.want(5) is first
    assert bench.asked(peer) == [5, 5]
    bench.want(5)
    assert bench.asked(peer) == [5, 5]


def test_data_that_was_not_asked_for_is_not_expected():
    bench = Bench(Local(10))
    peer, other = bench.join((0, 10)), bench.join()
    bench.want(3)
    assert not bench.scheduler.expects(peer, Data(BlockIndex(4), b"x"))
    assert not bench.scheduler.expects(peer, Data(BlockIndex(3)))
    assert not bench.scheduler.expects(other, Data(BlockIndex(3), b"x"))


def test_a_block_announced_later_is_asked_when_it_is_announced():
    bench = Bench(Local(10))
    peer = bench.join()
    bench.want(7)
    bench.want(0, 10, urgent=False)
    bench.run(bench.scheduler.has(peer, 7, 9, bench.now))
    bench.run(bench.scheduler.has(peer, 2, 3, bench.now))
    assert bench.asked(peer) == [7, 8, 2]


def test_regions_of_far_blocks_are_asked_once():
    bench = Bench(Local(5 * REGION_BLOCKS))
    peer = bench.join()
    bench.want(3 * REGION_BLOCKS + 5)
    bench.want(3 * REGION_BLOCKS + 6)
    wants = [send.message for send in bench.sent if isinstance(send.message, Want)]
    assert wants == [Want(BlockIndex(0), REGION_BLOCKS), Want(BlockIndex(3 * REGION_BLOCKS), REGION_BLOCKS)]
    assert not peer.first_want_answered
    bench.run(bench.scheduler.has_bits(peer, 0, REGION_BLOCKS, b"", bench.now))
    assert peer.first_want_answered


def test_a_claim_of_endless_blocks_leads_to_a_bounded_number_of_questions():
    bench = Bench(Local(10))
    bench.want(0, 1 << 50, urgent=False)
    peer = bench.join()
    bench.run(bench.scheduler.has_bits(peer, 0, REGION_BLOCKS, b"\x80", bench.now))
    bench.run(bench.scheduler.has(peer, 1 << 45, 1 << 50, bench.now))
    assert len([send for send in bench.sent if isinstance(send.message, Want)]) <= 17


@pytest.mark.parametrize("urgent", [False, True])
def test_a_held_block_is_not_asked(urgent):
    bench = Bench(Local(10, held={3, 4}))
    peer = bench.join((0, 10))
    bench.want(3, urgent=urgent)
    bench.want(2, 6, urgent=urgent)
    assert bench.asked(peer) == [2, 5]


# -- lengths and places ------------------------------------------------------------------------------------------------


def test_a_wished_length_is_asked_of_the_peer_that_announced_most():
    bench = Bench(Local(3))
    bench.join((0, 5))
    longest = bench.join((0, 9))
    bench.sent.clear()
    bench.run(bench.scheduler.want_length(4, bench.now)[1])
    assert bench.sent == [Send(longest.id, Request(BlockIndex(3), hash=True))]  # ties what is longer to what is here


def test_a_length_is_proven_by_its_last_block_where_nothing_has_to_be_tied():
    bench = Bench(Local(0))
    peer = bench.join((0, 9))
    bench.sent.clear()
    bench.run(bench.scheduler.want_length(4, bench.now)[1])
    assert bench.sent == [Send(peer.id, Request(BlockIndex(8), hash=True))]


def test_what_cannot_be_tied_by_anybody_is_asked_for_all_the_same():
    bench = Bench(Local(3))
    peer = bench.join((5, 9))
    bench.sent.clear()
    bench.run(bench.scheduler.want_length(4, bench.now)[1])
    assert bench.sent == [Send(peer.id, Request(BlockIndex(8), hash=True))]
    assert not bench.scheduler.can_tie


def test_a_peer_that_does_not_tie_though_it_could_is_passed_over():
    bench = Bench(Local(3), request_timeout_s=5)
    silent, other = bench.join((0, 9)), bench.join((5, 9))
    bench.sent.clear()
    bench.run(bench.scheduler.want_length(4, bench.now)[1])
    assert bench.sent == [Send(silent.id, Request(BlockIndex(3), hash=True))]
    assert bench.scheduler.can_tie
    bench.tick(6)
    assert not bench.scheduler.can_tie
    assert (bench.asked(silent), bench.asked(other)) == ([3], [8])


def test_another_peer_ties_when_the_first_one_stays_silent():
    bench = Bench(Local(3), request_timeout_s=5, eager_length=True)
    silent, other = bench.join((0, 9)), bench.join((0, 9))
    asked = bench.asked(silent) + bench.asked(other)
    assert asked.count(3) == 1
    bench.run(bench.scheduler.untied(silent, 8, bench.now))
    bench.tick(6)
    assert (bench.asked(silent).count(3), bench.asked(other).count(3)) == (1, 1)


def test_nothing_beyond_is_asked_for_while_an_untied_tree_waits_to_be_tied():
    local = Local(3)
    bench = Bench(local)
    first, second = bench.join((0, 4)), bench.join((5, 9))
    bench.sent.clear()
    bench.run(bench.scheduler.want_blocks(3, 9, bench.now, urgent=True)[1])
    assert bench.asked(first) == [3]
    asked = bench.asked(second)
    bench.sent.clear()
    bench.run(bench.scheduler.untied(second, asked[0], bench.now))
    assert not [send for send in bench.sent if isinstance(send.message, Request)]
    local.length = 4
    bench.tick(0.1)
    assert [send.message for send in bench.sent if isinstance(send.message, Request)]


def test_a_length_that_stays_unproven_is_asked_of_the_next_peer():
    bench = Bench(Local(3), request_timeout_s=5)
    honest = bench.join((0, 5))
    bench.join((0, 1 << 50))
    bench.run(bench.scheduler.want_length(4, bench.now)[1])
    assert bench.asked(honest) == []
    bench.tick(6)
    assert bench.asked(honest) == [3]


def test_an_eager_feed_fetches_the_last_block_as_soon_as_it_is_announced():
    bench = Bench(Local(3), eager_length=True)
    peer = bench.join((0, 3))
    assert bench.asked(peer) == []
    bench.run(bench.scheduler.has(peer, 3, 5, bench.now))
    bench.run(bench.scheduler.has(peer, 4, 5, bench.now))
    asked = [send.message for send in bench.sent if isinstance(send.message, Request)]
    assert asked == [Request(BlockIndex(3), hash=True), Request(BlockIndex(4))]


def test_a_seek_is_sent_once_then_narrowed_down():
    local = Local(1000)
    local.edges = {0: 0, 1000: 10_000}
    bench = Bench(local, request_timeout_s=5)
    peer = bench.join((0, 1000))
    bench.sent.clear()
    bench.run(bench.scheduler.want_offset(5005, 0, 1000, bench.now)[1])
    assert bench.sent[0].message == Request(BlockIndex(500), bytes=5005)
    bench.tick(6)
    second = bench.sent[1].message
    assert (second.bytes, second.hash) == (0, True)
    local.edges |= {512: 5120, 256: 2560, 500: 5000, 501: 5010}
    assert bench.scheduler.expects(peer, Data(BlockIndex(second.index)))
    bench.run(bench.scheduler.proven(peer, second.index, bench.now))
    assert len(bench.sent) == 2


def test_the_answer_to_a_seek_may_be_about_another_block():
    local = Local(1000)
    local.edges = {0: 0, 1000: 10_000}
    bench = Bench(local)
    peer = bench.join((0, 1000))
    bench.run(bench.scheduler.want_offset(5005, 0, 1000, bench.now)[1])
    assert bench.scheduler.expects(peer, Data(BlockIndex(77)))
    local.edges |= {500: 5000, 501: 5010}
    bench.run(bench.scheduler.proven(peer, 77, bench.now))
    assert peer.probes == []


def test_a_seek_is_answered_with_the_block_it_finds():
    local = Local(1000)
    local.edges = {0: 0, 1000: 10_000}
    bench = Bench(local)
    peer = bench.join((0, 1000))
    bench.run(bench.scheduler.want_offset(5005, 0, 1000, bench.now)[1])
    assert bench.scheduler.expects(peer, Data(BlockIndex(77), b"x"))
    local.edges |= {500: 5000, 501: 5010}
    local.held.add(77)
    bench.run(bench.scheduler.answered(peer, {BlockIndex(77): 10}, bench.now))
    assert peer.probes == []
    assert not bench.scheduler.expects(peer, Data(BlockIndex(78), b"x"))


def test_a_block_that_arrives_while_a_seek_is_under_way_does_not_end_it():
    local = Local(1000)
    local.edges = {0: 0, 1000: 10_000}
    bench = Bench(local)
    peer = bench.join((0, 1000))
    bench.want(3)
    bench.run(bench.scheduler.want_offset(5005, 0, 1000, bench.now)[1])
    bench.answer(peer, 3)
    assert len(peer.probes) == 1


def test_nothing_is_asked_for_a_while_when_nothing_can_be_stored():
    bench = Bench(Local(10))
    peer = bench.join((0, 10))
    bench.want(3)
    bench.scheduler.failed(peer, 3, bench.now)
    bench.tick(1)
    bench.join((0, 10))
    assert bench.asked(peer) == [3]
    bench.tick(5)
    assert bench.sent[-1].message == Request(BlockIndex(3))
    assert bench.dropped == []
