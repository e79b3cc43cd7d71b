"""Reading: held blocks at once, others from peers, and every way to wait for less long."""

from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from ddrive.crypto import KeyPair
from ddrive.errors import Closed, Forked, NoPeers, NotHeld, TimedOut, Withdrawn
from ddrive.feed.merkle import Proof
from ddrive.feed.storage import MemoryDirectory
from ddrive.standalone import StandaloneFeed, open_feed
from tests.standalone.pairs import BLOCKS, author_and_copy, join


async def test_a_block_comes_from_a_peer(autojump_clock):
    async with author_and_copy() as (_, copy):
        assert await copy.get(7) == BLOCKS[7]
        assert copy.downloaded_count() == 1


async def test_without_waiting_a_missing_block_is_an_error():
    async with author_and_copy() as (_, copy):
        with pytest.raises(NotHeld):
            await copy.get(7, wait=False)


async def test_a_wait_ends_with_its_timeout(autojump_clock):
    async with author_and_copy(joined=False) as (_, copy):
        started = trio.current_time()
        with pytest.raises(TimedOut, match="block 7"):
            await copy.get(7, timeout=3)
        assert trio.current_time() - started == pytest.approx(3)


async def test_the_program_hears_once_that_it_has_to_wait(autojump_clock):
    waits: list[int] = []
    async with author_and_copy() as (_, copy):
        await copy.get(7, on_wait=waits.append)
        await copy.get(7, on_wait=waits.append)
    assert waits == [7]


async def test_a_block_that_no_peer_has_is_not_waited_for(autojump_clock):
    async with author_and_copy() as (_, copy):
        with pytest.raises(NoPeers, match="block 20"):
            await copy.get(20, if_available=True)


async def test_a_block_that_a_peer_has_is_waited_for(autojump_clock):
    async with author_and_copy() as (_, copy):
        assert await copy.get(19, if_available=True) == BLOCKS[19]


async def test_without_a_peer_nothing_is_available():
    async with author_and_copy(joined=False) as (_, copy):
        with pytest.raises(NoPeers):
            await copy.get(0, if_available=True)


async def test_availability_can_be_the_default():
    async with author_and_copy(joined=False, if_available=True) as (_, copy):
        with pytest.raises(NoPeers):
            await copy.get(0)


async def test_a_block_that_does_not_exist_yet_is_waited_for(autojump_clock):
    async with author_and_copy() as (author, copy), trio.open_nursery() as nursery:
        nursery.start_soon(author.append, b"late")
        assert await copy.get(20) == b"late"


async def test_closing_ends_a_wait(autojump_clock):
    async with author_and_copy(joined=False) as (_, copy), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(Closed):
                await copy.get(7)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await copy.aclose()


@pytest.mark.parametrize("span", [(7,), (7, 8), (0, 20)])
async def test_a_wait_can_be_cancelled_by_its_block(span: tuple[int, ...]):
    async with author_and_copy(joined=False) as (_, copy), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(Withdrawn):
                await copy.get(7)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        copy.cancel(*span)


@pytest.mark.parametrize("span", [(7,), (3, 6), (8, 20), (0, 20)])
async def test_a_wait_for_a_range_is_cancelled_by_any_of_its_blocks(span: tuple[int, ...], autojump_clock):
    async with author_and_copy(joined=False) as (_, copy), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(Withdrawn):
                await copy.get_range(5, 10)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        copy.cancel(4)
        copy.cancel(10, 12)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        copy.cancel(*span)
        nursery.cancel_scope.deadline = trio.current_time() + 1
    assert not nursery.cancel_scope.cancelled_caught


async def test_what_a_forked_feed_will_never_have_is_not_waited_for(autojump_clock):
    pair = KeyPair.from_seed(b"f" * 32)
    async with (
        open_feed(MemoryDirectory(), secret_key=pair.secret_key) as kept,
        open_feed(MemoryDirectory(), secret_key=pair.secret_key) as other,
        open_feed(MemoryDirectory(), pair.public_key) as copy,
    ):
        await kept.append(["same", "kept"])
        await other.append(["same", "other", "more"])
        for author in (kept, other):
            join(author, copy)
            await trio.sleep(5)
        assert copy.forked
        assert await copy.get_range(0, 2) == [b"same", b"kept"]
        for wait in (lambda: copy.get(2), lambda: copy.get_range(1, 3), lambda: copy.update()):
            with trio.fail_after(60), pytest.raises(Forked, match="2 blocks"):
                await wait()
        with pytest.raises(NotHeld):
            await copy.get(2, wait=False)


async def test_other_waits_go_on(autojump_clock):
    async with author_and_copy(joined=False) as (author, copy), trio.open_nursery() as nursery:
        nursery.start_soon(copy.get, 8)
        await wait_all_tasks_blocked()
        copy.cancel(7)
        join(author, copy)


async def test_a_range_comes_from_a_peer(autojump_clock):
    async with author_and_copy() as (_, copy):
        assert await copy.get_range(5, 15) == BLOCKS[5:15]


async def test_an_empty_range_is_empty():
    async with author_and_copy(joined=False) as (_, copy):
        assert await copy.get_range(5, 5) == []


async def test_a_range_that_is_not_held_is_an_error_without_waiting():
    async with author_and_copy(joined=False) as (_, copy):
        with pytest.raises(NotHeld, match="10 of"):
            await copy.get_range(5, 15, wait=False)


async def test_a_range_ends_with_its_timeout(autojump_clock):
    async with author_and_copy(joined=False) as (_, copy):
        with pytest.raises(TimedOut):
            await copy.get_range(5, 15, timeout=1)


async def test_a_range_that_peers_lack_is_not_waited_for(autojump_clock):
    async with author_and_copy() as (_, copy):
        with pytest.raises(NoPeers):
            await copy.get_range(15, 25, if_available=True)


async def test_the_head_is_the_last_block(autojump_clock):
    async with author_and_copy() as (_, copy):
        assert await copy.head(update=True) == BLOCKS[-1]


async def test_looking_for_a_newer_head_ends_with_its_timeout(autojump_clock):
    async with author_and_copy(joined=False) as (_, copy):
        near, _ = memory_stream_pair()
        copy.replicate(near, True)  # nobody answers the handshake
        started = trio.current_time()
        with pytest.raises(TimedOut, match="last block"):
            await copy.head(update=True, timeout=2)
        assert trio.current_time() - started < 3


async def test_an_empty_feed_has_no_head():
    async with open_feed(MemoryDirectory()) as feed:
        with pytest.raises(NotHeld, match="empty"):
            await feed.head()


async def test_what_is_held_can_be_asked(autojump_clock):
    async with author_and_copy() as (_, copy):
        await copy.get_range(5, 8)
        assert (copy.has(5), copy.has(8), copy.has(5, 8), copy.has(5, 9)) == (True, False, True, False)
        assert (copy.downloaded_count(), copy.downloaded_count(6), copy.downloaded_count(0, 6)) == (3, 2, 1)


async def test_a_byte_is_found_by_way_of_a_peer(autojump_clock):
    async with author_and_copy() as (_, copy):
        assert await copy.seek(sum(map(len, BLOCKS[:9])) + 3) == (9, 3)


async def test_the_end_of_the_bytes_is_the_end_of_the_feed():
    async with author_and_copy(joined=False) as (author, _):
        assert await author.seek(author.byte_length) == (20, 0)


async def test_a_byte_whose_place_is_not_known_is_an_error_without_waiting():
    async with author_and_copy(joined=False) as (_, copy):
        with pytest.raises(NotHeld):
            await copy.seek(50, wait=False)


async def test_a_seek_ends_with_its_timeout(autojump_clock):
    async with author_and_copy(joined=False) as (_, copy):
        with pytest.raises(TimedOut):
            await copy.seek(50, timeout=2)


@pytest.mark.parametrize("joined", [False, True])
async def test_a_byte_beyond_all_peers_is_not_waited_for(joined: bool, autojump_clock):
    async with author_and_copy(joined=joined) as (_, copy):
        with pytest.raises(NoPeers):
            await copy.seek(10_000, if_available=True)


async def test_an_update_proves_the_length_and_fetches_no_block(autojump_clock):
    async with author_and_copy() as (_, copy):
        assert await copy.update() == 20
        assert copy.downloaded_count() == 0


async def test_an_update_can_fetch_the_block(autojump_clock):
    async with author_and_copy() as (_, copy):
        await copy.update(12, hash=False)
        assert copy.has(11)


async def test_an_update_waits_for_its_length(autojump_clock):
    async with author_and_copy() as (author, copy), trio.open_nursery() as nursery:
        nursery.start_soon(author.append, [b"a", b"b"])
        assert await copy.update(22) == 22


async def test_an_update_ends_with_its_timeout(autojump_clock):
    async with author_and_copy() as (_, copy):
        with pytest.raises(TimedOut):
            await copy.update(21, timeout=1)


async def test_an_update_that_no_peer_has_is_not_waited_for(autojump_clock):
    async with author_and_copy() as (_, copy):
        with pytest.raises(NoPeers):
            await copy.update(21, if_available=True)


async def test_nobody_has_more_of_our_own_feed(autojump_clock):
    async with author_and_copy() as (author, _):
        with pytest.raises(NoPeers, match="our own"):
            await author.update(if_available=True)


async def test_a_length_that_is_there_needs_no_peer():
    async with author_and_copy(joined=False) as (author, _):
        assert await author.update(20) == 20


async def test_the_remote_length_is_what_peers_claim(autojump_clock):
    async with author_and_copy() as (_, copy):
        await copy.update(1)
        assert copy.remote_length == 20


async def test_a_feed_that_follows_the_length_fetches_no_block(autojump_clock):
    async with author_and_copy(eager_update=True) as (author, copy):
        await author.append(b"more")
        await trio.sleep(2)
        assert (copy.length, copy.downloaded_count()) == (21, 0)


async def test_an_eager_feed_fetches_everything(autojump_clock):
    async with author_and_copy(sparse=False) as (author, copy):
        await author.append(b"more")
        await trio.sleep(2)
        assert copy.has(0, 21)


@pytest.mark.parametrize(
    "ask",
    [
        lambda feed: feed.get(-1),
        lambda feed: feed.get_range(-2, 3),
        lambda feed: feed.get_range(0, 1 << 60),
        lambda feed: feed.seek(-1),
        lambda feed: feed.seek(300, start=-1),
        lambda feed: feed.update(1 << 60),
        lambda feed: feed.update(-1),
        lambda feed: feed.get_range(0, -1),
        lambda feed: feed.has(-1),
        lambda feed: feed.has(-3, 2),
        lambda feed: feed.downloaded_count(-3),
        lambda feed: feed.cancel(-1),
        lambda feed: feed.undownload((-1, 4)),
        lambda feed: feed.download(-3, 2),
        lambda feed: feed.download(blocks=[1, -1]),
        lambda feed: feed.clear(-3, 2),
        lambda feed: feed.read_stream(-1),
        lambda feed: feed.proof(-1),
        lambda feed: feed.digest(-1),
        lambda feed: feed.signature(-1),
        lambda feed: feed.put(-1, b"", Proof(())),
    ],
)
async def test_what_no_feed_has_is_refused_and_no_peer_is_asked(ask, autojump_clock):
    async with author_and_copy() as (author, copy):
        for feed in (author, copy):
            with pytest.raises(ValueError, match=r"number|at least 0"):  # noqa: PT012
                answer = ask(feed)
                await answer
        assert await copy.get_range(0, 20) == BLOCKS


async def test_a_closed_feed_says_so_to_every_call():
    async with open_feed(MemoryDirectory()) as feed:
        await feed.append(b"one")
        await feed.aclose()
        for ask in (feed.signature, lambda: feed.proof(0), lambda: feed.root_hashes(0), lambda: feed.digest(0)):
            with pytest.raises(Closed):
                ask()
        with pytest.raises(Closed):
            await feed.audit()


async def _read_one(feed: StandaloneFeed, **options: Any) -> bytes:
    return await feed.get(2, **options)


async def _read_range(feed: StandaloneFeed, **options: Any) -> bytes:
    return (await feed.get_range(2, 3, **options))[0]


@pytest.mark.parametrize("read", [_read_one, _read_range])
async def test_a_block_that_is_damaged_on_disk_comes_from_a_peer(read, autojump_clock):
    files: dict[str, bytearray] = {}
    async with author_and_copy(joined=False) as (author, _):
        for options in ({"wait": False}, {"timeout": 2}, {"if_available": True}, {}):
            async with open_feed(MemoryDirectory(files), author.key, sparse=True) as copy:
                link, _ = join(copy, author)
                await copy.download(0, 4)
                link.close()
                await link.wait()
            files["data"][3:6] = b"bad"
            async with open_feed(MemoryDirectory(files), sparse=True) as copy:
                if options:
                    with pytest.raises((NotHeld, TimedOut, NoPeers)), trio.fail_after(5):
                        await read(copy, **options)
                join(copy, author)
                assert await read(copy) == BLOCKS[2]


async def test_blocks_read_are_counted_as_held_or_not(autojump_clock):
    async with author_and_copy() as (author, copy):
        await copy.get(3)
        await copy.get(3)
        await copy.get_range(2, 6)
        assert [value async for value in copy.read_stream(2, 6)] == BLOCKS[2:6]
        assert copy.stats is not None
        assert (copy.stats.cache_hits, copy.stats.cache_misses) == (1 + 1 + 4, 1 + 3)
        assert author.stats is not None
        assert (author.stats.cache_hits, author.stats.cache_misses) == (0, 0)
