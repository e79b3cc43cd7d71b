"""Reading a drive: attributes, listings, files and links, across nested drives, at any version.

A directory needs no entry: anything below a path makes it one. Such a directory shows mode 0755, size 0 and the times
of the newest entry of its drive. A path may hold a file and have entries below it (no writer of ours does that): then
the file is what is shown, and the entries can still be listed. `NotFound` is only raised when the trie proves it.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import TypeVar

import trio

from ddrive.drive.listings import ListedAt
from ddrive.drive.mounts import DriveMount, DriveTree
from ddrive.drive.nested import NestedDrives
from ddrive.drive.paths import DrivePath, drive_path, is_hostile, link_target
from ddrive.drive.present import implicit_stat
from ddrive.drive.reaching import Reach
from ddrive.drive.reader import Extent, FileReader, extent_of
from ddrive.drive.stat import DIRECTORY_MODE, Stat, decode_stat, may_be_stat
from ddrive.drive.walks import Changes, DirEntry, Entries, Found, Inside, Versions, Walk
from ddrive.errors import (
    CorruptStorage,
    DriveError,
    InvalidPath,
    IsADirectory,
    NotADirectory,
    NotFound,
    TooManyLinks,
    Unsupported,
)
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from ddrive.trie import Entry, MountTrie, Owner, TrieNode
from ddrive.trie.iterate import Walk as TrieWalk
from ddrive.trie.nodes import Prefetch

LINKS_MAX = 40  # as Linux
_COMPONENT_DIGITS = 32  # of a trie path; a node's row behind them points at the entry that ends there
_ENTRIES_PER_TURN = 2048  # of a listing (about 10 ms) before other tasks get their turn
_BROUGHT_MAX = 50_000  # entries fetched ahead of a walk; their nodes stay decoded until about 30,000 more are used
_BRING_S = 5.0  # the longest time that a walk is held up by that
_BY_NAME = itemgetter(0)
_END = 4  # the digit of a path's end


DirEntries = list[DirEntry]  # names of their own: within a class with a method `list` that word means the method
Names = list[str]
Listed = TypeVar("Listed", DirEntries, Names)


class DriveView:
    """What can be read of a drive, the newest version or a fixed one. Base of `Drive`."""

    def __init__(self, tree: DriveTree, version: int | None = None) -> None:
        self.key: PublicKey = tree.metadata.key
        self.metadata: Feed = tree.metadata
        self.hostile_names = 0  # how often a listing left out a name no kernel takes, or an entry without valid Stat
        self._tree = tree
        self._version = version

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key[:4].hex()} version={self.version}>"

    @property
    def version(self) -> int:
        """Number of the version that is shown: the known length of the metadata feed, or the fixed one."""
        return self._version or self.metadata.length

    @property
    def fixed(self) -> bool:
        """Whether this is a fixed version, which never changes."""
        return self._version is not None

    def at(self, version: int) -> "DriveView":
        """Return the view of a fixed version to read; it shares the feeds of this one."""
        return DriveView(self._tree, version)

    async def trie(self) -> MountTrie:
        """Return the trie of this view. Waits for the header when the drive is not known yet."""
        live = await self._tree.live()
        return live if self._version is None else live.checkout(self._version)

    async def content(self) -> Feed:
        """Return the feed with the bytes of this drive's own files."""
        return await self._tree.content(await self.trie())

    # -- attributes

    async def lstat(self, path: str) -> Stat:
        """Return the attributes of the entry at `path`; of a link itself.

        Raises: NotFound, InvalidPath, CorruptStorage when its author stored something else there.
        """
        return (await self._entry(drive_path(path)))[0]

    async def stat(self, path: str) -> Stat:
        """Return the attributes of what `path` leads to. Raises: as `lstat`, TooManyLinks."""
        return (await self._resolve(drive_path(path)))[1]

    async def resolve(self, path: str) -> DrivePath:
        """Return the path of the entry that `path` leads to through links. Raises: as `stat`."""
        return (await self._resolve(drive_path(path)))[0]

    async def read_link(self, path: str) -> str:
        """Return the target of a symbolic link, as it was given. Raises: as `lstat`, InvalidPath when it is none."""
        stat = await self.lstat(path)
        if not stat.is_symlink or stat.linkname is None:
            raise InvalidPath(f"{path!r} is not a symbolic link")
        return stat.linkname

    async def exists(self, path: str) -> bool:
        """Tell whether there is an entry or an implicit directory at `path`."""
        try:
            await self.lstat(path)
        except NotFound:
            return False
        return True

    # -- listings

    async def list(self, path: str = "/") -> DirEntries:
        """Return what is in a directory, by name. Links are followed to the directory, not those in it.

        Raises: NotFound, NotADirectory, TooManyLinks.
        """
        return await self._in_directory(path, self._listing)

    async def names(self, path: str = "/") -> Names:
        """Return the names in a directory, in order; attributes are not looked at closely. Raises: as `list`."""
        return await self._in_directory(path, self._names)

    def entries(self, path: str = "/") -> Entries:
        """Return an asynchronous iterator over what is in a directory, as `list` gives it, in no particular order.

        Nothing is gathered: a directory of any size takes little memory. Raises, from the first step: as `stat`.
        """

        async def opened() -> tuple[TrieWalk, Callable[[Sequence[TrieNode]], Found]]:
            owner = await (await self.trie()).owner((await self._resolve(drive_path(path)))[0])

            async def shown(nodes: Sequence[TrieNode]) -> DirEntries:
                found: dict[str, DirEntry] = {}
                await self._add_entries(owner, nodes, found)
                return list(found.values())

            return owner.trie.trie.iterate("/" + owner.inner, recursive=False, gt=True), shown

        return Entries(opened)

    def walk(
        self, path: str = "/", *, mounts: bool = True, reach: Reach | None = None, held_only: bool = False
    ) -> Walk:
        """Return an asynchronous iterator over (path, attributes) of everything below a directory.

        Each directory comes before what is in it, names in order. Nested drives are entered if `mounts`, but not one
        that the walk is inside of already; links are not followed. The iterator raises what `list` raises; with `reach`
        what cannot be had of nested drives is left out and listed there. With `held_only` those of which nothing is
        held are not looked into.
        """

        async def listing(directory: DrivePath, inside: Inside | None, is_first: bool) -> Sequence[DirEntry] | None:
            async def listed() -> Sequence[DirEntry] | None:
                if held_only and is_first and not await self._tree.is_here(await self.trie(), directory):
                    return None
                if is_first:
                    await self._bring(directory)
                return await self.list(directory)

            return await listed() if reach is None else await reach.attempt(inside, directory, listed)

        return Walk(listing, drive_path(path), self.key, mounts=mounts)

    async def mounts(self) -> Sequence[DriveMount]:
        """Return all nested drives, those in nested drives too, but none twice on one way down."""
        found = await (await self.trie()).mounts(recursive=True)
        return [DriveMount(DrivePath(path), mount.key, mount.version) for path, mount, _ in found]

    async def nested(self) -> NestedDrives:
        """Return the nested drives that were looked into, which grow more as others are: for following them."""
        return NestedDrives((await self._tree.live()).visited)

    # -- content

    async def open(self, path: str, stat: Stat | None = None) -> FileReader:
        """Return a reader of the file that `path` leads to; it keeps that content whatever happens later.

        A caller that has just got the attributes of a file of this drive itself (not of a nested one) may give them:
        they are then not looked up again.
        Raises: NotFound, IsADirectory, TooManyLinks, CorruptStorage when its attributes cannot be true.
        """
        if stat is not None and stat.is_file and stat.mount is None:
            return FileReader(await self.content(), extent_of(stat), path, self._tree.lifetime)
        where, stat, entry = await self._resolve(drive_path(path))
        if stat.is_dir or entry is None:
            raise IsADirectory(f"{path!r} is a directory")
        if not stat.is_file:
            raise Unsupported(f"{path!r} is neither a file nor a directory")
        if stat.mount is not None and stat.mount.feed:
            return FileReader(*await self._mounted_feed(stat), where, self._tree.lifetime)
        return FileReader(await self._tree.content(entry.trie), extent_of(stat), where, self._tree.lifetime)

    async def read_file(self, path: str) -> bytes:
        """Return all bytes of a file. Raises: as `open`."""
        reader = await self.open(path)
        try:
            return await reader.read(0, reader.size)
        finally:
            await reader.aclose()

    # -- versions

    def diff(self, old: int = 1, path: str = "/") -> Changes:
        """Return an asynchronous iterator over what changed from version `old` to this one, at and below `path`.

        Nested drives are not entered. Entries that were stored again as they were are left out.
        """
        return Changes(self.trie, old, drive_path(path))

    async def changed(self, old: int) -> Sequence[DrivePath]:
        """Return the paths of this drive itself whose entries are not what they were at version `old`."""
        return [change.path async for change in self.diff(old)]

    def follow(self) -> Versions:
        """Return an asynchronous iterator over the versions that become known from now on; a fixed one has none."""
        return Versions(self.metadata, self._tree.lifetime, ended=self.fixed)

    # -- inside

    async def _bring(self, path: str) -> None:
        """Fetch the entries of one drive below `path` in few round trips, as far as that goes at once."""
        if not self.metadata.peer_count:
            return
        owner = await (await self.trie()).owner(drive_path(path))
        trie = owner.trie.trie
        if trie.feed.held(0, trie.version) == trie.version:
            return
        left = _BROUGHT_MAX
        with trio.move_on_after(_BRING_S), suppress(DriveError):  # whoever lists comes across it again
            async for _ in trie.iterate("/" + owner.inner):
                left -= 1
                if not left:
                    break

    async def _entry(self, path: DrivePath) -> tuple[Stat, Entry | None]:
        """Return the attributes of an entry, and where it is (None for the root, which has none)."""
        if not path:
            return await self._root(), None
        trie = await self.trie()
        entry = await trie.get(path)
        if entry.node is not None:
            return await self._tree.shown(decode_stat(entry.node.value)), entry
        if await entry.trie.trie.newest("/" + entry.inner) is None:
            raise NotFound(f"no such file or directory: '/{path}'")
        return implicit_stat(entry.trie.trie), entry

    async def _resolve(self, path: DrivePath) -> tuple[DrivePath, Stat, Entry | None]:
        """Return where `path` leads to, following a link at its end and, when that is needed, links on the way."""
        asked = path
        for _ in range(LINKS_MAX):
            try:
                stat, entry = await self._entry(path)
            except NotFound:
                link = await self._first_link(path)
                if link is None:
                    raise
                target, rest = link
                path = drive_path(f"{target}/{rest}")
                continue
            if not stat.is_symlink:
                return path, stat, entry
            path = link_target(path, stat.linkname or "")
        raise TooManyLinks(f"'/{asked}' leads through more than {LINKS_MAX} links")

    async def _first_link(self, path: DrivePath) -> tuple[DrivePath, str] | None:
        """Return the target of the first link among the directories of `path`, and the rest of the path behind it."""
        trie = await self.trie()
        names = path.split("/")
        for count in range(1, len(names)):
            directory = DrivePath("/".join(names[:count]))
            entry = await trie.get(directory)
            if entry.node is not None and (stat := decode_stat(entry.node.value)).is_symlink:
                return link_target(directory, stat.linkname or ""), "/".join(names[count:])
        return None

    async def _root(self) -> Stat:
        """Return the attributes of the drive's root without asking anybody."""
        return implicit_stat((await self.trie()).trie) if self.metadata.has(0) else Stat(DIRECTORY_MODE)

    async def _in_directory(self, path: str, listed: Callable[[Owner], Awaitable[Listed]]) -> Listed:
        """Return what `listed` gives for a directory, after links to it were followed."""
        where = drive_path(path)
        for _ in range(2):
            owner = await (await self.trie()).owner(where)
            found = await listed(owner)
            if found or not where:
                return found
            resolved, stat, _ = await self._resolve(where)
            if not stat.is_dir:
                raise NotADirectory(f"{path!r} is not a directory")
            if resolved == where:
                break
            where = resolved
        return found

    async def _listing(self, owner: Owner) -> DirEntries:
        """Return what is in a directory, nothing when there is no such directory."""
        walk = owner.trie.trie.iterate("/" + owner.inner, recursive=False, gt=True)
        newest = await walk.open()
        if newest is None:
            return []
        place = ListedAt(owner.trie.key, owner.inner, newest)
        kept = self._tree.listings.get(place)
        if kept is not None:
            return [*kept]
        entries: dict[str, DirEntry] = {}
        lasting = True
        while nodes := await walk.some(_ENTRIES_PER_TURN):  # a few decoded nodes at a time, they take much memory
            lasting = await self._add_entries(owner, nodes, entries) and lasting
            await trio.lowlevel.checkpoint()
        found = sorted(entries.values(), key=_BY_NAME)
        if lasting:
            self._tree.listings.put(place, tuple(found))
        return found

    async def _names(self, owner: Owner) -> Names:
        """Return the names in a directory, nothing when there is no such directory."""
        walk = owner.trie.trie.iterate("/" + owner.inner, recursive=False, gt=True)
        newest = await walk.open()
        if newest is None:
            return []
        kept = self._tree.listings.get(ListedAt(owner.trie.key, owner.inner, newest))
        if kept is not None:
            return [entry.name for entry in kept]
        above = tuple(owner.inner.split("/")) if owner.inner else ()
        names: set[str] = set()
        while nodes := await walk.some(_ENTRIES_PER_TURN):
            shown = [node for node in nodes if len(node.parts) != len(above) + 1 or may_be_stat(node.value)]
            names.update(name for node in shown if (name := self._name_in(node, above)) is not None)
        return sorted(names)

    def _name_in(self, node: TrieNode, above: tuple[str, ...]) -> str | None:
        """Return the name by which a directory shows `node`, None for one that no kernel takes, which is counted."""
        level = len(above)
        name = node.parts[level] if len(node.parts) > level else ""
        if is_hostile(name) or (node.garbled and node.parts[:level] != above):
            self.hostile_names += 1
            return None
        return name

    async def _add_entries(self, owner: Owner, nodes: Sequence[TrieNode], found: dict[str, DirEntry]) -> bool:
        """Add to `found` the directory entries that `nodes`, the newest at or below each name, stand for.

        Tells whether another version with the same nodes has the same entries, and no more was left out to count.
        """
        above = tuple(owner.inner.split("/")) if owner.inner else ()
        level = len(above) + 1
        own = await self._own_entries(owner, nodes, level)
        implicit: Stat | None = None
        hostile, is_feed = self.hostile_names, False
        for node in nodes:
            name = self._name_in(node, above)
            if name is None:
                continue
            entry = node if len(node.parts) == level else own.get(name)
            if entry is None:
                implicit = implicit or implicit_stat(owner.trie.trie)
                found[name] = DirEntry(name, implicit)
                continue
            try:
                stat = decode_stat(entry.value)
                found[name] = DirEntry(name, self._tree.as_known(stat))
                is_feed = is_feed or (stat.mount is not None and stat.mount.feed)
            except CorruptStorage:
                self.hostile_names += 1
        return implicit is None and not is_feed and hostile == self.hostile_names

    async def _own_entries(self, owner: Owner, nodes: Sequence[TrieNode], level: int) -> dict[str, TrieNode]:
        """Return the entries of the directories among `nodes` in which something newer lies."""
        row = level * _COMPONENT_DIGITS + 1
        seqs = [node.pointer(row, _END) for node in nodes if len(node.parts) > level]
        seqs = [seq for seq in seqs if seq]
        if not seqs:
            return {}
        load = Prefetch(owner.trie.trie.nodes)
        load.want([seq for seq in seqs if load.peek(seq) is None])
        entries = [load.peek(seq) or await load.node(seq) for seq in seqs]
        return {node.parts[-1]: node for node in entries if len(node.parts) == level and not node.garbled}

    async def _mounted_feed(self, stat: Stat) -> tuple[Feed, Extent]:
        """Return a plain feed that is shown as a file, and all that is known of it now."""
        assert stat.mount is not None
        feed = await self._tree.plain_feed(stat.mount.key)
        await feed.refresh()
        if feed.length:
            return feed, Extent(0, feed.length, 0, feed.byte_length)
        return feed, Extent(0, stat.blocks, 0, stat.size)
