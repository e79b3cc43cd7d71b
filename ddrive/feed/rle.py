"""The run-length form in which bitfields cross the wire: runs of 00 or FF bytes, and literals.

An item is a varint h: odd = a run of h>>2 bytes of FF (bit 1 set) or 00, even = h>>1 literal bytes follow.
Source: wire.md section 7.1, `rle.json` of the vectors.
"""

import re

from ddrive.errors import RemoteProtocolError

MAX_VARINT_BYTES = 8  # longer ones are refused as everywhere on the wire

_RUN = re.compile(rb"\x00+|\xff+")


def encode(data: bytes) -> bytes:
    """Return the run-length form of `data`; zero bytes at the end are dropped."""
    data = data.rstrip(b"\x00")
    out = bytearray()
    literal_start = 0
    for match in _RUN.finditer(data):
        start, end = match.span()
        pending, run = start - literal_start, end - start
        header = 4 * run + (3 if data[start] else 1)
        separate = _literal_size(pending) + _varint_size(header)
        if separate < _literal_size(pending + run):
            _put_literal(out, data[literal_start:start])
            _put_varint(out, header)
            literal_start = end
    _put_literal(out, data[literal_start:])
    return bytes(out)


def decode(data: bytes, max_bytes: int) -> bytes:
    """Return the bytes that `data` stands for, at most `max_bytes` of them; nothing longer is ever allocated.

    Raises: RemoteProtocolError when `data` is cut off, not of this form or stands for more than `max_bytes`.
    """
    pieces: list[bytes] = []
    total = position = 0
    while position < len(data):
        header, position = _take_varint(data, position)
        size = header >> 2 if header & 1 else header >> 1
        total += size
        if total > max_bytes:
            raise RemoteProtocolError(f"a bitfield stands for more than the {max_bytes} bytes asked for")
        if header & 1:
            pieces.append((b"\xff" if header & 2 else b"\x00") * size)
            continue
        if position + size > len(data):
            raise RemoteProtocolError("a bitfield is cut off")
        pieces.append(data[position : position + size])
        position += size
    return b"".join(pieces)


def _varint_size(value: int) -> int:
    return (value.bit_length() + 6) // 7 or 1


def _literal_size(size: int) -> int:
    return size + _varint_size(2 * size) if size else 0


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_literal(out: bytearray, literal: bytes) -> None:
    if literal:
        _put_varint(out, 2 * len(literal))
        out += literal


def _take_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[position : position + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position + count + 1
    raise RemoteProtocolError("a number in a bitfield does not end")
