"""The owner of a directory: keys, folders, locks, one object per feed. Files are real, so the clock is too."""

import shutil
import stat

import pytest
import trio

from ddrive.crypto import discovery_key
from ddrive.dialect import DIALECTS, DWEB, HYPERCORE
from ddrive.errors import Closed, InvalidKey, NotFound, StorageError, StorageLocked
from ddrive.ids import BlockIndex, DiscoveryKey, PublicKey
from ddrive.store import store as store_module
from ddrive.store.derive import derive_pair, feed_folder
from ddrive.store.namespace import namespace
from ddrive.store.store import open_store
from tests.support.vectors import VECTORS, vector


async def test_a_name_gives_the_same_writable_feed_again(tmp_path):
    async with open_store(tmp_path / "s", DWEB) as store:
        feed = await store.open_feed(name="a")
        await feed.append([b"one", b"two"])
        key = feed.key
    async with open_store(tmp_path / "s", DWEB) as store:
        again = await store.open_feed(name="a")
        assert (again.key, again.length, again.writable) == (key, 2, True)
        assert await again.get(BlockIndex(1)) == b"two"


async def test_a_derived_feed_opened_by_its_key_is_writable(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        key = (await store.open_feed(name=b"\xff\x00")).key
    async with open_store(tmp_path, DWEB) as store:
        assert (await store.open_feed(key=key)).writable


async def test_a_strange_key_gives_a_feed_to_read(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(key=PublicKey(derive_pair(bytes(32), b"x", DWEB).public_key))
        assert not feed.writable
        assert feed.length == 0


@pytest.mark.parametrize("damage", [bytes(32), b"short", b""])
async def test_a_damaged_file_with_the_key_is_mended_as_the_folder_tells_the_feed(tmp_path, damage):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="a")
        await feed.append([b"one"])
        key, file = feed.key, store.folder(feed.key) / "key"
    file.write_bytes(damage)
    async with open_store(tmp_path, DWEB) as store:
        assert store.known(store.discovery_key(key)) is None
        feed = await store.open_feed(key=key)
        assert (await feed.get(BlockIndex(0)), feed.writable) == (b"one", True)
    assert file.read_bytes() == key


async def test_one_object_per_feed(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="a")
        assert await store.open_feed(name="a") is feed
        assert await store.open_feed(key=feed.key) is feed
        assert store.feeds() == [feed]
        assert store.session(feed).feed is feed
        assert feed.source is store.session(feed)


async def test_a_feed_is_given_back_by_who_is_cancelled_too(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="a")
        view = namespace(store, "inner")
        uses = [await view.open_feed(key=feed.key), await view.open_feed(name="b")]
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await store.release(feed)
        assert store.users(feed.key) == 1
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await view.close()
        assert [store.users(each.key) for each in uses] == [0, 0]


async def test_a_new_feed_without_name_is_another_one_each_time(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        first, second = await store.create_feed(), await store.create_feed()
        assert first.key != second.key
        assert first.writable


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
async def test_the_folder_is_laid_out_as_npm_stores_do(tmp_path, dialect):
    async with open_store(tmp_path, dialect) as store:
        feed = await store.open_feed(name="default")
        await feed.append([b"x"])
        folder = tmp_path / feed_folder(discovery_key(feed.key, dialect.discovery_ns))
        assert derive_pair((tmp_path / "master_key").read_bytes(), b"default", dialect).public_key == feed.key
    assert (folder / "name").read_bytes() == b"\x07default"
    assert (folder / "key").read_bytes() == feed.key
    assert {path.name for path in folder.iterdir()} == {"key", "name", "tree", "signatures", "bitfield", "data"}


async def test_secrets_and_folders_are_for_the_owner_alone(tmp_path):
    root = tmp_path / "new" / "store"
    async with open_store(root, DWEB) as store:
        await store.open_feed(name="a")
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for name in ("master_key", "lock"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600


async def test_a_given_master_key_is_neither_read_nor_written(tmp_path):
    async with open_store(tmp_path, DWEB, master_key=bytes(32)) as store:
        assert (await store.open_feed(name="a")).key == derive_pair(bytes(32), b"a", DWEB).public_key
    assert not (tmp_path / "master_key").exists()


async def test_a_cut_master_key_is_reported(tmp_path):
    (tmp_path / "master_key").write_bytes(b"short")
    with pytest.raises(StorageError, match="5 bytes"):
        async with open_store(tmp_path, DWEB):
            pass


async def test_a_second_owner_is_refused(tmp_path):
    async with open_store(tmp_path, DWEB):
        with pytest.raises(StorageLocked):
            async with open_store(tmp_path, DWEB):
                pass


async def test_an_error_inside_comes_out_as_it_is(tmp_path):
    with pytest.raises(LookupError, match="mine"):
        async with open_store(tmp_path, DWEB):
            raise LookupError("mine")
    async with open_store(tmp_path, DWEB):
        pass


async def test_feeds_are_closed_with_the_store(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="a")
    assert feed.closed
    with pytest.raises(Closed):
        await store.open_feed(name="a")
    with pytest.raises(Closed):
        store.session(feed)


@pytest.mark.parametrize("arguments", [{}, {"key": b"short"}, {"key": "ab" * 32}, {"key": "ab" * 16}])
async def test_a_feed_needs_a_name_or_a_whole_key(tmp_path, arguments):
    async with open_store(tmp_path, DWEB) as store:
        with pytest.raises(InvalidKey):
            await store.open_feed(**arguments)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
async def test_a_store_written_by_npm_opens(tmp_path, dialect):
    recorded = vector(f"drive-{dialect.name}.json")
    shutil.copytree(VECTORS / f"drive-{dialect.name}", tmp_path / "s")
    async with open_store(tmp_path / "s", dialect) as store:
        assert store.master_key.hex() == recorded["masterKey"]
        for facts in recorded["feeds"].values():
            for kind in ("metadata", "content"):
                if f"{kind}Key" not in facts:
                    continue
                feed = await store.open_feed(key=PublicKey(bytes.fromhex(facts[f"{kind}Key"])))
                assert feed.length == facts[f"{kind}Length"]
                assert feed.writable
                for index in range(feed.length):
                    await feed.get(BlockIndex(index), wait=False)


async def test_a_store_of_the_other_dialect_finds_nothing(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        found = store.discovery_key((await store.open_feed(name="a")).key)
        assert store.known(found) is not None
    async with open_store(tmp_path, HYPERCORE) as store:
        assert store.discovery_key((await store.open_feed(name="a")).key) != found


async def test_what_is_held_is_known_by_its_discovery_key(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="a")
        found = store.discovery_key(feed.key)
    async with open_store(tmp_path, DWEB) as store:
        assert store.known(found) == feed.key
        assert store.load(found).key == feed.key
        assert store.known(DiscoveryKey(bytes(32))) is None
        with pytest.raises(NotFound):
            store.load(DiscoveryKey(bytes(32)))
    assert not (tmp_path / "00").exists()


async def test_a_name_that_does_not_fit_the_folder_is_reported(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="a")
        folder = tmp_path / feed_folder(store.discovery_key(feed.key))
    (folder / "name").write_bytes(b"\x01b")
    async with open_store(tmp_path, DWEB) as store:
        with pytest.raises(StorageError, match="names another feed"):
            await store.open_feed(key=feed.key)


async def test_a_malformed_name_leaves_a_feed_to_read(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="a")
        folder = tmp_path / feed_folder(store.discovery_key(feed.key))
    (folder / "name").write_bytes(b"\x01bb")
    async with open_store(tmp_path, DWEB) as store:
        assert not (await store.open_feed(key=feed.key)).writable


async def test_a_forgotten_feed_leaves_no_files(tmp_path):
    async with open_store(tmp_path, DWEB) as store:
        feed = await store.open_feed(name="a")
        folder = tmp_path / feed_folder(store.discovery_key(feed.key))
        await store.forget(feed.key)
        assert feed.closed
        assert not folder.exists()
        assert store.feeds() == []
        assert (await store.open_feed(name="a")).length == 0


async def test_a_feed_that_nobody_uses_is_closed_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "IDLE_S", 0.0)
    monkeypatch.setattr(store_module, "TICK_S", 0.01)
    async with open_store(tmp_path, DWEB) as store:
        used, released = await store.open_feed(name="a"), await store.open_feed(name="b")
        await store.release(released)
        with trio.fail_after(20):
            while not released.closed:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert not used.closed
        assert store.feeds() == [used]
        assert (await store.open_feed(name="b")) is not released


async def test_listeners_hear_of_opened_feeds(tmp_path):
    keys = []
    async with open_store(tmp_path, DWEB) as store:
        leave = store.subscribe(lambda _, feed: keys.append(feed.key))
        feed = await store.open_feed(name="a")
        await store.open_feed(name="a")
        leave()
        await store.open_feed(name="b")
    assert keys == [feed.key]
