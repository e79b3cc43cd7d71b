"""A feed's owner: the recorded directories, appending, proving, storing what peers send, clearing, auditing."""

import random
import shutil

import pytest

from ddrive.errors import (
    AlreadyExists,
    Closed,
    CorruptStorage,
    InvalidKey,
    InvalidProof,
    NotHeld,
    NotWritable,
    StorageError,
    StorageLocked,
    TooLarge,
    WrongKey,
)
from ddrive.feed import FeedLog, FileDirectory, MemoryDirectory, Proof, RemoteTree
from ddrive.feed.owned import MAX_APPEND_BYTES
from ddrive.ids import PublicKey
from tests.feed.samples import PAIR, content, copy, main_blocks, proof_of, reader, writer
from tests.support.vectors import VECTORS, vector

DIALECTS = ["dweb", "hypercore"]
BLOCKS = main_blocks()[:13]


@pytest.fixture(params=["memory", "disk"])
def directory(request, tmp_path):
    return MemoryDirectory() if request.param == "memory" else FileDirectory(tmp_path / "feed")


def recorded(dialect):
    meta = vector(f"feeds/{dialect}/meta.json")
    return meta, [bytes.fromhex(block) for block in meta["feeds"]["writer"]["blocks"]]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copied(dialect, name, tmp_path):
    target = tmp_path / name
    shutil.copytree(VECTORS / "feeds" / dialect / name, target, copy_function=shutil.copyfile)
    target.chmod(0o755)
    return target


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_written_feed_has_the_recorded_files(dialect, tmp_path):
    meta, blocks = recorded(dialect)
    log = writer(directory=FileDirectory(tmp_path / "feed"))
    start = 0
    for count in meta["feeds"]["writer"]["appendedInBatchesOf"]:
        assert log.append(blocks[start : start + count]) == start
        start += count
    log.close()
    assert files_of(tmp_path / "feed") == files_of(VECTORS / "feeds" / dialect / "writer")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["full-reader", "sparse-reader"])
def test_a_downloaded_feed_has_the_recorded_files(dialect, name, tmp_path):
    meta, blocks = recorded(dialect)
    source, target = writer(blocks), reader(FileDirectory(tmp_path / "feed"))
    facts = meta["feeds"][name]
    copy(source, target, facts.get("have", range(len(blocks))))
    for index in facts.get("hashOnly", []):
        target.put(index, None, proof_of(source, index, target.digest(index), hash_only=True))
    target.close()
    expected = files_of(VECTORS / "feeds" / dialect / name)
    found = files_of(tmp_path / "feed")
    if name == "sparse-reader":  # how many signatures the source has is its own affair
        source_signature = expected.pop("signatures")[-64:]
        assert found.pop("signatures")[-64:] == source_signature
    assert found == expected


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["writer", "full-reader", "sparse-reader", "cleared", "audited"])
def test_recorded_directories_open_verify_and_serve(dialect, name, tmp_path):
    meta, blocks = recorded(dialect)
    facts = meta["feeds"][name]
    log = FeedLog.open(FileDirectory(copied(dialect, name, tmp_path)), key=PublicKey(bytes.fromhex(meta["publicKey"])))
    held = facts.get("have", [index for index in range(13) if index != facts.get("damagedBlock")])
    assert (log.length, log.byte_length, log.writable) == (13, 162, facts["writable"])
    assert content(log) == {index: blocks[index] for index in held}
    audited = log.audit()  # which finds small blocks that were dropped where nothing could be freed
    assert (audited.good - len(audited.restored), audited.bad) == (len(held), [])
    assert content(log) == {index: blocks[index] for index in sorted({*held, *audited.restored})}
    other = reader()
    for index in range(13):
        proof = log.proof(index, digest=0, hash_only=False, remote=RemoteTree())
        if proof is not None:
            assert other.put(index, blocks[index], proof).length == 13
    log.close()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_recorded_feed_goes_on_where_it_ended(dialect, tmp_path):
    _, blocks = recorded(dialect)
    log = FeedLog.open(FileDirectory(copied(dialect, "writer", tmp_path)))
    assert log.append([b"one", b"two"]) == 13
    log.close()
    again = FeedLog.open(FileDirectory(tmp_path / "writer"))
    assert content(again) == dict(enumerate([*blocks, b"one", b"two"]))
    again.close()


def test_signatures_of_batches_are_the_recorded_ones():
    blocks = main_blocks()
    batches = vector("merkle.json")["dialects"]["dweb"]["batches"]
    log, start = writer(), 0
    for count in batches["appended"]:
        log.append(blocks[start : start + count])
        start += count
    for row in batches["signature"]:
        proof = proof_of(log, row["asked"])
        assert proof.signature is not None
    signatures = {row["index"]: row["signature"] for row in batches["signature"]}
    for index, signature in signatures.items():
        stored = bytes(log._directory.files["signatures"])[32 + 64 * index : 96 + 64 * index]
        assert stored.hex() == signature


def test_old_pages_are_read_and_kept(tmp_path):
    log = writer(BLOCKS, FileDirectory(tmp_path))
    log.close()
    raw = (tmp_path / "bitfield").read_bytes()
    (tmp_path / "bitfield").write_bytes(raw[:5] + (3328).to_bytes(2, "big") + raw[7 : 32 + 3328])
    log = FeedLog.open(FileDirectory(tmp_path))
    assert content(log) == dict(enumerate(BLOCKS))
    log.append([b"more"])
    log.close()
    raw = (tmp_path / "bitfield").read_bytes()
    assert (raw[5:7], len(raw)) == ((3328).to_bytes(2, "big"), 32 + 3328)


def test_appended_blocks_are_read_after_reopening(directory):
    blocks = [random.Random(1).randbytes(size) for size in (0, 1, 70_000, 5, 0, 300)]
    log = writer(directory=directory)
    assert log.append(blocks[:1]) == 0
    assert log.append([bytearray(blocks[1]), memoryview(blocks[2]), blocks[3]]) == 1
    assert log.append([]) == 4
    assert log.append(blocks[4:]) == 4
    assert content(log) == dict(enumerate(blocks))
    log.close()
    log.close()
    log = FeedLog.open(directory)
    assert log.writable
    assert (log.length, log.byte_length) == (6, sum(map(len, blocks)))
    assert content(log) == dict(enumerate(blocks))
    log.close()


def test_many_blocks_over_several_pages(directory):
    blocks = [index.to_bytes(3, "big") for index in range(20_000)]
    log = writer(blocks, directory, batch=6_000)
    log.close()
    log = FeedLog.open(directory)
    assert log.runs(0, 30_000) == [(0, 20_000)]
    assert all(log.block(index) == blocks[index] for index in range(0, 20_000, 37))
    assert log.locate(50_000) == (16_666, 2)
    log.close()


def test_every_byte_is_located(directory):
    log = writer(BLOCKS, directory)
    position = 0
    for index, block in enumerate(BLOCKS):
        assert log.byte_offset(index) == position
        for place in {0, len(block) // 2, len(block) - 1} - {-1}:
            if place < len(block):
                assert log.locate(position + place) == (index, place)
        position += len(block)
    assert log.locate(position) == (13, 0)
    assert log.locate(position + 1) is None
    assert log.locate(-1) is None
    log.close()


def test_random_downloads_end_complete(directory):
    source, target = writer(BLOCKS, batch=4), reader(directory)
    order = list(range(13))
    random.Random(3).shuffle(order)
    for count, index in enumerate(order):
        stored = target.put(index, BLOCKS[index], proof_of(source, index, target.digest(index)))
        assert stored == (True, 13, count == 0, True)
        assert target.held(0, 13) == count + 1
        assert target.put(index, BLOCKS[index], proof_of(source, index)).block is False
    assert content(target) == dict(enumerate(BLOCKS))
    target.close()
    target = FeedLog.open(directory)
    assert content(target) == dict(enumerate(BLOCKS))
    assert proof_of(target, 4) == proof_of(source, 4)
    target.close()


def test_a_reader_follows_growth():
    source, target = writer(BLOCKS[:5]), reader()
    copy(source, target, [4, 0])
    source.append(BLOCKS[5:11])
    assert target.put(9, BLOCKS[9], proof_of(source, 9, target.digest(9))) == (True, 11, True, True)
    copy(source, target, [5, 1])
    assert content(target) == {index: BLOCKS[index] for index in (0, 1, 4, 5, 9)}
    assert target.byte_length == source.byte_length


def test_bytes_are_located_with_the_nodes_of_older_lengths():
    blocks = main_blocks()[:16]
    source, target = writer(blocks[:7]), reader()
    copy(source, target, [6])
    source.append(blocks[7:])
    copy(source, target, [15])
    start = source.byte_offset(6)
    assert target.locate(start + 1) == (6, 1)
    assert target.locate(source.byte_offset(10)) is None
    assert target.locate(source.byte_offset(15)) == (15, 0)
    assert content(target) == {6: blocks[6], 15: blocks[15]}


def test_a_leaf_without_its_block_is_stored_and_then_counts_as_known():
    source, target = writer(BLOCKS[:8]), reader()
    assert target.put(5, None, proof_of(source, 5, hash_only=True)) == (False, 8, True, True)
    assert not target.has(5)
    assert target.digest(5) == 1
    assert target.put(5, BLOCKS[5], proof_of(source, 5, 1)) == (True, 8, False, True)
    with pytest.raises(NotHeld):
        target.block(4)


def test_a_shifted_border_is_not_believed_until_a_block_proves_it():
    source, target = writer([b"ten bytes.", b"twenty bytes, twenty"]), reader()
    honest = proof_of(source, 0, hash_only=True)
    leaf, sibling = honest.nodes
    target.put(0, None, Proof((leaf._replace(size=15), sibling._replace(size=15)), honest.signature))
    assert target.locate(12) == (0, 12)
    assert not target.size_proven(0)
    target.put(0, source.block(0), proof_of(source, 0, target.digest(0)))
    assert target.locate(12) == (1, 2)
    assert target.size_proven(1)
    target.put(1, source.block(1), proof_of(source, 1, target.digest(1)))
    assert content(target) == content(source)


@pytest.mark.parametrize("damage", ["value", "node", "signature", "missing"])
def test_a_lie_writes_nothing(damage):
    source, target = writer(BLOCKS[:9]), reader()
    copy(source, target, [2])
    target.flush()
    before = {name: bytes(file) for name, file in target._directory.files.items()}
    old = proof_of(source, 8)
    source.append(BLOCKS[9:])
    honest = proof_of(source, 11, target.digest(11))
    lies = {
        "value": (BLOCKS[11] + b"!", honest),
        "node": (BLOCKS[11], Proof((honest.nodes[0]._replace(hash=bytes(32)), *honest.nodes[1:]), honest.signature)),
        "signature": (BLOCKS[11], Proof(honest.nodes, old.signature)),
        "missing": (BLOCKS[11], Proof(honest.nodes, None)),
    }
    with pytest.raises(InvalidProof):
        target.put(11, *lies[damage])
    target.flush()
    assert target._directory.files == before
    assert (target.has(11), target.length) == (False, 9)
    assert target.digest(11) == 0, "the next request asks for a complete proof"
    target.put(11, BLOCKS[11], proof_of(source, 11))
    assert target.block(11) == BLOCKS[11]
    assert target.digest(11) == 1


def test_an_author_who_signs_an_absurd_length_costs_little():
    source, target = writer(BLOCKS[:2]), reader()
    proof = proof_of(source, 0)
    nodes = (proof.nodes[0], proof.nodes[0]._replace(number=(1 << 60) - 1))
    with pytest.raises(InvalidProof):
        target.put(0, BLOCKS[0], Proof(nodes, proof.signature))


def test_a_forgetful_peer_gets_complete_proofs_and_strangers_none():
    log = reader()
    assert log.proof(0, digest=0, hash_only=False, remote=RemoteTree()) is None
    assert log.proof(-1, digest=0, hash_only=False, remote=RemoteTree()) is None
    assert log.proof(1 << 60, digest=0, hash_only=False, remote=RemoteTree()) is None


def test_cleared_blocks_are_gone_provable_and_fetched_again(directory):
    source, target = writer(BLOCKS), reader(directory)
    copy(source, target, range(13))
    assert target.clear(4, 9) == [(4, 9)]
    assert target.clear(4, 9) == []
    assert target.runs(0, 13) == [(0, 4), (9, 13)]
    with pytest.raises(NotHeld):
        target.block(5)
    assert proof_of(target, 5) == proof_of(source, 5)
    assert target.locate(source.byte_offset(9)) == (9, 0)
    copy(source, target, [5])
    assert target.clear(11, 100) == [(11, 13)]
    target.close()
    target = FeedLog.open(directory)
    assert target.runs(0, 13) == [(0, 4), (5, 6), (9, 11)]
    copy(source, target, [4, 6, 7, 8, 11, 12])
    assert content(target) == dict(enumerate(BLOCKS))
    target.close()


def test_whoever_is_killed_after_clearing_does_not_say_that_it_is_held(tmp_path):
    source, target = writer(BLOCKS), reader(FileDirectory(tmp_path / "feed"))
    copy(source, target, range(9))
    target.sync()
    copy(source, target, range(9, 13))
    pages = target.begin_flush()  # which ends after something was cleared
    assert target.clear(2, 4) == [(2, 4)]
    target.end_flush(pages)
    assert target.clear(5, 11) == [(5, 11)]
    shutil.copytree(tmp_path / "feed", tmp_path / "left")  # as a kill leaves it
    left = FeedLog.open(FileDirectory(tmp_path / "left"))
    assert left.runs(0, 13) == [(0, 2), (4, 5), (11, 13)]
    assert left.audit() == (6, [], [3])  # a small block, of which nothing was freed
    left.close()
    target.close()


def test_cleared_space_is_freed_even_block_by_block(tmp_path):
    log = writer([bytes([index]) * 1000 for index in range(1, 200)], FileDirectory(tmp_path))
    log.sync()
    before = (tmp_path / "data").stat().st_blocks
    for index in range(20, 180):
        log.clear(index, index + 1)
    assert (tmp_path / "data").stat().st_blocks < before / 2
    assert log.block(19) == bytes([20]) * 1000
    assert log.block(180) == bytes([181]) * 1000
    log.append([b"after"])
    assert log.block(199) == b"after"
    log.close()


def test_a_cleared_sparse_feed_needs_no_unknown_node():
    source, target = writer(BLOCKS), reader()
    copy(source, target, [2, 9])
    assert target.clear(1, 12) == [(2, 3), (9, 10)]


def test_clearing_the_end_shortens_the_file_and_appending_goes_on(tmp_path):
    log = writer(BLOCKS, FileDirectory(tmp_path))
    log.clear(5, 13)
    assert (tmp_path / "data").stat().st_size == sum(map(len, BLOCKS[:5]))
    log.append([b"next"])
    assert log.block(13) == b"next"
    assert log.byte_length == sum(map(len, BLOCKS)) + 4
    log.close()


def test_a_damaged_block_of_somebody_else_is_fetched_again(directory):
    source, target = writer(BLOCKS), reader(directory)
    copy(source, target, range(13))
    target.close()
    storage = directory.open("data", create=False)
    storage.write(source.byte_offset(6) + 3, b"#")
    storage.close()
    target = FeedLog.open(directory)
    with pytest.raises(NotHeld):
        target.block(6)
    assert not target.has(6)
    copy(source, target, [6])
    assert content(target) == dict(enumerate(BLOCKS))
    target.close()


def test_a_damaged_block_of_our_own_is_reported(directory):
    log = writer(BLOCKS, directory)
    log.close()
    storage = directory.open("data", create=False)
    storage.truncate(log.byte_length - 1)
    storage.close()
    log = FeedLog.open(directory)
    for _ in range(2):
        with pytest.raises(CorruptStorage):
            log.block(12)
    log.close()


def test_an_audit_finds_damage_done_while_running(directory):
    log = writer(BLOCKS, directory)
    assert log.audit() == (13, [], [])
    storage = directory.open("data", create=False)
    storage.write(log.byte_offset(7) + 100, b"##")
    storage.close()
    assert log.block(7) != BLOCKS[7], "verified once, then trusted"
    assert log.audit() == (12, [7], [])
    assert log.runs(0, 13) == [(0, 7), (8, 13)]
    log.close()


def test_damaged_sizes_in_the_tree_never_mislead(directory):
    source, target = writer(BLOCKS), reader(directory)
    copy(source, target, range(13))
    target.close()
    storage = directory.open("tree", create=False)
    storage.write(32 + 40 * 3 + 39, b"\xff")  # size of the node over blocks 0 to 3
    storage.close()
    target = FeedLog.open(directory)
    for position in range(0, source.byte_length, 977):
        assert target.locate(position) in (None, source.locate(position))
    target.close()


def test_the_bitfield_for_peers():
    source, target = writer(BLOCKS), reader()
    copy(source, target, [0, 9, 12])
    assert target.bitfield_bytes(0, 8192)[:2] == bytes([0b10000000, 0b01001000])
    assert target.bitfield_bytes(9, 4) == bytes([0b10010000])
    assert target.bitfield_bytes(8192, 8192) == b""


def test_who_may_append_what():
    with pytest.raises(NotWritable):
        reader().append([b"x"])
    log = writer()
    with pytest.raises(TooLarge):
        log.append([b"small", bytes(MAX_APPEND_BYTES + 1)])
    assert log.append([bytes(MAX_APPEND_BYTES)]) == 0
    assert log.append([b"y"]) == 1
    log.close()
    for call in (lambda: log.append([b"x"]), lambda: log.block(1), lambda: log.clear(0, 1)):
        with pytest.raises(Closed):
            call()


def test_opening_the_wrong_thing(directory):
    with pytest.raises(StorageError):
        FeedLog.open(directory)
    log = writer(BLOCKS, directory)
    with pytest.raises(StorageLocked):
        FeedLog.open(directory if isinstance(directory, MemoryDirectory) else FileDirectory(directory.path))
    log.close()
    with pytest.raises(AlreadyExists):
        writer(directory=directory)
    with pytest.raises(WrongKey):
        FeedLog.open(directory, key=PublicKey(bytes(32)))
    with pytest.raises(InvalidKey):
        FeedLog.open(directory, secret_key=b"short")
    with pytest.raises(WrongKey):
        FeedLog.create(MemoryDirectory(), key=PublicKey(bytes(32)), secret_key=PAIR.secret_key)
    storage = directory.open("tree", create=False)
    storage.write(3, b"\x01")  # of another file of a feed
    storage.close()
    with pytest.raises(CorruptStorage):
        FeedLog.open(directory)


def test_a_derived_secret_key_stays_out_of_the_directory(directory):
    log = FeedLog.create(directory, key=PAIR.public_key, secret_key=PAIR.secret_key, store_secret_key=False)
    log.append([b"x"])
    log.close()
    assert not directory.exists("secret_key")
    log = FeedLog.open(directory)
    assert not log.writable
    log.close()
    log = FeedLog.open(directory, secret_key=PAIR.secret_key)
    assert log.append([b"y"]) == 1
    log.close()


def test_an_author_with_an_old_copy_catches_up_instead_of_forking():
    old, ahead = writer(BLOCKS[:5]), writer(BLOCKS[:5])
    ahead.append(BLOCKS[5:9])
    assert old.put(8, BLOCKS[8], proof_of(ahead, 8, old.digest(8))).grew
    assert old.append([b"new"]) == 9


def test_a_closed_feed_takes_the_hint_that_it_will_be_read(directory):
    log = writer(BLOCKS, directory)
    log.preload()
    log.close()
    log.preload()  # whoever goes through nodes that were read before gives it, too
