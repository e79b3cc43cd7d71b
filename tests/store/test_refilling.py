"""A feed of ours that is shorter here than at a peer is filled up again before anything is appended to it."""

import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ddrive.dialect import DWEB
from ddrive.errors import Behind
from ddrive.ids import BlockIndex
from ddrive.store.linked import Replicator
from ddrive.store.store import open_store
from tests.store.test_linked import connected, until

BLOCKS = [bytes([number]) * 100 for number in range(8)]


async def test_a_copy_writes_on_only_when_it_has_what_the_original_wrote(tmp_path: Path) -> None:
    async with open_store(tmp_path / "original", DWEB) as original:
        await (await original.open_feed(name="ours")).append(BLOCKS[:5])
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    async with AsyncExitStack() as stack:
        original, copy, sparse = [
            await stack.enter_async_context(open_store(tmp_path / name, DWEB))
            for name in ("original", "copy", "sparse")
        ]
        ours = await original.open_feed(name="ours")
        for block in BLOCKS[5:]:
            await ours.append([block])
        part = await sparse.open_feed(key=ours.key)
        async with connected(Replicator([original]), Replicator([sparse]), []):
            await part.get(BlockIndex(7))
        copied = await copy.open_feed(name="ours")
        assert (copied.key, copied.length, copied.behind) == (ours.key, 5, False)
        async with connected(Replicator([copy]), Replicator([sparse]), []):
            await until(lambda: copied.length == 8)
            with pytest.raises(Behind, match="8 blocks of it were signed, of which 6 are here"):
                await copied.append([b"too early"])
        with pytest.raises(Behind):
            await copied.append([b"nobody is there"])
        async with connected(Replicator([copy]), Replicator([original]), []):
            await until(lambda: not copied.behind)
            assert [copied.get_held(BlockIndex(index)) for index in range(8)] == BLOCKS
            assert await copied.append([b"more"]) == 8
            await until(lambda: ours.length == 9)
            assert await ours.get(BlockIndex(8)) == b"more"
            await until(lambda: not ours.behind)
            assert (ours.forked, copied.forked) == (False, False)


async def test_a_claim_alone_stops_writing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store", DWEB) as store:
        feed = await store.open_feed(name="ours")
        await feed.append(BLOCKS[:2])
        scheduler = store.session(feed)._scheduler
        peer, _ = scheduler.add_peer(0.0)
        scheduler.has(peer, 0, 4, 0.0)
        with pytest.raises(Behind, match="has 2 blocks here and 4 at a peer"):
            await feed.append(BLOCKS[2:3])
        peer.doubted = 4  # it was asked, and proved nothing
        assert await feed.append(BLOCKS[2:3]) == 2


async def test_what_was_forgotten_is_not_signed_again(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store", DWEB) as store, open_store(tmp_path / "peer", DWEB) as peer:
        feed = await store.open_feed(name="ours")
        await feed.append(BLOCKS)
        other = await peer.open_feed(key=feed.key)
        async with connected(Replicator([store]), Replicator([peer]), []):
            await other.download(0, 8)
        await store.release(feed)
        await store.forget(feed.key)
    async with open_store(tmp_path / "store", DWEB) as store, open_store(tmp_path / "peer", DWEB) as peer:
        feed = await store.open_feed(name="ours")
        await peer.open_feed(key=feed.key)
        assert (feed.length, feed.unborn, feed.behind) == (0, False, True)
        with pytest.raises(Behind):
            await feed.append([b"another history"])
        async with connected(Replicator([store]), Replicator([peer]), []):
            await until(lambda: not feed.behind)
        assert await feed.append([b"the same history"]) == 8


@pytest.mark.parametrize("damaged", [False, True])
async def test_blocks_that_were_cleared_or_lost_keep_nobody_from_writing_on(tmp_path: Path, damaged: bool) -> None:
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="ours")
        await feed.append(BLOCKS)
        if damaged:
            with (store.folder(feed.key) / "data").open("r+b") as data:
                data.write(b"other")
            assert (await feed.audit()).bad == [0]
        else:
            feed.clear(0, 3)
        for number in range(3):
            assert await feed.append([b"more"]) == len(BLOCKS) + number
            assert not feed.behind
    async with open_store(tmp_path, DWEB) as store:
        assert await (await store.open_feed(name="ours")).append([b"more"]) == len(BLOCKS) + 3
