"""Bits of held blocks and known nodes: recorded pages, and a naive model."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.feed import flat, merkle
from ddrive.feed.bitfield import BLOCKS_PER_PAGE, PAGE_BYTES, Bitfield
from tests.support.vectors import vector

CASES = vector("bitfield.json")["cases"]
TOP = 3 * BLOCKS_PER_PAGE
numbers = st.one_of(st.integers(0, 70), st.integers(BLOCKS_PER_PAGE - 9, BLOCKS_PER_PAGE + 9), st.integers(0, TOP))


def recorded_page(segments, size):
    page = bytearray(size)
    for offset, text in segments:
        value, _, count = text.partition("*")
        piece = bytes.fromhex(value) * int(count or 1)
        page[offset : offset + len(piece)] = piece
    return bytes(page)


def replay(case, *, whole):
    bits = Bitfield(case["pageSize"])
    for kind, start, end in case["ops"]:
        if kind != "tree":
            bits.set_blocks(start, end, kind == "set")
        elif whole and start == 0:
            bits.add_complete(0, end)
        else:
            for block in range(start, end):
                bits.add_node(2 * block)
    return bits


@pytest.mark.parametrize("whole", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["label"])
def test_pages_match_the_vectors(case, whole):
    bits = replay(case, whole=whole)
    pages = dict(bits.take_dirty())
    for number, segments in enumerate(case["pages"]):
        assert pages.pop(number, bytes(case["pageSize"])) == recorded_page(segments, case["pageSize"])
    assert not pages
    assert bits.length() == case["length"]
    for start, end, total in case["totals"]:
        if end:  # in the recorded call an end of 0 stands for "all"
            assert bits.held(start, end) == total


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["label"])
def test_loaded_pages_are_the_written_ones(case):
    bits = replay(case, whole=True)
    pages = bits.take_dirty()
    cut = [(number, page.rstrip(b"\x00")) for number, page in pages]
    loaded = Bitfield.load(cut, case["pageSize"])
    assert not loaded.dirty
    assert loaded.length() == case["length"]
    assert loaded.runs(0, 30000) == bits.runs(0, 30000)
    assert loaded.all_pages() == pages


@given(st.lists(st.tuples(numbers, st.integers(0, 9000), st.booleans()), max_size=8), numbers, numbers)
@settings(max_examples=40, deadline=None)
def test_blocks_behave_like_a_set(changes, low, high):
    bits, model = Bitfield(), set[int]()
    for start, count, held in changes:
        block_range = range(start, start + count)
        expected = model | set(block_range) if held else model - set(block_range)
        assert bits.set_blocks(start, start + count, held) == (expected != model)
        model = expected
    assert bits.held(low, high) == len([block for block in range(low, high) if block in model])
    inside = sorted(block for block in model if low <= block < high)
    assert [block for start, end in bits.runs(low, high) for block in range(start, end)] == inside
    assert all(one[1] < other[0] for one, other in zip(bits.runs(low, high), bits.runs(low, high)[1:], strict=False))
    assert bits.held_before(low) == max((block for block in model if block < low), default=None)
    assert bits.held_from(low) == min((block for block in model if block >= low), default=None)
    packed = bits.block_bytes(low, 100)
    text = "".join(f"{byte:08b}" for byte in packed).ljust(104, "0")
    assert [text[place] == "1" for place in range(100)] == [low + place in model for place in range(100)]


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_nodes_behave_like_a_set_with_parents(nodes, keep):
    bits, model = Bitfield(), set[int]()
    for node in nodes:
        bits.add_node(node)
        model.add(node)
        while flat.sibling(node) in model and flat.parent(node) not in model:
            node = flat.parent(node)
            model.add(node)
    assert {node for node in range(200) if bits.known(node)} == model
    bits.forget_after(keep)
    assert {node for node in range(200) if bits.known(node)} == {n for n in model if flat.right_span(n) < 2 * keep}


@given(st.integers(0, 20000), st.integers(0, 20000))
@settings(max_examples=20, deadline=None)
def test_complete_trees_are_marked_at_once(old, more):
    bits = Bitfield()
    bits.add_complete(0, old)
    bits.add_complete(old, old + more)
    assert bits.length() == old + more
    for node in [*range(64), *range(2 * old - 64, 2 * old + 64), 8191, 16383, 32767]:
        if node >= 0:
            assert bits.known(node) == (flat.right_span(node) < 2 * (old + more))


def test_an_absurd_length_costs_no_memory():
    bits = Bitfield()
    bits.add_node((1 << 36) - 1)
    bits.add_block(1 << 35)
    assert bits.held(0, 1 << 36) == 1
    assert bits.runs(0, 1 << 36) == [(1 << 35, (1 << 35) + 1)]
    assert len(bits.take_dirty()) < 64
    assert len(bits.block_bytes((1 << 35) - 8, 64)) == 8


def test_only_changed_pages_are_written():
    bits = Bitfield()
    bits.set_blocks(0, 3 * BLOCKS_PER_PAGE, True)
    assert [number for number, _ in bits.take_dirty()] == [0, 1, 2]
    assert bits.take_dirty() == []
    bits.set_blocks(5, 6, True)
    assert not bits.dirty
    bits.set_blocks(BLOCKS_PER_PAGE, BLOCKS_PER_PAGE + 1, False)
    pages = bits.take_dirty()
    assert 1 in dict(pages)
    assert all(len(page) == PAGE_BYTES for _, page in pages)
    bits.mark_dirty([2])
    assert [number for number, _ in bits.take_dirty()] == [2]


def test_digests_agree_with_the_walk_that_knows_nothing_of_pages():
    chance = random.Random(3)
    for _ in range(300):
        bits, blocks = Bitfield(), chance.choice([8, 64, 1000, 20_000, 70_000])
        for _ in range(chance.randrange(30)):
            if chance.random() < 0.5:
                bits.add_node(chance.randrange(2 * blocks))
            else:
                start = chance.randrange(blocks)
                bits.add_complete(start // 2, start)
        for block in chance.sample(range(blocks), 8):
            assert bits.digest(block) == merkle.digest(bits.known, block, bits.covers)
