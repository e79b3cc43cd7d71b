"""Which mounted tries were passed through on the way to some path, so that somebody can follow them.

Only those are kept that show their newest version: others cannot change.
"""

from typing import Final, Generic, Protocol, TypeVar

import trio

MAX_VISITED: Final = 64  # followed at once; each costs a wish at its feed


class Versioned(Protocol):
    """`MountTrie`."""

    @property
    def version(self) -> int: ...


T = TypeVar("T", bound=Versioned)


class Visited(Generic[T]):
    """The tries by the path of their root, and the version each had when it was first passed through."""

    def __init__(self) -> None:
        self.tries: dict[str, tuple[T, int]] = {}
        self.complete = True  # False: there were more than `MAX_VISITED`, and those after them are not here
        self._more = trio.Event()

    def note(self, path: str, trie: T) -> None:
        """Remember that `trie` is at `path`."""
        known = self.tries.get(path)
        if known is not None and known[0] is trie:
            return
        if known is None and len(self.tries) >= MAX_VISITED:
            if not self.complete:
                return
            self.complete = False
        else:
            self.tries[path] = trie, trie.version
        self._more.set()
        self._more = trio.Event()

    async def more(self) -> None:
        """Return when anything new was noted."""
        await self._more.wait()
