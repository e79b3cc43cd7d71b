"""`BlockSet` against a plain set of numbers, and its bounds."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.replication import blocks
from ddrive.replication.blocks import BlockSet

SPAN = 96
numbers = st.integers(0, SPAN)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), numbers, numbers),
        st.tuples(st.just("remove"), numbers, numbers),
        st.tuples(st.just("bits"), numbers, st.binary(max_size=4)),
    ),
    max_size=30,
)


def bits_of(packed: bytes) -> list[int]:
    return [i for i in range(8 * len(packed)) if packed[i // 8] & (0x80 >> i % 8)]


@pytest.mark.parametrize("limits", [(8, 100, 100), (1 << 20, 2, 64), (1 << 20, 4096, 64)])
@given(steps=steps)
@settings(max_examples=60, deadline=None)
def test_it_behaves_like_a_set_of_numbers(limits, steps):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("REGION_BLOCKS", "MAX_RUNS", "MAX_MAPS"), limits, strict=True):
            patch.setattr(blocks, name, value)
        tested, model = BlockSet(), set()
        for kind, start, argument in steps:
            if kind == "add":
                tested.add(start, argument)
                model |= set(range(start, argument))
            elif kind == "remove":
                tested.remove(start, argument)
                model -= set(range(start, argument))
            else:
                tested.add_bits(start, argument)
                model |= {start + bit for bit in bits_of(argument)}
            assert tested.length == max(model, default=-1) + 1
        for index in range(SPAN + 40):
            assert tested.has(index) == (index in model)
            assert tested.next(index, SPAN + 40) == min((i for i in model if i >= index), default=None)
            assert tested.next(index, index + 5) == min((i for i in model if index <= i < index + 5), default=None)
            if tested.covers(index, index + 3):
                assert model >= set(range(index, index + 3))


def test_a_claim_of_a_quadrillion_blocks_costs_nothing():
    claimed = BlockSet()
    claimed.add(0, 1 << 50)
    claimed.remove(5, 6)
    assert claimed.length == 1 << 50
    assert claimed.next(5, 1 << 50) == 6
    assert claimed.has((1 << 50) - 1)
    assert sys.getsizeof(claimed._starts) + sys.getsizeof(claimed._ends) < 500


def test_scattered_claims_stay_bounded():
    claimed = BlockSet()
    for number in range(20_000):
        claimed.add(number * 3, number * 3 + 1)
    for number in range(10_000):
        claimed.add(number << 22, (number << 22) + 1)
    assert len(claimed._starts) <= blocks.MAX_RUNS
    assert len(claimed._maps) <= blocks.MAX_MAPS
    assert claimed.has(3 * 19_999)
