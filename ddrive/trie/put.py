"""Storing an entry: a new node that takes over every pointer that leads off its path.

The walk follows the path of the new key from the newest node down; at each digit the nodes that go elsewhere are
written into the new table, so that the new node alone reaches all that the old head reached. Nothing is appended here.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from ddrive.errors import Unsupported
from ddrive.trie.lookup import Load, collision_step, misplaced
from ddrive.trie.node import MAX_SLOT, TrieNode
from ddrive.trie.path import divergence, is_check_point

_BASE = 5  # slots of one digit lie this far apart


@dataclass(slots=True)
class _Table:
    """The pointers of the node that is being made."""

    drop: int  # a block that must not be pointed at, 0 for none
    places: dict[int, int] = field(default_factory=dict)

    def add(self, row: int, digit: int, seq: int) -> None:
        """Point at `seq` from the first free slot of `digit`, unless the row does so already."""
        if seq == self.drop:
            return
        base = row << 5
        slot = digit
        while base | slot in self.places:
            if self.places[base | slot] == seq:
                return
            slot += _BASE
            if slot > MAX_SLOT:
                raise Unsupported("too many keys share one hash")
        self.places[base | slot] = seq


async def put(load: Load, head: TrieNode | None, node: TrieNode, *, drop: int = 0) -> TrieNode | None:
    """Give `node` (new, without pointers) its table, as the successor of `head`; return the node closest to it.

    `drop` is the block of an entry that is being deleted: nothing will point at it. The closest node is where the walk
    ended: the previous value when its key is the same; None when there was no head or the walk ended between keys of
    equal hashes. Raises: InvalidNode.
    """
    table = _Table(drop)
    length = node.length
    old = head
    closest = None
    index = 0
    while old is not None and old.key:
        stop = divergence(old, node)
        if stop < index:
            raise misplaced(old)
        await _take_over(load, old, node, index, stop, table)
        if stop >= length:
            closest = old
            break
        if is_check_point(stop):
            old = await collision_step(load, old, stop, node)
        else:
            seq = old.pointer(stop, node.digit(stop))
            if not seq:
                closest = old
                break
            old = load.peek(seq) or await load.node(seq)
        index = stop + 1
    node.point(table.places.items())
    return closest


async def _take_over(load: Load, old: TrieNode, node: TrieNode, first: int, stop: int, table: _Table) -> None:
    """Copy the pointers of rows `first` to `stop` that lead off the path of `node`, and `old` itself at `stop`."""
    places, seqs = old.pointers()
    position = bisect_left(places, first << 5)
    end = bisect_left(places, (stop + 1) << 5, position)
    parted = old.seq if stop < node.length else 0
    while position < end:
        place = places[position]
        row, slot = place >> 5, place & 31
        if is_check_point(row):
            if parted and row == stop:
                table.add(stop, old.digit(stop), parted)
                parted = 0
            if slot % _BASE != node.digit(row) or await _collides(load, seqs[position], node, row):
                table.add(row, slot % _BASE, seqs[position])
        elif slot != node.digit(row):
            table.add(row, slot % _BASE, seqs[position])
        position += 1
    if parted:
        table.add(stop, old.digit(stop), parted)


async def _collides(load: Load, seq: int, node: TrieNode, row: int) -> bool:
    """Tell whether block `seq`, which shares all digits with `node` up to the check point `row`, is another component.

    Raises: InvalidNode.
    """
    other = load.peek(seq) or await load.node(seq)
    shared = divergence(other, node)
    if shared < row:
        raise misplaced(other)
    return shared == row
