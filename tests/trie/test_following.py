"""Watching a trie, writing a stream of changes into it, and conditions on the way."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ddrive.dialect import DWEB
from ddrive.errors import InvalidPath
from ddrive.feed import Feed
from ddrive.trie import Delete, Put, Trie, TrieNode, open_trie
from tests.trie.feeds import new_feed


@pytest.fixture
async def trie() -> Trie:
    """An empty database."""
    return await open_trie(new_feed(), DWEB)


async def test_watching_a_prefix(trie: Trie) -> None:
    seen: list[list[tuple[str, bool, bool]]] = []

    async def watch() -> None:
        async for changes in trie.watch("a"):
            seen.append([(key, left is not None, right is not None) for key, left, right in changes])

    async def settled() -> list[list[tuple[str, bool, bool]]]:
        await wait_all_tasks_blocked()
        found = list(seen)
        seen.clear()
        return found

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await wait_all_tasks_blocked()
        await trie.put("b/x", b"")
        assert await settled() == []
        await trie.put("a/x", b"1")
        assert await settled() == [[("a/x", True, False)]]
        await trie.put("a/x", b"2")
        assert await settled() == [[("a/x", True, True)]]
        await trie.put("a/x", b"2")
        assert await settled() == []
        await trie.batch([Put("a/y", b""), Put("a", b""), Put("a/z", b"", hidden=True)])
        assert [sorted(changes) for changes in await settled()] == [[("a", True, False), ("a/y", True, False)]]
        await trie.delete("a/x")
        assert await settled() == [[("a/x", False, True)]]
        await trie.rename("a", "c")
        assert [sorted(changes) for changes in await settled()] == [[("a", False, True), ("a/y", False, True)]]
        nursery.cancel_scope.cancel()


async def test_a_watch_begins_when_it_is_made_and_a_fixed_version_has_none(trie: Trie) -> None:
    watch, hidden = trie.watch(), trie.watch(hidden=True)
    await trie.put("a", b"1")
    await trie.put("b", b"2", hidden=True)
    assert [change.key for change in await anext(watch)] == ["a"]
    assert [change.key for change in await anext(hidden)] == ["b"]
    assert [changes async for changes in trie.snapshot().watch()] == []


async def test_a_stream_of_changes_is_done_in_batches(trie: Trie) -> None:
    async with trie.write_stream() as stream:
        for number in range(300):
            await stream.send(Put(f"key/{number}", b"%d" % number))
        assert (trie.version, stream.written) == (257, 256)
        await stream.send(Delete("key/7"))
    assert (trie.version, stream.written) == (302, 301)
    assert len(await trie.list("key")) == 299
    with pytest.raises(trio.ClosedResourceError):
        await stream.send(Delete("key/8"))


async def test_a_stream_left_by_an_exception_drops_what_is_left(trie: Trie) -> None:
    async def fail() -> None:
        async with trie.write_stream() as stream:
            await stream.send(Put("a", b""))
            await stream.flush()
            await stream.send(Put("b", b""))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert [node.key for node in await trie.list()] == ["a"]


async def test_a_bad_change_in_a_stream_is_told(trie: Trie) -> None:
    async def write() -> None:
        async with trie.write_stream() as stream:
            await stream.send(Put("/", b""))

    with pytest.raises(InvalidPath):
        await write()


async def test_compare_and_swap_counts_every_round(trie: Trie) -> None:
    """Many tasks add one to a number; none of them is lost."""

    async def add() -> None:
        while True:
            old = await trie.get("count")
            number = int(old.value or b"0") if old is not None else 0

            def unchanged(now: TrieNode | None, _: TrieNode | None, old: TrieNode | None = old) -> bool:
                return (now and now.seq) == (old and old.seq)

            if await trie.put("count", b"%d" % (number + 1), condition=unchanged):
                return

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(add)
    node = await trie.get("count")
    assert node is not None
    assert node.value == b"20"
    assert trie.key == trie.feed.key
    assert isinstance(trie.feed, Feed)
