"""Removing an entry: the closest relative is stored once more, with a table that leaves the entry out.

There is no tombstone. Unlike the npm peers the walk tells keys of equal hashes apart, so that deleting one of them
neither misses it nor takes the others along.
"""

from bisect import bisect_left
from typing import NamedTuple

from ddrive.trie.lookup import Load, collision_step, misplaced
from ddrive.trie.node import TrieNode
from ddrive.trie.path import KeyPath, divergence, is_check_point


class Doomed(NamedTuple):
    """Where the walk to a key ended: `node` is the entry when `found`, else the closest one.

    `relative` is the block of the entry that shares most with it, 0 when there is no other.
    """

    node: TrieNode | None
    relative: int
    found: bool


async def find_doomed(load: Load, head: TrieNode | None, path: KeyPath) -> Doomed:
    """Return the entry that a delete of `path` removes and the relative that takes its place. Raises: InvalidNode."""
    node = head
    index = relative = 0
    last = None
    while node is not None and node.key:
        last = node
        stop = divergence(node, path)
        if stop < index:
            raise misplaced(node)
        relative = _relative(node, index, stop) or relative
        if stop >= path.length:
            return Doomed(node, relative, node.key == path.key)
        if is_check_point(stop):
            following = await collision_step(load, node, stop, path)
        else:
            seq = node.pointer(stop, path.digit(stop))
            following = (load.peek(seq) or await load.node(seq)) if seq else None
        if following is not None:
            relative = node.seq
        node = following
        index = stop + 1
    return Doomed(last, relative, False)


def _relative(node: TrieNode, first: int, stop: int) -> int:
    """Return what the last used row in `first` to `stop - 1` points at, 0 when none is used.

    Its lowest slot of another digit is taken; a slot of the node's own digit (an equal hash) when there is no other.
    """
    rows, starts = node.rows()
    last = bisect_left(rows, stop) - 1
    if last < 0 or rows[last] < first:
        return 0
    own = node.digit(rows[last])
    pointers = node.pointers_at(starts[last])
    for slot, seq in pointers:
        if slot != own:
            return seq
    return pointers[0][1] if pointers else 0
