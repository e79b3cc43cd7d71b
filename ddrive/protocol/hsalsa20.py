"""HSalsa20, which turns a key and the beginning of a 24-byte nonce into the key of a Salsa20 stream.

It runs once per direction of a connection. Source: `xsalsa20` on npm.
"""

import struct

NONCE_BYTES = 24

_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_WORD = 0xFFFFFFFF
# The quarter rounds of a double round, as indexes of the 4x4 matrix: columns, then rows.
_QUARTERS = (
    (0, 4, 8, 12),
    (5, 9, 13, 1),
    (10, 14, 2, 6),
    (15, 3, 7, 11),
    (0, 1, 2, 3),
    (5, 6, 7, 4),
    (10, 11, 8, 9),
    (15, 12, 13, 14),
)


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """Return the 32-byte subkey of a 32-byte `key` and a 16-byte `nonce`.

    Source: D. J. Bernstein, "Extending the Salsa20 nonce": 20 rounds of Salsa20 without the final addition.
    """
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", nonce)
    x = [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]
    for a, b, c, d in _QUARTERS * 10:
        total = x[a] + x[d] & _WORD
        x[b] ^= (total << 7 | total >> 25) & _WORD
        total = x[b] + x[a] & _WORD
        x[c] ^= (total << 9 | total >> 23) & _WORD
        total = x[c] + x[b] & _WORD
        x[d] ^= (total << 13 | total >> 19) & _WORD
        total = x[d] + x[c] & _WORD
        x[a] ^= (total << 18 | total >> 14) & _WORD
    return struct.pack("<8I", *(x[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))
