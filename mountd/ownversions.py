"""Which versions of a drive, and what in it, came from this mount itself: nothing of that is news to its kernel."""

from ddrive.drive.stat import Stat

FINALS_MAX = 50_000  # entries remembered until they are looked at; of more, some may be taken for another's


class OwnVersions:
    """What was committed here and not yet looked at by whoever follows the drive."""

    def __init__(self) -> None:
        self._ranges: dict[int, int] = {}  # version before → version after
        self._finals: dict[str, Stat | None] = {}

    def add(self, start: int, end: int) -> None:
        """Note that the versions after `start` up to `end` are ours; none are when nothing had to be stored."""
        if end > start:
            self._ranges[start] = end

    def note(self, path: str, final: Stat | None) -> None:
        """Note what we have put at a path."""
        if len(self._finals) >= FINALS_MAX:
            self._finals.clear()
        self._finals[path] = final

    def covers(self, old: int, new: int) -> bool:
        """Tell whether all that came after version `old` up to `new` is ours."""
        while old < new and old in self._ranges:
            old = self._ranges[old]
        return old >= new

    def knows(self, path: str) -> bool:
        """Tell whether `final` says something about a path."""
        return path in self._finals

    def final(self, path: str) -> Stat | None:
        """Return what we have put at a path, None for nothing."""
        return self._finals.get(path)

    def forget(self, version: int) -> None:
        """Forget what was ours up to `version`."""
        self._ranges = {start: end for start, end in self._ranges.items() if end > version}
        if not self._ranges:
            self._finals.clear()
