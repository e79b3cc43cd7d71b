"""What an import or export tells while it runs and at its end."""

from collections.abc import Callable
from typing import Literal, NamedTuple

Progress = Callable[[int, int, int, int], None]  # files done, bytes done, files in all, bytes in all

Notice = Callable[[Literal["put", "del"], str], None]  # something is stored or removed, or would be; its path


class Refused(NamedTuple):
    """A path that could not be taken over, and why."""

    path: str
    why: str


class Tally:
    """Counts what is done and reports it."""

    def __init__(self, progress: Progress | None = None, total_files: int = 0, total_bytes: int = 0) -> None:
        self._progress = progress
        self._totals = total_files, total_bytes
        self._files = 0
        self._bytes = 0

    def add_bytes(self, count: int) -> None:
        """Count bytes of a file that is not finished."""
        self._bytes += count
        self._report()

    def add_file(self, count: int) -> None:
        """Count a file, with `count` bytes that were not counted before."""
        self._files += 1
        self._bytes += count
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._files, self._bytes, *self._totals)
