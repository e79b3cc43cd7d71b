"""A feed that lost the list of its blocks is looked through in a thread while the store goes on with other things."""

from functools import partial

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.errors import Closed, StorageLocked
from ddrive.feed import recovery
from ddrive.store.store import open_store

BLOCKS = [b"%d" % index for index in range(64)]


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Return the discovery key of a feed below `tmp_path` without bits, looked through block by block."""

    async def make():
        async with open_store(tmp_path, DWEB) as store:
            feed = await store.open_feed(name="a")
            await feed.append(BLOCKS)
            return store.discovery_key(feed.key), store.folder(feed.key) / "bitfield"

    made, bitfield = trio.run(make)
    bitfield.unlink()
    monkeypatch.setattr(recovery, "PIECE_BLOCKS", 1)
    return made


@pytest.fixture
def pieces(monkeypatch):
    """Have each piece in the thread wait for a turn of the event loop; the result says what that turn is."""
    check = trio.from_thread.check_cancelled

    class Pieces:
        done = 0

        def __init__(self):
            self.started = trio.Event()

        async def after_one(self):
            """What happens on the event loop between two pieces."""

        async def never_end(self):
            self.started.set()
            await trio.sleep_forever()

    pieces = Pieces()

    def step():
        check()
        pieces.done += 1
        trio.from_thread.run(pieces.after_one)

    monkeypatch.setattr(trio.from_thread, "check_cancelled", step)
    return pieces


async def test_other_tasks_go_on_while_a_feed_is_looked_through(tmp_path, found, pieces):
    send_piece, receive_piece = trio.open_memory_channel(0)
    seen = 0

    async def other_task():
        nonlocal seen
        async for _ in receive_piece:
            seen += 1

    pieces.after_one = lambda: send_piece.send(None)  # returns when the other task has taken it
    async with open_store(tmp_path, DWEB) as store, trio.open_nursery() as nursery:
        nursery.start_soon(other_task)
        feed = await store.open_feed(name="a")
        send_piece.close()
        assert list(feed.log.runs(0, len(BLOCKS))) == [(0, len(BLOCKS))]
    assert seen == pieces.done >= len(BLOCKS)


async def test_all_who_open_it_meanwhile_get_the_same_feed(tmp_path, found, pieces):
    feeds = []

    async def open_it():
        feeds.append(await store.open_feed(discovery_key=found))

    async with open_store(tmp_path, DWEB) as store:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(open_it)
        assert store.feeds() == [feeds[0]]
        assert all(feed is feeds[0] for feed in feeds)
        assert store.users(feeds[0].key) == 3


async def test_who_gives_up_waiting_ends_it_and_the_next_one_opens_it(tmp_path, found, pieces):
    pieces.after_one = pieces.never_end
    async with open_store(tmp_path, DWEB) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(store.open_feed, name="a"))
            await pieces.started.wait()
            nursery.cancel_scope.cancel()
        assert pieces.done == 1
        del pieces.after_one
        assert await (await store.open_feed(name="a")).get(63) == BLOCKS[63]


async def test_what_a_peer_asks_for_is_offered_when_it_has_been_looked_through(tmp_path, found, pieces):
    opened = trio.Event()

    def listener(store, feed):
        assert store.discovery_key(feed.key) == found
        opened.set()

    async with open_store(tmp_path, DWEB) as store:
        store.subscribe(listener)
        for _ in range(2):
            with pytest.raises(StorageLocked, match="looked through"):
                store.load(found)
        with trio.fail_after(30):
            await opened.wait()
        assert store.load(found).length == len(BLOCKS)


async def test_a_store_that_is_closed_waits_for_no_feed(tmp_path, found, pieces):
    pieces.after_one = pieces.never_end
    refused = []

    async def open_it(store):
        try:
            await store.open_feed(name="a")
        except Closed as error:
            refused.append(error)

    async with trio.open_nursery() as nursery, open_store(tmp_path, DWEB) as store:
        nursery.start_soon(open_it, store)
        await pieces.started.wait()
    assert len(refused) == 1
    del pieces.after_one
    async with open_store(tmp_path, DWEB) as store:
        assert (await store.open_feed(name="a")).length == len(BLOCKS)
