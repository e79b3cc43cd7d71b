"""The bits of a feed from its other files: what data and tree still prove is held, whatever the bitfield says.

A damaged bitfield costs no block: a node counts when it leads down from roots that the author signed, a block when its
bytes have the hash of such a leaf. Which pages to look at when a feed is opened `Bitfield.odd_pages` tells, at the
price of a few counts per page; what it misses an audit finds.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ddrive.feed import flat
from ddrive.feed.bitfield import BLOCKS_PER_PAGE, Bitfield
from ddrive.feed.hashing import leaf_hash
from ddrive.feed.layout import FeedFiles
from ddrive.feed.mending import Children, mended_children, stored_children
from ddrive.feed.merkle import MAX_BLOCK_BYTES
from ddrive.ids import Node

RESTORED_BLOCKS = 128  # looked at in one go when a whole feed is
VAIN_SIGNATURES = 8  # a sector of them, tried for blocks of one piece to which nothing leads from the newest one

SignedRoots = Callable[[int], list[Node] | None]  # the stored roots of a length when its signature confirms them


class Restored(NamedTuple):
    """What files show: blocks held after all, blocks and nodes without proof, nodes made again; bytes read for that.

    Nodes without proof are looked for only where damaged ones are made again. `spoiled` are blocks that are not listed,
    and of which something else is in their place: what was cleared is nothing but zeros.
    """

    found: list[int]
    spoiled: list[int]
    unproven: list[int]
    unproven_nodes: list[int]
    mended: list[int]
    read: int


class Rebuilt(NamedTuple):
    """What looking at the files again has changed: how many blocks are held after all, and which are not."""

    anew: int  # pages of which nothing was kept
    found: int
    dropped: tuple[int, ...]


def rebuild_pages(
    files: FeedFiles,
    bits: Bitfield,
    roots: Sequence[Node],
    signed: SignedRoots,
    pages: Mapping[int, bool],
    worked: Callable[[int, int], None],
) -> Rebuilt:
    """Mark what the files prove of some pages: those that are mapped to true are forgotten first.

    `worked(blocks, bytes)` hears of each piece of the work.
    """
    length = blocks_below(roots)
    extents, found = files.data.extents(), 0
    dropped: list[int] = []
    for page, anew in sorted(pages.items()):
        start = page * BLOCKS_PER_PAGE
        end = max(start, min(start + BLOCKS_PER_PAGE, length))
        before = set(_blocks(bits, start, end)) if anew else set[int]()
        if anew:
            bits.clear_page(page)
        now: list[int] = []
        for low in range(start, end, RESTORED_BLOCKS):
            high = min(low + RESTORED_BLOCKS, end)
            restored = restore(files, bits, roots, signed, low, high, extents)
            now += restored.found
            worked(high - low, restored.read)
        found += len(set(now) - before)
        dropped += sorted(before - set(now))
    return Rebuilt(sum(pages.values()), found, tuple(dropped))


def blocks_below(roots: Sequence[Node]) -> int:
    """Return the length of the feed that has these roots."""
    return flat.span(roots[-1].number)[1] if roots else 0


def restore(
    files: FeedFiles,
    bits: Bitfield,
    roots: Sequence[Node],
    signed: SignedRoots,
    start: int,
    end: int,
    extents: list[tuple[int, int]],
    *,
    mend: bool = False,
) -> Restored:
    """Mark nodes and blocks from block `start` up to `end` that the files prove and the bits do not know of.

    Bytes are read only in `extents`, those of the data. Bits of nodes that are not in the file at all are taken away.
    With `mend` nodes that the disk has changed are made again where that is possible.
    """
    leaves: dict[int, tuple[Node, int]] = {}
    mended: list[Node] = []
    children = mended_children(files, bits.known, mended) if mend else stored_children(files)
    proven = _mark(bits, roots, start, end, leaves, children)
    proven |= _mark_older(files, bits, blocks_below(roots), signed, start, end, leaves, children)
    known = [number for number in range(2 * start, 2 * end) if bits.known(number)]
    for number in known:
        if files.node(number) is None:
            bits.forget_node(number)
    rest = [number for number in known if mend and number not in proven]
    found: list[int] = []
    spoiled: list[int] = []
    read = 0
    for block in sorted(leaves):
        leaf, offset = leaves[block]
        if bits.has(block) or leaf.size > MAX_BLOCK_BYTES or not _may_lie(extents, offset, leaf.size):
            continue
        read += leaf.size
        data = files.data.read(offset, leaf.size) if leaf.size else b""
        if leaf_hash(data) == leaf.hash:
            bits.add_block(block)
            found.append(block)
        elif data.strip(b"\x00"):
            spoiled.append(block)
    unproven = [block for block in _blocks(bits, start, end) if block not in leaves]
    unproven_nodes = nodes_without_proof(files, roots, signed, rest)
    return Restored(found, spoiled, unproven, unproven_nodes, [node.number for node in mended], read)


def nodes_without_proof(
    files: FeedFiles, roots: Sequence[Node], signed: SignedRoots, numbers: Iterable[int]
) -> list[int]:
    """Return those of some stored nodes to which neither the newest roots lead nor older ones that were signed.

    In files that are whole there are none: each node came with a proof, whose signature was stored.
    """
    children, length, proven = stored_children(files), blocks_below(roots), set[int]()
    older: dict[int, Sequence[Node]] = {length: ()}
    gaps: list[tuple[int, int]] = []  # between signatures: what was looked for, what was found

    def next_signed(start: int) -> int:
        found = next((end for first, end in gaps if first <= start <= end), 0)
        if not found:
            found = files.first_signed(start, length) or length
            gaps.append((start, found))
        return found

    def is_proven(number: int, tops: Sequence[Node]) -> bool:
        if number not in proven:
            block = number >> 1  # one of those below it
            proven.update(node.number for node, _ in _proven(tops, block, block + 1, children))
        return number in proven

    def is_proven_by_older(number: int) -> bool:
        longer = flat.span(number)[1] - 1
        for _ in range(VAIN_SIGNATURES):
            longer = next_signed(longer + 1)
            if longer not in older:
                older[longer] = signed(longer) or ()
            if longer == length or is_proven(number, older[longer]):
                break
        return number in proven

    return [number for number in numbers if not (is_proven(number, roots) or is_proven_by_older(number))]


def behind_end(files: FeedFiles, bits: Bitfield, length: int, end_of: Callable[[int], int | None]) -> list[int]:
    """Return the held blocks whose bytes, or leaves, lie behind the end of the file that should have them.

    `end_of` tells where the bytes of a block end. In a feed whose files are whole it is called once.
    """
    size = files.data.size()

    def is_lost(block: int) -> bool:
        return (end_of(block) or 0) > size or 2 * block >= files.node_count()

    lost: list[int] = []
    for first, last in reversed(bits.runs(0, length) if _is_cut(bits, length, is_lost) else []):
        if not is_lost(last - 1):
            break
        low, high = first, last - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if is_lost(middle) else (middle + 1, high)
        lost += range(low, last)
    nodes = files.node_count()
    return sorted(block for block in lost if 2 * block >= nodes or (leaf := files.node(2 * block)) is None or leaf.size)


def _is_cut(bits: Bitfield, length: int, is_lost: Callable[[int], bool]) -> bool:
    last = bits.held_before(length)
    return last is not None and is_lost(last)


def _mark_older(
    files: FeedFiles,
    bits: Bitfield,
    length: int,
    signed: SignedRoots,
    start: int,
    end: int,
    leaves: dict[int, tuple[Node, int]],
    children: Children,
) -> set[int]:
    """Do as `_mark` does from the roots of shorter lengths, for blocks that are not in `leaves`; held ones go first."""
    vain, marked = 0, set[int]()
    for block in sorted(range(start, end), key=lambda block: not bits.has(block)):
        longer = block
        while block not in leaves and vain < VAIN_SIGNATURES and files.node(2 * block) is not None:
            longer = files.first_signed(longer + 1, length) or length
            before = len(leaves)
            if longer < length:
                marked |= _mark(bits, signed(longer) or [], start, end, leaves, children)
            vain += len(leaves) == before
            if longer == length:
                break
    return marked


def _mark(
    bits: Bitfield,
    tops: Sequence[Node],
    start: int,
    end: int,
    leaves: dict[int, tuple[Node, int]],
    children: Children,
) -> set[int]:
    """Mark the stored nodes that lead from `tops` to blocks `start` up to `end`, and note leaves with their place.

    Returns the numbers of these nodes.
    """
    marked: set[int] = set()
    for node, offset in _proven(tops, start, end, children):
        marked.add(node.number)
        if not bits.known(node.number):
            bits.add_node(node.number)
        if not node.number & 1 and start <= node.number >> 1 < end:
            leaves[node.number >> 1] = node, offset
    return marked


def _proven(tops: Iterable[Node], start: int, end: int, children: Children) -> Iterator[tuple[Node, int]]:
    """Yield `tops`, which lie side by side from the first block on, and what leads from them to some blocks.

    Each with the place of its first byte.
    """
    stack: list[tuple[Node, int]] = []
    offset = 0
    for top in tops:
        stack.append((top, offset))
        offset += top.size
    while stack:
        node, offset = stack.pop()
        yield node, offset
        first, last = flat.span(node.number)
        if first < end and start < last and (pair := children(node, offset)) is not None:
            stack += [(pair[0], offset), (pair[1], offset + pair[0].size)]


def _may_lie(extents: list[tuple[int, int]], offset: int, size: int) -> bool:
    """Tell whether some of a range is no hole."""
    after = bisect_left(extents, (offset + size, 0))
    return not size or (after > 0 and extents[after - 1][1] > offset)


def _blocks(bits: Bitfield, start: int, end: int) -> Iterator[int]:
    for first, last in bits.runs(start, end):
        yield from range(first, last)
