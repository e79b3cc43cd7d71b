"""What a mount remembers of a directory that was listed."""

from collections.abc import Iterable

from ddrive.drive.stat import Stat
from mountd.face import EntryFace


class Listing:
    """What a directory holds, by name."""

    __slots__ = ("by_name",)

    def __init__(self, entries: Iterable[EntryFace]) -> None:
        self.by_name = {entry.name: entry.stat for entry in entries}

    def __len__(self) -> int:
        return len(self.by_name)

    @property
    def entries(self) -> list[tuple[str, Stat]]:
        """All names and what is there, by name; made anew each time, as few need it again and it takes much memory."""
        return sorted(self.by_name.items())

    def put(self, name: str, stat: Stat) -> None:
        """Let `stat` be at a name."""
        self.by_name[name] = stat

    def remove(self, name: str) -> None:
        """Let nothing be at a name."""
        self.by_name.pop(name, None)
