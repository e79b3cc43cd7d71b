"""Two histories under one key: recognised, recorded, and never mixed."""

import contextlib
import json

import pytest

from ddrive.errors import Forked, InvalidProof
from ddrive.feed import FeedLog, Proof, RemoteTree
from ddrive.ids import Node, NodeIndex
from tests.feed.samples import PAIR, content, copy, proof_of, reader, writer
from tests.support.vectors import vector

RECORDED = vector("forks.json")
A = [bytes.fromhex(block) for block in RECORDED["A"]]
B = [bytes.fromhex(block) for block in RECORDED["B"]]


def data_of(case):
    data = case["dataFromB"]
    nodes = tuple(Node(NodeIndex(row["index"]), bytes.fromhex(row["hash"]), row["size"]) for row in data["nodes"])
    return data["index"], bytes.fromhex(data["value"]), Proof(nodes, bytes.fromhex(data["signature"]))


def reader_of_a(case):
    log = reader()
    copy(writer(A), log, case["readerHadFromA"])
    return log


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["label"])
def test_both_recorded_conflicts_are_refused_and_change_nothing(case):
    log = reader_of_a(case)
    log.flush()
    before = {name: bytes(file) for name, file in log._directory.files.items()}
    with pytest.raises(InvalidProof):
        log.put(*data_of(case))
    log.flush()
    after = {name: bytes(file) for name, file in log._directory.files.items() if name != "forked"}
    assert after == before
    assert content(log) == {4: A[4], 0: A[0]}


def test_a_proven_fork_is_recorded_and_ends_serving():
    case = next(case for case in RECORDED["cases"] if case["digest"] == 0)
    log = reader_of_a(case)
    with pytest.raises(Forked):
        log.put(*data_of(case))
    for current in (log, None):
        current = current or reopened(log)
        assert current.forked
        assert content(current) == {4: A[4], 0: A[0]}
        assert current.proof(0, digest=0, hash_only=False, remote=RemoteTree()) is None
        with pytest.raises(Forked):
            current.put(*data_of(case))
    evidence = json.loads(bytes(log._directory.files["forked"]))
    assert evidence["stored"]["signature"] == RECORDED["signatureA"]
    assert evidence["received"]["signature"] == RECORDED["signatureB"]
    assert (evidence["stored"]["length"], evidence["received"]["length"]) == (5, 7)


def reopened(log):
    log.close()
    return FeedLog.open(log._directory)


def test_a_suspected_fork_is_proven_by_the_next_request():
    case = next(case for case in RECORDED["cases"] if case["digest"])
    log, other = reader_of_a(case), writer(B)
    index = case["dataFromB"]["index"]
    assert log.digest(index) == case["digest"]
    with pytest.raises(InvalidProof):
        log.put(*data_of(case))
    assert not log.forked
    with pytest.raises(Forked):
        log.put(index, B[index], proof_of(other, index, log.digest(index)))
    assert log.forked


def test_an_author_sees_the_fork_of_his_own_copy_and_stops():
    mine, other = writer(A), writer(B)
    with pytest.raises(Forked):
        mine.put(6, B[6], proof_of(other, 6))
    with pytest.raises(Forked):
        mine.append([b"more"])
    assert content(mine) == dict(enumerate(A))


def test_a_fork_is_seen_where_the_other_history_has_fewer_bytes():
    common = [b"header"]
    mine, other = writer([*common, b"a long block" * 10]), writer([*common, b"short", b"c"])
    assert mine.block(1)  # whose end is remembered
    with contextlib.suppress(InvalidProof):  # the first proof leaves out what we hold
        mine.put(2, b"c", proof_of(other, 2, mine.digest(2)))
    with pytest.raises(Forked):
        mine.put(2, b"c", proof_of(other, 2, mine.digest(2)))
    assert mine.forked
    assert content(mine) == {0: common[0], 1: b"a long block" * 10}


def test_a_fork_after_a_common_beginning_is_found_when_both_sides_meet():
    common = [b"0", b"1", b"2", b"3"]
    left, right = writer([*common, b"left 4"]), writer([*common, b"right 4", b"5", b"6", b"7"])
    log = reader()
    copy(left, log, [4])
    log.put(7, b"7", proof_of(right, 7, log.digest(7)))  # nothing in it touches block 4
    with pytest.raises(InvalidProof):
        log.put(5, b"5", proof_of(right, 5, log.digest(5)))
    with pytest.raises(Forked):
        log.put(5, b"5", proof_of(right, 5, log.digest(5)))
    assert log.block(4) == b"left 4"


def test_damage_of_our_own_tree_is_no_fork():
    source, log = writer(A), reader()
    copy(source, log, range(5))
    log.close()
    log._directory.files["tree"][32 + 40 * 5 : 32 + 40 * 5 + 4] = b"oops"  # node over blocks 2 and 3
    log = FeedLog.open(log._directory)
    log.clear(2, 3)
    assert log.put(2, A[2], proof_of(source, 2)).block
    assert not log.forked
    assert content(log) == dict(enumerate(A))


def test_the_same_history_by_other_batches_is_no_fork():
    one, other = writer(A, batch=2), writer(A, batch=5)
    assert PAIR.public_key == one.key == other.key
    log = reader()
    for index in range(5):
        log.put(index, A[index], proof_of((one, other)[index % 2], index))
    assert content(log) == dict(enumerate(A))
