"""The key pair by which a peer is known on a connection. It has nothing to do with the keys of feeds."""

from dataclasses import dataclass, field

from nacl import bindings

SEED_BYTES = 32
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class NoiseKeyPair:
    """An X25519 pair, 32 bytes each."""

    public_key: bytes
    secret_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for key in (self.public_key, self.secret_key):
            if not isinstance(key, bytes) or len(key) != KEY_BYTES:
                raise ValueError(f"each key of a pair is {KEY_BYTES} bytes")

    @classmethod
    def generate(cls) -> "NoiseKeyPair":
        """Return a new random pair."""
        return cls(*bindings.crypto_kx_keypair())

    @classmethod
    def from_seed(cls, seed: bytes) -> "NoiseKeyPair":
        """Return the pair that 32 bytes of seed determine, the same as in the npm packages."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        return cls(*bindings.crypto_kx_seed_keypair(seed))
