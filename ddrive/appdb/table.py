"""Tables of an entry as values: which pointers it holds by row (index of a digit) and digit.

A table is a sequence of numbers: for each row in ascending order its index, the bits of its used digits, and for each
of these digits its pointers. A pointer is the place of a feed in the writer's list, times two, plus one when another
pointer follows; then the index of a block. All are varints (LEB128). A read needs one row of most tables, so one row
can be found by itself.

Source: `hyperdb@3.5.0`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NewType

from google.protobuf.message import DecodeError

from ddrive.appdb import schema_pb2
from ddrive.appdb.clock import Clock

MAX_POINTERS: Final = 1 << 14  # of an entry, and rows; a busy database of a dozen writers has about a hundred
MAX_TABLE_BYTES: Final = 20 * MAX_POINTERS
_MAX_SEQ: Final = 1 << 40
_CUT: Final = "it is cut short, or names a feed beyond the list"
_BYTES_FIELD: Final = 0x0A  # key of field 1 with a length

Pointer = NewType("Pointer", int)  # seq << 16 | feed number: one integer takes half the memory of a pair
Row = tuple[tuple[Pointer, ...], ...]  # pointers by digit, 0 to 4
NO_POINTERS: Final[tuple[Pointer, ...]] = ()
EMPTY_ROW: Final[Row] = (NO_POINTERS,) * 5


def pointer_to(feed: int, seq: int) -> Pointer:
    """Return the pointer to block `seq` of feed number `feed`."""
    return Pointer(seq << 16 | feed)


def feed_of(pointer: Pointer) -> int:
    """Return the feed number of a pointer."""
    return pointer & 0xFFFF


def seq_of(pointer: Pointer) -> int:
    """Return the block index of a pointer."""
    return pointer >> 16


def _bytes_where(condition: Callable[[int], bool]) -> bytes:
    """Return the pattern of one byte for which `condition` holds."""
    return b"[%s]" % b"".join(b"\\x%02x" % byte for byte in range(256) if condition(byte))


def _starting(low_bit: int) -> bytes:
    """Return the pattern of a varint, odd or even."""
    short = _bytes_where(lambda byte: byte < 0x80 and byte & 1 == low_bit)
    long = _bytes_where(lambda byte: byte >= 0x80 and byte & 1 == low_bit)
    return b"(?:%s|%s%s)" % (short, long, _VARINT)


def _grammar() -> bytes:
    """Return the pattern of a row number to look for, then a table up to that row or to its end.

    The repetitions are possessive, so there is one way to match and the time grows with the bytes only.
    """
    pointers = b"(?>(?:%s%s)*+%s%s)" % (_starting(1), _VARINT, _starting(0), _VARINT)
    slots = b"|".join(
        b"%s%s{%d}" % (_bytes_where(lambda byte, used=used: byte < 32 and byte.bit_count() == used), pointers, used)  # type: ignore[misc]
        for used in range(1, 6)
    )
    return rb"(%s)(?>%s(?:%s))*?(?:\1(%s)|\Z)" % (_SHORTEST, _SHORTEST, slots, slots)


_VARINT: Final = rb"[\x80-\xff]*+[\x00-\x7f]"
_SHORTEST: Final = rb"(?>[\x00-\x7f]|[\x80-\xff]++[\x01-\x7f])"  # the one that all writers write
_TABLE: Final = re.compile(_grammar(), re.DOTALL)


def find_row(table: bytes, row: int, digit: int, numbers: Sequence[int], clock: Clock, own: Pointer) -> Row | None:
    """Return one row of a table, None when it has nothing under `digit`.

    Of the rest only the form is looked at, and nothing behind that row. Arguments and errors as for `decode_rows`.
    """
    subject = bytearray()
    put_varint(subject, row)
    subject += table
    match = _TABLE.match(subject)
    if match is None:  # it is wrong, or written in an unusual way
        return decode_rows(table, numbers, clock, own).get(row)
    slots = match[2]
    if slots is None or not slots[0] >> digit & 1:
        return None
    try:
        return _row(_parse(slots), 0, numbers, clock, own)[0]
    except (DecodeError, IndexError) as error:
        raise ValueError(_CUT) from error


def decode_rows(table: bytes, numbers: Sequence[int], clock: Clock, own: Pointer) -> dict[int, Row]:
    """Return the table by row, ascending.

    `numbers` are the feed numbers by their place in the list of the writer, `clock` is that of the entry at `own`:
    pointers lead to what it has seen. Raises: ValueError.
    """
    rows: dict[int, Row] = {}
    last = -1
    try:
        parsed = _parse(table)
        position, end = 0, len(parsed)
        while position < end:
            row = parsed[position]
            if row <= last:
                raise ValueError("its rows are out of order")
            last = row
            rows[row], position = _row(parsed, position + 1, numbers, clock, own)
    except (DecodeError, IndexError) as error:
        raise ValueError(_CUT) from error
    return rows


def _row(parsed: Sequence[int], position: int, numbers: Sequence[int], clock: Clock, own: Pointer) -> tuple[Row, int]:
    """Return the row whose bits are at `position`, and where the next one begins. Raises: IndexError, ValueError."""
    slots = [NO_POINTERS] * 5
    bits, known = parsed[position], len(clock)
    if not 0 < bits < 32:
        raise ValueError("its rows are out of order or its digits out of range")
    position += 1
    for digit in range(5):
        if not bits >> digit & 1:
            continue
        found: list[Pointer] = []
        more = 1
        while more:
            more, seq = parsed[position], parsed[position + 1]
            position += 2
            feed = numbers[more >> 1]
            pointer = Pointer(seq << 16 | feed)
            if not 0 < seq < (clock[feed] if feed < known else 0) or pointer == own:
                raise ValueError(_wrong(more >> 1, seq))
            found.append(pointer)
            more &= 1
        slots[digit] = tuple(found)
    return tuple(slots), position


def _wrong(place: int, seq: int) -> str:
    if seq > _MAX_SEQ:
        return f"a number in it is too large: {seq}"
    return f"it points to block {seq} of feed {place} of its list, of which its clock says less"


def _parse(table: bytes) -> Sequence[int]:
    """Return the numbers in a table, read as a record that holds nothing else. Raises: DecodeError, ValueError."""
    size = len(table)
    if size > MAX_TABLE_BYTES:
        raise ValueError(f"it has {size} bytes of pointers")
    record = bytearray((_BYTES_FIELD,))
    put_varint(record, size)
    record += table
    numbers = schema_pb2.Table.FromString(bytes(record)).numbers[:]
    if len(numbers) > 2 * MAX_POINTERS:
        raise ValueError(f"its pointers and rows take {len(numbers)} numbers")
    return numbers


def encode_rows(rows: Mapping[int, Row], places: Mapping[int, int]) -> bytes:
    """Return the bytes of a table; `places` gives the place of each feed number in the list of the writer."""
    numbers: list[int] = []
    for row, slots in rows.items():
        mark = len(numbers) + 1
        numbers += (row, 0)
        bits, bit = 0, 1
        for slot in slots:
            if slot:
                bits |= bit
                for pointer in slot:
                    numbers += (places[pointer & 0xFFFF] << 1 | 1, pointer >> 16)
                numbers[-2] -= 1  # no other pointer follows the last one
            bit <<= 1
        numbers[mark] = bits
    record = schema_pb2.Table(numbers=numbers).SerializeToString()
    start = 1
    while start < len(record) and record[start] > 0x7F:  # the key of the field and its length come first
        start += 1
    return record[start + 1 :]


def put_varint(out: bytearray, number: int) -> None:
    """Append the unsigned LEB128 form of a number."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
