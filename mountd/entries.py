"""The table of the paths that a mount has changed."""

from collections.abc import Iterator

from mountd.nodes import Entry, Node

Entries = list[Entry]


class EntryTable:
    """The entries of one mount. Base of `pending.Pending`."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}  # directory → name → entry
        self._retired = 0  # grows when entries go: what the drive was asked before may lack them

    def _all(self) -> Entries:
        return [entry for here in self._entries.values() for entry in here.values()]

    def _drop(self, entry: Entry) -> None:
        """Forget an entry. Who has its node open still gets a new entry for it by `pin`, if it has its name then."""
        directory, name = split(entry.path)
        if entry.node is not None and entry.node.path == entry.path:
            entry.node.path = None
        here = self._entries[directory]
        if here.pop(name, None) is not None and not here:
            del self._entries[directory]
        self._retired += 1

    def _entry(self, path: str) -> Entry | None:
        directory, name = split(path)
        here = self._entries.get(directory)
        return None if here is None else here.get(name)

    def _entry_at(self, path: str) -> Entry:
        """Return the entry of a path, a new one when there is none."""
        directory, name = split(path)
        here = self._entries.setdefault(directory, {})
        entry = here.get(name)
        if entry is None:
            entry = here[name] = Entry(path)
        return entry

    def _put(self, path: str, node: Node) -> Node:
        """Let `node` be at `path`; what was there is nowhere."""
        entry = self._entry_at(path)
        if entry.node is not None and entry.node is not node and entry.node.path == path:
            entry.node.path = None
        entry.node = node
        node.path = path
        return node

    def _vacate(self, path: str) -> None:
        entry = self._entry(path)
        if entry is not None and entry.node is not None:
            if entry.node.path == path:
                entry.node.path = None
            entry.node = None


def split(path: str) -> tuple[str, str]:
    """Return the directory of a path and its name there."""
    directory, _, name = path.rpartition("/")
    return directory or "/", name


def above(path: str) -> Iterator[str]:
    """Yield the directories that a path is in, but for the root."""
    while (path := split(path)[0]) != "/":
        yield path
