"""The stream of `cipher` by pycryptodome, for a libsodium that does not export Salsa20.

A module of its own, because importing pycryptodome takes a tenth of a second, which every start would pay.
"""

from Crypto.Cipher import Salsa20

from ddrive.protocol.hsalsa20 import NONCE_BYTES, hsalsa20


class PycryptodomeStream:
    """One direction's keystream by pycryptodome, which keeps its position itself."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._stream = Salsa20.new(key=hsalsa20(key, nonce[:16]), nonce=nonce[16:NONCE_BYTES])

    def apply(self, data: bytes) -> bytes:
        """Return `data` encrypted, or decrypted, with the next `len(data)` bytes of the keystream."""
        result: bytes = self._stream.encrypt(data)
        return result

    def apply_in_place(self, data: bytearray) -> None:
        """Encrypt or decrypt `data` likewise, where it is."""
        self._stream.encrypt(data, output=data)
