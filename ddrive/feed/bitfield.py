"""Which blocks are held and which tree nodes are known: the bits of a feed, page by page.

Page p covers blocks 8192*p and on, and nodes 16384*p and on. Pages exist only where a bit was set, so an author who
signs an absurd length costs no memory. The third part of a page on disk, an index of full and empty regions that
npm peers use as a hint, is computed for a whole page when the page is written, never bit by bit.
Source: feed.md section 4.2, `bitfield.json` of the vectors.
"""

from collections.abc import Iterable, Iterator

from bitarray import bitarray
from bitarray.util import zeros

from ddrive.feed import flat, merkle

PAGE_BYTES = 3584
OLD_PAGE_BYTES = 3328  # files from before December 2018
DATA_BYTES = 1024
TREE_BYTES = 2048
BLOCKS_PER_PAGE = 8 * DATA_BYTES
NODES_PER_PAGE = 8 * TREE_BYTES
LOOKED_AT = 64  # blocks of a page, when it is asked whether its bits make sense
_PAGE_TOP = 1 << 13  # of the levels whose nodes and siblings all lie in one page
_INDEX_START = DATA_BYTES + TREE_BYTES
_LEAVES = DATA_BYTES // 4  # index bytes of the lowest level, one for 4 data bytes
_LOCAL_DEPTH = _LEAVES.bit_length() - 1  # depth of the index byte that sums up one page: 8

_CLASS = bytes([0] + [1] * 254 + [3])  # of a data byte: empty 0, mixed 1, full 3
_HALVES = bytes(  # of an index byte: the classes of its high and low half in 4 bits
    (0 if high == 0 else 3 if high == 15 else 1) << 2 | (0 if low == 0 else 3 if low == 15 else 1)
    for high in range(16)
    for low in range(16)
)


class Bitfield:
    """The data and tree bits of one feed, with the pages that changed since they were last written."""

    def __init__(self, page_bytes: int = PAGE_BYTES) -> None:
        self.page_bytes = page_bytes
        self._index_bytes = page_bytes - _INDEX_START
        self._data: dict[int, bitarray] = {}
        self._tree: dict[int, bitarray] = {}
        self._index: dict[int, bytearray] = {}
        self._dirty: set[int] = set()
        self._page_count = 0

    @classmethod
    def load(cls, pages: Iterable[tuple[int, bytes]], page_bytes: int = PAGE_BYTES) -> "Bitfield":
        """Return the bitfield made of numbered pages; missing bytes at the end of a page are zero."""
        bits = cls(page_bytes)
        for number, page in pages:
            if not page.strip(b"\x00"):
                bits._page_count = max(bits._page_count, number + 1)
                continue
            full = page.ljust(page_bytes, b"\x00")
            bits._ensure(number)
            bits._data[number] = _bits(full[:DATA_BYTES])
            bits._tree[number] = _bits(full[DATA_BYTES:_INDEX_START])
            bits._index[number] = bytearray(full[_INDEX_START:page_bytes])
        bits._dirty.clear()
        return bits

    # -- blocks

    def has(self, block: int) -> bool:
        """Tell whether `block` is held."""
        return (page := self._data.get(block >> 13)) is not None and page[block & 8191] == 1

    def set_blocks(self, start: int, end: int, held: bool) -> bool:
        """Mark blocks `start` up to `end` as held or not; returns whether any bit changed."""
        changed = False
        pages = range(start >> 13, (end + 8191) >> 13) if held else self._pages_between(start, end)
        for number in pages:
            first = number << 13
            low, high = max(start - first, 0), min(end - first, BLOCKS_PER_PAGE)
            if held:
                self._ensure(number)
            page = self._data[number]
            if page.count(not held, low, high):
                page[low:high] = held
                self._dirty.add(number)
                changed = True
        return changed

    def add_block(self, block: int) -> None:
        """Mark `block` as held."""
        number = block >> 13
        page = self._data.get(number)
        if page is None:
            self._ensure(number)
            page = self._data[number]
        page[block & 8191] = 1
        self._dirty.add(number)

    def held(self, start: int, end: int) -> int:
        """Return how many of the blocks `start` up to `end` are held."""
        total = 0
        for number in self._pages_between(start, end):
            first = number << 13
            total += self._data[number].count(1, max(start - first, 0), min(end - first, BLOCKS_PER_PAGE))
        return total

    def runs(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the held runs within blocks `start` up to `end`, half-open, in order."""
        found: list[tuple[int, int]] = []
        for number in self._pages_between(start, end):
            first = number << 13
            page, limit = self._data[number], min(end - first, BLOCKS_PER_PAGE)
            low = page.find(1, max(start - first, 0), limit)
            while low >= 0:
                high = page.find(0, low, limit)
                high = limit if high < 0 else high
                if found and found[-1][1] == first + low:
                    found[-1] = (found[-1][0], first + high)
                else:
                    found.append((first + low, first + high))
                low = page.find(1, high, limit)
        return found

    def held_before(self, block: int) -> int | None:
        """Return the last held block before `block`."""
        for number in reversed(self._pages_between(0, block)):
            found = self._data[number].find(1, 0, min(block - (number << 13), BLOCKS_PER_PAGE), right=True)
            if found >= 0:
                return (number << 13) + found
        return None

    def held_from(self, block: int) -> int | None:
        """Return the first held block at or after `block`."""
        for number in self._pages_between(block, self._page_count << 13):
            found = self._data[number].find(1, max(block - (number << 13), 0))
            if found >= 0:
                return (number << 13) + found
        return None

    def block_bytes(self, start: int, length: int) -> bytes:
        """Return the data bits from block `start` on, first bit in the highest place, at most `length` bits."""
        end = min(start + length, self._page_count << 13)
        if end <= start:
            return b""
        first, last = start >> 13, (end - 1) >> 13
        empty = bytes(DATA_BYTES)
        joined = b"".join(
            self._data[number].tobytes() if number in self._data else empty for number in range(first, last + 1)
        )
        bits = _bits(joined)
        return bits[start - (first << 13) : end - (first << 13)].tobytes()

    # -- nodes

    def known(self, node: int) -> bool:
        """Tell whether tree node `node` is known."""
        return (page := self._tree.get(node >> 14)) is not None and page[node & 16383] == 1

    def known_leaves(self, start: int, end: int) -> bool:
        """Tell whether the leaves of the blocks `start` up to `end` are all known."""
        while start < end:
            first = start & -BLOCKS_PER_PAGE
            stop = min(end, first + BLOCKS_PER_PAGE)
            page = self._tree.get(start >> 13)
            if page is None or page.count(1, 2 * (start - first), 2 * (stop - first), 2) < stop - start:
                return False
            start = stop
        return True

    def digest(self, block: int) -> int:
        """Return `merkle.digest` of `block`; within a page it looks at the bits directly, in a third of the time."""
        page = self._tree.get(block >> 13)
        if page is None:
            return merkle.digest(self.known, block, self.covers)
        node = 2 * block & 16383
        if page[node]:
            return 1
        value, low = 0, 1
        while low < _PAGE_TOP:
            if page[node ^ (low << 1)]:
                value |= low << 1
            node = (node | low) & ~(low << 1)
            if page[node]:
                value |= low << 2 | 1
                return 1 if value == (low << 3) - 1 else value
            low <<= 1
        return merkle.digest(self.known, block, self.covers)

    def add_node(self, node: int) -> None:
        """Mark `node` as known, and every node above it that two known children determine."""
        self._set_node(node)
        while self.known(flat.sibling(node)):
            node = flat.parent(node)
            if not self._set_node(node):
                break

    def forget_node(self, node: int) -> None:
        """Mark `node` as not known."""
        page = self._tree.get(node >> 14)
        if page is not None:
            page[node & 16383] = 0
            self._dirty.add(node >> 14)

    def add_complete(self, old: int, new: int) -> None:
        """Mark every node that is complete in a tree of `new` blocks and was not in one of `old` blocks."""
        depth = 0
        while first_count := (new >> depth) - (old >> depth):
            self._set_stride(flat.index(depth, old >> depth), 2 << depth, first_count)
            depth += 1

    def forget_after(self, length: int) -> None:
        """Drop everything beyond the first `length` blocks: blocks, and nodes that cover more than those."""
        self.set_blocks(length, self._page_count << 13, False)
        for number in [number for number in self._tree if (number + 1) << 14 > 2 * length]:
            self._tree[number][max(2 * length - (number << 14), 0) :] = 0
            self._dirty.add(number)
        node = 2 * length
        for _ in range(53):
            node = flat.parent(node)
            if node < 2 * length:
                self.forget_node(node)

    def length(self) -> int:
        """Return the number of blocks that the known nodes cover from the left. Source: feed.md section 4.4 step 5."""
        top = None
        node = 0
        while node < self._page_count << 14:
            if self.known(node):
                top = node
            node = 2 * node + 1
        return 0 if top is None else merkle.coverage(self.known, top) // 2

    def odd_pages(self, length: int) -> list[int]:
        """Return pages that no feed of `length` blocks has: it looks at a few blocks of each, for all takes long."""
        odd: list[int] = []
        for number, page in self._data.items():
            tree, end = self._tree[number], max(length - (number << 13), 0)
            if end < BLOCKS_PER_PAGE and (page.find(1, end) >= 0 or tree.find(1, 2 * end) >= 0):
                odd.append(number)
            elif tree.count() < NODES_PER_PAGE - 1:
                low = max(page.find(1), 0)
                if (page[low : low + LOOKED_AT] & ~tree[2 * low : 2 * (low + LOOKED_AT) : 2]).any():
                    odd.append(number)
        return odd

    def incomplete_pages(self, length: int) -> list[int]:
        """Return the pages that do not know every node of a feed of `length` blocks."""
        found = list[int]()
        for number in range(-(-length // BLOCKS_PER_PAGE)):
            blocks, page = min(length - (number << 13), BLOCKS_PER_PAGE), self._tree.get(number)
            if page is None or page.count() < 2 * blocks - blocks.bit_count():
                found.append(number)
        return found

    def complete(self, start: int, end: int, length: int) -> bool:
        """Tell whether the blocks `start` up to `end`, of a feed of `length`, are held and their nodes known."""
        if self.held(start, end) < end - start or not self.known_leaves(start, end):
            return False
        return all(self.known(node) for node in range(2 * start + 1, 2 * end, 2) if flat.right_span(node) < 2 * length)

    def clear_page(self, number: int) -> None:
        """Forget what a page knows."""
        self._ensure(number)
        self._data[number].setall(0)
        self._tree[number].setall(0)
        self._index[number] = bytearray(self._index_bytes)
        self._dirty.add(number)

    def covers(self, node: int) -> bool:
        """Tell whether no known node can lie outside the subtree of `node`, nor in one that its ancestors add."""
        return flat.left_span(node) == 0 and flat.right_span(node) >= self._page_count << 14

    # -- pages on disk

    @property
    def dirty(self) -> bool:
        """Whether some page differs from what `take_dirty` last returned."""
        return bool(self._dirty)

    def take_dirty(self) -> list[tuple[int, bytes]]:
        """Return the pages that changed since the last call, with their numbers, and regard them as written."""
        for number in sorted(self._dirty):
            self._refresh_index(number)
        pages = [(number, self._page(number)) for number in sorted(self._dirty)]
        self._dirty.clear()
        return pages

    def held_still(self, pages: Iterable[tuple[int, bytes]], lost: "Bitfield") -> Iterator[tuple[int, bytes]]:
        """Yield pages of `take_dirty` without the blocks that were cleared since, and with those in `lost`."""
        for number, page in pages:
            held, tree = _bits(page[:DATA_BYTES]) & self._data[number], _bits(page[DATA_BYTES:_INDEX_START])
            if (missing := lost._data.get(number)) is not None:
                held |= missing
                tree[::2] |= missing  # a bit without its leaf would make no sense to who opens the feed
            yield number, held.tobytes() + tree.tobytes() + page[_INDEX_START:]

    def mark_dirty(self, numbers: Iterable[int]) -> None:
        """Regard pages as not written, after writing them failed."""
        self._dirty.update(number for number in numbers if number in self._data)

    def all_pages(self) -> list[tuple[int, bytes]]:
        """Return every page that has a set bit, with its number."""
        self.mark_dirty(self._data)
        return self.take_dirty()

    # -- inside

    def _ensure(self, number: int) -> None:
        if number not in self._data:
            self._data[number] = zeros(BLOCKS_PER_PAGE, "big")
            self._tree[number] = zeros(NODES_PER_PAGE, "big")
            self._index[number] = bytearray(self._index_bytes)
            self._page_count = max(self._page_count, number + 1)

    def _pages_between(self, start: int, end: int) -> list[int]:
        if end <= start:
            return []
        first, last = start >> 13, (end - 1) >> 13
        if last - first < len(self._data):
            return [number for number in range(first, last + 1) if number in self._data]
        return sorted(number for number in self._data if first <= number <= last)

    def _set_node(self, node: int) -> bool:
        number = node >> 14
        page = self._tree.get(number)
        if page is None:
            self._ensure(number)
            page = self._tree[number]
        elif page[node & 16383]:
            return False
        page[node & 16383] = 1
        self._dirty.add(number)
        return True

    def _set_stride(self, first: int, step: int, count: int) -> None:
        node, end = first, first + step * count
        while node < end:
            number = node >> 14
            page_end = min(end, (number + 1) << 14)
            self._ensure(number)
            self._tree[number][node & 16383 : page_end - (number << 14) : step] = 1
            self._dirty.add(number)
            node += -(-(page_end - node) // step) * step

    def _page(self, number: int) -> bytes:
        return self._data[number].tobytes() + self._tree[number].tobytes() + bytes(self._index[number])

    def _refresh_index(self, number: int) -> None:
        """Compute the index bytes that sum up the data bits of a page, and those above that depend on them."""
        levels = self._data[number].tobytes().translate(_CLASS)
        local = bytearray(2 * _LEAVES - 1)
        level = _interleave(levels, 4, 2)
        for depth in range(_LOCAL_DEPTH + 1):
            local[(1 << depth) - 1 :: 2 << depth] = level
            if depth < _LOCAL_DEPTH:
                level = _interleave(level.translate(_HALVES), 2, 4)
        first = number * 2 * _LEAVES
        for page, start, end in self._split(first, first + len(local)):
            target = self._index.get(page)
            part = local[start - first : end - first]
            place = start - page * self._index_bytes
            if target is not None and target[place : place + len(part)] != part:
                target[place : place + len(part)] = part
                self._dirty.add(page)
        self._refresh_above(first + _LEAVES - 1)

    def _refresh_above(self, node: int) -> None:
        limit = self._page_count * self._index_bytes
        while (node := flat.parent(node)) < limit:
            left, right = flat.children(node) or (0, 0)
            value = _HALVES[self._index_byte(left)] << 4 | _HALVES[self._index_byte(right)]
            if self._index_byte(node) == value:
                return
            page, place = divmod(node, self._index_bytes)
            self._ensure(page)
            self._index[page][place] = value
            self._dirty.add(page)

    def _index_byte(self, node: int) -> int:
        page, place = divmod(node, self._index_bytes)
        target = self._index.get(page)
        return 0 if target is None else target[place]

    def _split(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        while start < end:
            page = start // self._index_bytes
            stop = min(end, (page + 1) * self._index_bytes)
            yield page, start, stop
            start = stop


def _bits(data: bytes) -> bitarray:
    bits = bitarray(endian="big")
    bits.frombytes(data)
    return bits


def _interleave(values: bytes | bytearray, group: int, width: int) -> bytes:
    """Return one byte for each `group` of `values`, their low `width` bits side by side, first one highest."""
    total = 0
    for position in range(group):
        total = total << width | int.from_bytes(values[position::group], "big")
    return total.to_bytes(len(values) // group, "big")
