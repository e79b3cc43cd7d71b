"""Names for versions of a drive, kept in the drive itself as hidden keys. Source: drive.md section 7."""

from contextlib import suppress

from ddrive.drive.paths import check_name
from ddrive.drive.view import DriveView
from ddrive.errors import AlreadyExists, ImpossibleEntry, NotFound
from ddrive.trie import TrieNode
from ddrive.trie.node import encode_varints


class Tags:
    """The tags of one drive; nested drives have their own."""

    def __init__(self, drive: DriveView, prefix: str) -> None:
        self._drive = drive
        self._prefix = prefix

    async def get(self, name: str) -> int:
        """Return the version called `name`. Raises: NotFound."""
        trie = (await self._drive.trie()).trie
        node = await trie.get(self._prefix + name, hidden=True)
        if node is None:
            raise NotFound(f"the drive has no tag {name!r}")
        return _version_in(node)

    async def all(self) -> dict[str, int]:
        """Return all names and their versions, by name. Those that hold no version are left out."""
        trie = (await self._drive.trie()).trie
        found: dict[str, int] = {}
        for node in await trie.list(self._prefix.rstrip("/"), hidden=True):
            with suppress(ImpossibleEntry):
                if node.flags == 0:
                    found[node.key.removeprefix(self._prefix)] = _version_in(node)
        return dict(sorted(found.items()))

    async def add(self, name: str, version: int | None = None) -> int:
        """Call a version, by default the present one, `name`; return that version.

        A tag is an entry of the drive too: it makes a new version. Raises: AlreadyExists, NotFound when there is no
        such version yet, NotWritable, InvalidName.
        """
        check_name(name)
        trie = (await self._drive.trie()).trie
        chosen = trie.version if version is None else version
        if not 0 < chosen <= trie.version:
            raise NotFound(f"the drive has no version {chosen}, the newest is {trie.version}")

        def is_new(old: TrieNode | None, _: TrieNode | None) -> bool:
            if old is not None:
                raise AlreadyExists(f"the tag {name!r} exists already")
            return True

        await trie.put(self._prefix + name, encode_varints([chosen]), hidden=True, condition=is_new)
        return chosen

    async def remove(self, name: str) -> None:
        """Forget a name. Raises: NotFound, NotWritable."""
        trie = (await self._drive.trie()).trie
        if await trie.delete(self._prefix + name, hidden=True) is None:
            raise NotFound(f"the drive has no tag {name!r}")


def _version_in(node: TrieNode) -> int:
    """Return the varint stored in a tag; 0 is the empty drive, as for the npm peers, who check out version 1 then.

    Raises: ImpossibleEntry.
    """
    version = shift = 0
    for byte in (node.value or b"")[:9]:
        version |= (byte & 0x7F) << shift
        if byte < 0x80:
            return max(1, version)
        shift += 7
    raise ImpossibleEntry(f"the tag {node.key!r} holds no version")
