"""Storing an entry: a new node that takes over every pointer that leads off its path.

The walk follows the path of the new key from the newest node down; at each digit the nodes that go elsewhere are
written into the new table, so that the new node alone reaches all that the old head reached. Nothing is appended here.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence

from ddrive.errors import Unsupported
from ddrive.trie.lookup import Load, collision_step, misplaced
from ddrive.trie.node import MAX_SLOT, TrieNode
from ddrive.trie.path import END, divergence, is_check_point, parting

_SLOT_STEP = END + 1  # slots of one digit lie this far apart


async def put(load: Load, head: TrieNode | None, node: TrieNode, *, drop: int = 0) -> TrieNode | None:
    """Give `node` (new, without pointers) its table, as the successor of `head`; return the node closest to it.

    `drop` is the block of an entry that is being deleted: nothing will point at it. The closest node is where the walk
    ended: the previous value when its key is the same; None when there was no head or the walk ended between keys of
    equal hashes. Raises: InvalidNode, Unsupported when too many keys share one hash.
    """
    table = _Table(node, drop)
    length = len(table.digits)
    old = head
    closest = None
    index = 0
    while old is not None and old.key:
        place = parting(old, node)
        stop = place >> 3
        if stop < index:
            raise misplaced(old)
        await table.take_over(load, old, index, stop)
        if stop >= length:
            closest = old
            break
        if is_check_point(stop):
            old = await collision_step(load, old, stop, node)
        else:
            seq = old.pointer(stop, place & 7)
            if not seq:
                closest = old
                break
            old = load.peek(seq) or await load.node(seq)
        index = stop + 1
    node.numbers = array("Q", table.numbers)
    return closest


class _Table:
    """The pointers of the node that is being made, row after row, in the form of `TrieNode.numbers`."""

    def __init__(self, node: TrieNode, drop: int) -> None:
        self.digits = node.digits()
        self.numbers = [0]
        self._node = node
        self._drop = drop

    async def take_over(self, load: Load, old: TrieNode, first: int, stop: int) -> None:
        """Add the pointers of `old` in rows `first` to `stop` that lead off the new path, and `old` itself at `stop`.

        Raises: InvalidNode.
        """
        rows, starts = old.rows()
        position = bisect_left(rows, first)
        count = len(rows)
        while position < count and (row := rows[position]) < stop:
            start = starts[position]
            bits = old.numbers[start]
            position += 1
            if row & 31 and bits < 1 << _SLOT_STEP and not bits >> self.digits[row] & 1 and not self._drop:
                end = starts[position] - 1 if position < count else len(old.numbers)
                self.numbers += old.numbers[start - 1 : end]
                self.numbers[0] = row + 1
            else:
                self._add_row(row, await self._leading_off(load, row, old.pointers_at(start)))
        if stop >= len(self.digits):
            return
        start = starts[position] if position < count and rows[position] == stop else 0
        if not self._swap_into_row(old, stop, start):
            pointers = await self._leading_off(load, stop, old.pointers_at(start) if start else [])
            itself = (old.digit(stop), old.seq)
            self._add_row(stop, [itself, *pointers] if is_check_point(stop) else [*pointers, itself])

    def _swap_into_row(self, old: TrieNode, row: int, start: int) -> bool:
        """Add the row with the pointer of our digit replaced by one to `old`, and tell so, if it is as simple as that.

        `start` is where the bits of the row are in the table of `old`, 0 when it has no such row.
        """
        if self._drop or not row & 31:
            return False
        bits = old.numbers[start] if start else 0
        own, other = self.digits[row], old.digit(row)
        if bits >> _SLOT_STEP or bits >> other & 1:
            return False
        seqs = [*old.numbers[start + 1 : start + 1 + bits.bit_count()]] if start else []
        if bits >> own & 1:
            del seqs[(bits & ((1 << own) - 1)).bit_count()]
            bits ^= 1 << own
        seqs.insert((bits & ((1 << other) - 1)).bit_count(), old.seq)
        self.numbers += [row, bits | 1 << other, *seqs]
        self.numbers[0] = row + 1
        return True

    async def _leading_off(self, load: Load, row: int, pointers: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return (digit, block) of those pointers (slot, block) that do not lie on the new path."""
        own = self.digits[row]
        if not is_check_point(row):
            return [(slot % _SLOT_STEP, seq) for slot, seq in pointers if slot != own]
        result = []
        for slot, seq in pointers:
            digit = slot % _SLOT_STEP
            if digit != own or await self._is_other_component(load, seq, row):
                result.append((digit, seq))
        return result

    async def _is_other_component(self, load: Load, seq: int, row: int) -> bool:
        """Tell whether block `seq`, of the same digits up to the check point `row`, differs in its component there.

        Raises: InvalidNode.
        """
        other = load.peek(seq) or await load.node(seq)
        shared = divergence(other, self._node)
        if shared < row:
            raise misplaced(other)
        return shared == row

    def _add_row(self, row: int, pointers: Sequence[tuple[int, int]]) -> None:
        """Add pairs (digit, block): each goes to the first free slot of its digit, no block goes twice.

        Raises: Unsupported when the slots of a digit are used up.
        """
        slots: dict[int, int] = {}
        for digit, seq in pointers:
            if seq == self._drop or seq in slots.values():
                continue
            slot = digit
            while slot in slots:
                slot += _SLOT_STEP
            if slot > MAX_SLOT:
                raise Unsupported("too many keys share one hash")
            slots[slot] = seq
        if slots:
            bits = 0
            for slot in slots:
                bits |= 1 << slot
            self.numbers += [row, bits, *[slots[slot] for slot in sorted(slots)]]
            self.numbers[0] = row + 1
