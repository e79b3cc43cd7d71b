"""Asynchronous iterators over a drive. Each can be dropped before its end without any clean-up."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, Self

from ddrive.drive.lifetime import Lifetime
from ddrive.drive.paths import DrivePath, is_hostile, join
from ddrive.drive.stat import Stat, decode_stat
from ddrive.errors import CorruptStorage, NotFound
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from ddrive.trie import MountTrie, TrieNode
from ddrive.trie.iterate import Walk as TrieWalk
from ddrive.trie.mountwalk import MountDiff

ENTRIES_AT_ONCE = 256  # of a directory that is given out piece by piece


class DirEntry(NamedTuple):
    """A name in a directory and its attributes."""

    name: str
    stat: Stat


class Inside(NamedTuple):
    """The nested drive that a walk is inside of: where it is, seen from outside, which one, and which version of it."""

    path: DrivePath
    key: PublicKey
    version: int | None = None  # None: the newest


Found = Awaitable[Sequence[DirEntry]]


class Change(NamedTuple):
    """A difference between two versions; `stat` is what is there now, `previous` what was there."""

    kind: Literal["put", "del", "mount", "unmount"]
    path: DrivePath
    stat: Stat | None
    previous: Stat | None
    seq: int | None = None  # block of the metadata feed that holds the entry now
    previous_seq: int | None = None


class Walk:
    """Everything below a directory: each directory before what is in it, names in order.

    Nested drives are entered when `mounts` says so, but not one that the walk is inside of already.
    """

    def __init__(
        self,
        listing: Callable[[DrivePath, Inside | None, bool], Awaitable[Sequence[DirEntry] | None]],
        start: DrivePath,
        key: PublicKey,
        *,
        mounts: bool = True,
    ) -> None:
        """`listing` lists a directory, given what it is inside of and whether it is the first one of a drive.

        None instead of a list leaves the directory out.
        """
        self.inside: Inside | None = None  # where what was given last lies
        self._list = listing
        self._mounts = mounts
        self._drives: frozenset[PublicKey] = frozenset()  # the walk is inside of these
        self._pending: list[_Pending] = [_Pending(start, frozenset([key]), None)]  # still to come, in reverse
        self._ready: list[tuple[DrivePath, Stat]] = []  # in reverse

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[DrivePath, Stat]:
        while not self._ready:
            if not self._pending:
                raise StopAsyncIteration
            await self._next_directory()
        return self._ready.pop()

    async def _next_directory(self) -> None:
        directory, drives, inside = self._pending.pop()
        is_first = len(drives) > len(self._drives)
        self._drives, self.inside = drives, inside
        below = []
        for name, stat in await self._listed(directory, inside, is_first):
            path = join(directory, name)
            self._ready.append((path, stat))
            if stat.is_dir and stat.mount is None:
                below.append(_Pending(path, drives, inside))
            elif self._mounts and stat.is_dir and stat.mount is not None and stat.mount.key not in drives:
                nested = Inside(path, stat.mount.key, stat.mount.version)
                below.append(_Pending(path, drives | {stat.mount.key}, nested))
        self._ready.reverse()
        self._pending += reversed(below)

    async def _listed(self, directory: DrivePath, inside: Inside | None, is_first: bool) -> Sequence[DirEntry]:
        """Return what is in a directory; nothing when one that was listed before is not there.

        It was removed meanwhile, or it was only told of by an entry whose own name nobody can look up.
        """
        try:
            return await self._list(directory, inside, is_first) or ()
        except NotFound:
            if is_first:
                raise
            return ()


class _Pending(NamedTuple):
    """A directory that a walk has still to look into, inside of `drives`."""

    path: DrivePath
    drives: frozenset[PublicKey]
    inside: Inside | None


class Entries:
    """What is in one directory, in the order of the trie: a few at a time, so that a huge one takes little memory."""

    def __init__(self, opened: Callable[[], Awaitable[tuple[TrieWalk, Callable[[Sequence[TrieNode]], Found]]]]) -> None:
        """`opened` gives the walk over the directory, and what makes entries of its nodes."""
        self._open = opened
        self._opened: tuple[TrieWalk, Callable[[Sequence[TrieNode]], Found]] | None = None
        self._ready: list[DirEntry] = []  # in reverse

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DirEntry:
        if self._opened is None:
            self._opened = await self._open()
        walk, shown = self._opened
        while not self._ready:
            nodes: list[TrieNode] = []
            async for node in walk:
                nodes.append(node)
                if len(nodes) == ENTRIES_AT_ONCE:
                    break
            if not nodes:
                raise StopAsyncIteration
            self._ready = list(reversed(await shown(nodes)))
        return self._ready.pop()


class Changes:
    """What differs between two versions; entries that were stored again as they were are left out.

    So are those that no directory shows for their names.
    """

    def __init__(self, trie: Callable[[], Awaitable[MountTrie]], old: int, path: DrivePath) -> None:
        self._trie = trie
        self._old = old
        self._path = path
        self._diff: MountDiff[MountTrie] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        if self._diff is None:
            self._diff = (await self._trie()).diff(self._old, self._path)
        while True:
            kind, key, now, then, _ = await anext(self._diff)
            if any(is_hostile(part) for part in key.split("/")):
                continue
            if now is None or then is None or (now.value, now.flags) != (then.value, then.flags):
                seq, previous_seq = (None if node is None else node.seq for node in (now, then))
                return Change(kind, DrivePath(key), stat_or_none(now), stat_or_none(then), seq, previous_seq)


class Versions:
    """Each version of a feed that becomes known after the present one; those in between may be left out."""

    def __init__(self, feed: Feed, lifetime: Lifetime, *, ended: bool) -> None:
        self._feed = feed
        self._lifetime = lifetime
        self._version = feed.length
        self._ended = ended

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        if self._ended:
            raise StopAsyncIteration
        self._version = await self._lifetime.wait(partial(self._feed.wait_length, self._version + 1))
        return self._version


def stat_or_none(node: TrieNode | None) -> Stat | None:
    """Return the attributes that `node` holds, None when there is no node or it holds none."""
    if node is None:
        return None
    try:
        return decode_stat(node.value)
    except CorruptStorage:
        return None
