"""Rates and places that links share."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ddrive.protocol.sharing import BURST_S, TURN_S, Bucket, Slots


@given(st.integers(4096, 10**8), st.lists(st.tuples(st.floats(0, 2), st.integers(1, 200_000)), max_size=50))
def test_no_more_passes_than_the_rate_allows(rate: int, steps: list[tuple[float, int]]) -> None:
    bucket, now, passed = Bucket(rate), 100.0, 0
    for pause_s, count in steps:
        now = max(now + pause_s, bucket.reserve(count, now + pause_s))
        assert passed <= (now - 100.0 + BURST_S) * rate + 1  # what went before this piece
        passed += count


def test_unlimited_burst_is_not_saved_up() -> None:
    bucket = Bucket(1000)
    assert bucket.reserve(500, 1000.0) < 1000.0
    assert bucket.reserve(500, 1000.0) > 1000.0


def test_links_take_turns() -> None:
    bucket = Bucket(1000)
    turns = [bucket.reserve(100, 10.0) for _ in range(4)]
    assert [round(later - earlier, 3) for earlier, later in pairwise(turns)] == [0.1, 0.1, 0.1]


def test_places_go_to_those_that_wait_longest() -> None:
    slots, told = Slots(1), []
    assert slots.take("a", 0.0, lambda: told.append("a"))
    assert not slots.take("b", 0.0, lambda: told.append("b"))
    assert not slots.take("c", 0.0, lambda: told.append("c"))
    slots.pause("a", 1.0)
    assert told == ["b"]
    slots.leave("b", 1.0)
    assert told == ["b", "c"]


def test_a_place_is_kept_while_it_is_used_and_lost_after_a_turn_when_somebody_waits() -> None:
    slots, told = Slots(1), []
    assert slots.take("a", 0.0, lambda: told.append("a"))
    assert slots.take("a", 2 * TURN_S, lambda: told.append("a"))
    assert slots.take("b", 2 * TURN_S, lambda: told.append("b"))
    assert not slots.take("a", 2 * TURN_S, lambda: told.append("a"))
    assert slots.take("b", 2.5 * TURN_S, lambda: told.append("b"))
    assert not slots.take("b", 3 * TURN_S, lambda: told.append("b"))
    assert told == ["a"]
    slots.pause("a", 3 * TURN_S)
    assert told == ["a", "b"]


def test_who_holds_a_place_and_does_nothing_keeps_nobody_out_for_long() -> None:
    slots, told = Slots(2), []
    assert slots.take("a", 0.0, lambda: told.append("a"))
    assert slots.take("b", 0.0, lambda: told.append("b"))
    assert not slots.take("c", 1.0, lambda: told.append("c"))
    assert not slots.take("d", 1.0, lambda: told.append("d"))
    assert slots.take("d", TURN_S, lambda: told.append("d"))
    assert told == ["c"]


def test_who_leaves_is_not_told() -> None:
    slots, told = Slots(1), []
    slots.take("a", 0.0, lambda: told.append("a"))
    slots.take("b", 0.0, lambda: told.append("b"))
    slots.leave("b", 0.0)
    slots.leave("a", 0.0)
    assert told == []
