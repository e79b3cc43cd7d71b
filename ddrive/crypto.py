"""Keys, signatures and the keyed hashes that more than one layer needs.

Nothing here does I/O; the only randomness is `KeyPair.generate`. Sources are named at each function; all values are
checked against `crypto.json` of the test vectors.
"""

import os
from dataclasses import dataclass, field
from hashlib import blake2b

from nacl import bindings
from nacl.exceptions import BadSignatureError
from siphash24 import siphash24

from ddrive.errors import InvalidKey
from ddrive.ids import DiscoveryKey, PublicKey

KEY_BYTES = 32
SECRET_KEY_BYTES = 64
SIGNATURE_BYTES = 64
HASH_BYTES = 32

_SIPHASH_KEY = bytes(16)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 pair in libsodium's form: `secret_key` is seed (32 bytes) followed by `public_key` (32 bytes)."""

    public_key: PublicKey
    secret_key: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> "KeyPair":
        """Return a new random pair."""
        return cls.from_seed(os.urandom(KEY_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> "KeyPair":
        """Return the pair that the 32-byte `seed` determines."""
        public, secret = bindings.crypto_sign_seed_keypair(seed)
        return cls(PublicKey(public), secret)

    @classmethod
    def from_secret_key(cls, secret_key: bytes) -> "KeyPair":
        """Return the pair whose 64-byte secret key is given.

        Raises: InvalidKey when the length is wrong or the halves do not belong together.
        """
        if len(secret_key) != SECRET_KEY_BYTES:
            raise InvalidKey(f"a secret key has {SECRET_KEY_BYTES} bytes, not {len(secret_key)}")
        pair = cls.from_seed(secret_key[:KEY_BYTES])
        if pair.secret_key != secret_key:
            raise InvalidKey("the two halves of the secret key do not belong together")
        return pair


def sign(message: bytes, secret_key: bytes) -> bytes:
    """Return the detached 64-byte Ed25519 signature of `message`."""
    return bytes(bindings.crypto_sign(message, secret_key)[:SIGNATURE_BYTES])


def verify(message: bytes, signature: bytes, public_key: PublicKey) -> bool:
    """Tell whether `signature` is the key holder's signature of `message`; wrong lengths are just False."""
    if len(signature) != SIGNATURE_BYTES or len(public_key) != KEY_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except (BadSignatureError, ValueError, RuntimeError):
        return False
    return True


def hash_of(data: bytes, *, key: bytes = b"") -> bytes:
    """Return the 32-byte BLAKE2b hash of `data`, keyed when `key` is given."""
    return blake2b(data, digest_size=HASH_BYTES, key=key).digest()


def siphash(data: bytes) -> bytes:
    """Return the 8-byte SipHash-2-4 of `data` under the all-zero key. Source: trie path hashes of `hypertrie@5`."""
    digest: bytes = siphash24(data, key=_SIPHASH_KEY).digest()
    return digest


def discovery_key(public_key: PublicKey, discovery_ns: bytes) -> DiscoveryKey:
    """Return the name under which a feed is looked for without giving its key away. Source: `hypercore-crypto`."""
    return DiscoveryKey(hash_of(discovery_ns, key=public_key))


def capability(public_key: PublicKey, capability_ns: bytes, *, tx_key: bytes, rx_key: bytes) -> bytes:
    """Return the 32-byte proof that the sender knows `public_key`, bound to this connection.

    `tx_key` and `rx_key` are the 32-byte transport keys of the *sender*; to compute what the peer has to send, swap
    them. Source: capability of `simple-hypercore-protocol`.
    """
    return hash_of(capability_ns + tx_key + public_key, key=rx_key)
