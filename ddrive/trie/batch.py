"""Several changes as one: each sees the ones before it, and all are appended together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ddrive.trie.delete import find_doomed
from ddrive.trie.lookup import Load
from ddrive.trie.node import TrieNode, encode_node
from ddrive.trie.path import writable_path
from ddrive.trie.put import put

Condition = Callable[[TrieNode | None, TrieNode | None], bool]  # (old, new) -> go on; may raise to refuse

_CHANGES_PER_TURN = 64  # about two milliseconds


@dataclass(frozen=True, slots=True)
class Put:
    """Store `value` and the user `flags` under `key`.

    `condition(old, new)` runs when everything is known and before anything is appended: False leaves this change out,
    an exception refuses the whole batch. `old` is the entry being replaced (None: there is none), or with `closest`
    whatever entry lies nearest.
    """

    key: str
    value: bytes | None
    flags: int = 0
    hidden: bool = False
    condition: Condition | None = None
    closest: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the entry at `key`; nothing happens when there is none.

    `condition(old, None)` as for `Put`; with `closest` it is also called when there is no such entry.
    """

    key: str
    hidden: bool = False
    condition: Condition | None = None
    closest: bool = False


class Draft:
    """Nodes that are not appended yet, numbered on from the length of the feed."""

    def __init__(self, load: Load, head: TrieNode | None, length: int, origin: str) -> None:
        self.nodes: list[TrieNode] = []
        self.head = head
        self._load = load
        self._length = length
        self._origin = origin
        self._changes = 0

    def peek(self, seq: int) -> TrieNode | None:
        """Return node `seq`, a new one or one that is held."""
        return self.nodes[seq - self._length] if seq >= self._length else self._load.peek(seq)

    async def node(self, seq: int) -> TrieNode:
        """Return node `seq`, waiting for its block when it is not held."""
        return await self._load.node(seq)

    def want(self, seqs: Sequence[int], first: int = 0, end: int = 0) -> None:
        """Pass the wish on."""
        self._load.want([seq for seq in seqs if seq < self._length], first, end)

    async def give_way(self) -> None:
        """Let other tasks have their turn."""
        await self._load.give_way()

    async def apply(self, change: Put | Delete) -> TrieNode | None:
        """Do one change; return the new entry, or the removed one, None when nothing changed.

        Raises: InvalidPath, InvalidNode, what the condition raises.
        """
        self._changes += 1
        if not self._changes % _CHANGES_PER_TURN:
            await self.give_way()
        return await (self._put(change) if isinstance(change, Put) else self._delete(change))

    def blocks(self) -> list[bytes]:
        """Return the blocks to append."""
        return [encode_node(node) for node in self.nodes]

    async def _put(self, change: Put) -> TrieNode | None:
        key = writable_path(change.key).key
        node = self._new(key, change.value, change.flags, change.hidden)
        closest = await put(self, self.head, node)
        existing = closest if closest is not None and closest.key == key else None
        if change.condition is not None and not change.condition(closest if change.closest else existing, node):
            return None
        self._add(node)
        return node

    async def _delete(self, change: Delete) -> TrieNode | None:
        path = writable_path(change.key, change.hidden)
        doomed = await find_doomed(self, self.head, path)
        if not doomed.found or doomed.node is None:
            if change.closest and change.condition is not None:
                change.condition(doomed.node, None)
            return None
        if change.condition is not None and not change.condition(doomed.node, None):
            return None
        node = self._new("", None, 0, path.hidden)
        if doomed.relative:
            near = self.peek(doomed.relative) or await self.node(doomed.relative)
            node = self._new(near.key, near.value, near.flags, near.hidden)
        await put(self, self.head, node, drop=doomed.node.seq)
        self._add(node)
        return doomed.node

    def _new(self, key: str, value: bytes | None, flags: int, hidden: bool) -> TrieNode:
        return TrieNode(self._length + len(self.nodes), key, value, flags, hidden, origin=self._origin)

    def _add(self, node: TrieNode) -> None:
        self.nodes.append(node)
        self.head = node if node.key else None
