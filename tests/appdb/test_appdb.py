"""What a database offers beyond the recorded run, and databases in real stores over links."""

from collections.abc import AsyncIterator
from pathlib import Path
from shutil import copytree

import pytest
import trio
import trio.testing

from ddrive.appdb import AppDB, Delete, Entry, Put, open_appdb
from ddrive.crypto import KeyPair
from ddrive.dialect import DWEB, HYPERCORE
from ddrive.errors import Closed, InvalidKey, InvalidName, InvalidPath, NameTooLong, NotWritable
from ddrive.store.linked import replicate
from ddrive.store.store import OwnedStore, open_store
from tests.appdb.stores import MemoryStore, memory_db, sync

ADA, BEN = (KeyPair.from_seed(bytes([number]) * 32) for number in (1, 2))


def values(nodes: list[Entry]) -> list[bytes]:
    return sorted(node.value or b"" for node in nodes)


async def conflicting() -> tuple[AppDB, AppDB]:
    """Return the views of two writers who both put `k` without having seen each other."""
    ada, ben = await memory_db(ADA), await memory_db(ADA, BEN)
    await ada.authorize(BEN.public_key)
    await sync(ada, ben)
    await ada.put("k", b"ada")
    await ben.put("k", b"ben")
    await sync(ada, ben)
    return ada, ben


async def test_conflict_lasts_until_somebody_who_saw_it_writes() -> None:
    ada, ben = await conflicting()
    assert values(await ada.get("k")) == values(await ben.get("k")) == [b"ada", b"ben"]
    assert sorted(await ada.get_mapped("k", lambda node: node.value or b"")) == [b"ada", b"ben"]
    longest = await ada.get_reduced("k", lambda left, right: max(left, right, key=lambda node: node.value or b""))
    assert longest is not None
    assert longest.value == b"ben"
    first, same = await ada.first("k"), await ben.first("k")
    assert first is not None
    assert same is not None
    assert first.value == same.value
    await ben.put("k", b"settled")
    await sync(ada, ben)
    assert values(await ada.get("k")) == [b"settled"]


async def test_deletion_that_conflicts_with_a_value_is_shown() -> None:
    ada, ben = await conflicting()
    await ada.delete("k")
    assert await ada.get("k") == []
    await ben.put("k", b"again")
    await sync(ada, ben)
    nodes = await ada.get("k")
    assert sorted(node.deleted for node in nodes) == [False, True]
    first = await ada.first("k")
    assert first is not None
    assert first.value == b"again"


async def test_if_not_exists_returns_what_is_there() -> None:
    db = await memory_db(ADA)
    made = await db.put("k", b"1", if_not_exists=True)
    assert (await db.put("k", b"2", if_not_exists=True)).pointer == made.pointer
    assert db.local.length == 2
    await db.delete("k")
    assert (await db.put("k", b"3", if_not_exists=True)).value == b"3"


async def test_batch_is_one_append_in_which_each_change_sees_the_ones_before() -> None:
    db = await memory_db(ADA)
    done = await db.batch([Put("a", b"1"), Put("a", b"2", if_not_exists=True), Delete("a"), Put("b", None)])
    assert [len(nodes) for nodes in done] == [1, 1, 1, 1]
    assert done[1][0] is done[0][0]
    assert await db.get("a") == []
    assert [node.value for node in await db.get("b")] == [None]
    assert len(await db.get("a", deletes=True)) == 1


async def test_stream_of_changes_is_written_in_batches() -> None:
    db = await memory_db(ADA)
    assert await db.write(Put(f"k/{number}", b"") for number in range(600)) == 600

    async def more() -> AsyncIterator[Put]:
        for number in range(600, 610):
            yield Put(f"k/{number}", b"")

    assert await db.write(more()) == 10
    assert len(await db.list("k")) == 610


@pytest.mark.parametrize(
    ("key", "error"),
    [("", InvalidPath), ("/", InvalidPath), ("//a", InvalidPath), ("\ud800", InvalidName), ("x" * 70_000, NameTooLong)],
)
async def test_key_that_nobody_may_store_is_refused(key: str, error: type[Exception]) -> None:
    db = await memory_db(ADA)
    with pytest.raises(error):
        await db.put(key, b"")
    assert db.local.length == 1


async def test_wrong_types_are_named_and_change_nothing() -> None:
    db = await memory_db(ADA)
    for wrong, told in ((Put("k", "text"), "value of 'k'"), (Put(b"k", b""), "a key"), (Delete(7), "a key")):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=told):
            await db.batch([Put("good", b""), wrong])
    assert db.local.length == 1


async def test_checkout_shows_a_version_for_ever() -> None:
    db = await memory_db(ADA)
    empty = await db.version()
    await db.put("k", b"1")
    version = await db.version()
    fixed = await db.snapshot()
    await db.put("k", b"2")
    for old in (await db.checkout(version), await db.checkout(await fixed.heads()), fixed):
        assert values(await old.get("k")) == [b"1"]
        assert await old.version() == version
        assert [entry.value async for entry in old.history()] == [b"1"]
        with pytest.raises(NotWritable):
            await old.put("k", b"3")
    assert await (await db.checkout(empty)).list() == []
    assert [change.key async for change in db.diff()] == ["k"]


@pytest.mark.parametrize("version", [b"x", bytes(32), bytes(32) + b"\x00", bytes(32) + b"\x81", bytes(32) + b"\x01"])
async def test_bytes_that_are_no_version_are_refused(version: bytes) -> None:
    with pytest.raises(InvalidKey):
        await (await memory_db(ADA)).checkout(version)


async def test_watch_is_silent_at_the_start_and_about_other_prefixes() -> None:
    db = await memory_db(ADA)
    await db.put("a/1", b"before")
    heard: list[list[str]] = []

    async def listen() -> None:
        async for nodes in db.watch("a"):
            heard.append([node.key for node in nodes])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        await db.put("b", b"other")
        await trio.testing.wait_all_tasks_blocked()
        await db.put("a/2", b"news")
        await trio.testing.wait_all_tasks_blocked()
        await db.delete("a/1")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert heard == [["a/2"], ["a/1"]]


async def test_watch_ends_with_its_store(tmp_path: Path) -> None:
    with trio.fail_after(10):
        for closes_feed in (True, False):
            async with open_store(tmp_path / "s", DWEB) as store, trio.open_nursery() as nursery:
                async with open_appdb(store, name="book") as db:
                    told: list[type[Exception]] = []

                    async def listen(db: AppDB = db, told: list[type[Exception]] = told) -> None:
                        try:
                            async for _ in db.watch():
                                pass
                        except Closed as error:
                            told.append(type(error))

                    nursery.start_soon(listen)
                    await trio.testing.wait_all_tasks_blocked()
                    if closes_feed:
                        await db.source.aclose()
                await trio.testing.wait_all_tasks_blocked()
                assert told == [Closed]


async def test_header_names_the_family() -> None:
    for dialect, text in ((HYPERCORE, b"hyperdb"), (DWEB, b"dappdb")):
        async with open_appdb(MemoryStore(dialect=dialect), name="db") as db:
            assert await db.local.get(0) == b"\x0a" + bytes([len(text)]) + text


async def connect(nursery: trio.Nursery, left: OwnedStore, right: OwnedStore) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def run(store: OwnedStore, stream: trio.abc.Stream, initiator: bool) -> None:
        await replicate(store, stream, initiator=initiator)

    nursery.start_soon(run, left, ours, True)
    nursery.start_soon(run, right, theirs, False)


async def test_feed_that_becomes_authorised_is_exchanged_on_the_link_that_is_up(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with (
            open_store(tmp_path / "ada", DWEB) as left,
            open_store(tmp_path / "ben", DWEB) as right,
            open_appdb(left, name="book") as ada,
            open_appdb(right, key=ada.key) as ben,
            trio.open_nursery() as nursery,
        ):
            await connect(nursery, left, right)
            await ada.put("k", b"ada")
            await ben.source.wait_length(2)
            assert values(await ben.get("k")) == [b"ada"]
            await ben.put("intruder", b"")  # only he sees this until he is authorised
            assert await ada.get("intruder") == []
            assert ben.local.key not in [feed.key for feed in left.feeds()]
            nursery.start_soon(ada.follow)
            assert await ada.authorize(ben.local.key)
            async for _ in ada.watch("intruder"):
                break
            assert len(await ada.get("intruder")) == 1
            assert await ben.authorized()
            nursery.cancel_scope.cancel()


async def test_writer_who_signed_two_histories_is_told_and_harms_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "ada", DWEB) as store, open_appdb(store, name="book") as db:
        await db.put("k", b"1")
    copytree(tmp_path / "ada", tmp_path / "copy")
    with trio.fail_after(20):
        async with (
            open_store(tmp_path / "ada", DWEB) as left,
            open_store(tmp_path / "copy", DWEB) as right,
            open_store(tmp_path / "far", DWEB) as far,
            open_appdb(left, name="book") as ada,
            open_appdb(right, name="book") as twin,
            open_appdb(far, key=ada.key) as reader,
            trio.open_nursery() as nursery,
        ):
            await ada.put("k", b"ada")
            await twin.batch([Put("k", b"twin"), Put("other", b"twin")])
            await connect(nursery, far, left)
            await reader.source.wait_length(ada.source.length)
            assert values(await reader.get("k")) == [b"ada"]
            assert reader.forked == []
            with trio.CancelScope() as linked:
                async with trio.open_nursery() as second:
                    await connect(second, far, right)
                    while not reader.forked:  # noqa: ASYNC110 - nobody is told of it
                        await trio.sleep(0.01)
                    linked.cancel()
            assert reader.forked == [ada.key]
            assert values(await reader.get("k")) == [b"ada"]
            nursery.cancel_scope.cancel()


async def test_database_survives_its_store(tmp_path: Path) -> None:
    async with open_store(tmp_path / "s", HYPERCORE) as store, open_appdb(store, name="book") as db:
        key = db.key
        await db.put("a", b"1")
    async with open_store(tmp_path / "s", HYPERCORE) as store, open_appdb(store, key=key) as db:
        assert db.writable
        assert values(await db.get("a")) == [b"1"]
        await db.put("b", b"2")
        assert len(await db.list()) == 2
        assert await db.authorized()


async def test_cache_of_entries_is_bounded() -> None:
    db = await memory_db(ADA)
    db._writers._limit_bytes = 20_000
    await db.write(Put(f"k/{number}", b"x" * 100) for number in range(500))
    assert len(await db.list()) == 500
    kept = len(db._writers._young) + len(db._writers._old)
    assert 0 < kept < 60


async def test_writer_is_not_authorised_by_a_call_that_failed() -> None:
    ada, ben = await memory_db(ADA), await memory_db(ADA, BEN)
    await ada.put("k", b"1")
    with pytest.raises(NotWritable):
        await (await ada.snapshot()).authorize(BEN.public_key)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ada.authorize(BEN.public_key)
    assert ada.local.length == 2
    await ada.put("k", b"2")
    await sync(ada, ben)
    assert not await ada.authorized(BEN.public_key)
    assert not await ben.authorized()
    assert await ada.authorize(BEN.public_key)
    await sync(ada, ben)
    assert await ben.authorized()


async def test_history_tells_who_was_authorised() -> None:
    ada = await memory_db(ADA)
    await ada.put("k", b"1")
    await ada.authorize(BEN.public_key)
    await ada.put("k", b"2")
    told = [list(await ada.authorizes(node)) async for node in ada.history()]
    assert told == [[], [BEN.public_key], []]
