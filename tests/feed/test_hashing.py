"""Hashes and signed texts agree with the recorded ones, in both dialects."""

import pytest

from ddrive.feed import hashing
from ddrive.ids import Node, NodeIndex, PublicKey
from tests.feed.samples import main_blocks
from tests.support.vectors import vector

DIALECTS = ["dweb", "hypercore"]


def node(row):
    return Node(NodeIndex(row["index"]), bytes.fromhex(row["hash"]), row["size"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_leaf_parent_and_tree_hashes_match_the_vectors(dialect):
    recorded = vector("crypto.json")[dialect]
    for row in recorded["leaves"]:
        assert hashing.leaf_hash(bytes.fromhex(row["data"])).hex() == row["hash"]
        assert hashing.leaf_hash(memoryview(bytes.fromhex(row["data"]))).hex() == row["hash"]
    left, right = node(recorded["parent"]["left"]), node(recorded["parent"]["right"])
    above = hashing.parent_node(right, left)
    assert above == Node(NodeIndex(1), bytes.fromhex(recorded["parent"]["hash"]), left.size + right.size)
    for row in recorded["tree"]:
        roots = [node(root) for root in row["roots"]]
        assert hashing.roots_hash(roots).hex() == row["hash"]
        if "signable" in row:
            assert hashing.signable(roots, 3).hex() == row["signable"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_signatures_of_both_ages_are_accepted_and_others_are_not(dialect):
    recorded = vector("merkle.json")["dialects"][dialect]
    key = PublicKey(bytes.fromhex(recorded["publicKey"]))
    nodes = {row[0]: Node(NodeIndex(row[0]), bytes.fromhex(row[2]), row[1]) for row in recorded["nodes"]}
    for row in recorded["lengths"][1:]:
        roots = [nodes[number] for number in row["roots"]]
        signature = bytes.fromhex(row["signature"])
        assert sum(root.size for root in roots) == row["byteLength"]
        assert hashing.roots_hash(roots).hex() == row["treeHash"]
        assert hashing.signed_by(key, roots, row["length"], signature)
        assert not hashing.signed_by(key, roots, row["length"] + 1, signature)
    legacy = recorded["legacySignature"]
    roots = [nodes[number] for number in recorded["lengths"][legacy["length"]]["roots"]]
    assert hashing.signed_by(key, roots, legacy["length"], bytes.fromhex(legacy["signature"]))
    assert not hashing.signed_by(key, roots[:-1], legacy["length"], bytes.fromhex(legacy["signature"]))


def test_leaves_of_the_main_feed_match_the_vectors():
    hashes = {row[0]: row[2] for row in vector("merkle.json")["dialects"]["dweb"]["nodes"]}
    for index, block in enumerate(main_blocks()):
        assert hashing.leaf_hash(block).hex() == hashes[2 * index]
