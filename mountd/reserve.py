"""Some bytes of the disk that are kept for removing: on a full disk even that has to write down first what it removes.

Of a drive of our own the number of signed blocks has to be on the disk before its feeds go, of a database that it is
not known any more.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RESERVE_BYTES = 256 * 1024  # the tables of some 500 drives, each of which is written anew as a whole
PLENTY_BYTES = 4 * RESERVE_BYTES  # free: then an engine takes so much of it

log = logging.getLogger(__name__)


class Reserve:
    """A file that is there for its place on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, *, spare_bytes: int = PLENTY_BYTES) -> None:
        """Make it, if it is missing and so much room is there. Waits for the disk."""
        try:
            if self._path.exists() and self._path.stat().st_size == RESERVE_BYTES:
                return
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < spare_bytes:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("nothing reserved: path=%s why=%s", self._path, error.strerror)
            self._give()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the block use the room; afterwards it is reserved again."""
        self._give()
        try:
            yield
        finally:
            self.keep(spare_bytes=RESERVE_BYTES)

    def _give(self) -> None:
        with suppress(OSError):
            self._path.unlink()
