"""Blocks of a database feed as values: the header (block 0) and the entries (all others).

An entry is one change of one key. It carries a clock and a table of pointers to the newest entries of every other
branch of the index. In blocks feeds are named by their place in the writer's list; here by the number that this process
gave them. Every claim a block makes about itself is checked when it is decoded, those about others when followed.

Source: `hyperdb@3.5.0`, records in `schema.proto`; digits as in `ddrive.trie.path` without the first.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, NewType

from google.protobuf.message import DecodeError

from ddrive.appdb import schema_pb2
from ddrive.appdb.clock import Clock, translate
from ddrive.crypto import KEY_BYTES
from ddrive.dialect import Dialect
from ddrive.errors import InvalidProof
from ddrive.ids import PublicKey
from ddrive.trie.path import COMPONENT_DIGITS, END, component_hash, split

MAX_KEY_BYTES: Final = 64 * 1024
MAX_FEEDS: Final = 512  # writers of one database; each takes some open files
MAX_POINTERS: Final = 1 << 14  # in one entry; a busy database of a dozen writers has about a hundred
PROTOCOLS: Final = {"hypercore": "hyperdb", "dweb": "dappdb"}  # header by dialect; both are read in both
_MAX_SEQ: Final = 1 << 40
_ENTRY_BYTES: Final = 700  # objects of a decoded entry without its text, value and table
_ROW_BYTES: Final = 270  # of a decoded table: about two pointers of 32 bytes in their tuples
_DECODED_BYTES: Final = 40  # what a byte of a table grows to

Pointer = NewType("Pointer", int)  # seq << 16 | feed number: one integer takes half the memory of a pair
Row = tuple[tuple[Pointer, ...], ...]  # pointers by digit, 0 to 4
NO_POINTERS: Final[tuple[Pointer, ...]] = ()
EMPTY_ROW: Final[Row] = (NO_POINTERS,) * 5


class InvalidEntry(InvalidProof):
    """A writer signed a block that is no valid entry, or that contradicts other blocks."""


def pointer_to(feed: int, seq: int) -> Pointer:
    """Return the pointer to block `seq` of feed number `feed`."""
    return Pointer(seq << 16 | feed)


def feed_of(pointer: Pointer) -> int:
    """Return the feed number of a pointer."""
    return pointer & 0xFFFF


def seq_of(pointer: Pointer) -> int:
    """Return the block index of a pointer."""
    return pointer >> 16


def hashes_of(key: str) -> tuple[int, ...]:
    """Return where a stored key lies: the 64-bit hash of each component, of which digit k is the bits 2k, 2k + 1."""
    return tuple(map(component_hash, split(key)))


def digit(hashes: tuple[int, ...], index: int) -> int:
    """Return the digit at `index`; `END` behind the last component."""
    depth = index >> 5
    return hashes[depth] >> ((index & 31) << 1) & 3 if depth < len(hashes) else END


def parting(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Return the index of the first different digit, or of the final digit when all are equal."""
    depth = 0
    for ours, theirs in zip(left, right, strict=False):
        if ours != theirs:
            difference = ours ^ theirs
            return depth + ((difference & -difference).bit_length() - 1 >> 1)
        depth += COMPONENT_DIGITS
    return depth


def order(hashes: tuple[int, ...]) -> bytes:
    """Return what sorts paths as iterations give them: by digit, where the end comes first."""
    digits = [digit(hashes, index) for index in range(COMPONENT_DIGITS * len(hashes) + 1)]
    return bytes((number + 1) % 5 for number in digits)


class FeedList(NamedTuple):
    """A list that a writer published: the feeds by their place in it, as numbers of this process."""

    numbers: tuple[int, ...]
    block: int  # where it stands


class Entry:
    """One change of a key as a block states it; not changed after creation.

    `feed` (number) and `seq` say where it stands. `value` None is not the same as empty. `clock` counts blocks by feed
    number. `hashes` says where the key lies (see `hashes_of`). `origin` names the feed in messages. The table comes as
    `rows` (ascending), or as the bytes `table`, decoded when they are asked for: a read needs most tables never.
    """

    __slots__ = ("_rows", "_table", "clock", "deleted", "feed", "hashes", "key", "listed", "origin", "seq", "value")

    def __init__(
        self,
        feed: int,
        seq: int,
        key: str,
        value: bytes | None,
        *,
        deleted: bool = False,
        clock: Clock = (),
        rows: dict[int, Row] | None = None,
        table: bytes = b"",
        listed: FeedList,
        origin: str = "",
    ) -> None:
        self.feed = feed
        self.seq = seq
        self.key = key
        self.value = value
        self.deleted = deleted
        self.clock = clock
        self._rows = rows
        self._table = table
        self.listed = listed
        self.origin = origin
        self.hashes = hashes_of(key)

    def __repr__(self) -> str:
        return f"Entry({self.key!r}, {self.value!r}, feed={self.feed}, seq={self.seq}, deleted={self.deleted})"

    @property
    def pointer(self) -> Pointer:
        """The pointer to this entry."""
        return Pointer(self.seq << 16 | self.feed)

    @property
    def rows(self) -> dict[int, Row]:
        """The table by digit index, ascending. Raises: InvalidEntry."""
        rows = self._rows
        if rows is None:
            rows = self._rows = self._decoded()
            self._table = b""
        return rows

    @property
    def path(self) -> bytes:
        """All digits of the key."""
        return bytes(digit(self.hashes, index) for index in range(COMPONENT_DIGITS * len(self.hashes) + 1))

    @property
    def size_bytes(self) -> int:
        """About how much memory the entry takes."""
        table = _ROW_BYTES * len(self._rows) if self._rows is not None else _DECODED_BYTES * len(self._table)
        return _ENTRY_BYTES + 4 * len(self.key) + len(self.value or b"") + table

    @property
    def place(self) -> str:
        """The block as messages name it."""
        return f"block {self.seq} of {self.origin}"

    def fault(self, reason: str) -> InvalidEntry:
        """Return the error that names this block."""
        return InvalidEntry(f"{self.place}: {reason}")

    def _decoded(self) -> dict[int, Row]:
        numbers, clock = self.listed.numbers, self.clock
        seen = [clock[number] if number < len(clock) else 0 for number in numbers]
        seen[numbers.index(self.feed)] = self.seq  # pointers lead to older blocks
        try:
            return _decode_rows(self._table, numbers, seen)
        except IndexError as error:
            raise self.fault("its table is cut short, or names a feed beyond the list") from error
        except ValueError as error:
            raise self.fault(f"its table is wrong: {error}") from error


def encode_header(dialect: Dialect) -> bytes:
    """Return block 0."""
    return schema_pb2.Header(protocol=PROTOCOLS[dialect.name]).SerializeToString()


def check_header(block: bytes, origin: str) -> None:
    """Make sure that block 0 begins a database. Raises: InvalidEntry."""
    try:
        protocol = schema_pb2.Header.FromString(block).protocol
    except DecodeError as error:
        raise InvalidEntry(f"block 0 of {origin} does not begin a database: {error}") from error
    if protocol not in PROTOCOLS.values():
        raise InvalidEntry(f"block 0 of {origin} begins something else than a database: {str(protocol)[:40]!r}")


def parse(seq: int, block: bytes, origin: str) -> schema_pb2.Entry:
    """Return the fields of block `seq` (1 or more). Raises: InvalidEntry."""
    try:
        fields = schema_pb2.Entry.FromString(block)
    except DecodeError as error:
        raise InvalidEntry(f"block {seq} of {origin} is no entry: {error}") from error
    if type(fields.key) is not str:  # protobuf hands out the bytes when they are not UTF-8
        raise InvalidEntry(f"block {seq} of {origin} is no entry: its key is no text")
    if len(fields.key) > MAX_KEY_BYTES or fields.key.startswith("/"):
        raise InvalidEntry(f"block {seq} of {origin} has a key that nobody may store")
    if not 0 < fields.inflate <= seq:
        raise InvalidEntry(f"block {seq} of {origin} names block {fields.inflate} for its list of feeds")
    return fields


def listed_keys(seq: int, fields: schema_pb2.Entry, origin: str) -> list[PublicKey]:
    """Return the list of feeds in a block that must have one, in its order. Raises: InvalidEntry."""
    keys = [PublicKey(feed.key) for feed in fields.feeds]
    if fields.inflate != seq or not keys:
        raise InvalidEntry(f"block {seq} of {origin} should have a list of feeds, as others refer to it")
    if len(keys) > MAX_FEEDS or len(set(keys)) < len(keys) or any(len(key) != KEY_BYTES for key in keys):
        raise InvalidEntry(f"the list of feeds in block {seq} of {origin} has wrong or too many keys")
    return keys


def decode_entry(feed: int, seq: int, fields: schema_pb2.Entry, listed: FeedList, origin: str) -> Entry:
    """Return the entry in block `seq` of feed number `feed`, given the list that it refers to.

    Its table is looked at when it is used. Raises: InvalidEntry.
    """
    numbers = listed.numbers
    clock = fields.clock
    if len(clock) > len(numbers):
        raise InvalidEntry(f"the clock in block {seq} of {origin} counts {len(clock)} feeds, its list {len(numbers)}")
    own = numbers.index(feed) if feed in numbers else len(clock)
    if own >= len(clock) or clock[own] != seq + 1:
        raise InvalidEntry(f"the clock in block {seq} of {origin} does not count its own feed right")
    value = fields.value if fields.HasField("value") else None
    return Entry(
        feed,
        seq,
        fields.key,
        value,
        deleted=fields.deleted,
        clock=translate(clock, numbers),
        table=fields.trie,
        listed=listed,
        origin=origin,
    )


def _decode_rows(data: bytes, numbers: Sequence[int], seen: Sequence[int]) -> dict[int, Row]:
    """Return the table. Raises: IndexError, ValueError."""
    rows: dict[int, Row] = {}
    position, end, last, pointers = 0, len(data), -1, 0
    while position < end:
        row, position = _varint(data, position)
        bits, position = _varint(data, position)
        if row <= last or not 0 < bits < 32:
            raise ValueError("its rows are out of order or its digits out of range")
        last = row
        slots = [NO_POINTERS] * 5
        for number in range(5):
            if not bits >> number & 1:
                continue
            found: list[Pointer] = []
            more = 1
            while more:
                place = data[position]
                position += 1
                if place > 0x7F:
                    place, position = _varint(data, position - 1)
                more = place & 1
                place >>= 1
                seq = data[position]
                position += 1
                if seq > 0x7F:
                    seq, position = _varint(data, position - 1)
                if not 0 < seq < seen[place]:
                    raise ValueError(
                        f"it points to block {seq} of feed {place} of its list, of which its clock says less"
                    )
                found.append(Pointer(seq << 16 | numbers[place]))
            slots[number] = tuple(found)
            pointers += len(found)
        rows[row] = tuple(slots)
    if pointers > MAX_POINTERS:
        raise ValueError(f"it has {pointers} pointers")
    return rows


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at `position` and where the next begins. Raises: IndexError, ValueError."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift > 42:
            raise ValueError("a number in it is too large")


def encode_entry(entry: Entry, places: Mapping[int, int], keys: Sequence[PublicKey] | None) -> bytes:
    """Return the block of an entry; `places` gives the place of each feed number in the list that it refers to.

    `keys` is that list when this block publishes it.
    """
    fields = schema_pb2.Entry(key=entry.key, trie=_encode_rows(entry.rows, places), inflate=entry.listed.block)
    if entry.value is not None:
        fields.value = entry.value
    if entry.deleted:
        fields.deleted = True
    clock = entry.clock
    fields.clock.extend([clock[number] if number < len(clock) else 0 for number in entry.listed.numbers])
    if keys is not None:
        for key in keys:
            fields.feeds.add(key=key)
    return fields.SerializeToString()


def _encode_rows(rows: Mapping[int, Row], places: Mapping[int, int]) -> bytes:
    out = bytearray()
    put = out.append
    for row, slots in rows.items():
        _put_varint(out, row)
        mark = len(out)
        put(0)
        bits, bit = 0, 1
        for slot in slots:
            if slot:
                bits |= bit
                last = slot[-1]
                for pointer in slot:
                    place = places[pointer & 0xFFFF] << 1 | (pointer != last)
                    if place > 0x7F:
                        _put_varint(out, place)
                    else:
                        put(place)
                    seq = pointer >> 16
                    while seq > 0x7F:
                        put(seq & 0x7F | 0x80)
                        seq >>= 7
                    put(seq)
            bit <<= 1
        out[mark] = bits
    return bytes(out)


def _put_varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
