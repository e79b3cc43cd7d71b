"""Nodes of a tree that the disk has changed, made again from what lies below them.

A node is only ever replaced when the result fits a parent that is certain, or the author's signature, so nothing is
taken on trust.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, product

from ddrive.feed import flat, merkle
from ddrive.feed.hashing import leaf_hash, parent_node
from ddrive.feed.layout import FeedFiles
from ddrive.feed.merkle import MAX_BLOCK_BYTES, MAX_BYTES
from ddrive.ids import Node, NodeIndex

MAX_LEVELS = 4  # that a node is made from: more nodes above each other are not damaged without the leaves beside them
MAX_TRIES = 64  # signatures checked for one length when a feed is opened, ways to divide bytes among nodes

Pair = tuple[Node, Node]
Numbers = tuple[NodeIndex, NodeIndex]
Children = Callable[[Node, int], Pair | None]  # those of a certain node, whose bytes start at an offset


def stored_children(files: FeedFiles) -> Children:
    """Return a function that gives the stored children of a node if they fit it, None otherwise."""

    def children(node: Node, offset: int) -> Pair | None:
        numbers = flat.children(node.number)
        pair = numbers and (files.node(numbers[0]), files.node(numbers[1]))
        return (pair[0], pair[1]) if pair and pair[0] and pair[1] and merkle.fits(node, pair[0], pair[1]) else None

    return children


def mended_children(files: FeedFiles, known: Callable[[int], bool], mended: list[Node]) -> Children:
    """Return a function that gives the children of a node, made again and written where the stored ones do not fit.

    Those that were written are added to `mended`, unless they were neither there nor `known` before: so it is with a
    copy that lacks a node although what lies below it happens to be there.
    """
    stored = stored_children(files)

    def children(node: Node, offset: int) -> Pair | None:
        pair = stored(node, offset)
        if pair is None and (pair := _made_again(files, node, offset)) is not None:
            wrong = [child for child in pair if child != files.node(child.number)]
            mended.extend(child for child in wrong if known(child.number) or files.node(child.number) is not None)
            files.write_nodes(wrong)
        return pair

    return children


def mended_roots(
    files: FeedFiles, length: int, signed: Callable[[list[Node]], bool], max_tries: int = MAX_TRIES
) -> list[Node] | None:
    """Return the roots of `length` blocks, written where stored ones were replaced by what follows from below.

    `signed` tells whether the author's signature is over some roots. None where it is over none that can be made.
    """
    ways: list[list[Node]] = []
    offset = 0
    for number in flat.full_roots(length):
        found = _ways(files, number) if number & 1 else _last_leaf(files, number, offset)
        ways.append(found[:1] if len(found) > 1 and found[0] == found[1] else list(dict.fromkeys(found)))
        if not ways[-1]:
            return None
        offset += ways[-1][-1].size
    for roots in islice(product(*ways), max_tries):
        if signed(list(roots)):
            files.write_nodes([root for root in roots if root != files.node(root.number)])
            return list(roots)
    return None


def _last_leaf(files: FeedFiles, number: NodeIndex, offset: int) -> list[Node]:
    """Return what a leaf that is the last root may be: as stored, or by the bytes that are there."""
    stored = files.node(number)
    sizes = [stored.size] if stored else []
    made = [_leaf(files, number, offset, size) for size in (*sizes, files.data.size() - offset)]
    return [leaf for leaf in (stored, *made) if leaf is not None]


def _made_again(files: FeedFiles, parent: Node, offset: int) -> Pair | None:
    numbers = flat.children(parent.number)
    if numbers is None:
        return None
    pairs: Iterable[Pair]
    if flat.depth(parent.number) == 1:
        pairs = _leaves(files, parent, numbers, offset)
    else:
        pairs = chain(
            product(_ways(files, numbers[0]), _ways(files, numbers[1])), _by_bytes(files, parent, numbers, offset)
        )
    return next((pair for pair in pairs if merkle.fits(parent, *pair)), None)


def _by_bytes(files: FeedFiles, parent: Node, numbers: Numbers, offset: int) -> Iterator[Pair]:
    """Yield what two children may be by the bytes below one of them, or both."""
    for middle in _divisions(files, numbers, parent.size):
        sides = (numbers[0], offset, middle), (numbers[1], offset + middle, parent.size - middle)
        made = [list(islice(_made_of(files, *side), MAX_TRIES)) for side in sides]
        yield from product(made[0], _ways(files, numbers[1]))
        yield from product(_ways(files, numbers[0]), made[1])
        yield from product(*made)


def _made_of(files: FeedFiles, number: NodeIndex, offset: int, size: int) -> Iterator[Node]:
    """Yield what a node may be by its `size` bytes from `offset` on; how they are divided tell the nodes below it."""
    numbers = flat.children(number)
    if numbers is None:
        leaf = _leaf(files, number, offset, size)
        yield from [leaf] if leaf else []
    elif flat.depth(number) <= MAX_LEVELS:
        for middle in _divisions(files, numbers, size):
            for left in _made_of(files, numbers[0], offset, middle):
                for right in _made_of(files, numbers[1], offset + middle, size - middle):
                    yield parent_node(left, right)


def _divisions(files: FeedFiles, numbers: Numbers, size: int) -> list[int]:
    """Return how many of `size` bytes the left one of two nodes may have: one answer if their sizes are right."""
    left, right = files.node(numbers[0]), files.node(numbers[1])
    ways = dict.fromkeys([*([left.size] if left else []), *([size - right.size] if right else [])])
    return [way for way in ways if 0 <= way <= size]


def _ways(files: FeedFiles, number: NodeIndex) -> list[Node]:
    """Return node `number` as it is stored, and as it follows from the nodes so many levels below it."""
    levels = range(min(flat.depth(number), MAX_LEVELS) + 1)
    return [node for level in levels if (node := _from_below(files, number, level)) is not None]


def _from_below(files: FeedFiles, number: NodeIndex, levels: int) -> Node | None:
    children = flat.children(number) if levels else None
    if children is None:
        return files.node(number)
    left, right = _from_below(files, children[0], levels - 1), _from_below(files, children[1], levels - 1)
    return parent_node(left, right) if left and right else None


def _leaves(files: FeedFiles, parent: Node, numbers: Numbers, offset: int) -> Iterator[Pair]:
    """Yield what two leaves may be by the bytes on disk, of one of them at least, where one of their sizes is right.

    The parent does not prove how its bytes are divided between them, the bytes of one leaf do.
    """
    left, right = files.node(numbers[0]), files.node(numbers[1])
    for size in _divisions(files, numbers, parent.size):
        made = _leaf(files, numbers[0], offset, size), _leaf(files, numbers[1], offset + size, parent.size - size)
        if made[0] and made[1]:
            yield made[0], made[1]
        if made[0] and right:
            yield made[0], right._replace(size=parent.size - size)
        if left and made[1]:
            yield left._replace(size=size), made[1]


def _leaf(files: FeedFiles, number: NodeIndex, start: int, size: int) -> Node | None:
    """Return the leaf of the `size` bytes from `start` on, None when there are none."""
    if not 0 <= size <= MAX_BLOCK_BYTES or not 0 <= start <= MAX_BYTES:
        return None  # sizes of damaged nodes may say anything
    data = files.data.read(start, size) if size else b""
    return Node(number, leaf_hash(data), size) if len(data) == size else None
