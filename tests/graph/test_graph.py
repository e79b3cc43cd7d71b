"""What a graph does beyond the recorded run."""

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.crypto import KeyPair
from ddrive.dialect import DWEB
from ddrive.errors import InvalidPath, NotWritable
from ddrive.feed import Feed, FeedLog, MemoryDirectory
from ddrive.graph import Edge, EdgeChange, Graph
from ddrive.trie import open_trie


async def new_graph() -> Graph:
    pair = KeyPair.from_seed(b"h" * 32)
    feed = Feed(FeedLog.create(MemoryDirectory(), key=pair.public_key, secret_key=pair.secret_key))
    return Graph(await open_trie(feed, DWEB))


async def edges(graph: Graph, label: str, **options: str | int) -> list[tuple[str, str]]:
    return [(edge.source, edge.target) async for edge in graph.walk(label, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [("", "b", "l"), ("a", "", "l"), ("a", "b", ""), ("a/b", "c", "l"), ("a", "b", "l/")])
async def test_name_that_is_no_component_is_refused(names: tuple[str, str, str]) -> None:
    graph = await new_graph()
    with pytest.raises(InvalidPath, match="cannot name a node or label"):
        await graph.put(*names)
    with pytest.raises(InvalidPath):
        await graph.delete(*names)
    with pytest.raises(InvalidPath):
        await graph.has(*names)
    assert graph.version == 1


@pytest.mark.parametrize("options", [{"source": "a/b"}, {"target": ""}, {"source": ""}])
async def test_walk_refuses_names_that_are_no_component(options: dict[str, str]) -> None:
    graph = await new_graph()
    with pytest.raises(InvalidPath):
        graph.walk("l", **options)  # type: ignore[arg-type]


async def test_refused_batch_changes_nothing() -> None:
    graph = await new_graph()
    with pytest.raises(InvalidPath):
        await graph.batch([EdgeChange(Edge("a", "b", "l")), EdgeChange(Edge("a", "", "l"))])
    assert graph.version == 1


async def test_delete_tells_whether_there_was_an_edge() -> None:
    graph = await new_graph()
    await graph.put("a", "b", "l")
    assert await graph.has("a", "b", "l")
    assert await graph.delete("a", "b", "l")
    assert not await graph.delete("a", "b", "l")
    assert not await graph.has("a", "b", "l")


async def test_cycle_ends() -> None:
    graph = await new_graph()
    for source, target in (("a", "b"), ("b", "a"), ("a", "a")):
        await graph.put(source, target, "l")
    assert sorted(await edges(graph, "l", source="a")) == [("a", "a"), ("a", "b"), ("b", "a")]


async def test_target_alone_gives_the_edges_into_it() -> None:
    graph = await new_graph()
    for source, target in (("a", "c"), ("b", "c"), ("c", "d")):
        await graph.put(source, target, "l")
    assert sorted(await edges(graph, "l", target="c")) == [("a", "c"), ("b", "c")]


async def test_checkout_keeps_its_edges_and_cannot_be_changed() -> None:
    graph = await new_graph()
    await graph.put("a", "b", "l")
    old = graph.checkout(graph.version)
    await graph.put("b", "c", "l")
    assert await edges(old, "l", source="a") == [("a", "b")]
    assert await edges(graph, "l", source="a") == [("a", "b"), ("b", "c")]
    with pytest.raises(NotWritable):
        await old.put("c", "d", "l")


async def test_walk_sees_one_version() -> None:
    graph = await new_graph()
    await graph.put("a", "b", "l")
    walk = graph.walk("l", source="a")
    assert await anext(walk) == Edge("a", "b", "l")
    await graph.put("b", "c", "l")
    assert [edge async for edge in walk] == []


async def test_changes_between_versions() -> None:
    graph = await new_graph()
    await graph.put("a", "b", "l")
    since = graph.version
    await graph.put("b", "c", "l")
    await graph.put("x", "y", "other")
    await graph.delete("a", "b", "l")
    found = [change async for change in graph.changes(since, "l")]
    assert sorted(found) == [EdgeChange(Edge("a", "b", "l"), True), EdgeChange(Edge("b", "c", "l"))]


async def test_watch_tells_of_edges_of_its_label(autojump_clock: object) -> None:
    graph = await new_graph()
    heard: list[list[EdgeChange]] = []

    async def listen() -> None:
        async for changes in graph.watch("l"):
            heard.append(changes)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        await graph.put("x", "y", "other")
        await trio.testing.wait_all_tasks_blocked()
        await graph.put("a", "b", "l")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert heard == [[EdgeChange(Edge("a", "b", "l"))]]


async def test_entries_that_are_no_edges_are_passed_over() -> None:
    graph = await new_graph()
    await graph.trie.put("l/a", b"")
    await graph.trie.put("l/a/b/c", b"")
    await graph.put("a", "b", "l")
    assert await edges(graph, "l") == [("a", "b")]


NAMES = st.sampled_from("abcde")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(pairs=st.lists(st.tuples(NAMES, NAMES), max_size=20), removed=st.lists(st.tuples(NAMES, NAMES), max_size=5))
def test_walk_reaches_what_a_plain_search_reaches(pairs: list[tuple[str, str]], removed: list[tuple[str, str]]) -> None:
    async def run() -> None:
        graph = await new_graph()
        await graph.batch([EdgeChange(Edge(source, target, "l")) for source, target in pairs])
        await graph.batch([EdgeChange(Edge(source, target, "l"), is_removal=True) for source, target in removed])
        present = set(pairs) - set(removed)
        reached = {"a"}
        while grown := {target for source, target in present if source in reached} - reached:
            reached |= grown
        found = await edges(graph, "l", source="a")
        assert len(found) == len(set(found))
        assert set(found) == {(source, target) for source, target in present if source in reached}

    trio.run(run)
