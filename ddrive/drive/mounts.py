"""A drive together with the drives that are nested in it: their tries and their content feeds, opened when needed.

Nothing is asked of a peer before a path is looked at: a drive can be opened, and its root be shown, while nobody is
there. Feeds stay open until `close`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import trio

from ddrive.drive.assisting import assist
from ddrive.drive.content import content_feed, content_name
from ddrive.drive.listings import Listings
from ddrive.drive.paths import DrivePath
from ddrive.errors import NotFound
from ddrive.feed import Feed
from ddrive.ids import BlockIndex, PublicKey, short
from ddrive.store.interface import Store
from ddrive.trie import MountTrie, Trie, open_mount_trie, open_trie


class DriveMount(NamedTuple):
    """A nested drive: where it is, which one, the version that is shown (None: the newest)."""

    path: DrivePath
    key: PublicKey
    version: int | None


class OwnDrive(NamedTuple):
    """The drive, writable here, to which a path belongs; `path` is seen from its root. Nested drives are not part."""

    trie: Trie
    path: DrivePath
    content: Feed

    async def mount_paths(self) -> list[str]:
        """Return where drives are nested in this one."""
        return [node.key.partition("/")[2] for node in await self.trie.list("mounts", hidden=True) if node.value]


@runtime_checkable
class _Releasing(Protocol):
    """A store that counts the users of its feeds."""

    async def release(self, feed: Feed) -> None: ...


class DriveTree:
    """The tries and content feeds of a drive and its nested drives."""

    def __init__(self, store: Store, metadata: Feed) -> None:
        self.store = store
        self.metadata = metadata
        self._opened = [metadata]
        self._turn = trio.Lock()
        self._live: MountTrie | None = None
        self._content: dict[PublicKey, Feed] = {}
        self.listings = Listings()

    async def live(self, *, content_key: PublicKey | None = None) -> MountTrie:
        """Return the newest view of the drive; with `content_key` an empty writable feed becomes a drive.

        Waits for the header when it is not held.
        """
        if self._live is None:
            async with self._turn:
                if self._live is None:
                    _check_header(self.metadata, content_key)
                    self._live = await open_mount_trie(
                        self.metadata, self.store.dialect, self._open_nested, metadata=content_key
                    )
                    self._assist(self.metadata)
        return self._live

    async def make(self) -> None:
        """Make a drive of our own empty feed: its header names the content feed that the store derives."""
        content = await self.store.open_feed(name=content_name(self.metadata.key))
        self._opened.append(content)
        await self.live(content_key=content.key)

    async def content(self, trie: MountTrie) -> Feed:
        """Return the feed with the bytes of the files that `trie` owns. Raises: Unsupported when it is no drive."""
        feed = self._content.get(trie.key)
        if feed is None:
            feed = await content_feed(self.store, trie.key, trie.metadata)
            self._opened.append(feed)
            feed = self._content.setdefault(trie.key, feed)
        return feed

    async def plain_feed(self, key: PublicKey) -> Feed:
        """Return a feed that is mounted as a file."""
        return await self._feed(key)

    async def is_here(self, trie: MountTrie, path: DrivePath) -> bool:
        """Tell whether the first block of the drive nested at `path` is held, if one is: all else takes that."""
        place = await trie.place(path)
        mount = await place.trie.mount_at(place.inner) if place.inner else None
        return mount is None or (await self._feed(mount.key)).has(BlockIndex(0))

    @property
    def opened(self) -> Sequence[Feed]:
        """The feeds that are open for the drive."""
        return self._opened

    async def close(self) -> None:
        """Let go of all feeds, also when the caller is cancelled."""
        feeds, self._opened = self._opened, []
        if isinstance(self.store, _Releasing):
            with trio.CancelScope(shield=True):
                for feed in feeds:
                    await self.store.release(feed)

    async def _feed(self, key: PublicKey) -> Feed:
        feed = await self.store.open_feed(key=key, live=True)
        self._opened.append(feed)
        return feed

    async def _open_nested(self, key: PublicKey) -> Trie:
        feed = await self._feed(key)
        _check_header(feed, None)
        trie = await open_trie(feed, self.store.dialect)
        self._assist(feed)
        return trie

    def _assist(self, feed: Feed) -> None:
        """Answer the peers of a trie of ours; for a view, the owner of its files does that."""
        if self.store.owner is not None:
            assist(self.store.owner, feed)


def _check_header(feed: Feed, content_key: PublicKey | None) -> None:
    """Refuse a feed of our own that holds nothing yet: opening its trie would write a header without content key."""
    if feed.unborn and content_key is None:
        raise NotFound(f"no drive was made in the feed {short(feed.key)} yet")
