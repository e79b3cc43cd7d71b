"""The key/value face: versions, races between writers, renames, and reading while most blocks are missing."""

import gc

import pytest
import trio
import trio.testing

from ddrive.dialect import DWEB, HYPERCORE
from ddrive.errors import AlreadyExists, InvalidPath, LengthChanged, NotWritable
from ddrive.trie import Delete, Put, Trie, TrieNode, open_trie
from ddrive.trie.nodes import PRELOAD_AFTER, PRELOAD_EVERY, Nodes
from ddrive.trie.trie import MAX_ATTEMPTS
from tests.trie.feeds import Reader, hex_blocks, new_feed


async def trie_with(*keys: str) -> Trie:
    trie = await open_trie(new_feed(), HYPERCORE)
    await trie.batch([Put(key, key.encode()) for key in keys])
    return trie


def must_be_new(old: TrieNode | None, new: TrieNode | None) -> bool:
    if old is not None:
        raise AlreadyExists(old.key)
    return True


# -- versions


async def test_a_checkout_stays_and_the_live_view_follows() -> None:
    trie = await trie_with("a")
    past = trie.snapshot()
    await trie.put("b", b"1")
    assert (past.version, trie.version) == (2, 3)
    assert (past.fixed, trie.fixed) == (True, False)
    assert await past.get("b") is None
    assert await trie.get("b") is not None
    assert past.live().version == 3


async def test_a_checkout_cannot_be_changed() -> None:
    trie = await trie_with("a")
    assert not trie.snapshot().writable
    with pytest.raises(NotWritable):
        await trie.snapshot().put("b", b"")


async def test_a_reader_cannot_write_and_follows_the_feed() -> None:
    trie = await trie_with("a")
    reader = Reader(trie.feed)
    reader.deliver_all()
    seen = await open_trie(reader.feed, HYPERCORE)
    with pytest.raises(NotWritable):
        await seen.put("b", b"")
    assert await seen.get("b") is None
    await trie.put("b", b"1")
    reader.deliver(2)
    assert (await seen.get("b")) is not None


async def test_opening_waits_for_the_header_and_gives_its_metadata() -> None:
    origin = new_feed()
    await open_trie(origin, DWEB, metadata=b"m" * 32)
    reader = Reader(origin)
    opened: list[Trie] = []
    async with trio.open_nursery() as nursery:

        async def opening() -> None:
            opened.append(await open_trie(reader.feed, DWEB))

        nursery.start_soon(opening)
        await trio.testing.wait_all_tasks_blocked()
        assert opened == []
        reader.deliver(0)
    assert opened[0].metadata == b"m" * 32
    assert reader.wishes == []


async def test_an_open_feed_keeps_its_header() -> None:
    feed = new_feed()
    await open_trie(feed, DWEB, metadata=b"first")
    assert (await open_trie(feed, DWEB, metadata=b"second")).metadata == b"first"
    assert feed.length == 1


async def test_live_history_goes_on_with_new_nodes() -> None:
    trie = await trie_with("a", "b")
    seen: list[str] = []
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                async for node in trie.history(live=True):
                    seen.append(node.key)
                    if len(seen) == 3:
                        scope.cancel()

            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            assert seen == ["a", "b"]
            await trie.put("c", b"")
    assert seen == ["a", "b", "c"]


async def test_history_ends_where_the_database_was_emptied() -> None:
    trie = await trie_with("a")
    await trie.delete("a")
    await trie.put("b", b"")
    assert [node.key async for node in trie.history()] == ["a"]
    assert [node.key async for node in trie.history(reverse=True)] == ["b"]
    assert [node.key for node in await trie.list()] == ["b"]


# -- changes


async def test_a_put_that_finds_the_feed_longer_is_made_again() -> None:
    feed = new_feed()
    first, second = await open_trie(feed, HYPERCORE), await open_trie(feed, HYPERCORE)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(first.put, f"a{number}", b"")
            nursery.start_soon(second.put, f"b{number}", b"")
    expected = {f"{letter}{number}" for letter in "ab" for number in range(10)}
    assert {node.key for node in await first.list()} == expected
    assert {node.key for node in await second.list()} == expected
    assert feed.length == 21


async def test_a_condition_is_a_compare_and_swap_between_two_writers() -> None:
    feed = new_feed()
    tries = [await open_trie(feed, HYPERCORE) for _ in range(2)]
    refused: list[str] = []

    async def claim(trie: Trie) -> None:
        try:
            await trie.put("name", b"", condition=must_be_new)
        except AlreadyExists as error:
            refused.append(str(error))

    async with trio.open_nursery() as nursery:
        for trie in tries:
            nursery.start_soon(claim, trie)
    assert refused == ["name"]
    assert feed.length == 2


async def test_a_writer_that_always_comes_too_late_gives_up() -> None:
    feed = new_feed()
    trie = await open_trie(feed, HYPERCORE)
    inner = feed.appender
    attempts = 0

    async def beaten(blocks: object, expected_length: int | None, atomic: bool) -> int:
        nonlocal attempts
        attempts += 1
        await inner([b"\x0a\x01z"], None, atomic)
        raise LengthChanged("somebody else was first")

    feed.appender = beaten  # type: ignore[assignment]
    with pytest.raises(LengthChanged):
        await trie.put("a", b"")
    assert attempts == MAX_ATTEMPTS


async def test_a_refused_batch_changes_nothing() -> None:
    trie = await trie_with("a")
    with pytest.raises(AlreadyExists):
        await trie.batch([Put("b", b""), Put("a", b"", condition=must_be_new), Put("c", b"")])
    assert trie.version == 2
    assert await trie.get("b") is None


async def test_a_condition_can_leave_one_change_out() -> None:
    trie = await trie_with("a")
    done = await trie.batch([Put("a", b"", condition=lambda old, new: old is None), Put("b", b"")])
    assert [node and node.key for node in done] == [None, "b"]
    assert trie.version == 3


async def test_update_decides_on_the_version_it_changes() -> None:
    trie = await trie_with("n")

    async def increment(view: Trie) -> list[Put | Delete]:
        node = await view.get("n")
        assert node is not None
        await trio.lowlevel.checkpoint()
        return [Put("n", b"%d" % (len(node.value or b"") + 1) * (len(node.value or b"") + 1))]

    other = await open_trie(trie.feed, HYPERCORE)
    async with trio.open_nursery() as nursery:
        for writer in (trie, other, trie):
            nursery.start_soon(writer.update, increment)
    node = await trie.get("n")
    assert node is not None
    assert len(node.value or b"") == 4


async def test_a_large_batch_is_one_append() -> None:
    trie = await open_trie(new_feed(), HYPERCORE)
    keys = [f"d{number % 10}/f{number}" for number in range(2000)]
    await trie.batch([Put(key, b"") for key in keys])
    assert trie.version == 2001
    assert sorted(node.key for node in await trie.list()) == sorted(keys)
    assert len(await trie.list("", recursive=False)) == 10


async def test_deleting_the_last_entry_empties_the_database() -> None:
    trie = await trie_with("a")
    assert (await trie.delete("a")) is not None
    assert await trie.delete("a") is None
    assert await trie.list() == []
    assert trie.version == 3
    await trie.put("b", b"")
    assert [node.key for node in await trie.list()] == ["b"]


async def test_keys_of_equal_hashes_are_deleted_apart() -> None:
    """The npm package empties the database here: it takes the other key for the deleted one."""
    for gone, left in (("idgcmnmna", "mpomeiehc"), ("mpomeiehc", "idgcmnmna")):
        trie = await trie_with("idgcmnmna", "mpomeiehc")
        assert (await trie.delete(gone)) is not None
        assert [node.key for node in await trie.list()] == [left]


async def test_the_two_halves_of_the_database_do_not_mix() -> None:
    trie = await trie_with("a")
    await trie.put("a", b"secret", hidden=True)
    assert [(await trie.get("a", hidden=half)).value for half in (False, True)] == [b"a", b"secret"]  # type: ignore[union-attr]
    await trie.delete("a")
    assert await trie.list() == []
    assert [node.key for node in await trie.list(hidden=True)] == ["a"]


# -- rename


async def test_rename_moves_a_subtree_in_one_append() -> None:
    trie = await trie_with("d", "d/a", "d/b/c", "e/x", "dd/a")
    feed, before = trie.feed, trie.version
    appended: list[int] = []
    inner = feed.appender

    async def counted(blocks: list[bytes], expected_length: int | None, atomic: bool) -> int:
        appended.append(len(blocks))
        return await inner(blocks, expected_length, atomic)

    feed.appender = counted  # type: ignore[assignment]
    assert await trie.rename("d", "e/d") == 3
    assert {node.key: node.value for node in await trie.list()} == {
        "e/d": b"d",
        "e/d/a": b"d/a",
        "e/d/b/c": b"d/b/c",
        "e/x": b"e/x",
        "dd/a": b"dd/a",
    }
    assert appended == [6]
    assert len(await trie.checkout(before).list("d")) == 3


async def test_rename_keeps_flags_and_replaces_what_is_there() -> None:
    trie = await trie_with("b")
    await trie.put("a", b"new", flags=5)
    assert await trie.rename("a", "b") == 1
    node = await trie.get("b")
    assert node is not None
    assert (node.value, node.flags, await trie.get("a")) == (b"new", 5, None)


@pytest.mark.parametrize(("old", "new"), [("a", "a/b"), ("a/b", "a"), ("a", "/a/"), ("", "b"), ("a", "/")])
async def test_rename_into_itself_is_refused(old: str, new: str) -> None:
    trie = await trie_with("a", "a/b")
    with pytest.raises(InvalidPath):
        await trie.rename(old, new)


# -- missing blocks


async def sparse(count: int) -> tuple[Reader, Trie, Trie]:
    source = await open_trie(new_feed(), HYPERCORE)
    await source.batch([Put(f"d{number % 5}/f{number}", b"x") for number in range(count)])
    reader = Reader(source.feed)
    reader.deliver(0, source.version - 1)
    return reader, source, await open_trie(reader.feed, HYPERCORE)


async def test_listing_what_is_missing_takes_few_round_trips() -> None:
    reader, source, trie = await sparse(1000)
    rounds: list[list[int]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.serve, rounds)
        nodes = await trie.list("d3")
        nursery.cancel_scope.cancel()
    assert [node.key for node in nodes] == [node.key for node in await source.list("d3")]
    assert len(nodes) == 200
    assert len(rounds) <= 12
    assert sum(map(len, rounds)) < 230
    assert reader.wishes == []


async def test_a_shallow_listing_does_not_fetch_what_is_below() -> None:
    reader, _, trie = await sparse(1000)
    rounds: list[list[int]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.serve, rounds)
        assert len(await trie.list("", recursive=False)) == 5
        nursery.cancel_scope.cancel()
    assert sum(map(len, rounds)) < 20


async def test_a_diff_over_missing_blocks_fetches_what_changed() -> None:
    reader, source, _ = await sparse(500)
    before = source.version
    await source.batch([Put(f"d1/new{number}", b"y") for number in range(20)])
    reader.deliver(source.version - 1)
    trie = await open_trie(reader.feed, HYPERCORE)
    rounds: list[list[int]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.serve, rounds)
        changes = [change async for change in trie.diff(before)]
        nursery.cancel_scope.cancel()
    assert {change.key for change in changes} == {f"d1/new{number}" for number in range(20)}
    assert reader.wishes == []


async def test_an_iteration_that_is_dropped_or_cancelled_leaves_no_wish(autojump_clock: object) -> None:
    reader, _, trie = await sparse(300)
    with trio.move_on_after(1):
        await trie.list()
    await trio.lowlevel.checkpoint()  # the scheduler lets go of what cancelled us
    gc.collect()
    assert reader.wishes == []
    reader.deliver(*range(200, 300))
    walk = trie.iterate()
    with trio.move_on_after(1):
        async for _ in walk:
            assert reader.wishes != []
    del walk
    await trio.lowlevel.checkpoint()
    gc.collect()
    assert reader.wishes == []


async def test_a_get_waits_only_for_its_own_blocks() -> None:
    reader, _, trie = await sparse(1000)
    rounds: list[list[int]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.serve, rounds)
        assert await trie.get("d1/f1") is not None
        nursery.cancel_scope.cancel()
    assert [len(wanted) for wanted in rounds] == [1] * len(rounds)
    assert len(rounds) < 12


async def test_the_cache_keeps_to_its_limit() -> None:
    trie = await trie_with(*[f"k{number}" for number in range(300)])
    small = Nodes(trie.feed, limit_bytes=40_000)
    limited = Trie(small, HYPERCORE, trie.header)
    for _ in range(2):
        assert len(await limited.list()) == 300
    kept = {**small._young, **small._old}
    assert 0 < sum(node.size_bytes for node in kept.values()) <= 40_000


async def test_what_is_read_here_and_there_is_preloaded_in_large_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    trie = await trie_with(*(f"k{number}" for number in range(PRELOAD_AFTER + PRELOAD_EVERY + 10)))
    preloaded: list[int] = []
    nodes = Nodes(trie.feed)
    monkeypatch.setattr(trie.feed, "preload", lambda: preloaded.append(seq))
    for seq in range(1, trie.version):
        nodes.peek(seq)
    assert preloaded == [PRELOAD_AFTER, PRELOAD_AFTER + PRELOAD_EVERY]


async def test_long_listings_let_other_tasks_run() -> None:
    trie = await trie_with(*[f"k{number}" for number in range(600)])
    turns = 0
    async with trio.open_nursery() as nursery:

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = turns
        assert len(await trie.list()) == 600
        assert turns > before
        nursery.cancel_scope.cancel()


def test_the_same_changes_give_the_same_blocks() -> None:
    async def made() -> list[str]:
        return hex_blocks((await trie_with("a", "b", "a/c")).feed)

    assert trio.run(made) == trio.run(made)
