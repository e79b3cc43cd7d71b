"""Flat tree numbers agree with the recorded ones."""

import pytest

from ddrive.feed import flat
from tests.support.vectors import vector

VECTOR = vector("flat-tree.json")


@pytest.mark.parametrize("row", VECTOR["nodes"], ids=lambda row: str(row["index"]))
def test_node_arithmetic_matches_the_vectors(row):
    node = row["index"]
    children = flat.children(node)
    assert flat.depth(node) == row["depth"]
    assert flat.offset(node) == row["offset"]
    assert flat.parent(node) == row["parent"]
    assert flat.sibling(node) == row["sibling"]
    assert (None if children is None else list(children)) == row["children"]
    assert flat.left_span(node) == row["leftSpan"]
    assert flat.right_span(node) == row["rightSpan"]
    assert flat.count(node) == row["count"]
    assert flat.index(row["depth"], row["offset"]) == node


@pytest.mark.parametrize("row", VECTOR["roots"], ids=lambda row: str(row["length"]))
def test_full_roots_match_the_vectors(row):
    assert flat.full_roots(row["length"]) == row["fullRoots"]


def test_spans_of_roots_cover_each_block_once():
    for length in range(200):
        spans = [flat.span(root) for root in flat.full_roots(length)]
        assert [block for start, end in spans for block in range(start, end)] == list(range(length))


def test_the_last_root_ends_the_roots():
    assert all(flat.last_root(length) == flat.full_roots(length)[-1] for length in range(1, 2000))
