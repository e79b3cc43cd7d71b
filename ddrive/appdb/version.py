"""Versions of a database as bytes: for each head the key of its feed (32 bytes) and its block index (a varint).

Source: `hyperdb@3.5.0`.
"""

from collections.abc import Iterable

from ddrive.crypto import KEY_BYTES
from ddrive.errors import InvalidKey
from ddrive.ids import PublicKey

_MAX_SHIFT = 42  # a block index of more bits is none


def encode_version(heads: Iterable[tuple[PublicKey, int]]) -> bytes:
    """Return the version with these heads, as pairs of feed key and block index."""
    out = bytearray()
    for key, seq in heads:
        out += key
        while seq > 0x7F:
            out.append(seq & 0x7F | 0x80)
            seq >>= 7
        out.append(seq)
    return bytes(out)


def decode_version(version: bytes) -> list[tuple[PublicKey, int]]:
    """Return the heads that `encode_version` was given. Raises: InvalidKey when the bytes are no version."""
    heads: list[tuple[PublicKey, int]] = []
    position = 0
    while position < len(version):
        key = PublicKey(version[position : position + KEY_BYTES])
        position += KEY_BYTES
        seq = shift = 0
        while True:
            if position >= len(version) or shift > _MAX_SHIFT:
                raise InvalidKey("these bytes are no version of a database: they are cut short")
            byte = version[position]
            position += 1
            seq |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if not seq:
            raise InvalidKey("these bytes are no version of a database: block 0 is no entry")
        heads.append((key, seq))
    return heads
