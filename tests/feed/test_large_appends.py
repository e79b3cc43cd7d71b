"""Appends of many bytes: a thread makes the hashes while the blocks are written. The files are real."""

import errno
import threading
import time

import pytest
import trio
import trio.testing

from ddrive.errors import Closed, CorruptStorage
from ddrive.feed import Feed, FeedLog, FileDirectory, appending
from ddrive.feed.appending import BESIDE_BYTES
from ddrive.feed.storage import FILE_NAMES, FileStorage
from tests.feed.samples import content, writer
from tests.support.until import until

BLOCKS = [bytes([number]) * (65536 - number) for number in range(2 * BESIDE_BYTES // 65536)]


@pytest.mark.parametrize("durable", [True, False])
async def test_the_files_are_those_of_small_appends(tmp_path, durable):
    feed = Feed(writer(directory=FileDirectory(tmp_path / "large")))
    assert await feed.append(BLOCKS, durable=durable) == 0
    assert await feed.append([b"", b"more"], durable=durable) == len(BLOCKS)
    assert await feed.append(BLOCKS, durable=durable) == len(BLOCKS) + 2
    await feed.aclose()
    small = Feed(writer(directory=FileDirectory(tmp_path / "small")))
    for block in [*BLOCKS, b"", b"more", *BLOCKS]:
        await small.append([block], durable=False)
    await small.aclose()
    for name in sorted({*FILE_NAMES} - {"signatures"}):
        found = [tmp_path / kind / name for kind in ("large", "small")]
        assert [path.exists() for path in found] in ([True, True], [False, False])
        if found[0].exists():
            assert found[0].read_bytes() == found[1].read_bytes(), name


@pytest.mark.parametrize("durable", [True, False])
async def test_a_full_disk_leaves_the_feed_as_it_was(tmp_path, monkeypatch, durable):
    feed = Feed(writer([b"before"], FileDirectory(tmp_path)))
    name = "write_through" if durable else "write_all"
    write = getattr(FileStorage, name)

    def full(self, offset, pieces):
        write(self, offset, pieces[:3])
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, name, full)
        with pytest.raises(OSError, match="no space left"):
            await feed.append(BLOCKS, durable=durable)
    assert (feed.length, (tmp_path / "data").stat().st_size) == (1, len(b"before"))
    assert await feed.append(BLOCKS, durable=durable) == 1
    assert [feed.get_held(index + 1) for index in range(len(BLOCKS))] == BLOCKS
    await feed.aclose()


@pytest.mark.parametrize(("number", "is_final"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EIO, True)])
async def test_a_signature_for_which_there_is_no_room_is_taken_back(tmp_path, monkeypatch, number, is_final):
    feed = Feed(writer([b"before"], FileDirectory(tmp_path)))
    signatures = feed.log._files._signatures
    before, sync = (tmp_path / "signatures").read_bytes(), type(signatures).sync
    failures = [OSError(number, "it is not on the disk")]

    def fails(self):
        if self is signatures and failures:
            raise failures.pop()
        sync(self)

    monkeypatch.setattr(type(signatures), "sync", fails)
    with pytest.raises(OSError, match="it is not on the disk"):
        await feed.append([b"given up"])
    if is_final:  # two signatures of one length could be found
        with pytest.raises(CorruptStorage):
            await feed.append([b"after"])
    else:
        assert (tmp_path / "signatures").read_bytes() == before
        assert await feed.append([b"after"]) == 1
    await feed.aclose()
    again = Feed(FeedLog.open(FileDirectory(tmp_path)))
    assert again.get_held(1) == (b"given up" if is_final else b"after")
    await again.aclose()


async def test_while_one_is_made_durable_the_next_one_is_written(tmp_path, monkeypatch):
    feed = Feed(writer(directory=FileDirectory(tmp_path)))
    monkeypatch.setattr(appending, "TOGETHER_BYTES", BESIDE_BYTES)
    ends = staged_at_each_sync(feed, monkeypatch)
    async with trio.open_nursery() as nursery, feed._turn:
        for number in range(4):
            nursery.start_soon(append_in_order, feed, number)
            await trio.testing.wait_all_tasks_blocked()
    assert max(ends) == 2
    assert [feed.get_held(index) for index in range(feed.length)] == BLOCKS * 4
    await feed.aclose()
    assert len(content(FeedLog.open(FileDirectory(tmp_path)))) == 4 * len(BLOCKS)


async def test_what_was_written_behind_a_sync_that_failed_is_written_again(tmp_path, monkeypatch):
    feed = Feed(writer(directory=FileDirectory(tmp_path)))
    monkeypatch.setattr(appending, "TOGETHER_BYTES", BESIDE_BYTES)
    sync_content, failing = feed.log._files.sync_content, [True]

    def sync_or_not():
        if failing:
            failing.pop()
            time.sleep(0.2)  # so that the next one is written by then
            raise OSError(errno.EIO, "the disk is broken")
        sync_content()

    monkeypatch.setattr(feed.log._files, "sync_content", sync_or_not)
    found = []

    async def append(first):
        try:
            found.append((first, await feed.append([first, *BLOCKS])))
        except OSError as error:
            found.append((first, error.errno))

    async with trio.open_nursery() as nursery, feed._turn:
        for first in (b"one", b"two", b"three"):
            nursery.start_soon(append, first)
            await trio.testing.wait_all_tasks_blocked()
    size = len(BLOCKS) + 1
    assert found == [(b"one", errno.EIO), (b"two", 0), (b"three", size)]
    assert [feed.get_held(0), feed.get_held(size), feed.length] == [b"two", b"three", 2 * size]
    await feed.aclose()
    assert content(FeedLog.open(FileDirectory(tmp_path)))[size] == b"three"


async def test_closing_makes_durable_what_is_written_already(tmp_path, monkeypatch):
    feed = Feed(writer(directory=FileDirectory(tmp_path)))
    monkeypatch.setattr(appending, "TOGETHER_BYTES", BESIDE_BYTES)
    ends = staged_at_each_sync(feed, monkeypatch)
    found = []

    async def append(number):
        try:
            found.append(await feed.append(BLOCKS, expected_length=number * len(BLOCKS)))
        except Closed:
            found.append(None)

    async with trio.open_nursery() as nursery:
        async with feed._turn:
            for number in range(4):
                nursery.start_soon(append, number)
                await trio.testing.wait_all_tasks_blocked()
        await until(lambda: bool(ends))
        await feed.aclose()
    done = [index for index in found if index is not None]
    assert done == [number * len(BLOCKS) for number in range(len(done))]
    assert 2 <= len(done) < 4
    assert len(content(FeedLog.open(FileDirectory(tmp_path)))) == len(done) * len(BLOCKS)


async def append_in_order(feed, number):
    """Append `BLOCKS` as the one after `number` others."""
    await feed.append(BLOCKS, expected_length=number * len(BLOCKS))


def staged_at_each_sync(feed, monkeypatch):
    """Return where is noted, at the end of each sync, how many appends are written and not part of the feed yet."""
    found = []
    secure = feed.log.secure

    def slow(staged):
        time.sleep(0.2)
        secure(staged)
        found.append((feed.log._staged.length - feed.log.length) // len(BLOCKS))

    monkeypatch.setattr(feed.log, "secure", slow)
    return found


@pytest.mark.parametrize("blocks", [[b"small"], BLOCKS], ids=["small", "large"])
async def test_cancelling_one_that_is_staged_ahead_spoils_nothing(tmp_path, monkeypatch, blocks):
    feed = Feed(writer(directory=FileDirectory(tmp_path)))
    monkeypatch.setattr(appending, "TOGETHER_BYTES", BESIDE_BYTES)
    secure, gate = feed.log.secure, threading.Event()

    def held_back(staged):
        assert gate.wait(20)
        secure(staged)

    monkeypatch.setattr(feed.log, "secure", held_back)
    found = {}

    async def append(name, what):
        found[name] = await feed.append(what), feed.length

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def cancelled():
            with scope:
                await append("second", BLOCKS)

        async with feed._turn:
            nursery.start_soon(append, "first", BLOCKS)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(cancelled)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(append, "third", blocks)
            await trio.testing.wait_all_tasks_blocked()
        await until(lambda: feed._next is not None)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    size = len(BLOCKS)
    assert found == {
        "first": (0, found["first"][1]),
        "second": (size, found["second"][1]),
        "third": (2 * size, 2 * size + len(blocks)),
    }
    assert [feed.get_held(0), feed.get_held(size), feed.get_held(2 * size)] == [BLOCKS[0], BLOCKS[0], blocks[0]]
    await feed.aclose()


async def test_a_hash_that_fails_leaves_the_feed_usable(tmp_path, monkeypatch):
    feed = Feed(writer([b"before"], FileDirectory(tmp_path)))

    def fails(before, blocks):
        raise MemoryError("too little")

    with monkeypatch.context() as patch:
        patch.setattr(feed.log, "grown", fails)
        with pytest.raises(MemoryError):
            await feed.append(BLOCKS)
    assert (feed.length, (tmp_path / "data").stat().st_size) == (1, len(b"before"))
    assert await feed.append(BLOCKS) == 1
    await feed.aclose()


async def test_a_signer_that_does_not_answer_leaves_the_feed_usable(monkeypatch):
    feed = Feed(writer([b"before"]))
    signer = feed.log._signer

    def silent(message):
        raise OSError(errno.EIO, "the token does not answer")

    monkeypatch.setattr(feed.log, "_signer", silent)
    with pytest.raises(OSError, match="token"):
        await feed.append([b"given up"])
    assert await feed.append([b"unsigned"], durable=False) == 1
    with pytest.raises(OSError, match="token"):
        await feed.flush()
    monkeypatch.setattr(feed.log, "_signer", signer)
    assert await feed.append([b"after"]) == 2
    await feed.aclose()
