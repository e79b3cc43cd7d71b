"""A block of our own that the disk has lost: an error at once when nobody has it, healed when somebody does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.errors import CorruptStorage
from ddrive.feed.feed import Feed
from ddrive.ids import BlockIndex
from ddrive.store.linked import Replicator
from ddrive.store.store import OwnedStore, open_store
from tests.store.test_attached import world
from tests.store.test_linked import connected

BLOCKS = [b"block %d" % number for number in range(20)]


async def spoil(root: Path, index: int) -> None:
    """Make our feed in the store `root` and let the disk change one of its blocks."""
    async with open_store(root, DWEB) as store:
        feed = await store.open_feed(name="ours")
        await feed.append(BLOCKS)
        place = feed.byte_offset(index) or 0
        data = store.folder(feed.key) / "data"
    with data.open("r+b") as file:
        file.seek(place)
        file.write(b"other")


@asynccontextmanager
async def original(tmp_path: Path) -> AsyncIterator[tuple[OwnedStore, Feed]]:
    """Open a store whose feed has a damaged block 5."""
    await spoil(tmp_path / "ours", 5)
    async with open_store(tmp_path / "ours", DWEB) as store:
        yield store, await store.open_feed(name="ours")


async def test_who_has_no_peer_is_told_at_once(tmp_path: Path) -> None:
    async with original(tmp_path) as (_, feed):
        with trio.fail_after(2):
            for _ in range(2):
                with pytest.raises(CorruptStorage, match=r"block 5 .*verify --repair"):
                    await feed.get(BlockIndex(5))


async def test_a_peer_that_has_it_heals_it_in_the_first_read(tmp_path: Path) -> None:
    async with original(tmp_path) as (store, feed), open_store(tmp_path / "copy", DWEB) as other:
        copy = await other.open_feed(key=feed.key)
        async with connected(Replicator([store]), Replicator([other]), []):
            with trio.fail_after(5):
                await copy.download(0, 5)
                await copy.download(6, 20)
            assert not copy.has(5)
        async with open_store(tmp_path / "source", DWEB, master_key=store.master_key) as source:
            await (await source.open_feed(name="ours")).append(BLOCKS)
            async with connected(Replicator([store]), Replicator([source]), []):
                with trio.fail_after(5):
                    assert await feed.get(BlockIndex(5)) == BLOCKS[5]
        assert feed.get_held(5) == BLOCKS[5]


async def test_peers_that_have_all_but_it_are_not_waited_for(tmp_path: Path) -> None:
    async with original(tmp_path) as (store, feed), open_store(tmp_path / "copy", DWEB) as other:
        copy = await other.open_feed(key=feed.key)
        async with connected(Replicator([store]), Replicator([other]), []):
            with trio.fail_after(10):
                await copy.download(0, 5)
                with pytest.raises(CorruptStorage, match="block 5"):
                    await feed.get(BlockIndex(5))
                with pytest.raises(CorruptStorage, match="block 5"):
                    await feed.download(0, 20)


async def test_a_view_is_told_by_the_engine(tmp_path: Path) -> None:
    await spoil(tmp_path / "dweb", 5)
    async with world(tmp_path) as here:
        feed = await here.feed(name="ours")
        with trio.fail_after(3):
            for _ in range(2):
                with pytest.raises(CorruptStorage, match="block 5"):
                    await feed.get(BlockIndex(5))
            with pytest.raises(CorruptStorage, match="block 5"):
                await feed.download(0, 20)
            assert await feed.get(BlockIndex(6)) == BLOCKS[6]


async def test_who_waits_is_told_when_the_last_peer_goes(tmp_path: Path) -> None:
    async with original(tmp_path) as (store, feed), open_store(tmp_path / "copy", DWEB) as other:
        copy = await other.open_feed(key=feed.key)
        told = trio.Event()

        async def read() -> None:
            with pytest.raises(CorruptStorage):
                await feed.get(BlockIndex(5))
            told.set()

        async with trio.open_nursery() as nursery:
            async with connected(Replicator([store]), Replicator([other]), []):
                with trio.fail_after(5):
                    await copy.download(0, 5)
                nursery.start_soon(read)
            with trio.fail_after(10):
                await told.wait()
