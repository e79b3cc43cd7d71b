"""The nested drives that were looked into so far, for whoever follows them together with the outer one."""

from collections.abc import Sequence
from typing import NamedTuple

from ddrive.drive.paths import DrivePath, join
from ddrive.drive.walks import Changes
from ddrive.trie import MountTrie
from ddrive.trie.visited import Visited


class NestedDrive(NamedTuple):
    """A nested drive that shows its newest version: at `path`, looked into first when it had version `seen`."""

    path: DrivePath
    trie: MountTrie
    seen: int

    @property
    def version(self) -> int:
        """The newest known version of the nested drive itself."""
        return self.trie.version

    async def wait_version(self, version: int) -> int:
        """Return the version as soon as it is known to be at least `version`."""
        return await self.trie.feed.wait_length(version)

    async def changed(self, old: int) -> Sequence[DrivePath]:
        """Return the paths, seen from the outer drive, whose entries are not what they were at version `old`."""

        async def live() -> MountTrie:
            return self.trie

        return [join(self.path, change.path) async for change in Changes(live, old, DrivePath(""))]


class NestedDrives:
    """All of them, as far as they can be followed."""

    def __init__(self, visited: Visited[MountTrie]) -> None:
        self._visited = visited

    @property
    def complete(self) -> bool:
        """Whether none was left out because there are too many."""
        return self._visited.complete

    def drives(self) -> list[NestedDrive]:
        """Return those known now."""
        return [NestedDrive(DrivePath(path), trie, seen) for path, (trie, seen) in self._visited.tries.items()]

    async def more(self) -> None:
        """Return when another one was looked into."""
        await self._visited.more()
