"""Decoded nodes of one feed: a cache over its blocks, and wishes for the blocks a walk is going to need.

A block that is held is decoded without an await. A walk over a feed of which little is held registers all that it will
visit before it waits for the first, and blocks that arrive pass the wish on to those they point at, so that a listing
costs a few round trips and not one per entry.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol
from weakref import ReferenceType, ref

import trio

from ddrive.feed import Feed
from ddrive.ids import BlockIndex
from ddrive.trie.node import InvalidNode, TrieNode, decode_node

CACHE_BYTES: Final = 12 * 1024 * 1024  # per trie; an entry of a drive takes about 1 KiB decoded
RUN_BITS: Final = 6  # a run is 64 blocks
MISSES_BEFORE_RUN: Final = 3  # nodes of it that are read one by one before
MAX_RUNS: Final = 2048  # in memory during one read, some 20 MB
PRELOAD_AFTER: Final = 64  # nodes that had to be decoded; by then more are likely to follow
PRELOAD_EVERY: Final = 4096
MAX_WISHES: Final = 512  # blocks that one walk asks for at a time


class Asker(Protocol):
    """Who asks the peers which blocks a read needs; `extension.PeerAsker`."""

    def ask_get(self, head: int, key: str) -> None: ...
    def ask_iterator(self, head: int, key: str, flags: int, checkpoint: bytes | None) -> None: ...


class Nodes:
    """The nodes of a feed, the recently used ones kept decoded; shared by a trie and all its checkouts.

    Two generations stand in for an exact order of use: a node found in the old one moves to the young one, and when
    the young one is full it becomes the old one.
    """

    def __init__(self, feed: Feed, *, limit_bytes: int = CACHE_BYTES) -> None:
        self.feed = feed
        self.origin = f"feed {feed.name}"
        self.assistant: Asker | None = None
        self.fetch: Callable[[BlockIndex], Awaitable[bytes]] = feed.get  # waits for a block, maybe not for ever
        self._limit_bytes = limit_bytes // 2
        self._young: dict[int, TrieNode] = {}
        self._old: dict[int, TrieNode] = {}
        self._young_bytes = 0
        self._until_preload = PRELOAD_AFTER

    def peek(self, seq: int) -> TrieNode | None:
        """Return node `seq` if its block is held. Raises: InvalidNode."""
        return self._young.get(seq) or self._peek_further(seq)

    async def node(self, seq: int) -> TrieNode:
        """Return node `seq`, waiting for its block. Raises: InvalidNode, what the feed raises."""
        return self.peek(seq) or self.add(decode_node(seq, await self.fetch(BlockIndex(seq)), self.origin))

    async def give_way(self) -> None:
        """Let other tasks have their turn."""
        await trio.lowlevel.checkpoint()

    def want(self, seqs: Sequence[int], first: int = 0, end: int = 0) -> None:
        """Do nothing: a walk that is worth wishes uses `Prefetch`."""

    def add(self, node: TrieNode) -> TrieNode:
        """Keep `node`, and return it. After some of them the rest is read from disk in large pieces meanwhile.

        The kernel may have dropped what was read when the feed was opened, and a node by itself costs a disk's delay.
        """
        self._until_preload -= 1
        if not self._until_preload:
            self._until_preload = PRELOAD_EVERY
            self.feed.preload()
        self._young_bytes += node.size_bytes
        if self._young_bytes > self._limit_bytes:
            self._old, self._young = self._young, {}
            self._young_bytes = node.size_bytes
        self._young[node.seq] = node
        return node

    def kept(self, seq: int) -> TrieNode | None:
        """Return node `seq` if it is kept decoded."""
        return self._young.get(seq) or (self.add(node) if (node := self._old.get(seq)) is not None else None)

    def decoded(self, seq: int, block: bytes) -> TrieNode:
        """Return node `seq`, whose block was read already, and keep it. Raises: InvalidNode."""
        return self.add(decode_node(seq, block, self.origin))

    def _peek_further(self, seq: int) -> TrieNode | None:
        node = self._old.get(seq)
        if node is None:
            block = self.feed.get_held(BlockIndex(seq))
            if block is None:
                return None
            node = decode_node(seq, block, self.origin)
        return self.add(node)


class Helped:
    """A `Load` for one lookup that asks the peers for help once, when it has to wait.

    `ask` tells whether it could: as long as the newest node is not here, there may be nothing to ask about.
    """

    __slots__ = ("_ask", "_nodes", "give_way", "peek")

    def __init__(self, nodes: Nodes, ask: Callable[[], bool]) -> None:
        self.peek = nodes.peek
        self.give_way = nodes.give_way
        self._nodes = nodes
        self._ask: Callable[[], bool] | None = ask

    async def node(self, seq: int) -> TrieNode:
        """Return node `seq`, waiting for its block."""
        if self._ask is not None and self.peek(seq) is None and self._ask():
            self._ask = None
        return await self._nodes.node(seq)

    def want(self, seqs: Sequence[int], first: int = 0, end: int = 0) -> None:
        """Do nothing: what a lookup needs is a single path."""


class Prefetch:
    """A `Load` for one read that asks for all missing nodes at once. Its wishes end when it is dropped.

    `ask`, if set, is called when the read has to wait.
    """

    def __init__(self, nodes: Nodes, *, limit: int = MAX_WISHES) -> None:
        self.give_way = nodes.give_way
        self.ask: Callable[[], None] | None = None
        self._nodes = nodes
        self._limit = limit
        self._wishes: dict[int, tuple[AbstractContextManager[None], int, int]] = {}
        self._unsubscribe: Callable[[], None] | None = None
        self._runs: dict[int, list[bytes]] = {}  # blocks that lie side by side, read but not decoded
        self._missed: dict[int, int] = {}  # nodes of each such run that had to be read one by one

    def peek(self, seq: int) -> TrieNode | None:
        """Return node `seq` if its block is held. Of a run of blocks that the read comes back to all are read at once.

        Raises: InvalidNode.
        """
        node = self._nodes.kept(seq)
        if node is not None:
            return node
        number = seq >> RUN_BITS
        run = self._runs.get(number)
        if run is None:
            missed = self._missed[number] = self._missed.get(number, 0) + 1
            if missed != MISSES_BEFORE_RUN or len(self._runs) >= MAX_RUNS:
                return self._nodes.peek(seq)
            start = max(1, number << RUN_BITS)
            read = self._nodes.feed.get_held_run(start, min(number + 1 << RUN_BITS, self._nodes.feed.length))
            if read is None:
                return self._nodes.peek(seq)
            run = self._runs[number] = read if start >> RUN_BITS << RUN_BITS == start else [b"", *read]
        place = seq & (1 << RUN_BITS) - 1
        block = run[place] if place < len(run) else b""
        if not block:
            return self._nodes.peek(seq)
        run[place] = b""  # a walk comes by once
        return self._nodes.decoded(seq, block)

    async def node(self, seq: int) -> TrieNode:
        """Return node `seq`, waiting for its block."""
        if self.ask is not None and self.peek(seq) is None:
            self.ask()
        node = await self._nodes.node(seq)
        self._withdraw(seq)
        return node

    def want(self, seqs: Sequence[int], first: int = 0, end: int = 0) -> None:
        """Ask for these blocks, and when they arrive for those their rows `first` to `end - 1` point at."""
        for seq in seqs:
            if len(self._wishes) >= self._limit:
                return
            if seq in self._wishes:
                continue
            if self._unsubscribe is None:
                self._unsubscribe = self._nodes.feed.subscribe(_Arrivals(ref(self)))
            wish = self._nodes.feed.want(BlockIndex(seq), BlockIndex(seq + 1), urgent=True)
            wish.__enter__()
            self._wishes[seq] = wish, first, end

    def arrived(self, seq: int) -> None:
        """Go on with what block `seq` points at."""
        found = self._withdraw(seq)
        node = self._nodes.peek(seq) if found else None
        if found is None or node is None:
            return
        first, end = found
        for row, start in zip(*node.rows(), strict=True):
            if first <= row < end:
                missing = [child for _, child in node.pointers_at(start) if self._nodes.peek(child) is None]
                self.want(missing, row + 1, end)

    def wanted_within(self, start: int, end: int) -> list[int]:
        """Return the wishes for blocks of that range."""
        if end - start < len(self._wishes):
            return [seq for seq in range(start, end) if seq in self._wishes]
        return [seq for seq in self._wishes if start <= seq < end]

    def _withdraw(self, seq: int) -> tuple[int, int] | None:
        wish, first, end = self._wishes.pop(seq, (None, 0, 0))
        if wish is None:
            return None
        wish.__exit__(None, None, None)
        return first, end

    def __del__(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        for seq in list(self._wishes):
            self._withdraw(seq)


class _Arrivals:
    """Listener of a feed that does not keep its walk alive."""

    def __init__(self, prefetch: "ReferenceType[Prefetch]") -> None:
        self._prefetch = prefetch

    def stored(self, start: int, end: int) -> None:
        prefetch = self._prefetch()
        if prefetch is None:
            return
        for seq in prefetch.wanted_within(start, end):
            try:
                prefetch.arrived(seq)
            except InvalidNode:
                continue  # the walk will come to this block and report it

    def grew(self, length: int) -> None: ...
    def cleared(self, start: int, end: int) -> None: ...
    def nodes_stored(self) -> None: ...
