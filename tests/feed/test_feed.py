"""Waiting for blocks, lengths and places; appending durably; telling who listens."""

from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ddrive.errors import Closed, CorruptStorage, InvalidProof, LengthChanged, NotHeld, NotWritable, TooLarge
from ddrive.feed import Feed, FeedLog, FeedView, FileDirectory, MemoryDirectory, Proof, open_feed
from tests.feed.samples import PAIR, main_blocks, proof_of, reader, writer

BLOCKS = main_blocks()[:13]


class Source:
    """A block source that only notes what is wished for."""

    def __init__(self):
        self.wishes = []
        self.log = []
        self.refreshed = 0
        self.peer_count = 3

    def _wish(self, *wish):
        self.wishes.append(wish)
        self.log.append(wish)

        def withdraw():
            if wish in self.wishes:
                self.wishes.remove(wish)

        return withdraw

    def want_blocks(self, start, end, *, urgent):
        return self._wish("blocks", start, end, urgent)

    def want_offset(self, byte_offset, start, end):
        return self._wish("offset", byte_offset, start, end)

    def want_length(self, min_length):
        return self._wish("length", min_length)

    async def refresh(self):
        self.refreshed += 1


class Listener:
    def __init__(self):
        self.heard = []

    def stored(self, start, end):
        self.heard.append(("stored", start, end))

    def grew(self, length):
        self.heard.append(("grew", length))

    def cleared(self, start, end):
        self.heard.append(("cleared", start, end))

    def nodes_stored(self):
        self.heard.append(("nodes",))


@pytest.fixture
def author():
    return writer(BLOCKS)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def feed(source):
    feed = Feed(reader())
    feed.set_source(source)
    return feed


def deliver(author, feed, *indexes):
    for index in indexes:
        feed.put(index, author.block(index), proof_of(author, index, feed.log.digest(index)))


async def test_a_held_block_is_read_without_a_wish(author, feed, source):
    deliver(author, feed, 4)
    assert await feed.get(4) == feed.get_held(4) == BLOCKS[4]
    assert feed.get_held(5) is None
    with pytest.raises(NotHeld):
        await feed.get(5, wait=False)
    assert source.log == []


async def test_waiting_tasks_share_an_arriving_block(author, feed, source, autojump_clock):
    found = []

    async def wait(index):
        found.append(await feed.get(index))

    async with trio.open_nursery() as nursery:
        for index in (4, 4, 9):
            nursery.start_soon(wait, index)
        await wait_all_tasks_blocked()
        assert source.wishes.count(("blocks", 4, 5, True)) == 2
        deliver(author, feed, 4)
        await wait_all_tasks_blocked()
        assert source.wishes == [("blocks", 9, 10, True)]
        deliver(author, feed, 9)
    assert found == [BLOCKS[4], BLOCKS[4], BLOCKS[9]]
    assert source.wishes == []


async def test_a_cancelled_wait_withdraws_its_wish(author, feed, source, autojump_clock):
    for wait in (
        lambda: feed.get(3),
        lambda: feed.seek(10),
        lambda: feed.download(0, 5),
        lambda: feed.wait_length(20),
    ):
        with trio.move_on_after(1) as scope:
            await wait()
        assert scope.cancelled_caught
    assert len(source.log) == 4
    assert source.wishes == []
    deliver(author, feed, 3)  # a late answer is kept
    assert await feed.get(3) == BLOCKS[3]


async def test_a_wish_lasts_as_long_as_its_block(author, feed, source):
    with feed.want(2, 6):
        assert source.wishes == [("blocks", 2, 6, False)]
    assert source.wishes == []
    deliver(author, feed, 2, 3)
    with feed.want(2, 4):
        assert source.wishes == []
    with suppress(ZeroDivisionError), feed.want(0, 9):
        _ = 1 / 0
    assert source.wishes == []


async def test_a_download_ends_when_all_is_held(author, feed, source, autojump_clock):
    done = trio.Event()

    async def download():
        await feed.download(2, 7)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(download)
        await wait_all_tasks_blocked()
        assert source.wishes == [("blocks", 2, 7, False)]
        deliver(author, feed, 2, 9, 3, 4, 6)
        feed.clear(3, 4)
        await wait_all_tasks_blocked()
        deliver(author, feed, 3)
        await wait_all_tasks_blocked()
        assert not done.is_set()
        deliver(author, feed, 5)
    assert done.is_set()
    assert feed.held(2, 7) == 5
    await feed.download(2, 7)
    await feed.download(7, 3)


async def test_seeking_waits_for_nodes(author, feed, source, autojump_clock):
    target = author.byte_offset(9)
    results = []

    async def seek():
        results.append(await feed.seek(target, start=8, end=11))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(seek)
        await wait_all_tasks_blocked()
        assert source.wishes == [("offset", target, 8, 11)]
        deliver(author, feed, 2)
        await wait_all_tasks_blocked()
        assert source.wishes == [("offset", target, 8, 11)]
        deliver(author, feed, 9)
    assert results == [(9, 0)]
    assert await feed.seek(author.byte_length) == (13, 0)


async def test_a_place_known_from_hashes_alone_is_settled_by_the_block(feed, source, autojump_clock):
    author = writer([b"ten bytes.", b"twenty bytes, twenty"])
    honest = proof_of(author, 0, hash_only=True)
    leaf, sibling = honest.nodes
    feed.put(0, None, Proof((leaf._replace(size=15), sibling._replace(size=15)), honest.signature))
    results = []

    async def seek():
        results.append(await feed.seek(12))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(seek)
        await wait_all_tasks_blocked()
        assert source.wishes == [("blocks", 0, 1, True)]
        deliver(author, feed, 0)
    assert results == [(1, 2)]


async def test_waiting_for_a_length(author, feed, source, autojump_clock):
    lengths = []

    async def wait():
        lengths.append(await feed.wait_length(10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert source.wishes == [("length", 10)]
        feed.put(12, None, proof_of(author, 12, hash_only=True))
    assert lengths == [13]
    assert source.wishes == []
    assert await feed.wait_length(0) == 13


async def test_refreshing_is_the_sources_affair(feed, source):
    await feed.refresh()
    assert (source.refreshed, feed.peer_count) == (1, 3)
    feed.set_source(None)
    await feed.refresh()
    assert feed.peer_count == 0


async def test_listeners_hear_of_every_change(author, feed):
    listener = Listener()
    leave = feed.subscribe(listener)
    deliver(author, feed, 4)
    feed.put(9, None, proof_of(author, 9, feed.log.digest(9), hash_only=True))
    feed.clear(3, 7)
    assert listener.heard == [("grew", 13), ("stored", 4, 5), ("nodes",), ("cleared", 4, 5)]
    leave()
    leave()
    deliver(author, feed, 4)
    assert len(listener.heard) == 4


async def test_listeners_hear_of_our_own_blocks():
    feed, listener = Feed(writer()), Listener()
    feed.subscribe(listener)
    assert await feed.append([b"a", b"b"]) == 0
    assert await feed.append([]) == 2
    assert await feed.append([b"c"], expected_length=2) == 2
    assert listener.heard == [("grew", 2), ("stored", 0, 2), ("grew", 3), ("stored", 2, 3)]


async def test_a_lie_wakes_nobody(author, feed, source, autojump_clock):
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.get, 4)
            await wait_all_tasks_blocked()
            with pytest.raises(InvalidProof):
                feed.put(4, b"lie", proof_of(author, 4))
    assert scope.cancelled_caught


async def test_appending_compares_and_refuses():
    feed = Feed(writer([b"a"]))
    with pytest.raises(LengthChanged):
        await feed.append([b"b"], expected_length=0)
    with pytest.raises(TooLarge):
        await feed.append([bytes(9_000_000)])
    assert feed.length == 1
    with pytest.raises(NotWritable):
        await Feed(reader()).append([b"x"])


async def test_concurrent_appends_take_turns(tmp_path):
    async with open_feed(tmp_path) as feed:
        starts = {}

        async def append(name):
            starts[name] = await feed.append([name, name])

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(append, b"%d" % number)
        assert sorted(starts.values()) == list(range(0, 20, 2))
        for name, start in starts.items():
            assert await feed.get(start) == await feed.get(start + 1) == name
    async with open_feed(tmp_path) as again:
        assert (again.length, again.key) == (20, feed.key)


async def test_of_two_appends_that_expect_the_same_length_one_wins(tmp_path):
    async with open_feed(tmp_path) as feed:
        outcomes = []

        async def append(block):
            try:
                outcomes.append(await feed.append([block], expected_length=0))
            except LengthChanged:
                outcomes.append(None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(append, b"one")
            nursery.start_soon(append, b"two")
        assert sorted(outcomes, key=str) == [0, None]


async def test_a_cancelled_append_is_done_or_not_begun(tmp_path):
    async with open_feed(tmp_path) as feed:
        with trio.CancelScope() as scope:
            scope.cancel()
            await feed.append([b"x"])
        assert feed.length in (0, 1)
        start = await feed.append([b"y"])
        assert await feed.get(start) == b"y"


async def test_nothing_is_published_before_it_is_durable():
    log = writer()
    feed, listener, seen = Feed(log), Listener(), []
    feed.subscribe(listener)
    secure = log.secure

    def spy(staged):
        seen.append((feed.length, list(listener.heard), feed.get_held(0)))
        secure(staged)

    log.secure = spy
    await feed.append([b"x"])
    assert seen == [(0, [], None)]
    assert feed.get_held(0) == b"x"


async def test_a_failed_append_publishes_nothing():
    log = writer([b"a"])
    feed, listener = Feed(log), Listener()
    feed.subscribe(listener)

    def fail(staged):
        raise OSError(28, "no space left")

    log.secure = fail
    with pytest.raises(OSError, match="no space"):
        await feed.append([b"x"])
    assert (feed.length, listener.heard) == (1, [])
    del log.secure
    assert await feed.append([b"y"]) == 1


async def test_an_append_whose_bits_cannot_be_written_still_counts(caplog):
    directory = MemoryDirectory()
    log = writer([b"a"], directory)
    feed = Feed(log)

    def fail(pages):
        raise OSError(28, "no space left")

    log.end_flush = fail
    assert await feed.append([b"x"]) == 1
    assert "bits not written" in caplog.text
    copied = MemoryDirectory({name: bytearray(file) for name, file in directory.files.items()})
    assert FeedLog.open(copied).block(1) == b"x"
    del log.end_flush
    await feed.aclose()
    assert FeedLog.open(directory).block(1) == b"x"


async def test_closing_ends_all_waits(feed, autojump_clock):
    ended = []

    async def wait(call, *arguments):
        with pytest.raises(Closed):
            await call(*arguments)
        ended.append(call)

    async with trio.open_nursery() as nursery:
        for call, *arguments in ((feed.get, 1), (feed.seek, 9), (feed.download, 0, 3), (feed.wait_length, 5)):
            nursery.start_soon(wait, call, *arguments)
        await wait_all_tasks_blocked()
        await feed.aclose()
    assert len(ended) == 4
    await feed.aclose()
    for call, argument in ((feed.get, 0), (feed.append, [b"x"]), (feed.wait_length, 3)):
        with pytest.raises(Closed):
            await call(argument)
    await feed.flush()


async def test_flushed_bits_are_on_disk(author, tmp_path):
    feed = Feed(reader(FileDirectory(tmp_path)))
    deliver(author, feed, 3, 4)
    await feed.flush()
    await feed.flush()
    files = {path.name: bytearray(path.read_bytes()) for path in tmp_path.iterdir()}
    assert FeedLog.open(MemoryDirectory(files)).runs(0, 13) == [(3, 5)]
    await feed.aclose()


async def test_a_damaged_block_is_asked_for_again(author, tmp_path, source):
    feed = Feed(reader(FileDirectory(tmp_path)))
    deliver(author, feed, *range(13))
    await feed.aclose()
    content = bytearray((tmp_path / "data").read_bytes())
    content[author.byte_offset(6)] ^= 1
    (tmp_path / "data").write_bytes(content)
    feed, listener = Feed(FeedLog.open(FileDirectory(tmp_path))), Listener()
    feed.set_source(source)
    feed.subscribe(listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.get, 6)
        await wait_all_tasks_blocked()
        assert listener.heard == [("cleared", 6, 7)]
        assert source.wishes == [("blocks", 6, 7, True)]
        deliver(author, feed, 6)
    await feed.aclose()


async def test_an_author_hears_of_damage(tmp_path):
    async with open_feed(tmp_path) as feed:
        await feed.append([b"precious"])
    (tmp_path / "data").write_bytes(b"PRECIOUS")
    async with open_feed(tmp_path) as feed:
        with pytest.raises(CorruptStorage):
            await feed.get(0)


async def test_an_audit_reports_and_drops_bad_blocks(author, tmp_path):
    feed, listener = Feed(reader(FileDirectory(tmp_path))), Listener()
    deliver(author, feed, *range(13))
    feed.subscribe(listener)
    with (tmp_path / "data").open("r+b") as file:
        file.seek(author.byte_offset(11))
        file.write(b"\x00\xff\x00")
    assert await feed.audit() == (12, [11], [])
    assert listener.heard == [("cleared", 11, 12)]
    await feed.aclose()


async def test_a_view_waits_for_what_its_owner_reports(author, tmp_path, source, autojump_clock):
    owner = reader(FileDirectory(tmp_path))
    view = Feed(FeedView(FileDirectory(tmp_path, read_only=True), owner.key))
    view.set_source(source)
    found = []

    async def wait():
        found.append(await view.wait_length(5))
        found.append(await view.get(4))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        owner.put(4, BLOCKS[4], proof_of(author, 4))
        view.report_grew(13)
        view.report_stored(4, 5)
    assert found == [13, BLOCKS[4]]
    view.report_cleared(4, 5)
    assert view.get_held(4) is None
    with pytest.raises(NotWritable):
        await view.append([b"x"])
    with pytest.raises(NotWritable):
        view.put(4, BLOCKS[4], proof_of(author, 4))

    async def append_elsewhere(blocks, expected_length, atomic):
        return len(blocks) * 100

    view.appender = append_elsewhere
    assert await view.append([b"x"]) == 100
    await view.aclose()
    owner.close()


async def test_indexes_that_no_feed_has(feed):
    for index in (-1, 1 << 60):
        with pytest.raises(ValueError, match="index"):
            await feed.get(index)


async def test_opening_somebody_elses_feed(tmp_path):
    async with open_feed(tmp_path / "theirs", key=PAIR.public_key) as feed:
        assert (feed.key, feed.writable, feed.length) == (PAIR.public_key, False, 0)
    async with open_feed(MemoryDirectory(), secret_key=PAIR.secret_key) as feed:
        assert (feed.key, feed.writable) == (PAIR.public_key, True)
