"""How many blocks of our own feeds were signed once, where the feed itself may not show it any more.

A feed that was forgotten, or restored from a backup, is shorter here than what others may hold of it. Two signed blocks
for one index would fork it for ever, so nothing is appended below the length that is written down here.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from ddrive.errors import StorageError
from ddrive.ids import PublicKey
from ddrive.store.files import write_durably

SIGNED = "signed.json"


class SignedLengths:
    """The table of one store: feed key to number of blocks, in the file `signed.json`."""

    def __init__(self, root: Path) -> None:
        self._path = root / SIGNED
        self._lengths: dict[PublicKey, int] = {}
        self._is_saved = True
        try:
            for key, length in json.loads(self._path.read_bytes()).items():
                self._lengths[PublicKey(bytes.fromhex(key))] = int(length)
        except FileNotFoundError:
            return
        except (AttributeError, TypeError, ValueError) as error:
            raise StorageError(f"{self._path} is damaged ({error!r}): restore it from a backup") from error

    def of(self, key: PublicKey) -> int:
        """Return how many blocks of a feed of ours were signed for sure."""
        return self._lengths.get(key, 0)

    def note(self, lengths: Mapping[PublicKey, int]) -> None:
        """Take note that so many blocks were signed; never lowered. Durable on return, else it raises OSError."""
        grown = {key: length for key, length in lengths.items() if length > self.of(key)}
        if grown or not self._is_saved:
            self._lengths |= grown
            self._save()

    def forget(self, key: PublicKey) -> None:
        """Take note that all of that is here again."""
        if self._lengths.pop(key, None) is not None:
            self._save()

    def _save(self) -> None:
        self._is_saved = False
        table = {key.hex(): length for key, length in self._lengths.items()}
        write_durably(self._path, json.dumps(table, indent=1).encode() + b"\n")
        self._is_saved = True
