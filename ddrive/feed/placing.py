"""Where a block lies in the content of a feed, by nodes each of which is checked against its parent.

Sums of stored sizes are quicker, and good enough to look for a block, whose hash is checked. Where something is written
or freed the place has to be certain: one changed bit of a size would cost the blocks that lie there.
"""

from collections.abc import Callable, Sequence

from ddrive.errors import InvalidProof
from ddrive.feed import flat, merkle
from ddrive.feed.layout import HIGH_NODE
from ddrive.ids import Node

MAX_PAIRS = 16384  # remembered pairs of nodes that were checked against their parent, of high parents only

Pairs = dict[int, tuple[Node, Node]]  # by the number of the parent


def placed_leaf(
    block: int, roots: Sequence[Node], load: Callable[[int], Node | None], pairs: Pairs
) -> tuple[int, Node] | None:
    """Return where `block` starts below certain roots, and its leaf; None where a node on the way is missing.

    `pairs` are remembered from one call to the next.
    Raises: InvalidProof when nodes on the way do not fit their parent.
    """
    start = 0
    for root in roots:
        if 2 * block <= flat.right_span(root.number):
            break
        start += root.size
    else:
        return None
    node = root
    while node.number & 1:
        if (pair := pairs.get(node.number)) is None:
            numbers = flat.children(node.number) or (0, 0)
            left, right = load(numbers[0]), load(numbers[1])
            if left is None or right is None:
                return None
            if not merkle.fits(node, left, right):
                raise InvalidProof(f"nodes {numbers[0]} and {numbers[1]} do not fit the one above them")
            pair = left, right
            remember(pairs, node.number, pair)
        if 2 * block < node.number:
            node = pair[0]
        else:
            start += pair[0].size
            node = pair[1]
    return start, node


def remember(pairs: Pairs, number: int, pair: tuple[Node, Node]) -> None:
    """Take note of the children of node `number`, if that is a high one."""
    if number & HIGH_NODE == HIGH_NODE:
        if len(pairs) >= MAX_PAIRS:
            pairs.clear()
        pairs[number] = pair
