"""What the known drives need of a store: which feeds, and which blocks of feeds with file content.

A version of a drive that can be walked to its end tells exactly, and so do the drives nested in it. Where that needs
blocks that nobody gives, everything that any held entry of the drive refers to counts as needed.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

import trio
from google.protobuf.message import DecodeError

from ddrive.dialect import DIALECTS
from ddrive.drive.reader import extent_of
from ddrive.drive.walks import stat_or_none
from ddrive.errors import CorruptStorage, DriveError, InvalidProof
from ddrive.feed import Feed
from ddrive.ids import BlockIndex, PublicKey
from ddrive.store.runs import Run, joined, without
from ddrive.store.store import OwnedStore
from ddrive.trie import open_trie
from ddrive.trie.mountpoint import RECORDS, decode_mount, is_mount
from ddrive.trie.node import Header, TrieNode, decode_header, decode_node

WALK_S = 10.0  # for one version of a drive, where peers have to help
KEY_BYTES = 32
_TRIE_TYPES = frozenset(dialect.trie_type for dialect in DIALECTS.values())
_BLOCKS_PER_TURN = 64  # about 2 ms

Version = tuple[PublicKey, int | None]  # of a drive; None: the newest


class _Seen:
    """What one version of one drive needs, without the drives nested in it."""

    def __init__(self) -> None:
        self.runs: list[Run] = []  # of blocks of its content feed
        self.plain: set[PublicKey] = set()  # feeds that are mounted as files
        self.nested: set[Version] = set()

    def add(self, node: TrieNode) -> None:
        """Count an entry."""
        stat = stat_or_none(node)
        if stat is None or not stat.is_file:
            return
        if stat.mount is not None:
            self.plain.add(stat.mount.key)
        else:
            extent = extent_of(stat)
            self.runs.append((extent.offset, extent.offset + extent.blocks))


class Reach:
    """What is needed of the feeds of one store: `feeds` at all, and of each what `spare` leaves."""

    def __init__(self, store: OwnedStore) -> None:
        self.feeds: set[PublicKey] = set()
        self._store = store
        self._needed: dict[PublicKey, list[Run]] = {}
        self._untold: set[PublicKey] = set()  # nobody can say which blocks of these are needed
        self._walked: set[Version] = set()
        self._looked_through: set[PublicKey] = set()

    async def add(self, key: PublicKey, versions: Iterable[int | None], *, history: bool) -> set[PublicKey]:
        """Count what these versions of a drive need; with `history` also each feed that it ever referred to.

        Returns which drives, of those nested in it too, could not be seen to their end.
        """
        unseen: set[PublicKey] = set()
        pending: list[Version] = [(key, version) for version in versions]
        while pending:
            version = pending.pop()
            if version in self._walked:
                continue
            self._walked.add(version)
            self.feeds.add(version[0])
            seen = await self._seen(*version)
            if seen is None:
                unseen.add(version[0])
                await self._look_through(version[0])
            else:
                pending += seen.nested
        if history:
            await self._look_through(key)
        return unseen

    def spare(self, feed: Feed) -> Iterator[Run]:
        """Yield the runs of held blocks of a feed that nothing needs; none where that is not known for sure."""
        needed = self._needed.get(feed.key)
        if needed is not None and feed.key not in self._untold and not feed.writable:
            yield from without(feed.runs(0, feed.length), needed)

    async def _seen(self, key: PublicKey, version: int | None) -> _Seen | None:
        """Walk one version of one drive; None when not all of it can be seen. What it needs is counted."""
        async with self._opened(key) as feed:
            if not feed.length or not (feed.held(0, feed.length) == feed.length or feed.peer_count):
                return None
            try:
                with trio.move_on_after(WALK_S):
                    trie = await open_trie(feed, self._store.dialect)
                    trie = trie.snapshot() if version is None else trie.checkout(version)
                    seen = _Seen()
                    async for node in trie.iterate():
                        seen.add(node)
                    for node in await trie.list(RECORDS, hidden=True):
                        if is_mount(node) and len(node.parts) > 1:
                            mount = decode_mount(node)
                            seen.nested.add((mount.key, mount.version))
                    self._count(trie.metadata, seen)
                    return seen
            except DriveError:
                return None
        return None

    def _count(self, content: bytes | None, seen: _Seen) -> None:
        self.feeds |= seen.plain
        self._untold |= seen.plain
        if content is not None and len(content) == KEY_BYTES:
            key = PublicKey(content)
            self.feeds.add(key)
            self._needed[key] = joined([*self._needed.get(key, []), *seen.runs])

    async def _look_through(self, key: PublicKey) -> None:
        """Count every feed that a held entry of a drive refers to, and all that those refer to."""
        pending = [key]
        while pending:
            key = pending.pop()
            if key in self._looked_through:
                continue
            self._looked_through.add(key)
            self.feeds.add(key)
            self._untold.add(key)
            if not (self._store.known(self._store.discovery_key(key))):
                continue
            async with self._opened(key) as feed:
                content = content_key(feed)
                if content is not None:
                    self.feeds.add(content)
                    self._untold.add(content)
                    pending += await _referred(feed)

    @asynccontextmanager
    async def _opened(self, key: PublicKey) -> AsyncIterator[Feed]:
        feed = await self._store.open_feed(key=key)
        try:
            yield feed
        finally:
            with trio.CancelScope(shield=True):
                await self._store.release(feed)


def content_key(feed: Feed) -> PublicKey | None:
    """Return the content feed of the drive whose entries are in `feed`, None when it is no drive as far as is held."""
    try:
        block = feed.get_held(BlockIndex(0))
    except CorruptStorage:
        return None
    header = header_in(block)
    if header is None or header.metadata is None or len(header.metadata) != KEY_BYTES:
        return None
    return PublicKey(header.metadata)


def header_in(block: bytes | None) -> Header | None:
    """Return what a first block says if it begins the entries of a drive, or another trie."""
    try:
        header = decode_header(block, "") if block else None
    except (InvalidProof, DecodeError):
        return None
    return header if header is not None and header.type in _TRIE_TYPES else None


def nodes_in(feed: Feed, start: int, end: int) -> Iterator[TrieNode]:
    """Yield the entries of a drive in these blocks; what is not held, hidden or no entry is left out."""
    for index in range(max(1, start), end):
        try:
            block = feed.get_held(BlockIndex(index))
            node = None if block is None else decode_node(index, block, feed.name)
        except (CorruptStorage, InvalidProof):
            continue
        if node is not None and not node.hidden:
            yield node


async def _referred(feed: Feed) -> set[PublicKey]:
    """Return the feeds that held entries of a drive name, whichever version they are of."""
    found: set[PublicKey] = set()
    for start, end in feed.runs(1, feed.length):
        for seq in range(start, end):
            try:
                block = feed.get_held(seq)
                node = None if block is None else decode_node(seq, block, feed.name)
                if node is not None and node.hidden and is_mount(node):
                    found.add(decode_mount(node).key)
                elif node is not None and (stat := stat_or_none(node)) is not None and stat.mount is not None:
                    found.add(stat.mount.key)
            except (CorruptStorage, InvalidProof):
                continue
            if seq % _BLOCKS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
    return found
