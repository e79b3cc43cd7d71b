"""What is left of a feed after damage and after power losses: never a wrong block, never a second signature."""

import random
from contextlib import suppress

import pytest

from ddrive.errors import AlreadyExists, CorruptStorage
from ddrive.feed import FeedLog, MemoryDirectory
from tests.feed.samples import (
    PAIR,
    Crashed,
    CrashingDirectory,
    content,
    copy,
    main_blocks,
    reader,
    writer,
)

BLOCKS = main_blocks()[:7]  # small ones
SIX = BLOCKS[:6]


def damaged(change, *, author=True):
    """Return the feed of a batch of 5 and one of 1, after `change` was made to its files."""
    source = writer(SIX[:5])
    target = source if author else reader()
    if not author:
        copy(source, target, range(5))
    source.append(SIX[5:])
    if not author:
        copy(source, target, [5])
    target.close()
    files = target._directory.files
    change(files)
    return FeedLog.open(MemoryDirectory(files))


def cut(name, size):
    def change(files):
        del files[name][size:]

    return change


def lose_last_signature(files):
    del files["signatures"][32 + 5 * 64 :]


def lose_bits(files):
    del files["bitfield"][:]


def tear_last_signature(files):
    files["signatures"][32 + 5 * 64 + 32 :] = bytes(32)


def overwrite(name):
    def change(files):
        files[name][:] = random.Random(5).randbytes(len(files[name]))

    return change


@pytest.mark.parametrize("name", ["tree", "signatures", "bitfield"])
def test_a_reader_fetches_again_what_was_overwritten_with_its_header(name):
    log = damaged(overwrite(name), author=False)
    source = writer(SIX[:5])
    source.append(SIX[5:])
    copy(source, log, range(6))
    assert content(log) == dict(enumerate(SIX))


@pytest.mark.parametrize("name", ["tree", "signatures", "bitfield"])
def test_an_author_signs_nothing_else_after_a_file_was_overwritten_with_its_header(name):
    log = damaged(overwrite(name))
    with suppress(CorruptStorage):
        assert log.append([b"next"]) == 6


@pytest.mark.parametrize("change", [lose_bits, cut("bitfield", 32 + 1), cut("bitfield", 32), lose_last_signature])
def test_an_authors_feed_survives_the_loss_of_what_can_be_computed(change):
    log = damaged(change)
    assert log.length == 6
    assert content(log) == dict(enumerate(SIX))
    assert log.append([b"next"]) == 6
    log.close()
    again = FeedLog.open(log._directory)
    assert content(again) == dict(enumerate([*SIX, b"next"]))


def test_half_a_signature_is_completed():
    log = damaged(tear_last_signature)
    assert log.append([b"next"]) == 6


def test_a_signature_that_was_overwritten_is_made_again_from_the_whole_tree():
    log = damaged(lambda files: files["signatures"].__setitem__(slice(32 + 5 * 64, None), b"x" * 64))
    assert log.append([b"next"]) == 6


@pytest.mark.parametrize("lost", [bytes(64), b"x" * 64], ids=["zeroed", "overwritten"])
@pytest.mark.parametrize("place", [0, 35])  # of its hash, of its size
def test_what_the_disk_made_of_the_last_leaf_is_not_signed(lost, place):
    source = writer(SIX[:5])
    source.close()
    files = source._directory.files
    signature = files["signatures"][32 + 4 * 64 :]
    files["signatures"][32 + 4 * 64 :] = lost
    files["tree"][32 + 40 * 8 + place] ^= 1  # a root by itself: no node above it shows the change
    log = FeedLog.open(MemoryDirectory(files))
    with pytest.raises(CorruptStorage):
        log.append([b"next"])
    log.close()
    with pytest.raises(CorruptStorage):  # although its bits do not say any more how much was signed
        FeedLog.open(MemoryDirectory(files)).append([b"next"])
    files["tree"][32 + 40 * 8 + place] ^= 1
    files["signatures"][32 + 4 * 64 :] = signature
    log = FeedLog.open(MemoryDirectory(files))
    assert content(log) == dict(enumerate(SIX[:5]))
    assert log.append([b"next"]) == 5


@pytest.mark.parametrize(
    ("change", "length"),
    [
        (cut("tree", 32 + 40 * 9), 5),  # root 9 of 6 blocks, not the roots of 5
        (cut("tree", 32 + 40 * 8), 0),
        (cut("signatures", 32 + 64 * 5), 5),
        (cut("signatures", 32 + 64 * 4), 0),
        (cut("signatures", 40), 0),
        (cut("tree", 10), 0),
    ],
)
def test_a_reader_steps_back_to_what_is_proven_and_fetches_the_rest(change, length):
    log = damaged(change, author=False)
    assert log.length == length
    copy(writer(SIX), log, [index for index in range(6) if not log.has(index)])
    assert content(log) == dict(enumerate(SIX))
    log.close()
    assert FeedLog.open(log._directory).length == 6


@pytest.mark.parametrize("change", [cut("tree", 32 + 40 * 9), cut("tree", 33), lambda files: files.pop("tree")])
def test_an_author_never_signs_again_what_was_signed(change):
    log = damaged(change)
    assert log.length < 6
    with pytest.raises(CorruptStorage):
        log.append([b"other"])
    log.close()
    with pytest.raises(CorruptStorage):
        FeedLog.open(log._directory).append([b"other"])


def test_bits_without_a_key_are_nobodys():
    log = damaged(lambda files: None)
    log.close()
    files = log._directory.files
    del files["key"], files["secret_key"]
    with pytest.raises(AlreadyExists):
        FeedLog.create(MemoryDirectory(files), key=PAIR.public_key, secret_key=PAIR.secret_key)
    found = FeedLog.open(MemoryDirectory(files), key=PAIR.public_key, secret_key=PAIR.secret_key)
    assert content(found) == dict(enumerate(SIX)), "the signatures show whose they are"


def durable_append(log, blocks):
    """Append as `Feed.append` does."""
    staged = log.stage(blocks)
    log.secure(staged)
    log.publish(staged)
    log.end_flush(log.begin_flush() or [])


BATCHES = [[b"one"], [b"two", b"", b"three" * 200], [b"4", b"5"], [b"six" * 300], [b"7"] * 9, [b"eight"]]
ALL = [block for batch in BATCHES for block in batch]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("changes", range(72))
def test_a_power_loss_while_appending_loses_only_what_was_not_acknowledged(changes, seed):
    disk, acknowledged = CrashingDirectory(changes), 0
    try:
        log = writer(directory=disk)
        for batch in BATCHES:
            durable_append(log, batch)
            acknowledged += len(batch)
    except Crashed:
        pass
    directory = disk.after_restart(seed)
    if not directory.exists("key") or len(directory.files["key"]) < 32:
        assert acknowledged == 0
        return
    log = FeedLog.open(directory, secret_key=PAIR.secret_key)
    assert acknowledged <= log.length <= len(ALL)
    assert content(log) == dict(enumerate(ALL[: log.length]))
    log.append([b"after"])  # only possible where nothing longer can have been signed
    log.close()
    assert content(FeedLog.open(directory))[log.length - 1] == b"after"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("changes", range(0, 90, 2))
def test_a_power_loss_while_downloading_never_invents_a_block(changes, seed):
    blocks = main_blocks()[:20]
    source, order = writer(blocks, batch=6), list(range(20))
    random.Random(seed).shuffle(order)
    disk = CrashingDirectory(changes)
    try:
        log = reader(disk)
        for count, index in enumerate(order):
            copy(source, log, [index])
            if count % 4 == 3:
                log.flush()
            if count % 6 == 5:
                log.clear(order[count - 2], order[count - 2] + 1)
    except Crashed:
        pass
    directory = disk.after_restart(seed)
    if not directory.exists("key") or len(directory.files["key"]) < 32:
        return
    log = FeedLog.open(directory)
    assert log.length in (0, 20)
    log.audit()
    assert all(blocks[index] == block for index, block in content(log).items())
    copy(source, log, [index for index in range(20) if not log.has(index)])
    assert content(log) == dict(enumerate(blocks))


def test_flushed_blocks_survive_a_power_loss():
    source, disk = writer(SIX), CrashingDirectory(10_000)
    log = reader(disk)
    copy(source, log, [1, 4])
    log.sync()
    copy(source, log, [2])
    found = FeedLog.open(disk.after_restart(0))
    assert {1, 4} <= set(content(found))


@pytest.mark.parametrize("step", ["sync_content", "write_pages"])
def test_the_bits_of_a_flush_that_failed_are_written_by_the_next_one(monkeypatch, step):
    source, directory = writer(SIX), MemoryDirectory()
    log = reader(directory)
    copy(source, log, [1, 4])

    def broken(*pages):
        raise OSError(28, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(log._files, step, broken)
        with pytest.raises(OSError, match="no space"):
            log.flush()
    log.flush()
    assert {1, 4} <= set(content(FeedLog.open(MemoryDirectory(directory.files))))


def test_after_a_failed_sync_nothing_else_is_signed_in_that_place():
    class Failing(MemoryDirectory):
        def open(self, name, *, create):
            storage = super().open(name, create=create)
            if name == "signatures":
                storage.sync = self.fail
            return storage

        def fail(self):
            raise OSError(5, "the disk is broken")

    directory = Failing()
    log = FeedLog.create(directory, key=PAIR.public_key, secret_key=PAIR.secret_key)
    staged = log.stage([b"one"])
    with pytest.raises(OSError, match="broken"):
        log.secure(staged)
    log.abandon()
    assert log.length == 0
    with pytest.raises(CorruptStorage):
        log.append([b"two"])
    again = FeedLog.open(MemoryDirectory(directory.files))
    assert content(again) == {0: b"one"}


def blank(name, start):
    def change(files):
        files[name][start:] = bytes(len(files[name]) - start)

    return change


NO_SIGNATURES = [
    lambda files: files.pop("signatures"),
    cut("signatures", 0),
    cut("signatures", 32),
    blank("signatures", 0),
    blank("signatures", 32),
    blank("signatures", 32 + 64 * 2),
]


@pytest.mark.parametrize("change", NO_SIGNATURES)
@pytest.mark.parametrize("bits", [lambda files: files.pop("bitfield"), blank("bitfield", 0), blank("bitfield", 32)])
def test_an_author_signs_the_same_again_when_signatures_and_bits_are_lost(change, bits):
    log = damaged(lambda files: (change(files), bits(files)))
    assert content(log) == dict(enumerate(SIX))
    assert log.append([b"seven"]) == 6
    log.close()
    assert content(FeedLog.open(log._directory)) == dict(enumerate([*SIX, b"seven"]))


def test_what_a_failed_append_left_behind_a_signature_is_not_taken_up():
    log = writer()
    log.append([b"1"])
    log.stage([b"2", b"3", b"4", b"5"])
    log.abandon()
    log.append([b"other"])
    log.close()
    assert content(FeedLog.open(log._directory)) == {0: b"1", 1: b"other"}


def test_a_first_append_that_is_torn_stops_nothing():
    log = writer()
    log.stage([b"1", b"2", b"3"])
    log._directory.files["tree"][32 + 40 : 32 + 80] = bytes(40)
    log = FeedLog.open(MemoryDirectory(log._directory.files))
    assert (log.length, log.append([b"other"])) == (0, 0)


@pytest.mark.parametrize("spoil", [cut("data", 0), cut("data", 3), blank("data", 0), blank("data", 4)])
def test_a_first_append_whose_blocks_did_not_reach_the_disk_is_none(spoil):
    log = writer()
    log.stage([b"1234", b"5678"])
    spoil(log._directory.files)
    log = FeedLog.open(MemoryDirectory(log._directory.files))
    assert (log.length, log.append([b"other"])) == (0, 0)
    assert content(log) == {0: b"other"}
