"""How a feed's signatures are made and checked: Ed25519 unless a program brings its own way.

Own functions serve keys that never enter this process, or keys held by several people. What they sign is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ddrive import crypto
from ddrive.ids import PublicKey

Sign = Callable[[bytes], bytes]  # message -> signature of 64 bytes; the same for the same message; may run in a thread
Verify = Callable[[bytes, bytes, PublicKey], bool]  # message, signature, key of the feed


@dataclass(frozen=True, slots=True)
class Signing:
    """What signs and checks; `sign` is None where the feed's secret key does."""

    sign: Sign | None = None
    verify: Verify = crypto.verify

    def signer(self, secret_key: bytes | None) -> Sign | None:
        """Return what signs for a feed, None when it cannot be appended to."""
        if self.sign is not None:
            return self.sign
        if secret_key is None:
            return None
        return lambda message: crypto.sign(message, secret_key)


ED25519 = Signing()
