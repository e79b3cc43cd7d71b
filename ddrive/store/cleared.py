"""How often blocks were cleared from a feed, told by the owner of its files to whoever reads them beside it.

A reader that has checked a block need not check it again as long as nothing was cleared. A message would tell it too
late, so the count lies in a file: odd while something is being cleared, even when that is done. It is kept when the
owner ends, however that ends, and read with a call of half a microsecond.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

from ddrive.ids import PublicKey

NAME = "cleared"  # in the directory of a store; npm stores ignore it
_SLOTS = 1024  # which feeds share, by their keys: then a block is checked once too often
_COUNT = Struct("<Q")

_log = logging.getLogger(__name__)


class ClearedCount:
    """The count of one feed, for a reader."""

    def __init__(self, path: Path, key: PublicKey) -> None:
        """Raises: OSError when the owner has not made the file `path`."""
        self._place = _place(key)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def now(self) -> int:
        """Return how often blocks of the feed began or ended to be cleared."""
        content = os.pread(self._descriptor, _COUNT.size, self._place)
        return int.from_bytes(content, "little") if len(content) == _COUNT.size else 1

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)


class Cleared:
    """The counts of all feeds of a store, in the process that owns it."""

    def __init__(self, path: Path) -> None:
        """Open the file `path`, or make it. What the owner before us has begun will not go on: it counts as done."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        content = os.pread(self._descriptor, _SLOTS * _COUNT.size, 0).ljust(_SLOTS * _COUNT.size, b"\0")
        self._counts: list[int] = [count + (count & 1) for (count,) in _COUNT.iter_unpack(content)]
        self._write(0, b"".join(map(_COUNT.pack, self._counts)))

    @contextmanager
    def clearing(self, key: PublicKey) -> Iterator[None]:
        """Say that blocks of a feed are being cleared, until the context ends. Not to be nested."""
        self._raise(key)
        try:
            yield
        finally:
            self._raise(key)

    def count(self, key: PublicKey) -> int:
        """Return the count of a feed."""
        return self._counts[_place(key) // _COUNT.size]

    def close(self) -> None:
        """Give the file back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _raise(self, key: PublicKey) -> None:
        place = _place(key)
        self._counts[place // _COUNT.size] += 1
        self._write(place, _COUNT.pack(self._counts[place // _COUNT.size]))

    def _write(self, place: int, content: bytes) -> None:
        """Write counts. Where that fails the file is emptied, which readers take as an odd count: room must be made."""
        try:
            if self._descriptor >= 0:
                os.pwrite(self._descriptor, content, place)
        except OSError as error:
            _log.warning("readers of held blocks check them at each read, as counts cannot be written error=%s", error)
            os.ftruncate(self._descriptor, 0)
            self.close()


def _place(key: PublicKey) -> int:
    return int.from_bytes(key[:8], "little") % _SLOTS * _COUNT.size
