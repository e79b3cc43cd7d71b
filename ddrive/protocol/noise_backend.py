"""The primitives of our Noise handshake for `noiseprotocol`, by libsodium and hashlib.

The library brings a back end of its own, which loads all of OpenSSL once more for functions that we have: 6 MiB per
engine. What is here are the four names in `Noise_XX_25519_ChaChaPoly_BLAKE2b`, and nothing of the protocol itself.
Source: sections 4 and 12 of the Noise specification (revision 34).
"""

import hmac
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, Self

from nacl import bindings
from noise.backends.noise_backend import NoiseBackend
from noise.exceptions import NoiseValueError
from noise.functions.cipher import Cipher
from noise.functions.dh import DH
from noise.functions.hash import Hash
from noise.functions.keypair import KeyPair

_KEY_BYTES: Final = 32
_HASH_BYTES: Final = 64
_HASH_BLOCK_BYTES: Final = 128
_NONCE_START: Final = bytes(4)


class X25519KeyPair(KeyPair):  # type: ignore[misc]  # without stubs
    """A key pair whose `private` and `public` are their 32 bytes."""

    @classmethod
    def from_private_bytes(cls, private_bytes: bytes) -> Self:
        """Return the pair of a secret key. Raises: NoiseValueError for a wrong length."""
        public = bindings.crypto_scalarmult_base(_checked(private_bytes))
        return cls(private=private_bytes, public=public, public_bytes=public)

    @classmethod
    def from_public_bytes(cls, public_bytes: bytes) -> Self:
        """Return the public half alone. Raises: NoiseValueError for a wrong length."""
        return cls(public=_checked(public_bytes), public_bytes=public_bytes)


class X25519(DH):  # type: ignore[misc]  # without stubs
    """Diffie-Hellman of RFC 7748."""

    klass = X25519KeyPair
    dhlen = _KEY_BYTES

    def generate_keypair(self) -> X25519KeyPair:
        """Return a new random pair."""
        return X25519KeyPair.from_private_bytes(bindings.randombytes(_KEY_BYTES))

    def dh(self, private_key: bytes, public_key: bytes) -> bytes:
        """Return the shared secret. Raises: NoiseValueError when it would be zero, whoever holds the secret key."""
        try:
            return bytes(bindings.crypto_scalarmult(private_key, public_key))
        except RuntimeError as error:
            raise NoiseValueError("this public key has no usable product") from error


class ChaChaPoly(Cipher):  # type: ignore[misc]  # without stubs
    """ChaCha20-Poly1305 of RFC 8439; `CryptoError` of PyNaCl says that a message does not verify."""

    klass = bytes

    def encrypt(self, k: bytes, n: int, ad: bytes, plaintext: bytes) -> bytes:
        """Return `plaintext` encrypted, with its tag of 16 bytes."""
        return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(bytes(plaintext), ad, _nonce(n), k)

    def decrypt(self, k: bytes, n: int, ad: bytes, ciphertext: bytes) -> bytes:
        """Return the plain text. Raises: nacl.exceptions.CryptoError."""
        return bindings.crypto_aead_chacha20poly1305_ietf_decrypt(bytes(ciphertext), ad, _nonce(n), k)


class Blake2b(Hash):  # type: ignore[misc]  # without stubs
    """BLAKE2b with 64 bytes."""

    fn = blake2b
    hashlen = _HASH_BYTES
    blocklen = _HASH_BLOCK_BYTES

    def hash(self, data: bytes) -> bytes:
        """Return the hash of `data`."""
        return blake2b(data).digest()


class SodiumBackend(NoiseBackend):  # type: ignore[misc]  # without stubs
    """What `NoiseProtocol` looks the parts of a protocol's name up in."""

    def __init__(self) -> None:
        super().__init__()
        self.diffie_hellmans = {"25519": X25519}
        self.ciphers = {"ChaChaPoly": ChaChaPoly}
        self.hashes = {"BLAKE2b": Blake2b}
        self.keypairs = {"25519": X25519KeyPair}
        self.hmac = _hmac


def _hmac(key: bytes, data: bytes, algorithm: Callable[..., Any]) -> bytes:
    return hmac.new(key, data, algorithm).digest()


def _nonce(counter: int) -> bytes:
    return _NONCE_START + counter.to_bytes(8, "little")


def _checked(key: bytes) -> bytes:
    if len(key) != _KEY_BYTES:
        raise NoiseValueError(f"a key has {_KEY_BYTES} bytes, not {len(key)}")
    return key
