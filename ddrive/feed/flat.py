"""Arithmetic of the in-order numbered ("flat") binary tree; nothing is stored here.

The leaf of block b is node 2*b. A node's depth is the number of trailing one bits of its number.
Source: feed.md section 2 of the format documents, `flat-tree.json` of the vectors.
"""

from ddrive.ids import NodeIndex


def index(depth: int, offset: int) -> NodeIndex:
    """Return the number of node `offset` (from the left, from 0) among the nodes of `depth`."""
    return NodeIndex((offset << (depth + 1)) + (1 << depth) - 1)


def depth(node: int) -> int:
    """Return how far `node` is above the leaves: 0 for a leaf."""
    return ((node + 1) & ~node).bit_length() - 1


def offset(node: int) -> int:
    """Return the position of `node` from the left among the nodes of its depth."""
    return node >> (depth(node) + 1)


def parent(node: int) -> NodeIndex:
    """Return the node above `node`."""
    low = (node + 1) & ~node
    return NodeIndex((node | low) & ~(low << 1))


def sibling(node: int) -> NodeIndex:
    """Return the other child of the parent of `node`."""
    return NodeIndex(node ^ (((node + 1) & ~node) << 1))


def children(node: int) -> tuple[NodeIndex, NodeIndex] | None:
    """Return the left and the right node below `node`, None for a leaf."""
    half = ((node + 1) & ~node) >> 1
    return (NodeIndex(node - half), NodeIndex(node + half)) if half else None


def left_span(node: int) -> NodeIndex:
    """Return the leftmost leaf node below `node`."""
    return NodeIndex(node - ((node + 1) & ~node) + 1)


def right_span(node: int) -> NodeIndex:
    """Return the rightmost leaf node below `node`."""
    return NodeIndex(node + ((node + 1) & ~node) - 1)


def span(node: int) -> tuple[int, int]:
    """Return the half-open range of blocks below `node`."""
    return left_span(node) >> 1, (right_span(node) >> 1) + 1


def count(node: int) -> int:
    """Return the number of nodes below `node`, itself included."""
    return 2 * ((node + 1) & ~node) - 1


def full_roots(length: int) -> list[NodeIndex]:
    """Return the roots covering `length` blocks, left to right: 3 blocks give [1, 4]."""
    roots: list[NodeIndex] = []
    first = 0
    while length > first:
        blocks = 1 << ((length - first).bit_length() - 1)
        roots.append(NodeIndex(2 * first + blocks - 1))
        first += blocks
    return roots


def last_root(length: int) -> NodeIndex:
    """Return the last of the roots covering `length` blocks, at least one: 3 blocks give 4."""
    low = length & -length
    return NodeIndex(2 * (length - low) + low - 1)
