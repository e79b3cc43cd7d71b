"""When something was changed through a mount: at which version of its drive, and by the clock."""

import time
from dataclasses import dataclass
from typing import Any

CLOCK_REALTIME_COARSE = 5  # of Linux; Python has no name for it
LATE_MS = 5000  # what a dead worker left so long ago came before all that others have stored since


@dataclass(slots=True, eq=False)
class Moment:
    """When a state of `path` was made here, which for a content is when it was closed.

    `base` is where the drive is to which the path belongs ("": the mounted one), `version` the one that it had.
    """

    path: str
    base: str
    version: int
    at_ms: int
    late_from: int | None = None  # all that came with this version or after it came later, whatever its times say

    def follows(self, version: int) -> None:
        """Take note that it comes after all that the drive has at its path up to `version`, as we have stored that."""
        self.version = max(self.version, version)
        if self.late_from is not None:
            self.late_from = max(self.late_from, version)

    def record(self) -> list[Any]:
        """Return the form in which it is kept in the journal."""
        return [self.path, self.base, self.version, self.at_ms]

    @classmethod
    def restored(cls, record: list[Any]) -> "Moment":
        """Return what a dead worker has recorded."""
        made = cls(*record)
        if now_ms() - made.at_ms > LATE_MS:
            made.late_from = made.version
        return made


def now_ms() -> int:
    """Return the time by the clock that the kernel takes for its own stamps: it never runs ahead of those."""
    return time.clock_gettime_ns(CLOCK_REALTIME_COARSE) // 1_000_000
