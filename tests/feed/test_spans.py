"""Spans against a plain set of bytes."""

import random

import pytest

from ddrive.feed import spans
from ddrive.feed.spans import Spans


@pytest.mark.parametrize("seed", range(40))
def test_spans_cover_what_a_set_holds(seed):
    rng = random.Random(seed)
    found, held = Spans(), set()
    for _ in range(60):
        start = rng.randrange(200)
        end = start + rng.randrange(1, 20)
        found.add(start, end)
        held.update(range(start, end))
        for _ in range(20):
            low = rng.randrange(210)
            high = low + rng.randrange(1, 40)
            assert found.cover(low, high) == (held >= set(range(low, high)))


def test_neighbours_are_one_span_in_whatever_order_they_come():
    found = Spans()
    for start in (20, 0, 10):
        found.add(start, start + 10)
    assert found.cover(0, 30)
    assert len(found._starts) == 1


def test_too_many_spans_are_forgotten_and_the_newest_one_stays(monkeypatch):
    monkeypatch.setattr(spans, "MAX_SPANS", 3)
    found = Spans()
    for start in (0, 10, 20):
        found.add(start, start + 5)
    found.add(5, 10)  # joins two of them
    assert found.cover(0, 15)
    found.add(40, 45)
    assert found.cover(20, 25)
    found.add(60, 65)
    assert found.cover(60, 65)
    assert not any(found.cover(start, start + 1) for start in (0, 20, 40))


def test_nothing_is_covered_after_clear():
    found = Spans()
    found.add(0, 10)
    found.clear()
    assert not found.cover(0, 1)
    found.add(3, 4)
    assert found.cover(3, 4)
