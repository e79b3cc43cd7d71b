"""Blocks of a trie feed as values: the header (block 0) and the nodes (all others).

A node is an entry of the database and carries a table of pointers to older nodes. Its table is only decoded when it is
asked for. Every claim a block makes is checked here or where it is used: pointers lead to older blocks, so a walk ends.

Source: `hypertrie@5`, records in `schema.proto`.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, ClassVar, Final, NamedTuple

from google.protobuf.message import DecodeError

from ddrive.errors import Misauthored
from ddrive.trie import schema_pb2
from ddrive.trie.path import KeyPath, split

MAX_NUMBERS: Final = 1 << 18  # in one table: 60 for each component of the longest key, some for a million siblings
MAX_SLOT: Final = 30  # the peers keep the slots of a row in a signed 32-bit field
SHORT_TABLE: Final = 128  # numbers; to look along a longer one for each of its rows takes longer than an index
_HIDDEN: Final = 1  # internal flag; user flags start at bit 8
_EMPTY_TABLE: Final = array("Q", [0])
_NODE_BYTES: Final = 700  # objects of a decoded node without its text, value and table


class InvalidNode(Misauthored):
    """The author signed a block that is no valid trie node, or points where no valid node points."""


class Header(NamedTuple):
    """Block 0: what kind of database this is, and bytes of its user (a drive's content key)."""

    type: str
    metadata: bytes | None = None
    subtype: str | None = None


def encode_header(header: Header) -> bytes:
    """Return block 0."""
    fields = {name: value for name, value in header._asdict().items() if value is not None}
    return schema_pb2.Header(**fields).SerializeToString()


def decode_header(block: bytes, origin: str) -> Header:
    """Return what block 0 of the feed `origin` says. Raises: InvalidNode."""
    try:
        header = schema_pb2.Header.FromString(block)
    except DecodeError as error:
        raise InvalidNode(f"block 0 of {origin} is no trie header: {error}") from error
    subtype = header.subtype if header.HasField("subtype") else None
    if not header.HasField("type") or not is_text(header.type) or not (subtype is None or is_text(subtype)):
        raise InvalidNode(f"block 0 of {origin} is no trie header (its type is missing or no text)")
    return Header(header.type, header.metadata if header.HasField("metadata") else None, subtype)


def is_text(value: object) -> bool:
    """Tell whether a string field was text: protobuf hands out the bytes when they are not UTF-8."""
    return type(value) is str


class TrieNode(KeyPath):
    """One entry as the block `seq` states it: key, value (None is not the same as empty), user flags, half.

    `origin` names the feed in messages. `numbers` is the table as it is on the wire: a hint at the highest row, then
    for each row in ascending order its number, the bits of its used slots, and the block index for each of them.
    `garbled`: nobody can tell where the node lies, as the key in the block is no UTF-8 (here it has surrogates) or
    does not belong to its place.
    """

    __slots__ = ("_found", "_rows", "_starts", "flags", "garbled", "numbers", "origin", "seq", "value")

    recurs: ClassVar = False  # a listing sees each name once

    def __init__(
        self,
        seq: int,
        key: str,
        value: bytes | None = None,
        flags: int = 0,
        hidden: bool = False,
        *,
        numbers: "array[int]" = _EMPTY_TABLE,
        origin: str = "",
    ) -> None:
        self.key = key
        self.hidden = hidden
        self.parts = split(key)
        self.spread = None
        self.seq = seq
        self.value = value
        self.flags = flags
        self.origin = origin
        self.garbled = False
        self.numbers = numbers
        self._rows: tuple[int, ...] | None = None
        self._starts: tuple[int, ...] = ()
        self._found = 1  # where in `numbers` the row is that `first_row` found last

    def __repr__(self) -> str:
        return f"TrieNode(seq={self.seq}, key={self.key!r}, flags={self.flags}, hidden={self.hidden})"

    @property
    def size_bytes(self) -> int:
        """About how much memory the node takes."""
        return _NODE_BYTES + 8 * len(self.key) + len(self.value or b"") + 8 * len(self.numbers)

    def moved(self, key: str) -> "TrieNode":
        """Return the same entry under another key, without pointers: how an entry of a mounted trie is shown."""
        return TrieNode(self.seq, key, self.value, self.flags, self.hidden, origin=self.origin)

    def fault(self, reason: str) -> InvalidNode:
        """Return the error that names this block."""
        return InvalidNode(f"block {self.seq} of {self.origin} is no proper node ({reason})")

    def rows(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the used rows, ascending, and for each where in `numbers` its bits are. Raises: InvalidNode."""
        if self._rows is None:
            return self._index()
        return self._rows, self._starts

    def pointers(self, row: int) -> list[tuple[int, int]]:
        """Return (slot, block index) of a row, ascending. Raises: InvalidNode."""
        rows, starts = self.rows()
        found = bisect_left(rows, row)
        return self.pointers_at(starts[found]) if found < len(rows) and rows[found] == row else []

    def pointers_at(self, start: int) -> list[tuple[int, int]]:
        """Return (slot, block index) of the row whose bits are at `start`. Raises: InvalidNode."""
        bits = self.numbers[start]
        result = []
        while bits:
            lowest = bits & -bits
            start += 1
            seq = self.numbers[start]
            if not 0 < seq < self.seq:
                raise self.fault("it points to no older block")
            result.append((lowest.bit_length() - 1, seq))
            bits ^= lowest
        return result

    def pointer(self, row: int, slot: int) -> int:
        """Return the block index in that slot, 0 when there is none. Raises: InvalidNode."""
        rows = self._rows
        if rows is None:
            rows, _ = self._index()
        found = bisect_left(rows, row)
        if found == len(rows) or rows[found] != row:
            return 0
        start = self._starts[found]
        bits = self.numbers[start]
        if not bits >> slot & 1:
            return 0
        seq = self.numbers[start + 1 + (bits & ((1 << slot) - 1)).bit_count()]
        if not 0 < seq < self.seq:
            raise self.fault("it points to no older block")
        return seq

    def first_row(self, row: int) -> int:
        """Return where in `numbers` the bits of the first used row from `row` on are, 0 when there is none.

        The row itself is before them. Of a short table only that place is kept, unlike by `rows`: for a walk, which
        comes by once for each row. Raises: InvalidNode.
        """
        numbers = self.numbers
        if len(numbers) > SHORT_TABLE:
            rows, starts = self.rows()
            found = bisect_left(rows, row)
            return starts[found] if found < len(rows) else 0
        count, position, last = len(numbers) - 1, self._found, -1
        if position > 1 and numbers[position] > row:
            position = 1
        while position < count:
            used, bits = numbers[position], numbers[position + 1]
            following = position + 2 + bits.bit_count()
            if not last < used or following > count + 1:
                raise self.fault(f"row {used} of its table is out of order or cut short")
            if used >= row:
                if used >= self.length or bits >> (MAX_SLOT + 1):
                    raise self.fault(f"row {used} of its table is out of range")
                self._found = position
                return position + 1
            position, last = following, used
        if position <= count:
            raise self.fault("its table is cut short")
        return 0

    def _index(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rows: list[int] = []
        starts: list[int] = []
        numbers = self.numbers
        count, position, last, length = len(numbers), 1, -1, self.length
        while position < count - 1:
            row, bits = numbers[position], numbers[position + 1]
            if not last < row < length or bits >> (MAX_SLOT + 1):
                raise self.fault(f"row {row} of its table is out of order or range")
            rows.append(row)
            starts.append(position + 1)
            position += 2 + bits.bit_count()
            last = row
        if count and position != count:
            raise self.fault("its table is cut short")
        self._rows, self._starts = tuple(rows), tuple(starts)
        return self._rows, self._starts


def decode_node(seq: int, block: bytes, origin: str) -> TrieNode:
    """Return the node in block `seq` (1 or more) of the feed `origin`. A reset marker comes as a node with key "".

    One with a key that is no UTF-8 is given out too (`garbled`), so that what it points to is not lost.

    Raises: InvalidNode.
    """
    try:
        fields = schema_pb2.Node.FromString(block)
    except DecodeError as error:
        raise InvalidNode(f"block {seq} of {origin} is no trie node: {error}") from error
    raw: Any = fields.key  # the bytes themselves when they are no UTF-8
    flags, numbers = fields.flags, array("Q", fields.trie[:])
    if not raw and not fields.HasField("key"):
        raise InvalidNode(f"block {seq} of {origin} is no trie node (its key is missing)")
    garbled = not is_text(raw)
    key: str = raw.decode("utf-8", "surrogateescape") if garbled else raw
    if len(numbers) > MAX_NUMBERS:
        raise InvalidNode(f"the table in block {seq} of {origin} has {len(numbers)} numbers")
    value = fields.value or (b"" if fields.HasField("value") else None)
    node = TrieNode(seq, key, value, flags >> 8, bool(flags & _HIDDEN), numbers=numbers, origin=origin)
    node.garbled = garbled
    return node


def encode_node(node: TrieNode) -> bytes:
    """Return the block that states `node`, byte for byte as the npm peers write it.

    Raises: InvalidNode when its key is that of a garbled node, which a delete would have to repeat.
    """
    try:
        fields = schema_pb2.Node(
            key=node.key,
            value=node.value,
            trie=node.numbers,
            seq=node.seq,
            flags=node.flags << 8 | (_HIDDEN if node.hidden else 0),
        )
    except UnicodeEncodeError as error:
        raise node.fault("it would repeat a key that is no text") from error
    return fields.SerializeToString()


def encode_varints(numbers: Iterable[int]) -> bytes:
    """Return the unsigned LEB128 forms of `numbers`, joined."""
    out = bytearray()
    for number in numbers:
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)
