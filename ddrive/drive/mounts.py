"""A drive together with the drives that are nested in it: their tries and their content feeds, opened when needed.

Nothing is asked of a peer before a path is looked at: a drive can be opened, and its root be shown, while nobody is
there. Feeds stay open until `close`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import trio

from ddrive.drive.assisting import assist
from ddrive.drive.content import content_feed, content_name
from ddrive.drive.lifetime import Lifetime
from ddrive.drive.listings import Listings
from ddrive.drive.paths import DrivePath
from ddrive.drive.stat import Stat
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
        self.lifetime = Lifetime()
        self._opened = [metadata]
        self._turn = trio.Lock()
        self._live: MountTrie | None = None
        self._content: dict[PublicKey, Feed] = {}
        self._feeds: dict[PublicKey, Feed] = {}  # of nested drives, and those mounted as files
        self.listings = Listings()

    async def live(self, *, content_key: PublicKey | None = None) -> MountTrie:
        """Return the newest view of the drive; with `content_key` an empty writable feed becomes a drive.

        Waits for the header when it is not held. Raises: Closed.
        """
        if self._live is None:
            async with self._turn:
                if self._live is None:
                    self.lifetime.check()
                    _check_header(self.metadata, content_key)
                    opened = partial(
                        open_mount_trie, self.metadata, self.store.dialect, self._open_nested, metadata=content_key
                    )
                    live = await self.lifetime.wait(opened)
                    self._prepare(live.trie)
                    self._live = live
        return self._live

    async def make(self) -> None:
        """Make a drive of our own empty feed: its header names the content feed that the store derives."""
        content = await self._used(await self.store.open_feed(name=content_name(self.metadata.key)))
        await self.live(content_key=content.key)

    async def content(self, trie: MountTrie) -> Feed:
        """Return the feed with the bytes of the files that `trie` owns. Raises: Unsupported when it is no drive."""
        feed = self._content.get(trie.key)
        if feed is None:
            self.lifetime.check()
            feed = await self._used(await content_feed(self.store, trie.key, trie.metadata))
            feed = self._content.setdefault(trie.key, feed)
        return feed

    async def bytes_feed(self, key: PublicKey) -> Feed:
        """Return a content feed by its own key, whether its drive is nested here or not any more."""
        self.lifetime.check()
        known = next((feed for feed in self._opened if feed.key == key), None)
        return known or await self._used(await self.store.open_feed(key=key))

    async def plain_feed(self, key: PublicKey) -> Feed:
        """Return a feed that is mounted as a file."""
        return await self._feed(key)

    async def shown(self, stat: Stat) -> Stat:
        """Return the attributes of an entry; those of a plain feed that is shown as a file with its present size."""
        if stat.mount is not None and stat.mount.feed:
            await self._feed(stat.mount.key)
        return self.as_known(stat)

    def as_known(self, stat: Stat) -> Stat:
        """Return the same without opening a feed: in a directory there may be any number."""
        feed = None if stat.mount is None or not stat.mount.feed else self._feeds.get(stat.mount.key)
        return stat._replace(size=feed.byte_length, blocks=feed.length) if feed is not None and feed.length else stat

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
        """Let go of all feeds, also when the caller is cancelled. From now on every call raises Closed."""
        self.lifetime.end()
        self._live = None  # calls look here for it first, and without it whether the drive is closed
        self._content.clear()
        self._feeds.clear()
        feeds, self._opened = self._opened, []
        await self._release(feeds)

    async def _release(self, feeds: Sequence[Feed]) -> None:
        if isinstance(self.store, _Releasing):
            with trio.CancelScope(shield=True):
                for feed in feeds:
                    await self.store.release(feed)

    async def _used(self, feed: Feed) -> Feed:
        """Return a feed that was just opened, and let go of it when the drive is closed. Raises: Closed."""
        if self.lifetime.ended:
            await self._release([feed])
            self.lifetime.check()
        self._opened.append(feed)
        return feed

    async def _feed(self, key: PublicKey) -> Feed:
        self.lifetime.check()
        feed = self._feeds.get(key)
        if feed is None or feed.closed:  # once, however often somebody asks for a drive that nobody has
            feed = self._feeds[key] = await self._used(await self.store.open_feed(key=key, live=True))
        return feed

    async def _open_nested(self, key: PublicKey) -> Trie:
        feed = await self._feed(key)
        _check_header(feed, None)
        opening = partial(open_trie, feed, self.store.dialect)
        is_here = feed.get_held(BlockIndex(0)) is not None
        trie = await (opening() if is_here else self.lifetime.wait(opening))
        self._prepare(trie)
        return trie

    def _prepare(self, trie: Trie) -> None:
        """Let what waits for entries end with the drive, and answer the peers of a trie of ours.

        For a view, the owner of its files does that.
        """
        feed = trie.feed
        trie.nodes.fetch = lambda index: self.lifetime.wait(partial(feed.get, index))
        if self.store.owner is not None:
            assist(self.store.owner, feed)


def _check_header(feed: Feed, content_key: PublicKey | None) -> None:
    """Refuse a feed of our own that holds nothing yet: opening its trie would write a header without content key."""
    if feed.unborn and content_key is None:
        raise NotFound(f"no drive was made in the feed {short(feed.key)} yet")
