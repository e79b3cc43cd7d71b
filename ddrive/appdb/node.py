"""Blocks of a database feed as values: the header (block 0) and the entries (all others).

An entry is one change of one key. It carries a clock and a table of pointers to the newest entries of every other
branch of the index. In blocks feeds are named by their place in the writer's list; here by the number that this process
gave them. Every claim a block makes about itself is checked when it is decoded, those about others when followed.

Source: `hyperdb@3.5.0`, records in `schema.proto`; digits as in `ddrive.trie.path` without the first.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from ddrive.appdb import schema_pb2
from ddrive.appdb.clock import Clock, count, translate
from ddrive.appdb.table import NO_POINTERS, Pointer, Row, decode_rows, encode_rows, find_row, pointer_to
from ddrive.crypto import KEY_BYTES
from ddrive.dialect import Dialect
from ddrive.errors import Misauthored
from ddrive.ids import PublicKey
from ddrive.trie.path import COMPONENT_DIGITS, END, component_hash, split

MAX_KEY_BYTES: Final = 64 * 1024
MAX_FEEDS: Final = 512  # writers of one database; each takes some open files
PROTOCOLS: Final = {"hypercore": "hyperdb", "dweb": "dappdb"}  # header by dialect; both are read in both
_ENTRY_BYTES: Final = 700  # objects of an entry without its text, value and table
_ROW_BYTES: Final = 320  # of a decoded table: about two pointers of 32 bytes in their tuples
_NUMBER_BYTES: Final = 40  # of a clock or path, with its place there
_NO_ROWS: Final[dict[int, Row]] = {}  # shared by all entries of which none is decoded; never changed


class InvalidEntry(Misauthored):
    """A writer signed a block that is no valid entry, or that contradicts other blocks."""


def hashes_of(key: str) -> tuple[int, ...]:
    """Return where a stored key lies: the 64-bit hash of each component, of which digit k is the bits 2k, 2k + 1."""
    return tuple(map(component_hash, split(key)))


def digit(hashes: tuple[int, ...], index: int) -> int:
    """Return the digit at `index`; `END` behind the last component."""
    depth = index >> 5
    return hashes[depth] >> ((index & 31) << 1) & 3 if depth < len(hashes) else END


def parting(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Return the index of the first different digit, or of the final digit when all are equal."""
    depth, end = 0, len(right)
    for ours in left:
        if depth == end:
            break
        if ours != right[depth]:
            difference = ours ^ right[depth]
            return (depth << 5) + ((difference & -difference).bit_length() - 1 >> 1)
        depth += 1
    return depth << 5


def order(hashes: tuple[int, ...]) -> bytes:
    """Return what sorts paths as iterations give them: by digit, where the end comes first."""
    digits = [digit(hashes, index) for index in range(COMPONENT_DIGITS * len(hashes) + 1)]
    return bytes((number + 1) % 5 for number in digits)


class FeedList(NamedTuple):
    """A list that a writer published: the feeds by their place in it, as numbers of this process."""

    numbers: tuple[int, ...]
    block: int  # where it stands


class Meter:
    """Counts the memory that entries take in addition when their tables are decoded."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Entry:
    """One change of a key as a block states it; not changed after creation.

    `feed` (number) and `seq` say where it stands. `value` None is not the same as empty. `clock` counts blocks by feed
    number. `hashes` says where the key lies (see `hashes_of`). `origin` names the feed in messages. The table comes as
    `rows` (ascending), or as the bytes `table`: a read needs one row of most tables, which is decoded, checked and kept
    by itself: `decoded` holds the rows so far.
    """

    __slots__ = (
        "_meter",
        "_table",
        "clock",
        "decoded",
        "deleted",
        "feed",
        "hashes",
        "key",
        "listed",
        "origin",
        "seq",
        "value",
    )

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
        table: bytes | None = None,
        listed: FeedList,
        origin: str = "",
        meter: Meter | None = None,
        hashes: tuple[int, ...] | None = None,
    ) -> None:
        self.feed = feed
        self.seq = seq
        self.key = key
        self.value = value
        self.deleted = deleted
        self.clock = clock
        self.decoded = _NO_ROWS if rows is None else rows
        self._table = table  # until all of its rows are decoded
        self._meter = meter
        self.listed = listed
        self.origin = origin
        self.hashes = hashes_of(key) if hashes is None else hashes

    def __repr__(self) -> str:
        return f"Entry({self.key!r}, {self.value!r}, feed={self.feed}, seq={self.seq}, deleted={self.deleted})"

    @property
    def pointer(self) -> Pointer:
        """The pointer to this entry."""
        return pointer_to(self.feed, self.seq)

    @property
    def rows(self) -> dict[int, Row]:
        """The table by digit index, ascending. Raises: InvalidEntry."""
        table = self._table
        if table is not None:
            try:
                rows = decode_rows(table, self.listed.numbers, self.clock, self.pointer)
            except ValueError as error:
                raise self.fault(f"its table is wrong: {error}") from error
            if self._meter is not None:
                self._meter.bytes += _ROW_BYTES * len(rows)
            self.decoded, self._table = rows, None
        return self.decoded

    def pointers(self, index: int, number: int) -> tuple[Pointer, ...]:
        """Return what is in one row of the table under the digit `number`. Raises: InvalidEntry."""
        row = self.decoded.get(index)
        if row is None and self._table is not None:
            row = self._find(index, number)
        return row[number] if row is not None else NO_POINTERS

    def _find(self, index: int, number: int) -> Row | None:
        assert self._table is not None, "there are bytes to look at"
        try:
            row = find_row(self._table, index, number, self.listed.numbers, self.clock, self.pointer)
        except ValueError as error:
            raise self.fault(f"its table is wrong: {error}") from error
        if row is not None:
            if self.decoded is _NO_ROWS:
                self.decoded = {}
            self.decoded[index] = row
            if self._meter is not None:
                self._meter.bytes += _ROW_BYTES
        return row

    @property
    def path(self) -> bytes:
        """All digits of the key."""
        return bytes(digit(self.hashes, index) for index in range(COMPONENT_DIGITS * len(self.hashes) + 1))

    @property
    def size_bytes(self) -> int:
        """About how much memory the entry takes."""
        table = _ROW_BYTES * len(self.decoded) + len(self._table or b"")
        table += _NUMBER_BYTES * (len(self.clock) + len(self.hashes) + len(self.listed.numbers))
        return _ENTRY_BYTES + 4 * len(self.key) + len(self.value or b"") + table

    @property
    def place(self) -> str:
        """The block as messages name it."""
        return f"block {self.seq} of {self.origin}"

    def fault(self, reason: str) -> InvalidEntry:
        """Return the error that names this block."""
        return InvalidEntry(f"{self.place}: {reason}")


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


def decode_entry(
    feed: int, seq: int, fields: schema_pb2.Entry, listed: FeedList, origin: str, meter: Meter | None = None
) -> Entry:
    """Return the entry in block `seq` of feed number `feed`, given the list that it refers to.

    Its table is looked at when it is used. Raises: InvalidEntry.
    """
    numbers = listed.numbers
    clock = fields.clock[:]
    if len(clock) > len(numbers):
        raise InvalidEntry(f"the clock in block {seq} of {origin} counts {len(clock)} feeds, its list {len(numbers)}")
    stamps = translate(clock, numbers)
    if feed not in numbers or count(stamps, feed) != seq + 1:
        raise InvalidEntry(f"the clock in block {seq} of {origin} does not count its own feed right")
    value = fields.value if fields.HasField("value") else None
    return Entry(
        feed,
        seq,
        fields.key,
        value,
        deleted=fields.deleted,
        clock=stamps,
        table=fields.trie,
        listed=listed,
        origin=origin,
        meter=meter,
    )


def encode_entry(entry: Entry, places: Mapping[int, int], keys: Sequence[PublicKey] | None) -> bytes:
    """Return the block of an entry; `places` gives the place of each feed number in the list that it refers to.

    `keys` is that list when this block publishes it.
    """
    fields = schema_pb2.Entry(key=entry.key, trie=encode_rows(entry.rows, places), inflate=entry.listed.block)
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
