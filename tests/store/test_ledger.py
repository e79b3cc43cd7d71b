"""What is dropped first: the least recently used, content before entries; compared with a naive model."""

from hypothesis import given
from hypothesis import strategies as some

from ddrive.feed.passing import Passing
from ddrive.ids import DiscoveryKey
from ddrive.store.ledger import Ledger, Segment, Tier

ONE, TWO = DiscoveryKey(b"1" * 32), DiscoveryKey(b"2" * 32)
STEPS = some.lists(
    some.tuples(some.sampled_from(["stored", "dropped", "used"]), some.sampled_from([ONE, TWO]), some.integers(0, 5)),
    max_size=60,
)


def drained(ledger: Ledger) -> list[Segment]:
    """Drop everything; return in which order it went."""
    order = []
    while (segment := ledger.oldest()) is not None:
        order.append(segment)
        ledger.recount(segment, 0)
    assert ledger.bytes == 0
    return order


@given(STEPS)
def test_it_goes_in_the_order_of_use(steps: list[tuple[str, DiscoveryKey, int]]) -> None:
    ledger = Ledger()
    ledger.add_feed(ONE, Tier.CONTENT)
    ledger.add_feed(TWO, Tier.ENTRIES)
    model: dict[Segment, int] = {}
    for now, (kind, feed, number) in enumerate(steps, 1):
        segment = Segment(feed, number)
        if kind == "stored":
            ledger.changed(segment, 10, now)
            model[segment] = model.pop(segment, 0) + 10
        elif kind == "used":
            ledger.used(segment, now)
            if segment in model:
                model[segment] = model.pop(segment)
        elif segment in model:
            ledger.changed(segment, -10, now)
            model[segment] -= 10
            if not model[segment]:
                del model[segment]
        assert ledger.bytes == sum(model.values())
    assert drained(ledger) == sorted(model, key=lambda segment: segment.feed)


def test_uses_outlive_a_restart() -> None:
    before = Ledger()
    before.add_feed(ONE, Tier.CONTENT)
    for number, now in ((3, 10), (1, 20), (2, 30)):
        before.changed(Segment(ONE, number), 100, now)
    after = Ledger()
    for feed, uses in before.uses().items():
        after.remember(feed, uses)
    after.add_feed(ONE, Tier.CONTENT)
    for number in range(5):  # 0 and 4 were never seen in use
        after.recount(Segment(ONE, number), 100)
    after.counted_all()
    assert [segment.number for segment in drained(after)][2:] == [3, 1, 2]


def test_a_feed_changes_its_tier_and_goes() -> None:
    ledger = Ledger()
    for feed in (ONE, TWO):
        ledger.add_feed(feed, Tier.CONTENT)
        ledger.changed(Segment(feed, 0), 5, 1.0)
    ledger.add_feed(ONE, Tier.ENTRIES)
    assert ledger.oldest() == Segment(TWO, 0)
    ledger.postpone(Segment(TWO, 0))
    ledger.forget_feed(TWO)
    assert (ledger.bytes, ledger.oldest()) == (5, Segment(ONE, 0))


def test_blocks_without_room_are_here_for_a_while() -> None:
    passing = Passing(max_bytes=10)
    for index in range(4):
        passing.add(index, b"1234")
    assert [index in passing for index in range(4)] == [False, False, True, True]
    passing.add(9, bytes(20))  # larger than all the room: still here
    assert (passing.get(9), 3 in passing) == (bytes(20), False)
    passing.drop(9)
    assert passing.take_all() == {}
