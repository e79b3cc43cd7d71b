"""What damaged nodes of a tree may cost, and what they may not: other blocks, the trust of peers."""

import contextlib
import random

import pytest

from ddrive.errors import CorruptStorage, InvalidProof, NotHeld
from ddrive.feed import FeedLog, MemoryDirectory, RemoteTree
from ddrive.feed.layout import FeedFiles
from ddrive.feed.view import FeedView
from tests.feed.samples import PAIR, content, copy, proof_of, reader, writer

BLOCKS = [bytes([index + 1]) * 50 for index in range(40)]
NODES = range(2 * len(BLOCKS) - 1)


def place_of(node):
    return 32 + 40 * node


def spoil(log, node, start=0, size=8):
    """Change a stored node behind the back of an open feed; by default a part of its hash."""
    place = place_of(node) + start
    files = log._directory.files
    files["tree"][place : place + size] = bytes(255 - byte for byte in files["tree"][place : place + size])
    log._files.forget_nodes()


def resize(log, node, size):
    files = log._directory.files
    files["tree"][place_of(node) + 32 : place_of(node) + 40] = size.to_bytes(8, "big")
    log._files.forget_nodes()


def reopened(log):
    log.close()
    return FeedLog.open(MemoryDirectory(log._directory.files))


def followed(chance):
    """Return a feed and a copy of parts of it that has followed its growth, with signatures of many lengths."""
    source, target = writer(), reader()
    for end in range(2, len(BLOCKS) + 1, 2):
        source.append(BLOCKS[end - 2 : end])
        target.put(end - 1, None, proof_of(source, end - 1, target.digest(end - 1), hash_only=True))
        copy(source, target, [index for index in chance.sample(range(end), end // 8) if not target.has(index)])
    return source, target


def give_all(log):
    """Have `log` prove all that it can to peers who know nothing, and return the held blocks that it cannot prove."""
    for index in range(log.length):
        if (proof := log.proof(index, digest=0, hash_only=True, remote=RemoteTree())) is not None:
            reader().put(index, None, proof)
    held = [index for index in range(log.length) if log.has(index)]
    proofs = {index: log.proof(index, digest=0, hash_only=False, remote=RemoteTree()) for index in held}
    for index, proof in proofs.items():
        if proof is not None:
            reader().put(index, log.block(index), proof)
    return [index for index, proof in proofs.items() if proof is None]


@pytest.mark.parametrize("seed", range(20))
def test_an_audit_finds_nothing_in_a_copy_that_followed_its_feed(seed, caplog):
    _, log = followed(random.Random(seed))
    bits, held = [log._bits.known(node) for node in NODES], content(log)
    found = log.audit()
    assert (found.good, found.bad, found.restored) == (len(held), [], [])
    assert all(log._bits.known(node) for node in NODES if bits[node])
    assert not give_all(log)
    assert not caplog.text


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_block_of_a_copy_costs_no_other_one(seed):
    chance = random.Random(seed)
    source, log = followed(chance)
    held = content(log)
    log = reopened(log)
    lost = chance.choice([*held])
    log._directory.files["data"][log.byte_offset(lost)] ^= 1
    with pytest.raises(NotHeld):
        log.block(lost)
    assert content(log) == {index: block for index, block in held.items() if index != lost}
    assert not give_all(log)
    copy(source, log, [lost])
    assert content(log) == held


@pytest.mark.parametrize("node", NODES)
def test_an_author_gives_no_peer_a_node_that_an_audit_could_not_make_again(node):
    log = writer(BLOCKS)
    log.clear(node >> 1, (node >> 1) + 2)  # so that leaves are not to be made from bytes
    held = [*content(log)]
    spoil(log, node)
    spoil(log, node & ~1)
    found = log.audit()
    assert not set(give_all(log)) - set(range((node >> 1) - 2, (node >> 1) + 4))
    for index in range(len(BLOCKS)):
        if not log.has(index):
            log.put(index, BLOCKS[index], proof_of(writer(BLOCKS), index, log.digest(index)))
    assert not set(found.bad) - set(held)
    assert content(log) == dict(enumerate(BLOCKS))
    log.audit()
    assert not give_all(log)
    assert log.append([b"next"]) == len(BLOCKS)


@pytest.mark.parametrize("node", NODES)
def test_a_copy_that_has_cleared_its_blocks_gives_no_peer_a_damaged_node(node):
    log = reader()
    copy(writer(BLOCKS), log, range(len(BLOCKS)))
    log.clear(0, len(BLOCKS))
    spoil(log, node)
    log.audit()
    give_all(log)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("size", [0, 10, 1000, 1 << 40])
def test_nothing_is_freed_or_written_at_a_place_that_a_damaged_size_says(node, size):
    author, log = writer(BLOCKS), reader()
    copy(author, log, range(len(BLOCKS)))
    log = reopened(log)
    resize(log, node, size)
    chance = random.Random(100 * node + size)
    cleared = sorted(chance.sample(range(len(BLOCKS)), 6))
    for index in cleared:
        log.clear(index, index + 1)
    assert {index: block for index, block in enumerate(BLOCKS) if index not in cleared} == content(log)
    resize(log, node, size)
    for _ in range(3):
        for index in chance.sample(cleared, len(cleared)):
            try:
                copy(author, log, [] if log.has(index) else [index])
            except InvalidProof:
                assert not log.has(index)
    log.audit()
    assert content(log) == dict(enumerate(BLOCKS))


@pytest.mark.parametrize("node", NODES)
def test_a_byte_is_found_by_nodes_that_are_made_again(node):
    log = reopened(writer(BLOCKS))
    spoil(log, node, 39, 1)
    assert [log.locate(50 * index + 7) for index in range(len(BLOCKS))] == [(index, 7) for index in range(len(BLOCKS))]


@pytest.mark.parametrize("node", [31, 71])  # the roots
def test_an_audit_writes_roots_that_were_damaged_while_the_feed_was_open(node):
    log = writer(BLOCKS)
    spoil(log, node)
    log.audit()
    assert not give_all(log)
    view = FeedView(log._directory, PAIR.public_key)
    view.adopt(len(BLOCKS), [(0, len(BLOCKS))])
    assert view.block(7) == BLOCKS[7]


@pytest.mark.parametrize("node", NODES)
def test_a_size_that_lies_behind_the_end_of_the_data_costs_no_block(node, caplog):
    log = writer(BLOCKS)
    resize(log, node, 1 << 30)
    log = reopened(log)
    assert log.held(0, len(BLOCKS)) == len(BLOCKS)
    assert "lost" not in caplog.text
    assert content(log) == dict(enumerate(BLOCKS))


@pytest.mark.parametrize("together", [False, True])
def test_an_empty_leaf_at_a_wrong_place_is_no_block(together):
    blocks = [b"", *BLOCKS]
    log = reader()
    copy(writer(blocks), log, range(len(blocks)))
    log = reopened(log)
    tree = log._directory.files["tree"]
    tree[place_of(14) : place_of(15)] = tree[place_of(0) : place_of(1)]  # as if a sector was written there
    log._files.forget_nodes()
    if together:
        assert log.blocks(6, 9) is None
    assert log.block(7) == blocks[7]


def test_how_much_was_signed_is_known_after_signature_and_tree_were_damaged():
    log = writer(BLOCKS[:6], batch=5)
    log.close()
    files = log._directory.files
    del files["signatures"][32 + 64 * 5 :]
    for node in (8, 10):
        files["tree"][place_of(node)] ^= 1
    for _ in range(3):
        log = FeedLog.open(MemoryDirectory(files))
        assert log.length == 5
        with pytest.raises(CorruptStorage):
            log.append([b"other"])
        log.close()
    copy(writer(BLOCKS[:6], batch=5), log := FeedLog.open(MemoryDirectory(files)), [5])
    assert reopened(log).append([b"next"]) == 6


def test_a_feed_of_ours_goes_on_when_a_peer_has_proven_all_that_was_signed():
    source = writer(BLOCKS)
    log = writer(BLOCKS)
    for node in (71, 67, 65, 64):
        spoil(log, node)
    log = reopened(log)
    with pytest.raises(CorruptStorage):
        log.append([b"other"])
    copy(source, log, [index for index in range(len(BLOCKS)) if not log.has(index)])
    assert log.append([b"next"]) == len(BLOCKS)
    assert reopened(log).append([b"and so on"]) == len(BLOCKS) + 1


def test_an_audit_of_a_tree_of_nothing_but_damage_looks_for_few_signatures(monkeypatch):
    blocks = [b"%05d" % index for index in range(4096)]
    log = writer(blocks, batch=16)
    tree, root = log._directory.files["tree"], place_of(4095)
    whole = bytes(tree)
    tree[32:] = random.Random(1).randbytes(len(tree) - 32)
    tree[root : root + 40] = whole[root : root + 40]
    log = reopened(log)
    looked_for = []
    first_signed = FeedFiles.first_signed
    monkeypatch.setattr(FeedFiles, "first_signed", lambda *given: looked_for.append(given) or first_signed(*given))
    assert (log.length, len(log.audit().bad)) == (len(blocks), len(blocks))
    assert len(looked_for) < len(blocks) // 4


def test_the_mark_of_a_lost_signature_is_given_to_nobody():
    blocks = [b"%d" % index for index in range(6)]
    source, log = writer(blocks, batch=1), writer(blocks[:5], batch=1)
    log.close()
    files = log._directory.files
    del files["signatures"][32 + 64 * 3 :]
    files["tree"][32 + 40 * 7] ^= 1  # the last node of the first four blocks
    files["tree"][32 + 40 * 8] ^= 1  # and the leaf of the fifth
    log = FeedLog.open(MemoryDirectory(files))
    assert bytes(files["signatures"][-64:]) == b"\xff" * 64
    with pytest.raises(CorruptStorage):
        log.append([b"another"])
    for index in (5, *range(5)):
        with contextlib.suppress(InvalidProof):
            log.put(index, blocks[index], proof_of(source, index))
    assert log.length == 6
    assert log.signature(4) == source.signature(5)
