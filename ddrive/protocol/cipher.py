"""The XSalsa20 byte stream that hides one direction of a connection.

No authentication: a flipped bit shows up as a broken frame or a failed proof. HSalsa20, which turns the 24-byte nonce
into a key for Salsa20, runs once per direction. Source: `xsalsa20` on npm.

This is the one module that names the provider of the cipher. libsodium's Salsa20 is in PyNaCl's library, but not in
its interface, so it is called through ctypes: 1.1 us for a small message, 26 us for 64 KiB. Where the symbol is not
exported, pycryptodome does the same in 1.7 and 51 us (220 us after OpenSSL has left the vector registers of the
thread in a state that slows down its kind of code).
"""

import ctypes
import struct
from collections.abc import Callable

import nacl._sodium  # type: ignore[import-not-found]  # an extension module without stubs
from Crypto.Cipher import Salsa20

NONCE_BYTES = 24

_BLOCK_BYTES = 64  # of keystream
_BUFFER_BYTES = 4096  # per direction; longer input goes from its place to that of the result at once
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


def _salsa20_of_libsodium() -> Callable[..., int] | None:
    """Return `crypto_stream_salsa20_xor_ic` of the libsodium that PyNaCl has loaded; None when it is not exported."""
    try:
        function = ctypes.CDLL(nacl._sodium.__file__).crypto_stream_salsa20_xor_ic
    except (OSError, AttributeError):
        return None
    function.argtypes = [
        ctypes.c_void_p,  # result
        ctypes.c_void_p,  # input, may be the same
        ctypes.c_ulonglong,  # size of both
        ctypes.c_char_p,  # nonce, 8 bytes
        ctypes.c_uint64,  # number of the first block of keystream
        ctypes.c_char_p,  # key
    ]
    function.restype = ctypes.c_int
    return function


_salsa20 = _salsa20_of_libsodium()


class SodiumStream:
    """One direction's keystream by libsodium, which starts each call at a block boundary."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        if _salsa20 is None:
            raise RuntimeError("libsodium does not export Salsa20")
        self._salsa20 = _salsa20
        self._key = hsalsa20(key, nonce[:16])
        self._nonce = nonce[16:NONCE_BYTES]
        self._buffer = bytearray(_BUFFER_BYTES + _BLOCK_BYTES)
        self._view = memoryview(self._buffer)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._block = 0  # of keystream, where the next byte lies
        self._offset = 0  # within it

    def apply(self, data: bytes) -> bytes | bytearray:
        """Return `data` encrypted, or decrypted, with the next `len(data)` bytes of the keystream."""
        return self._apply(data) if len(data) <= _BUFFER_BYTES else self._apply_directly(data)

    def _apply_directly(self, data: bytes) -> bytearray:
        """Return a long input encrypted, without the two copies through the buffer."""
        data = bytes(data)  # which is no copy of bytes, but makes them of what has no fixed place
        size, first = len(data), -self._offset % _BLOCK_BYTES
        result = bytearray(size)
        result[:first] = self._apply(data[:first])
        target = ctypes.addressof(ctypes.c_char.from_buffer(result)) + first
        source = (ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0) + first
        self._salsa20(target, source, size - first, self._nonce, self._block, self._key)
        self._block += (size - first) // _BLOCK_BYTES
        self._offset = (size - first) % _BLOCK_BYTES
        return result

    def _apply(self, data: bytes) -> bytes:
        start = self._offset
        stop = start + len(data)
        self._view[start:stop] = data
        self._salsa20(self._address, self._address, stop, self._nonce, self._block, self._key)
        self._block += stop // _BLOCK_BYTES
        self._offset = stop % _BLOCK_BYTES
        return bytes(self._view[start:stop])


class PycryptodomeStream:
    """One direction's keystream by pycryptodome, which keeps its position itself."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._stream = Salsa20.new(key=hsalsa20(key, nonce[:16]), nonce=nonce[16:NONCE_BYTES])

    def apply(self, data: bytes) -> bytes:
        """Return `data` encrypted, or decrypted, with the next `len(data)` bytes of the keystream."""
        result: bytes = self._stream.encrypt(data)
        return result


StreamCipher = PycryptodomeStream if _salsa20 is None else SodiumStream
