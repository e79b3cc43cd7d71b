"""A directed multigraph with labelled edges over a trie: the key of an edge is `label/source/target`.

Nodes exist through their edges alone. Versions, checkouts and what changed between them are those of the trie.
Source: `hypertrie-multigraph@3`.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from ddrive.graph.walk import Edge, EdgeWalk, check_name, edge_of, prefix_key
from ddrive.trie.batch import Delete, Put
from ddrive.trie.trie import Trie


class EdgeChange(NamedTuple):
    """One step of a batch, or one difference between two versions: an edge that is there now, or is gone."""

    edge: Edge
    is_removal: bool = False


class Graph:
    """The graph in `trie`, which `open_trie` made: live, or a checkout. Several graphs may share one trie."""

    def __init__(self, trie: Trie) -> None:
        self.trie = trie

    def __repr__(self) -> str:
        return f"<Graph {self.trie!r}>"

    @property
    def version(self) -> int:
        """Number of blocks that this view sees; 1 is the empty graph."""
        return self.trie.version

    @property
    def writable(self) -> bool:
        """Whether edges can be changed here."""
        return self.trie.writable

    def checkout(self, version: int) -> "Graph":
        """Return the graph as it was at `version`."""
        return Graph(self.trie.checkout(version))

    async def put(self, source: str, target: str, label: str) -> None:
        """Add an edge, or state it again. Raises: InvalidPath, NotWritable, LengthChanged."""
        await self.batch([EdgeChange(Edge(source, target, label))])

    async def delete(self, source: str, target: str, label: str) -> bool:
        """Remove an edge and tell whether it was there. Raises: as `put`."""
        removed = await self.batch([EdgeChange(Edge(source, target, label), is_removal=True)])
        return removed[0]

    async def batch(self, changes: Sequence[EdgeChange]) -> list[bool]:
        """Do all changes in one append, in their order; tell for each whether it changed anything. Raises: as `put`."""
        steps: list[Put | Delete] = [
            Delete(change.edge.key) if change.is_removal else Put(change.edge.key, None) for change in changes
        ]
        return [done is not None for done in await self.trie.batch(steps)]

    async def has(self, source: str, target: str, label: str) -> bool:
        """Tell whether there is such an edge. Raises: InvalidPath."""
        return await self.trie.get(Edge(source, target, label).key) is not None

    def walk(
        self, label: str, *, source: str | None = None, target: str | None = None, depth: int | None = None
    ) -> EdgeWalk:
        """Return an asynchronous iterator over the edges that can be reached along `label`, depth first, each once.

        It starts with the edges that leave `source`, without one with all edges of the label. `target` alone gives the
        edges into it; with `source` also, the one edge between them. `depth` 1 gives the edges of the start only, n
        those at most n - 1 steps further; None or 0: no limit. Raises: InvalidPath.
        """
        for name in (source, target):
            if name is not None:
                check_name(name)
        return EdgeWalk(self.trie.snapshot(), label, source, target, depth)

    async def labels(self) -> AsyncIterator[str]:
        """Give each label that an edge has, once, in an order that all peers share."""
        async for node in self.trie.iterate("", recursive=False):
            edge = edge_of(node)
            if edge is not None:
                yield edge.label

    def changes(self, since: int, label: str | None = None) -> "EdgeChanges":
        """Return an asynchronous iterator over the edges added or removed since a version, of one label or of all."""
        return EdgeChanges(self.trie, since, label)

    def watch(self, label: str | None = None) -> "EdgeWatch":
        """Return an asynchronous iterator over what changed, each time something did, for ever; of one label or all.

        A step raises Closed when the feed is closed meanwhile.
        """
        return EdgeWatch(self, label)


class EdgeChanges:
    """Asynchronous iterator over the edges that differ between `trie` and its version `since`."""

    def __init__(self, trie: Trie, since: int, label: str | None) -> None:
        self._differences = trie.diff(since, prefix_key(label) if label is not None else "")

    def __aiter__(self) -> "EdgeChanges":
        return self

    async def __anext__(self) -> EdgeChange:
        while True:
            _, now, then = await anext(self._differences)
            if now is not None and then is not None:
                continue  # stated again, maybe only because another edge was removed
            node = now or then
            edge = edge_of(node) if node is not None else None
            if edge is not None:
                return EdgeChange(edge, is_removal=now is None)


class EdgeWatch:
    """Asynchronous iterator over lists of changes of a graph, one for each time that edges have changed."""

    def __init__(self, graph: Graph, label: str | None) -> None:
        self._graph = graph
        self._label = label
        self._seen = graph.version

    def __aiter__(self) -> "EdgeWatch":
        return self

    async def __anext__(self) -> list[EdgeChange]:
        feed = self._graph.trie.feed
        while True:
            await feed.wait_length(self._seen + 1)
            now = feed.length
            found = [change async for change in self._graph.checkout(now).changes(self._seen, self._label)]
            self._seen = now
            if found:
                return found
