"""Growing, proving and checking: recorded proofs, random downloads, and proofs that lie."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.errors import InvalidProof
from ddrive.feed import flat, merkle
from ddrive.feed.merkle import MAX_BYTES, MAX_LENGTH, MAX_PROOF_NODES, Checked, Proof, RemoteTree
from ddrive.ids import Node, NodeIndex, PublicKey
from tests.feed.samples import main_blocks
from tests.support.vectors import vector

RECORDED = vector("merkle.json")["dialects"]["dweb"]
PROOFS = vector("proofs.json")
KEY = PublicKey(bytes.fromhex(RECORDED["publicKey"]))
BLOCKS = main_blocks()
NODES = {row[0]: Node(NodeIndex(row[0]), bytes.fromhex(row[2]), row[1]) for row in RECORDED["nodes"]}
SIGNATURES = {row["length"]: bytes.fromhex(row["signature"]) for row in RECORDED["lengths"][1:]}


class Tree:
    """The nodes that somebody holds, as a naive model."""

    def __init__(self, nodes=()):
        self.nodes = {node.number: node for node in nodes}
        self.length = 0

    @classmethod
    def full(cls, length):
        return cls(node for number, node in NODES.items() if flat.right_span(number) < 2 * length)

    def known(self, number):
        return number in self.nodes

    def covers(self, number):
        return flat.left_span(number) == 0 and flat.right_span(number) >= max(self.nodes, default=0)

    def digest(self, index):
        return merkle.digest(self.known, index, self.covers)

    def take(self, checked: Checked):
        self.length = max(self.length, checked.length)
        for node in checked.nodes:
            assert node == NODES[node.number]
            self.nodes[node.number] = node

    def check(self, index, value, proof):
        return merkle.check(index, value, proof, self.nodes.get, KEY)


def answer(tree, index, digest, *, hash_only=False, remote=None):
    plan = merkle.plan(tree.known, index, digest, hash_only=hash_only, remote=remote or RemoteTree())
    assert plan is not None
    signature = SIGNATURES[plan.signed_length] if plan.signed_length else None
    return plan, Proof(tuple(NODES[number] for number in plan.nodes), signature)


@pytest.mark.parametrize("batch", [1, 3, 7, 41])
def test_grown_tree_matches_the_vectors(batch):
    roots, stored = [], {}
    for start in range(0, len(BLOCKS), batch):
        blocks = BLOCKS[start : start + batch]
        grown = merkle.grow(roots, start, blocks)
        roots = grown.roots
        assert roots == [NODES[number] for number in flat.full_roots(start + len(blocks))]
        assert grown.size == sum(map(len, blocks))
        for place in range(0, len(grown.tail), 40):
            packed = bytes(grown.tail[place : place + 40])
            stored[2 * start + place // 40] = (packed[:32], int.from_bytes(packed[32:], "big"))
        for node in grown.parents:
            assert stored.get(node.number) in (None, (bytes(32), 0))
            stored[node.number] = (node.hash, node.size)
    for number, node in NODES.items():
        assert stored[number] == (node.hash, node.size)


def test_growing_by_nothing_changes_nothing():
    roots = [NODES[3], NODES[8]]
    assert merkle.grow(roots, 5, []) == (roots, bytearray(), [], 0, 0)


@pytest.mark.parametrize("case", PROOFS["cases"], ids=lambda case: f"{case['length']}-{len(case['have'])}")
def test_digests_proofs_and_resulting_trees_match_the_vectors(case):
    writer, reader = Tree.full(case["length"]), Tree()
    for step in case["have"]:
        index = step["index"]
        plan, proof = answer(writer, index, reader.digest(index), hash_only=step["hash"])
        assert plan.nodes == step["nodes"]
        assert bool(plan.signed_length) == step["signature"]
        reader.take(reader.check(index, None if step["hash"] else BLOCKS[index], proof))
    assert sorted(reader.nodes) == case["tree"]
    assert reader.length == case["readerLength"]
    for query in case["queries"]:
        index = query["index"]
        assert reader.digest(index) == query["digest"]
        plan, proof = answer(writer, index, query["digest"], hash_only=query["hash"])
        assert plan.nodes == query["nodes"]
        assert plan.signed_length == query["signatureOfLength"] == query["verifiedBy"] // 2
        reader.check(index, None if query["hash"] else BLOCKS[index], proof)


@pytest.mark.parametrize("case", PROOFS["persistent"], ids=lambda case: str(case["length"]))
def test_a_remembered_remote_tree_matches_the_vectors(case):
    writer, reader, remote = Tree.full(case["length"]), Tree(), RemoteTree()
    for request in case["requests"]:
        index = request["index"]
        assert reader.digest(index) == request["digest"]
        plan, proof = answer(writer, index, request["digest"], remote=remote)
        assert plan.nodes == request["nodes"]
        assert bool(plan.signed_length) == request["signature"]
        assert remote.nodes() == request["remoteTreeAfter"]
        reader.take(reader.check(index, BLOCKS[index], proof))


@pytest.mark.parametrize("case", PROOFS["sparseSender"], ids=lambda case: case["label"])
def test_a_sparse_sender_answers_as_in_the_vectors(case):
    sender = Tree(NODES[number] for number in case["tree"])
    for expected in case["answers"]:
        plan = merkle.plan(sender.known, expected["index"], 0, hash_only=False, remote=RemoteTree())
        if expected["nodes"] is None:
            assert plan is None
        else:
            assert plan == (expected["nodes"], expected["verifiedBy"] // 2)


@given(st.integers(1, 41), st.integers(0, 41), st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_order_of_downloads_verifies(length, grows_after, steps):
    reader, first = Tree(), max(1, length // 2)
    for position, (index, hash_only) in enumerate(steps):
        size = length if position >= grows_after else first
        index %= size
        _, proof = answer(Tree.full(size), index, reader.digest(index), hash_only=hash_only)
        reader.take(reader.check(index, None if hash_only else BLOCKS[index], proof))
        assert reader.digest(index) == 1
        assert merkle.coverage(reader.known, 2 * index) <= 2 * reader.length


@given(st.integers(0, 1 << 70), st.integers(0, 40), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_digest_of_a_peer_is_answered(digest, index, hash_only):
    writer, remote = Tree.full(41), RemoteTree()
    plan = merkle.plan(writer.known, index, digest, hash_only=hash_only, remote=remote)
    assert plan is not None
    assert set(remote.nodes()) <= set(NODES)
    assert len(plan.nodes) <= MAX_PROOF_NODES


def full_proof(index=5, length=11):
    return answer(Tree.full(length), index, 0)[1]


def with_node(proof, position, **changes):
    nodes = list(proof.nodes)
    nodes[position] = nodes[position]._replace(**changes)
    return Proof(tuple(nodes), proof.signature)


@pytest.mark.parametrize(
    ("index", "value", "proof"),
    [
        (5, BLOCKS[5] + b"x", full_proof()),
        (4, BLOCKS[5], full_proof()),
        (5, BLOCKS[5], Proof(full_proof().nodes, None)),
        (5, BLOCKS[5], Proof(full_proof().nodes, bytes(64))),
        (5, BLOCKS[5], Proof(full_proof().nodes, b"short")),
        (5, BLOCKS[5], Proof(full_proof().nodes[:-1], full_proof().signature)),
        (5, BLOCKS[5], Proof(full_proof().nodes[1:], full_proof().signature)),
        (5, BLOCKS[5], Proof(full_proof().nodes[::-1], full_proof().signature)),
        (5, BLOCKS[5], Proof(full_proof().nodes, SIGNATURES[10])),
        (5, BLOCKS[5], Proof((), SIGNATURES[11])),
        (5, BLOCKS[5], Proof(full_proof().nodes * 40, full_proof().signature)),
        (5, BLOCKS[5], with_node(full_proof(), 0, size=1)),
        (5, BLOCKS[5], with_node(full_proof(), 0, size=-1)),
        (5, BLOCKS[5], with_node(full_proof(), 0, size=MAX_BYTES)),
        (5, BLOCKS[5], with_node(full_proof(), 0, hash=b"short")),
        (5, BLOCKS[5], with_node(full_proof(), 0, hash=bytes(33))),
        (5, BLOCKS[5], with_node(full_proof(), 0, number=NodeIndex(-8))),
        (5, BLOCKS[5], with_node(full_proof(), -1, number=NodeIndex(1 << 60))),
        (5, BLOCKS[5], with_node(full_proof(), -1, number=NodeIndex(2 * MAX_LENGTH - 1))),
        (-1, BLOCKS[5], full_proof()),
        (MAX_LENGTH, BLOCKS[5], full_proof()),
        (5, None, full_proof()),
        (5, None, Proof((), full_proof().signature)),
        (5, bytes(8 * 1024 * 1024 + 1), full_proof()),
    ],
)
def test_a_proof_that_lies_is_refused(index, value, proof):
    with pytest.raises(InvalidProof):
        Tree().check(index, value, proof)


def test_a_held_node_ends_a_proof_without_signature():
    reader = Tree()
    reader.take(reader.check(5, BLOCKS[5], full_proof()))
    checked = reader.check(4, BLOCKS[4], Proof((), None))
    assert checked == ([], [], False, 0, [], None, (), False)


def test_a_size_shifted_between_sibling_leaves_is_corrected_by_the_block():
    reader = Tree()
    _, proof = answer(Tree.full(11), 4, 0, hash_only=True)
    lie = with_node(with_node(proof, 0, size=NODES[8].size + 1), 1, size=NODES[10].size - 1)
    for node in reader.check(4, None, lie).nodes:  # nothing in the hashes tells
        reader.nodes[node.number] = node
    assert reader.nodes[8] != NODES[8]
    checked = reader.check(5, BLOCKS[5], Proof())
    assert checked.resized
    reader.take(checked)
    assert (reader.nodes[8], reader.nodes[10]) == (NODES[8], NODES[10])


def test_a_shifted_size_never_replaces_a_stored_one():
    reader = Tree()
    reader.take(reader.check(5, BLOCKS[5], full_proof()))
    _, proof = answer(Tree.full(11), 4, 0, hash_only=True)
    lie = with_node(with_node(proof, 0, size=NODES[8].size + 1), 1, size=NODES[10].size - 1)
    assert reader.check(4, None, lie).nodes == []
