"""The XSalsa20 byte stream that hides one direction of a connection.

No authentication: a flipped bit shows up as a broken frame or a failed proof. Source: `xsalsa20` on npm.

This module and `fallback` alone name the providers of the cipher. libsodium's Salsa20 is in PyNaCl's library, but not
in its interface, so it is called through ctypes: 1.1 us for a small message, 26 us for 64 KiB. Where the symbol is not
exported, pycryptodome does the same in 1.7 and 51 us (220 us after OpenSSL has left the vector registers of the thread
in a state that slows down its kind of code).
"""

import ctypes
from collections.abc import Callable
from typing import Protocol

import nacl._sodium  # type: ignore[import-not-found]  # an extension module without stubs

from ddrive.protocol.hsalsa20 import NONCE_BYTES, hsalsa20

_BLOCK_BYTES = 64  # of keystream
_BUFFER_BYTES = 4096  # per direction; longer input is treated where the result is to be


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
        if len(data) <= _BUFFER_BYTES:
            return self._apply(data)
        result = bytearray(data)
        self.apply_in_place(result)
        return result

    def apply_in_place(self, data: bytearray) -> None:
        """Encrypt or decrypt `data` likewise, where it is: no second copy of what is sent passes through the cache."""
        size, first = len(data), -self._offset % _BLOCK_BYTES
        data[:first] = self._apply(data[:first])
        if size <= first:
            return
        address = ctypes.addressof(ctypes.c_char.from_buffer(data)) + first
        self._salsa20(address, address, size - first, self._nonce, self._block, self._key)
        self._block += (size - first) // _BLOCK_BYTES
        self._offset = (size - first) % _BLOCK_BYTES

    def _apply(self, data: bytes | bytearray) -> bytes:
        start = self._offset
        stop = start + len(data)
        self._view[start:stop] = data
        self._salsa20(self._address, self._address, stop, self._nonce, self._block, self._key)
        self._block += stop // _BLOCK_BYTES
        self._offset = stop % _BLOCK_BYTES
        return bytes(self._view[start:stop])


class KeyStream(Protocol):
    """One direction's keystream."""

    def apply(self, data: bytes) -> bytes | bytearray:
        """Return `data` encrypted, or decrypted, with the next `len(data)` bytes of the keystream."""

    def apply_in_place(self, data: bytearray) -> None:
        """Encrypt or decrypt `data` likewise, where it is."""


if _salsa20 is not None:
    StreamCipher: Callable[[bytes, bytes], KeyStream] = SodiumStream
else:
    from ddrive.protocol.fallback import PycryptodomeStream

    StreamCipher = PycryptodomeStream
