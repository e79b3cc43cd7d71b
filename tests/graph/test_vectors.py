"""The recorded run of the npm package: every block, every iteration."""

import json

import pytest

from ddrive.crypto import KeyPair
from ddrive.dialect import HYPERCORE
from ddrive.feed import Feed, FeedLog, MemoryDirectory
from ddrive.graph import Edge, EdgeChange, Graph
from ddrive.trie import open_trie
from tests.support.vectors import VECTORS

RECORDED = json.loads((VECTORS / "multigraph.json").read_text())


async def replayed() -> Graph:
    """Return the graph after all that the recorded run did."""
    pair = KeyPair.from_seed(b"g" * 32)
    feed = Feed(FeedLog.create(MemoryDirectory(), key=pair.public_key, secret_key=pair.secret_key))
    graph = Graph(await open_trie(feed, HYPERCORE))
    for source, target, label in RECORDED["edges"]:
        await graph.put(source, target, label)
    assert await graph.delete(*RECORDED["removed"])
    batch = [
        EdgeChange(Edge("y", "x", "friend")),
        EdgeChange(Edge("d", "a", "enemy")),
        EdgeChange(Edge("a", "d", "enemy"), is_removal=True),
    ]
    assert await graph.batch(batch) == [True, True, True]
    return graph


async def test_blocks_are_those_of_the_npm_package() -> None:
    graph = await replayed()
    blocks = [graph.trie.feed.log.block(index).hex() for index in range(graph.version)]
    assert blocks == RECORDED["blocks"]
    assert [node.key for node in await graph.trie.list()] == RECORDED["keys"]


@pytest.mark.parametrize("case", RECORDED["iterations"], ids=lambda case: json.dumps(case["opts"]))
async def test_walk_gives_the_edges_of_the_npm_package(case: dict[str, dict[str, str]]) -> None:
    graph = await replayed()
    options = dict(case["opts"])
    walk = graph.walk(
        options["label"], source=options.get("from"), target=options.get("to"), depth=options.get("depth")
    )
    assert [[edge.source, edge.target] async for edge in walk] == case["edges"]
