"""Depth-first iteration over the edges of a graph: which edge comes next, and where it ends.

The order is that of the trie's hashes, so every peer sees the same one. An edge is handed out once, which ends cycles.
Source: `hypertrie-multigraph@3`.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

from ddrive.errors import InvalidPath
from ddrive.trie.node import TrieNode
from ddrive.trie.trie import Trie

_PARTS = 3  # label, source, target


class Edge(NamedTuple):
    """One edge: from `source` to `target`."""

    source: str
    target: str
    label: str

    @property
    def key(self) -> str:
        """The key under which the trie holds the edge. Raises: InvalidPath."""
        return prefix_key(self.label, self.source, self.target)


def prefix_key(label: str, source: str | None = None, target: str | None = None) -> str:
    """Return the trie key of a label, of what leaves a source, or of one edge. Raises: InvalidPath."""
    names = [name for name in (label, source, target) if name is not None]
    for name in names:
        check_name(name)
    return "/".join(names)


def check_name(name: str) -> None:
    """Make sure that a label or the name of a node can be part of a key. Raises: InvalidPath."""
    if not name or "/" in name:
        raise InvalidPath(f"{name!r} cannot name a node or label of a graph: it is empty or has a slash")


def edge_of(node: TrieNode) -> Edge | None:
    """Return the edge that an entry stands for, None when it is no edge."""
    names = node.key.split("/")
    return Edge(names[1], names[2], names[0]) if len(names) == _PARTS and all(names) else None


class EdgeWalk:
    """Asynchronous iterator over edges; see `Graph.walk`. It sees one version of the trie."""

    def __init__(self, view: Trie, label: str, source: str | None, target: str | None, depth: int | None) -> None:
        self._view = view
        self._label = label
        self._only_into = target if source is None else None
        self._target = target
        self._depth = depth or 0
        self._seen: set[Edge] = set()
        self._exhausted: set[str] = set()  # prefixes of which every edge was seen
        self._stack: list[tuple[str, AsyncIterator[TrieNode]]] = []
        self._push(prefix_key(label, source, target if source is not None else None))

    def __aiter__(self) -> "EdgeWalk":
        return self

    async def __anext__(self) -> Edge:
        while self._stack:
            prefix, entries = self._stack[-1]
            node = await anext(entries, None)
            if node is None:
                self._stack.pop()
                self._exhausted.add(prefix)
                continue
            edge = edge_of(node)
            if edge is None or edge in self._seen:
                continue
            if self._only_into is not None and edge.target != self._only_into:
                continue
            self._seen.add(edge)
            self._push(prefix_key(self._label, edge.target, self._target))
            return edge
        raise StopAsyncIteration

    def _push(self, prefix: str) -> None:
        if self._depth and len(self._stack) >= self._depth:
            return
        if prefix not in self._exhausted:
            self._stack.append((prefix, self._view.iterate(prefix)))
