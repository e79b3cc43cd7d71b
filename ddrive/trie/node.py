"""Blocks of a trie feed as values: the header (block 0) and the nodes (all others).

A node is an entry of the database and carries a table of pointers to older nodes. Its table is only decoded when it is
asked for. Every claim a block makes is checked here or where it is used: pointers lead to older blocks, so a walk ends.

Source: `hypertrie@5`, records in `schema.proto`.
"""

from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from ddrive.errors import InvalidProof
from ddrive.trie import schema_pb2
from ddrive.trie.path import END, KeyPath

MAX_TABLE_BYTES: Final = 1024 * 1024  # a 4 KiB key of one-letter components with a full row at every digit needs less
MAX_SLOT: Final = 30  # the peers keep the slots of a row in a signed 32-bit field
_SLOT_BITS: Final = 5  # row and slot are kept as one number, row << 5 | slot
_MAX_VARINT_BITS: Final = 63
_HIDDEN: Final = 1  # internal flag; user flags start at bit 8
_NODE_BYTES: Final = 500  # objects of a decoded node without its text, value and table


class InvalidNode(InvalidProof):
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
        return Header(
            header.type,
            header.metadata if header.HasField("metadata") else None,
            header.subtype if header.HasField("subtype") else None,
        )
    except (DecodeError, UnicodeDecodeError) as error:
        raise InvalidNode(f"block 0 of {origin} is no trie header: {error}") from error


class TrieNode(KeyPath):
    """One entry as the block `seq` states it: key, value (None is not the same as empty), user flags, half.

    `origin` names the feed in messages. Pointers are kept as two parallel lists in ascending order: where
    (row << 5 | slot) and to which block.
    """

    __slots__ = ("_places", "_seqs", "_table", "flags", "origin", "seq", "value")

    def __init__(
        self,
        seq: int,
        key: str,
        value: bytes | None = None,
        flags: int = 0,
        hidden: bool = False,
        *,
        table: bytes = b"\0",
        origin: str = "",
    ) -> None:
        super().__init__(key, hidden)
        self.seq = seq
        self.value = value
        self.flags = flags
        self.origin = origin
        self._table: bytes | None = table
        self._places: list[int] = []
        self._seqs: list[int] = []

    def __repr__(self) -> str:
        return f"TrieNode(seq={self.seq}, key={self.key!r}, flags={self.flags}, hidden={self.hidden})"

    @property
    def size_bytes(self) -> int:
        """About how much memory the node takes."""
        table = 16 * len(self._seqs) if self._table is None else 20 * len(self._table)
        return _NODE_BYTES + 8 * len(self.key) + len(self.value or b"") + table

    def moved(self, key: str) -> "TrieNode":
        """Return the same entry under another key, without pointers: how an entry of a mounted trie is shown."""
        return TrieNode(self.seq, key, self.value, self.flags, self.hidden, origin=self.origin)

    def fault(self, reason: str) -> InvalidNode:
        """Return the error that names this block."""
        return InvalidNode(f"block {self.seq} of {self.origin}: {reason}")

    def point(self, pointers: Iterable[tuple[int, int]]) -> None:
        """Set the pointers, (place, seq) each in any order, of a node that is being made."""
        ordered = sorted(pointers)
        self._table = None
        self._places = [place for place, _ in ordered]
        self._seqs = [seq for _, seq in ordered]

    def pointers(self) -> tuple[list[int], list[int]]:
        """Return places and block indexes, parallel, ascending by place. Raises: InvalidNode."""
        if self._table is not None:
            self._decode(self._table)
        return self._places, self._seqs

    def pointer(self, row: int, slot: int) -> int:
        """Return the block index at that place, 0 when there is none. Raises: InvalidNode."""
        places, seqs = self.pointers()
        place = row << _SLOT_BITS | slot
        found = bisect_left(places, place)
        return seqs[found] if found < len(places) and places[found] == place else 0

    def _decode(self, table: bytes) -> None:
        if len(table) > MAX_TABLE_BYTES:
            raise self.fault(f"its table has {len(table)} bytes")
        values = self._varints(table)
        places: list[int] = []
        seqs: list[int] = []
        position, last, length = 1, -1, self.length
        while position < len(values):
            row = values[position]
            bits = values[position + 1] if position + 1 < len(values) else 0
            if not last < row < length or bits >> (MAX_SLOT + 1):
                raise self.fault(f"row {row} of its table is out of order or range")
            base = row << _SLOT_BITS
            slots = _slots(bits)
            position += 2
            places += [base | slot for slot in slots]
            seqs += values[position : position + len(slots)]
            position += len(slots)
            last = row
        if len(seqs) != len(places) or (seqs and not 0 < min(seqs) <= max(seqs) < self.seq):
            raise self.fault("its table points to no older node")
        self._table, self._places, self._seqs = None, places, seqs

    def _varints(self, table: bytes) -> list[int]:
        values: list[int] = []
        value = shift = 0
        for byte in table:
            if byte < 0x80:
                values.append(value | byte << shift)
                value = shift = 0
            else:
                value |= (byte & 0x7F) << shift
                shift += 7
                if shift > _MAX_VARINT_BITS:
                    raise self.fault("a number in its table is too long")
        if shift:
            raise self.fault("its table is cut short")
        return values


@lru_cache(1024)
def _slots(bits: int) -> tuple[int, ...]:
    return tuple(slot for slot in range(MAX_SLOT + 1) if bits >> slot & 1)


def decode_node(seq: int, block: bytes, origin: str) -> TrieNode:
    """Return the node in block `seq` (1 or more) of the feed `origin`. A reset marker comes as a node with key "".

    Raises: InvalidNode.
    """
    try:
        fields = schema_pb2.Node.FromString(block)
        flags = fields.flags
        return TrieNode(
            seq,
            fields.key,
            fields.value if fields.HasField("value") else None,
            flags >> 8,
            bool(flags & _HIDDEN),
            table=fields.trie,
            origin=origin,
        )
    except (DecodeError, UnicodeDecodeError) as error:
        raise InvalidNode(f"block {seq} of {origin} is no trie node: {error}") from error


def encode_node(node: TrieNode) -> bytes:
    """Return the block that states `node`, byte for byte as the npm peers write it."""
    fields = schema_pb2.Node(
        key=node.key,
        trie=encode_table(*node.pointers()),
        seq=node.seq,
        flags=node.flags << 8 | (_HIDDEN if node.hidden else 0),
    )
    if node.value is not None:
        fields.value = node.value
    return fields.SerializeToString()


def encode_table(places: list[int], seqs: list[int]) -> bytes:
    """Return the table: a hint at the highest row, then per row its number, the bits of its slots, the pointers."""
    if not places:
        return b"\0"
    numbers = [(places[-1] >> _SLOT_BITS) + 1]
    start, count = 0, len(places)
    while start < count:
        row = places[start] >> _SLOT_BITS
        end, bits = start, 0
        while end < count and places[end] >> _SLOT_BITS == row:
            bits |= 1 << (places[end] & 31)
            end += 1
        numbers += [row, bits, *seqs[start:end]]
        start = end
    return encode_varints(numbers)


def encode_varints(numbers: Iterable[int]) -> bytes:
    """Return the unsigned LEB128 forms of `numbers`, joined."""
    out = bytearray()
    for number in numbers:
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)


def slot_digit(slot: int) -> int:
    """Return the digit of the node that a slot points at."""
    return slot % (END + 1)
