"""Unsigned numbers of variable length: 7 bits per byte, low group first, the top bit says that more follow.

The lengths and headers of frames are written so. (Protobuf uses the same form inside bodies; that is its own code.)
"""

from ddrive.errors import RemoteProtocolError

MAX_VARINT_BYTES = 8  # 56 bits; a longer one ends the link. Source: `simple-message-channels`

_ONE_BYTE = [bytes((value,)) for value in range(128)]


def encode_varint(value: int) -> bytes:
    """Return `value` (0 to 2**56 - 1) as 1 to 8 bytes."""
    if 0 <= value < 128:
        return _ONE_BYTE[value]
    if 0 <= value < 1 << 14:
        return bytes((value & 127 | 128, value >> 7))
    if 0 <= value < 1 << 21:
        return bytes((value & 127 | 128, value >> 7 & 127 | 128, value >> 14))
    if value < 0 or value >> (7 * MAX_VARINT_BYTES):
        raise ValueError(f"{value} does not fit into a varint of {MAX_VARINT_BYTES} bytes")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes | bytearray | memoryview, offset: int, end: int) -> tuple[int, int] | None:
    """Return the number at `offset` and the offset behind it; None when `data[offset:end]` stops within it.

    Raises: RemoteProtocolError when it goes on for more than `MAX_VARINT_BYTES`.
    """
    value = shift = 0
    for position in range(offset, min(end, offset + MAX_VARINT_BYTES)):
        byte = data[position]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position + 1
        shift += 7
    if end - offset >= MAX_VARINT_BYTES:
        raise RemoteProtocolError(f"a varint goes on for more than {MAX_VARINT_BYTES} bytes")
    return None
