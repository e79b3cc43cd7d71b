"""How a feed's signatures are made and checked: Ed25519 unless a program brings its own way.

Own functions serve keys that never enter this process, or keys held by several people. What they sign is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ddrive import crypto
from ddrive.errors import InvalidProof, WrongKey
from ddrive.ids import PublicKey, short

Sign = Callable[[bytes], bytes]  # message -> signature of 64 bytes; the same for the same message; may run in a thread
Verify = Callable[[bytes, bytes, PublicKey], bool]  # message, signature, key of the feed


@dataclass(frozen=True, slots=True)
class Signing:
    """What signs and checks; `sign` is None where the feed's secret key does."""

    sign: Sign | None = None
    verify: Verify = crypto.verify

    def check(self, key: PublicKey, secret_key: bytes | None) -> None:
        """Raise WrongKey when `secret_key`, if it is what signs, belongs to another feed than `key`."""
        if secret_key is None or self.sign is not None:
            return
        if crypto.KeyPair.from_secret_key(secret_key).public_key != key:
            raise WrongKey(f"the secret key is not the one of feed {short(key)}")

    def signer(self, key: PublicKey, secret_key: bytes | None) -> Sign | None:
        """Return what signs for the feed `key`, None when it cannot be appended to."""
        if self.sign is not None:
            return partial(self._sign_checked, self.sign, key)
        if secret_key is None:
            return None
        return lambda message: crypto.sign(message, secret_key)

    def _sign_checked(self, sign: Sign, key: PublicKey, message: bytes) -> bytes:
        """Return what a program's own `sign` gives: once stored, a wrong signature would cost the blocks it is for.

        Raises: InvalidProof.
        """
        signature = sign(message)
        if len(signature) != crypto.SIGNATURE_BYTES or not self.verify(message, signature, key):
            raise InvalidProof(f"what `sign` gave for feed {short(key)} is no signature that `verify` takes")
        return signature


ED25519 = Signing()
