"""What lies in a drive at the version to which a change is applied, and whether the change can be made there.

A change is decided on the very version that it follows, and decided again when somebody else comes first: so of two who
make the same thing one is told that it exists, in whatever process they are. Nested drives are not entered: a change
belongs to one drive, and paths here are its own.
"""

from collections.abc import Sequence

from ddrive.drive.paths import DrivePath, parent
from ddrive.drive.stat import DIRECTORY_MODE, Stat, decode_stat, encode_stat
from ddrive.drive.walks import stat_or_none
from ddrive.drive.writer import new_stat
from ddrive.errors import AlreadyExists, CrossesMount, IsADirectory, NotADirectory, NotEmpty, NotFound
from ddrive.trie import Delete, Put, Trie, TrieNode

_HEADS_TRIED = 16  # newest blocks looked at for the times of a directory without entry; tags and mounts have none


def implicit_stat(trie: Trie) -> Stat:
    """Return the attributes of a directory of `trie` without entry, with the times of the newest held entry."""
    newest = trie.version - 1
    for seq in range(newest, max(0, newest - _HEADS_TRIED), -1):
        node = trie.nodes.peek(seq)
        stat = None if node is None or node.hidden else stat_or_none(node)
        if stat is not None:
            return Stat(DIRECTORY_MODE, mtime_ms=stat.mtime_ms, ctime_ms=stat.mtime_ms)
    return Stat(DIRECTORY_MODE)


class Present:
    """The entries of one drive at one version."""

    def __init__(self, trie: Trie, path: str = "", inner: str = "") -> None:
        """`path`: one path as it is seen from outside, which is `inner` here; messages name what they are about so."""
        self.trie = trie
        self._base = path.removesuffix(inner)

    async def entry(self, path: str) -> tuple[TrieNode | None, Stat | None]:
        """Return the entry at `path` and its attributes; without an entry those of a directory if it is one, or None.

        Raises: CorruptStorage when its author stored something else there.
        """
        if not path:
            return None, Stat(DIRECTORY_MODE)
        node = await self.trie.get("/" + path)
        if node is not None:
            return node, decode_stat(node.value)
        return None, None if await self.trie.newest("/" + path) is None else implicit_stat(self.trie)

    async def stat(self, path: str) -> Stat | None:
        """Return the attributes of what is at `path`, None when nothing is. Raises: as `entry`."""
        return (await self.entry(path))[1]

    async def existing(self, path: str) -> tuple[TrieNode | None, Stat]:
        """Return as `entry` what is at `path`. Raises: NotFound."""
        node, stat = await self.entry(path)
        if stat is None:
            raise NotFound(f"no such file or directory: {self._shown(path)}")
        return node, stat

    async def check_new(self, path: str) -> None:
        """Raise AlreadyExists when something is at `path`, NotADirectory when nothing can be."""
        if await self.stat(path) is not None:
            raise AlreadyExists(f"{self._shown(path)} exists already")
        await self._check_parent(path)

    async def replaceable(self, path: str) -> Stat | None:
        """Return the attributes of what a file stored at `path` replaces, None for nothing.

        Raises: IsADirectory, NotADirectory when no file can be there.
        """
        stat = await self.stat(path)
        if stat is None:
            await self._check_parent(path)
        elif stat.is_dir:
            raise IsADirectory(f"{self._shown(path)} is a directory")
        return stat

    async def check_move(self, old: str, new: str, *, merge: bool) -> None:
        """Raise when what is at `old` cannot take the place of what is at `new`; an empty directory if `merge` only.

        Raises: NotFound, NotADirectory, IsADirectory, AlreadyExists, NotEmpty, CrossesMount.
        """
        _, stat = await self.existing(old)
        await self._check_parent(new)
        there = await self.stat(new)
        if there is not None and there.is_dir:
            if not merge:
                raise AlreadyExists(f"{self._shown(new)} is a directory")
            if not stat.is_dir:
                raise IsADirectory(f"{self._shown(new)} is a directory")
            await self.empty_directory(new)
        elif there is not None and stat.is_dir:
            raise NotADirectory(f"{self._shown(new)} is not a directory")

    async def empty_directory(self, path: str) -> None:
        """Raise unless `path` is an empty directory: NotFound, NotADirectory, CrossesMount, NotEmpty."""
        _, stat = await self.existing(path)
        if not stat.is_dir:
            raise NotADirectory(f"{self._shown(path)} is not a directory")
        if stat.mount is not None:
            raise CrossesMount(f"{self._shown(path)} is a nested drive: unmount it")
        async for _ in self.trie.iterate("/" + path, recursive=False, gt=True):
            raise NotEmpty(f"the directory {self._shown(path)} is not empty")

    async def kept_directory(self, path: str) -> Sequence[Put | Delete]:
        """Return what keeps the directory of `path` when that entry goes: an entry, if it would vanish without."""
        directory, _, name = path.rpartition("/")
        if not directory or await self.trie.get("/" + directory) is not None:
            return ()
        level = directory.count("/") + 1
        async for node in self.trie.iterate("/" + directory, recursive=False, gt=True):
            if len(node.parts) > level and node.parts[level] != name:
                return ()
        return (Put("/" + directory, encode_stat(new_stat(DIRECTORY_MODE))),)

    async def _check_parent(self, path: str) -> None:
        """Raise NotADirectory when the nearest existing part of the way to `path` is no directory."""
        while path:
            path = parent(path)
            stat = await self.stat(path)
            if stat is None:
                continue
            if not stat.is_dir:
                raise NotADirectory(f"{self._shown(path)} is not a directory")
            return

    def _shown(self, path: str) -> str:
        return repr("/" + DrivePath(self._base + path))
