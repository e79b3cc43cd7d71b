"""Damage that an owner can notice and mend: what data and tree still prove is held, what was cut off is told."""

import contextlib
import random

import pytest

from ddrive.errors import CorruptStorage, InvalidProof, NotHeld
from ddrive.feed import FeedLog, FileDirectory, MemoryDirectory, RemoteTree, flat
from ddrive.feed.bitfield import DATA_BYTES, Bitfield
from ddrive.feed.feed import Feed
from tests.feed.samples import content, copy, main_blocks, proof_of, reader, writer

BLOCKS = main_blocks()
MANY = [b"%05d" % index for index in range(8192 + 200)]
SPARSE = [0, 3, 4, 17, 18, 40]


def reopened(log, change):
    """Return a feed opened again after `change` was made to its files."""
    log.close()
    files = log._directory.files
    change(files)
    return FeedLog.open(MemoryDirectory(files))


def garbage(start, size, seed=1):
    def change(files):
        files["bitfield"][start : start + size] = random.Random(seed).randbytes(size)

    return change


def zeros(start, size):
    def change(files):
        files["bitfield"][start : start + size] = bytes(size)

    return change


def cut(name, size):
    def change(files):
        del files[name][size:]

    return change


@pytest.fixture
def copied():
    source, target = writer(BLOCKS, batch=9), reader()
    copy(source, target, SPARSE)
    return source, target


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("start", "size"), [(32, 3000), (32, 1024), (32 + 1024, 2048), (32, 3584), (40, 20)])
def test_garbage_in_its_bitfield_costs_an_author_nothing(start, size, seed, caplog):
    log = reopened(writer(BLOCKS, batch=9), garbage(start, size, seed))
    assert content(log) == dict(enumerate(BLOCKS))
    assert "bitfield" in caplog.text
    assert log.append([b"next"]) == len(BLOCKS)
    log.close()
    caplog.clear()
    assert content(FeedLog.open(log._directory)) == dict(enumerate([*BLOCKS, b"next"]))
    assert not caplog.text


def test_a_bit_that_claims_a_longer_feed_does_not_stop_its_author():
    log = reopened(writer(BLOCKS), lambda files: files["bitfield"].__setitem__(32 + 1024 + 4095 // 8, 1))  # node 4095
    assert log.length == len(BLOCKS)
    assert log.append([b"next"]) == len(BLOCKS)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("start", "size"), [(32, 3000), (32, 1024), (32 + 1024, 2048), (32, 3584)])
def test_garbage_in_the_bitfield_of_a_copy_costs_and_invents_no_block(start, size, seed, copied):
    source, target = copied
    log = reopened(target, garbage(start, size, seed))
    assert log.length == len(BLOCKS)
    assert content(log) == {index: BLOCKS[index] for index in SPARSE}
    for index in SPARSE:
        other = reader()
        other.put(index, BLOCKS[index], proof_of(log, index))
    copy(source, log, [index for index in range(len(BLOCKS)) if not log.has(index)])
    assert content(log) == dict(enumerate(BLOCKS))


def test_a_copy_without_its_bitfield_still_has_its_blocks(copied):
    log = reopened(copied[1], lambda files: files.pop("bitfield"))
    assert content(log) == {index: BLOCKS[index] for index in SPARSE}


def test_a_page_of_several_that_was_lost_is_mended():
    log = reopened(writer(MANY), zeros(32, DATA_BYTES + 2048))
    assert log.held(0, len(MANY)) == len(MANY)
    assert log.append([b"next"]) == len(MANY)


async def test_an_audit_mends_data_bits_that_mean_nothing():
    log = reopened(writer(MANY), garbage(32, DATA_BYTES))  # as if half of a page had been cleared
    listed = log.held(0, len(MANY))
    found = await Feed(log).audit()
    assert (found.good, found.bad, len(found.restored)) == (len(MANY), [], len(MANY) - listed)


async def test_an_audit_finds_blocks_that_the_bitfield_has_lost(caplog):
    log = reopened(writer(BLOCKS), zeros(32 + 1, 3))  # looks as if they had been cleared
    assert log.held(0, len(BLOCKS)) == len(BLOCKS) - 24
    good, bad, restored = await Feed(log).audit()
    assert (good, bad, restored) == (len(BLOCKS), [], list(range(8, 32)))
    assert "bitfield" in caplog.text
    assert "8 to 31" in caplog.text
    log.close()
    assert FeedLog.open(log._directory).held(0, len(BLOCKS)) == len(BLOCKS)


async def test_an_audit_finds_nodes_and_blocks_of_a_copy_that_the_bitfield_has_lost(copied):
    log = reopened(copied[1], zeros(32, 2))  # bits of 0, 3 and 4
    other = reopened(log, lambda files: files["bitfield"].__setitem__(slice(32 + 1024, 32 + 1026), bytes(2)))
    assert other.held(0, len(BLOCKS)) == 3
    assert await Feed(other).audit() == (len(SPARSE), [], [0, 3, 4])
    assert content(other) == {index: BLOCKS[index] for index in SPARSE}


async def test_an_audit_brings_back_nothing_that_was_cleared():
    log = writer(BLOCKS)
    log.clear(5, 9)
    cleared = [index for index in range(5, 9) if BLOCKS[index]]
    _, bad, restored = await Feed(log).audit()
    assert not bad
    assert not set(restored) & set(cleared)


async def test_an_audit_of_a_whole_copy_speaks_of_no_damage(caplog):
    source, target = writer([b"", b"x", b"y"]), reader()
    copy(source, target, [1])  # whose proof shows that block 0 is empty
    assert await Feed(target).audit() == (2, [], [0])
    assert not caplog.text


async def test_what_was_cut_off_the_data_is_told_at_once(caplog):
    log = writer(BLOCKS)
    place = log.byte_offset(30) + 1
    log = reopened(log, cut("data", place))
    assert log.length == len(BLOCKS)
    lost = [index for index in range(30, len(BLOCKS)) if BLOCKS[index]]
    assert [index for index in range(len(BLOCKS)) if not log.has(index)] == lost
    assert f"{len(lost)} of {len(BLOCKS)} blocks are lost here" in caplog.text
    assert "verify --repair" in caplog.text
    feed = Feed(log)
    for wait in (True, False, True):
        with pytest.raises(CorruptStorage, match=f"block {lost[0]}"):
            await feed.get(lost[0], wait=wait)
    assert (await feed.audit()).bad == lost
    assert log.append([b"next"]) == len(BLOCKS)
    copy(writer(BLOCKS), log, lost)
    assert content(log) == dict(enumerate([*BLOCKS, b"next"]))
    assert (await feed.audit()).bad == []


def spoiled(place):
    def change(files):
        files["data"][place] ^= 0xFF

    return change


async def test_a_damaged_block_of_our_own_is_told_each_time_and_not_waited_for():
    log = writer(BLOCKS)
    log = reopened(log, spoiled(log.byte_offset(30)))
    for _ in range(2):
        feed = Feed(log)
        for _ in range(2):
            with pytest.raises(CorruptStorage, match=r"block 30.*verify --repair"):
                await feed.get(30)
            with pytest.raises(CorruptStorage, match="block 30"):
                await feed.download(0, len(BLOCKS))
        log = reopened(log, lambda files: None)  # the bit of the block is on the disk still


async def test_a_damaged_block_that_came_again_is_as_good_as_ever():
    log = writer(BLOCKS)
    log = reopened(log, spoiled(log.byte_offset(30)))
    with pytest.raises(CorruptStorage):
        log.block(30)
    copy(writer(BLOCKS), log, [30])
    log = reopened(log, lambda files: None)
    assert content(log) == dict(enumerate(BLOCKS))
    assert await Feed(log).audit() == (len(BLOCKS), [], [])


async def test_a_damaged_block_that_is_cleared_is_no_loss_any_more():
    log = writer(BLOCKS)
    log = reopened(log, spoiled(log.byte_offset(30)))
    with pytest.raises(CorruptStorage):
        log.block(30)
    log.flush()
    log.clear(29, 32)
    for _ in range(2):
        with pytest.raises(NotHeld):
            log.block(30)
        assert (await Feed(log).audit()).bad == []
        log = reopened(log, lambda files: None)


async def test_an_audit_tells_what_was_cleared_from_what_was_spoiled_before(caplog):
    log = writer(BLOCKS)
    start = log.byte_offset(30)
    log.clear(10, 12)
    log._bits.set_blocks(30, 31, False)  # as a release that took the bit away left it
    log = reopened(log, spoiled(start))
    assert (await Feed(log).audit()).bad == [30]
    assert (await Feed(reopened(log, lambda files: None)).audit()).bad == [30]


async def test_a_read_finds_what_the_list_of_held_blocks_does_not_name():
    log = writer(BLOCKS)
    start = log.byte_offset(30)
    log._bits.set_blocks(20, 40, False)
    log = reopened(log, spoiled(start))
    feed = Feed(log)
    assert await feed.get(25) == BLOCKS[25]
    assert await feed.get(26, wait=False) == BLOCKS[26]
    with pytest.raises(CorruptStorage, match="block 30"):
        await feed.get(30)


async def test_what_data_and_bits_have_both_lost_is_lost_and_not_cleared(caplog):
    log = reopened(writer(BLOCKS), lambda files: (files["bitfield"].clear(), files["data"].clear()))
    lost = [index for index in range(len(BLOCKS)) if BLOCKS[index]]
    with pytest.raises(CorruptStorage):
        await Feed(log).get(lost[0])
    for _ in range(2):
        assert (await Feed(log).audit()).bad == lost
        log = reopened(log, lambda files: None)


async def test_a_missing_data_file_leaves_a_feed_without_blocks(caplog):
    log = reopened(writer(BLOCKS), lambda files: files.pop("data"))
    assert not any(content(log).values())
    assert "blocks are lost here" in caplog.text


async def test_a_copy_fetches_what_was_cut_off(copied, caplog):
    source, target = copied
    log = reopened(target, cut("data", target.byte_offset(17) + 1))
    assert content(log) == {index: BLOCKS[index] for index in SPARSE[:3]}
    assert "17 to 18, 40" in caplog.text
    with pytest.raises(NotHeld):
        log.block(17)
    copy(source, log, SPARSE[3:])
    assert content(log) == {index: BLOCKS[index] for index in SPARSE}


def test_a_leaf_that_was_cut_off_the_tree_is_made_again(caplog):
    log = reopened(writer(BLOCKS[:40]), cut("tree", 32 + 40 * 78))  # the last leaf
    assert content(log) == dict(enumerate(BLOCKS[:40]))
    assert "made anew: 78" in caplog.text


def test_leaves_that_were_cut_off_the_tree_are_told(caplog):
    log = reopened(writer(BLOCKS[:40]), cut("tree", 32 + 40 * 76))
    assert log.held(0, 40) == 38
    assert "lost here (38 to 39)" in caplog.text


def test_what_was_signed_further_than_the_files_prove_is_told(caplog):
    source = writer(BLOCKS[:5])
    source.append(BLOCKS[5:6])
    log = reopened(source, cut("tree", 32 + 40 * 9))
    assert log.length == 5
    assert "prove 5 blocks" in caplog.text
    with pytest.raises(CorruptStorage):
        log.append([b"other"])


def test_a_clean_feed_says_nothing(copied, caplog):
    source, target = copied
    source.clear(3, 9)
    target.clear(17, 18)
    held = content(source)
    assert content(reopened(source, lambda files: None)) == held
    assert set(content(reopened(target, lambda files: None))) == {*SPARSE} - {17}
    assert not caplog.text


def test_pages_that_make_sense_are_not_odd():
    bits = Bitfield()
    bits.set_blocks(0, len(MANY), True)
    bits.add_complete(0, len(MANY))
    assert bits.odd_pages(len(MANY)) == []
    assert bits.incomplete_pages(len(MANY)) == []
    assert bits.odd_pages(len(MANY) - 1) == [1]
    bits.forget_node(2 * 8192)
    assert bits.odd_pages(len(MANY)) == [1]
    assert bits.incomplete_pages(len(MANY)) == [1]


@pytest.mark.parametrize("seed", range(60))
def test_every_block_of_a_copy_comes_although_nodes_were_damaged(seed, copied):
    chance = random.Random(seed)
    source, target = copied

    def damage(files):
        below = [node for node in range(2 * len(BLOCKS) - 1) if node not in flat.full_roots(len(BLOCKS))]
        for node in chance.sample(below, 3):
            start = 32 + 40 * node + chance.choice([0, 32])  # its hash, or its size, which may become huge
            files["tree"][start : start + 8] = chance.choice([chance.randbytes(8), bytes([0, 8, *bytes(6)]), bytes(8)])

    log = reopened(target, damage)
    for _ in range(8):  # a proof that fails is asked for again, as complete as can be
        log.audit()
        for index in chance.sample(range(len(BLOCKS)), len(BLOCKS)):
            if not log.has(index):
                with contextlib.suppress(InvalidProof):
                    log.put(index, BLOCKS[index], proof_of(source, index, log.digest(index)))
    log.audit()
    assert content(log) == dict(enumerate(BLOCKS))


def damaged_node(number, chance, start=0, size=40):
    def damage(files):
        place = 32 + 40 * number + start
        files["tree"][place : place + size] = chance.randbytes(size)

    return damage


@pytest.mark.parametrize("number", sorted({*range(2 * len(BLOCKS) - 1)} - {63, 79}))  # which have no leaves yet
@pytest.mark.parametrize(("start", "size"), [(0, 8), (32, 8), (36, 2), (0, 40)])
def test_an_audit_makes_any_node_again_from_what_is_below(number, start, size, caplog):
    log = writer(BLOCKS, batch=9)
    good = bytes(log._directory.files["tree"])
    damaged = reopened(log, damaged_node(number, random.Random(number), start, size))
    found = damaged.audit()
    assert (found.good, found.bad) == (len(BLOCKS), [])
    damaged.close()
    assert bytes(damaged._directory.files["tree"]) == good
    assert FeedLog.open(damaged._directory).append([b"next"]) == len(BLOCKS)


@pytest.mark.parametrize("number", [4, 5, 6])
@pytest.mark.parametrize("byte", range(32, 39))
def test_a_size_that_leads_before_the_start_of_a_file_stops_no_audit(number, byte, tmp_path):
    source = writer([b"block %d" % index for index in range(4)])
    log = FeedLog.create(FileDirectory(tmp_path), key=source.key)
    copy(source, log, range(4))
    log.clear(2, 4)
    log.close()
    with (tmp_path / "tree").open("r+b") as tree:
        tree.seek(32 + 40 * number + byte)
        tree.write(b"\xff\xff")
    damaged = FeedLog.open(FileDirectory(tmp_path))
    assert damaged.audit().good == 2
    damaged.close()


@pytest.mark.parametrize("number", range(2 * len(BLOCKS) - 1))
@pytest.mark.parametrize("seed", range(3))
def test_a_copy_gives_no_peer_a_damaged_node_after_an_audit(number, seed, copied):
    chance = random.Random(1000 * seed + number)
    source, target = copied
    damaged = reopened(target, damaged_node(number, chance, *chance.choice([(0, 8), (32, 8), (36, 2), (0, 40)])))
    found = damaged.audit()
    missing = found.bad if damaged.length else SPARSE  # a root below which nothing is stored is not to be made again
    assert content(damaged) == {index: BLOCKS[index] for index in SPARSE if index not in missing}
    third = reader()
    for index in range(len(BLOCKS)):
        proof = damaged.proof(index, digest=0, hash_only=not damaged.has(index), remote=RemoteTree())
        if damaged.has(index):
            assert proof is not None, "what is announced can be given away"
        if proof is not None:
            third.put(index, damaged.block(index) if damaged.has(index) else None, proof)
    copy(source, damaged, missing)
    assert content(damaged) == {index: BLOCKS[index] for index in SPARSE}


@pytest.mark.parametrize("number", sorted({*range(2 * len(BLOCKS) - 1)} - {63, 79}))
@pytest.mark.parametrize(("start", "size"), [(0, 8), (32, 8), (36, 2), (39, 1), (0, 40)])
def test_a_damaged_node_costs_an_author_no_block(number, start, size):
    log = reopened(writer(BLOCKS, batch=9), damaged_node(number, random.Random(number), start, size))
    order = random.Random(number).sample(range(len(BLOCKS)), len(BLOCKS))
    assert {index: log.block(index) for index in order} == dict(enumerate(BLOCKS))


def junk(start, size, seed=1):
    def damage(files):
        files["tree"][start : start + size] = random.Random(seed).randbytes(len(files["tree"][start : start + size]))

    return damage


@pytest.mark.parametrize("number", sorted({*range(2 * len(BLOCKS) - 2)} - {62, 63, 78, 79}))
def test_two_nodes_side_by_side_are_made_again_from_the_bytes_below_them(number):
    log = writer(BLOCKS, batch=9)
    good = bytes(log._directory.files["tree"])
    damaged = reopened(log, junk(32 + 40 * number, 80, number))
    assert damaged.audit() == (len(BLOCKS), [], [])
    damaged.close()
    assert bytes(damaged._directory.files["tree"]) == good


@pytest.mark.parametrize("start", range(32, 40 * (2 * len(BLOCKS) - 1), 97))
@pytest.mark.parametrize("size", [8, 120, 512])
def test_an_author_gives_no_peer_a_damaged_node_after_an_audit(start, size):
    damaged = reopened(writer(BLOCKS, batch=9), junk(start, size, start))
    held = damaged.audit().good
    assert held == damaged.held(0, damaged.length)
    third = reader()
    for index in range(damaged.length):
        if damaged.has(index) and (proof := damaged.proof(index, digest=0, hash_only=False, remote=RemoteTree())):
            assert third.put(index, damaged.block(index), proof).block


@pytest.mark.parametrize("start", range(32, 40 * (2 * len(BLOCKS) - 1), 97))
@pytest.mark.parametrize("is_read", [False, True])
def test_what_an_audit_of_a_copy_says_stays_true(start, is_read):
    source, target = writer(BLOCKS[:9]), reader()
    for first in range(9, len(BLOCKS), 9):
        copy(source, target, range(source.length))
        source.append(BLOCKS[first : first + 9])
    copy(source, target, range(source.length))
    damaged = reopened(target, junk(start, 512, start))
    for index in range(damaged.length) if is_read else ():
        with contextlib.suppress(NotHeld):
            damaged.block(index)
    good = damaged.audit().good
    assert damaged.audit() == (good, [], [])


@pytest.mark.parametrize("start", [32 + 40 * 2, 32 + 40 * 24, 32 + 40 * 40])
async def test_blocks_of_ours_that_the_tree_proves_no_more_stay_bad(start, caplog):
    log = reopened(writer(BLOCKS), lambda files: files["tree"].__setitem__(slice(start, start + 640), bytes(640)))
    bad = (await Feed(log).audit()).bad
    assert bad
    for _ in range(2):
        log = reopened(log, lambda files: None)
        assert (await Feed(log).audit()).bad == bad
    assert log.append([b"next"]) == len(BLOCKS)


@pytest.mark.parametrize("size", [b"\x00\x00", b"\xff\xff", b"\x0d\x00"])  # the last one: of old pages
def test_a_damaged_size_of_pages_costs_an_author_nothing(size, caplog):
    log = reopened(writer(MANY), lambda files: files["bitfield"].__setitem__(slice(5, 7), size))
    assert content(log) == dict(enumerate(MANY))
    assert log.append([b"next"]) == len(MANY)
    log.close()
    assert FeedLog.open(log._directory).held(0, len(MANY) + 1) == len(MANY) + 1
