"""What happens to a feed, as events that a program iterates over."""

import pytest
import trio

from ddrive.feed.storage import MemoryDirectory
from ddrive.feed.subscription import MAX_WAITING_EVENTS
from ddrive.standalone import (
    Acknowledged,
    Appended,
    Cleared,
    Downloaded,
    FeedClosed,
    PeerAdded,
    PeerOpened,
    PeerRemoved,
    RemoteUpdate,
    Synced,
    Uploaded,
    open_feed,
)
from tests.standalone.pairs import BLOCKS, author_and_copy, join


async def test_an_append_is_told():
    async with open_feed(MemoryDirectory()) as feed:
        with feed.events() as events:
            await feed.append([b"a", b"b"])
            assert await anext(events) == Appended(2)


async def test_growth_that_a_peer_proves_is_told(autojump_clock):
    async with author_and_copy() as (_, copy):
        with copy.events(Appended) as events:
            await copy.update(1)
            assert await anext(events) == Appended(20)


async def test_a_block_is_told_on_both_sides(autojump_clock):
    async with author_and_copy() as (author, copy):
        with author.events(Uploaded) as up, copy.events(Downloaded) as down:
            await copy.get(4)
            assert await anext(down) == Downloaded(4, BLOCKS[4], copy.peers[0])
            assert await anext(up) == Uploaded(4, BLOCKS[4], author.peers[0])


async def test_completeness_is_told_once_per_length(autojump_clock):
    async with author_and_copy(joined=False, sparse=False) as (author, copy):
        with copy.events(Synced) as events:
            join(author, copy)
            assert await anext(events) == Synced(20)
            await author.append(b"more")
            assert await anext(events) == Synced(21)


async def test_clearing_is_told():
    async with author_and_copy(joined=False) as (author, _):
        with author.events(Cleared) as events:
            author.clear(3, 5)
            assert await anext(events) == Cleared(3, 5)


async def test_the_end_is_told_last():
    async with open_feed(MemoryDirectory()) as feed:
        events = feed.events()
        await feed.append(b"a")
    assert [event async for event in events] == [Appended(1), FeedClosed()]


async def test_a_peer_is_told_when_it_comes_takes_part_and_goes(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        with copy.events(PeerAdded, PeerOpened, PeerRemoved) as events:
            replication, _ = join(author, copy)
            assert isinstance(await anext(events), PeerAdded)
            opened = await anext(events)
            assert opened == PeerOpened(copy.peers[0])
            replication.close()
            assert await anext(events) == PeerRemoved(opened.peer)
            assert copy.peers == []


async def test_what_a_peer_announces_is_told(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        with copy.events(RemoteUpdate) as events:
            join(author, copy)
            event = await anext(events)
            assert event.peer.remote_length == 20


async def test_a_receipt_is_told_where_it_was_asked_for(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        with author.events(Acknowledged) as events:
            join(author, copy, {"ack": True})
            await copy.get(4)
            assert await anext(events) == Acknowledged(4, 1, author.peers[0])


async def test_no_receipt_comes_unasked(autojump_clock):
    async with author_and_copy() as (author, copy):
        with author.events(Acknowledged) as events, trio.move_on_after(5) as scope:
            await copy.get(4)
            await anext(events)
        assert scope.cancelled_caught


async def test_a_subscriber_hears_only_what_it_asked_for():
    async with author_and_copy(joined=False) as (author, _):
        with author.events(Cleared) as events:
            await author.append(b"x")
            author.clear(1)
            assert await anext(events) == Cleared(1, 2)


async def test_a_slow_subscriber_loses_events_and_not_memory():
    async with open_feed(MemoryDirectory()) as feed:
        with feed.events(Appended) as events:
            for _ in range(MAX_WAITING_EVENTS + 5):
                await feed.append(b"x")
            assert events.dropped == 5


async def test_a_closed_subscription_ends():
    async with open_feed(MemoryDirectory()) as feed:
        events = feed.events()
        events.close()
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_a_subscription_to_a_closed_feed_ends():
    async with open_feed(MemoryDirectory()) as feed:
        pass
    assert [event async for event in feed.events()] == []


async def test_blocks_and_bytes_are_counted_per_peer_and_in_all(autojump_clock):
    async with author_and_copy() as (author, copy):
        await copy.get_range(4, 6)
        assert copy.stats is not None
        assert author.stats is not None
        assert (copy.stats.downloaded_blocks, copy.stats.downloaded_bytes) == (2, 11)
        assert (author.stats.uploaded_blocks, author.stats.uploaded_bytes) == (2, 11)
        assert copy.peers[0].stats.downloaded_bytes == author.peers[0].stats.uploaded_bytes == 11


async def test_our_own_appends_are_not_counted():
    async with open_feed(MemoryDirectory()) as feed:
        await feed.append(b"x")
        assert feed.stats is not None
        assert (feed.stats.uploaded_blocks, feed.stats.downloaded_blocks) == (0, 0)


async def test_a_block_that_comes_twice_is_told_of_once(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy):
        with copy.events(Downloaded) as events:
            async with trio.open_nursery() as nursery:
                for beyond in range(1000, 1020):
                    nursery.start_soon(copy.seek, beyond)  # answered with a block where the length is not known
                download = copy.download(0, len(BLOCKS))
                join(author, copy)
                await download
                await trio.sleep(5)
                nursery.cancel_scope.cancel()
            await copy.aclose()
            told = [event.index async for event in events]
    assert sorted(told) == list(range(len(BLOCKS)))
