"""The drives of an engine: opened and kept open, found among peers, made, described.

A drive is kept open by a task of its own, which finds out its dialect when nobody said (both stores ask for the first
block; whoever delivers it decides), then follows the drive and opens its content feed. Nothing here waits for a peer
unless its caller asked to wait.
"""

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import trio

from ddrive.dialect import DIALECTS, Dialect
from ddrive.drive import open_drive
from ddrive.drive.history import require_version
from ddrive.errors import AlreadyExists, Behind, DriveError, InvalidKey, NoPeers
from ddrive.feed import Feed
from ddrive.ids import BlockIndex, DiscoveryKey, PublicKey, short
from ddrive.store.store import OwnedStore
from mountd.drives import DriveTable, KnownDrive
from mountd.finding import Topic

_log = logging.getLogger(__name__)

CALLED: Final = {"db": "database", "graph": "graph"}  # what a key may name beside drives, by the verbs for it
DRIVE_HEADER_BLOCKS = 1  # of a drive with nothing in it


class OpenDrive:
    """A known drive that is kept open, and the task that does so."""

    def __init__(self, known: KnownDrive) -> None:
        self.known = known
        self.is_found = False  # its first block is here
        self.settled = trio.Event()  # it is found, or the task has ended
        self.leave = trio.CancelScope()
        self.ended = trio.Event()


class Collection:
    """All drives that an engine knows. Its tasks run in `nursery`.

    `on_found` hears of each dialect that was found, `reconsider` of each feed for which `serves` answers differently,
    `on_change` when `topics` does.
    """

    def __init__(
        self,
        table: DriveTable,
        stores: Mapping[str, OwnedStore],
        nursery: trio.Nursery,
        *,
        is_mounted: Callable[[PublicKey], bool],
        reconsider: Callable[[OwnedStore, Feed], None],
        on_found: Callable[[KnownDrive], None],
        on_change: Callable[[], None],
        kind_of: Callable[[PublicKey], str | None],
    ) -> None:
        self.table = table
        self._stores = stores
        self._nursery = nursery
        self._is_mounted = is_mounted
        self._reconsider = reconsider
        self._on_found = on_found
        self._on_change = on_change
        self._kind_of = kind_of
        self._open: dict[PublicKey, OpenDrive] = {}
        self._topics: dict[DiscoveryKey, KnownDrive] = {}
        for known in table:
            self._note_topics(known)

    # Opening

    def start(self) -> None:
        """Open all drives that are to be served or are mounted; one of which nobody ever had anything is forgotten."""
        for known in self.table:
            if known.dialect is None and known.seeding is None and not self._is_mounted(known.key):
                self.table.remove(known.key)
            elif self.is_seeding(known):
                self.keep(known)

    def keep(self, known: KnownDrive) -> OpenDrive:
        """Keep a drive open from now on; return at once."""
        drive = self._open.get(known.key)
        if drive is None or drive.ended.is_set():
            drive = self._open[known.key] = OpenDrive(known)
            self._offer(known)
            self._nursery.start_soon(self._follow, drive)
            self._on_change()
        return drive

    def _offer(self, known: KnownDrive) -> None:
        """Exchange feeds that were only looked at so far: nobody else does once they are loaded."""
        for name, store in self._stores.items():
            if known.dialect is None or known.dialect.name == name:
                for feed in store.feeds():
                    if feed.key in (known.key, known.content):
                        self._reconsider(store, feed)

    async def look_up(self, key: PublicKey, dialect: Dialect | None, *, private: bool = False) -> KnownDrive:
        """Return the drive with this key, known from now on and kept open. Does not wait for it to be found.

        With `private` it becomes private for good.
        Raises: InvalidKey when it is known to be of another dialect, or no drive at all.
        """
        known, kind = self.table.get(key), self._kind_of(key)
        if kind is not None:
            raise InvalidKey(f"{short(key)} is no drive but a {CALLED[kind]}: use ddrive {kind} …")
        if known is None:
            known = KnownDrive(key, dialect, created=time.time(), private=private)
            self.table.add(known)
            self._note_topics(known)
        elif dialect is not None and known.dialect is not dialect:
            if known.dialect is not None and await self._holds_header(known):
                raise InvalidKey(f"drive {short(key)} is of the dialect {known.dialect.name}: use {known.url}")
            await self._close(key)
            known.dialect = dialect
            self._note_topics(known)
            self.table.save()
            await self._forget_elsewhere(known)
        if private and not known.private:
            known.private = True
            self.table.save()
            self._on_change()
        self.keep(known)
        return known

    async def wait_found(self, known: KnownDrive, wait_s: float) -> bool:
        """Return whether the first block of the drive is here, after waiting up to `wait_s` seconds for it."""
        drive = self.keep(known)
        with trio.move_on_after(wait_s):
            await drive.settled.wait()
        return drive.is_found

    async def require_version(
        self, known: KnownDrive, version: int, wait_s: float, tell: Callable[[str], None]
    ) -> None:
        """Return when a drive has a version, waited for up to `wait_s`, or nothing is known of it. Raises: NotFound."""
        async with self.feeds(known) as found:
            if found and found[1][0].length:
                await require_version(found[1][0], version, wait_s, tell)

    async def give_up(self, known: KnownDrive) -> None:
        """Forget a drive of which nobody had anything."""
        await self._close(known.key)
        for store in self._stores.values():
            await self._forget_empty(store, known.key)
        self.table.remove(known.key)

    async def leave(self, known: KnownDrive) -> None:
        """Keep a drive open no longer; `keep` opens it again."""
        await self._close(known.key)

    def forget(self, known: KnownDrive) -> None:
        """Know a drive no longer, which is not open."""
        for topic in [topic for topic, owner in self._topics.items() if owner is known]:
            del self._topics[topic]
        self.table.remove(known.key)
        self._on_change()

    async def disown(self, key: PublicKey) -> None:
        """Know something no longer that turned out to be no drive."""
        known = self.table.get(key)
        if known is not None:
            await self._close(key)
            self.forget(known)

    def adopt(self, known: KnownDrive) -> None:
        """Know a drive whose feeds are in the store, or are to be fetched, and keep it open."""
        self.table.add(known)
        self._note_topics(known)
        self.keep(known)

    async def create(self, name: str | None, dialect: Dialect, *, private: bool) -> KnownDrive:
        """Return a new, empty drive of our own.

        Raises: AlreadyExists when there is one called `name`.
        """
        store = self._stores[dialect.name]
        feed = await store.open_feed(name=name or os.urandom(32).hex())
        try:
            if feed.length > DRIVE_HEADER_BLOCKS or (feed.length and self._is_known(feed.key)):
                raise AlreadyExists(f"there is a drive called {name!r} already: {feed.key.hex()}")
            if feed.behind:
                raise Behind(f"a drive called {name!r} was removed here, and others may have it: choose another name")
            drive = await open_drive(store, key=feed.key, create=True)
            try:
                content = await drive.content()
            finally:
                await drive.close()
            known = KnownDrive(
                feed.key,
                dialect,
                name=name,
                writable=True,
                content=content.key,
                created=time.time(),
                private=private,
            )
            self.table.add(known)
            self._note_topics(known)
            self.keep(known)
        finally:
            await store.release(feed)
        return known

    def _is_known(self, key: PublicKey) -> bool:
        """Tell whether something that was made here has this key; where that was interrupted, it can be made again."""
        return self.table.get(key) is not None or self._kind_of(key) is not None

    async def _follow(self, drive: OpenDrive) -> None:
        try:
            with drive.leave:
                if drive.known.dialect is None:
                    await self._find(drive.known)
                await self._hold(drive)
        except (DriveError, OSError) as error:
            _log.error("drive not open drive=%s error=%s", short(drive.known.key), error)
        except Exception:
            _log.exception("drive not open drive=%s", short(drive.known.key))
        finally:
            drive.settled.set()
            drive.ended.set()

    async def _hold(self, drive: OpenDrive) -> None:
        """Open the drive as soon as its first block is here, and keep it open until cancelled."""
        known = drive.known
        assert known.dialect is not None
        view = await open_drive(self._stores[known.dialect.name], key=known.key)
        try:
            await view.metadata.get(BlockIndex(0))
            drive.is_found = True
            drive.settled.set()
            content = await view.content()
            if (known.content, known.writable) != (content.key, view.writable):
                known.content, known.writable = content.key, view.writable
                self._note_topics(known)
                self.table.save()
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await view.close()

    async def _find(self, known: KnownDrive) -> None:
        """Return when a peer has proven of which dialect the drive is; the other store forgets it."""
        winner: list[OwnedStore] = []
        async with trio.open_nursery() as nursery:

            async def ask(store: OwnedStore) -> None:
                feed = await store.open_feed(key=known.key, live=True)
                try:
                    await feed.get(BlockIndex(0))
                    winner.append(store)
                    nursery.cancel_scope.cancel()
                finally:
                    with trio.CancelScope(shield=True):
                        await store.release(feed)

            for store in self._stores.values():
                nursery.start_soon(ask, store)
        known.dialect = winner[0].dialect
        _log.info("drive found drive=%s dialect=%s", short(known.key), known.dialect.name)
        self._note_topics(known)
        self.table.save()
        await self._forget_elsewhere(known)
        self._on_found(known)

    async def _holds_header(self, known: KnownDrive) -> bool:
        assert known.dialect is not None
        store = self._stores[known.dialect.name]
        feed = await store.open_feed(key=known.key)
        try:
            return feed.length > 0
        finally:
            await store.release(feed)

    async def _forget_elsewhere(self, known: KnownDrive) -> None:
        for store in self._stores.values():
            if store.dialect is not known.dialect:
                await self._forget_empty(store, known.key)

    async def _forget_empty(self, store: OwnedStore, key: PublicKey) -> None:
        feed = await store.open_feed(key=key)
        is_empty = not feed.length and not feed.writable
        await store.release(feed)
        if is_empty:
            await store.forget(key)

    async def _close(self, key: PublicKey) -> None:
        if drive := self._open.pop(key, None):
            drive.leave.cancel()
            await drive.ended.wait()

    # Serving

    def is_seeding(self, known: KnownDrive) -> bool:
        """Tell whether the drive is served to peers."""
        if known.seeding is not None:
            return known.seeding
        return known.writable or self._is_mounted(known.key)

    async def set_seeding(self, known: KnownDrive, seeding: bool) -> None:
        """Serve a drive to peers, or not, from now on; remembered."""
        known.seeding = seeding
        self.table.save()
        if seeding:
            self.keep(known)
        elif not self._is_mounted(known.key):
            await self._close(known.key)
            self._on_change()
        async with self.feeds(known) as found:
            if found:
                for feed in found[1]:
                    self._reconsider(found[0], feed)

    def serves(self, topic: DiscoveryKey) -> bool:
        """Tell whether peers may exchange the feed with this discovery key; what belongs to no known drive they may."""
        known = self._topics.get(topic)
        if known is None or self.is_seeding(known):
            return True
        return known.key in self._open and not known.writable  # read here, so what is missing is fetched

    def gives(self, topic: DiscoveryKey) -> bool:
        """Tell whether peers are answered who exchange the feed with this discovery key."""
        known = self._topics.get(topic)
        return known is None or known.seeding is not False

    def _note_topics(self, known: KnownDrive) -> None:
        for name, store in self._stores.items():
            if known.dialect is None or known.dialect.name == name:
                self._topics[store.discovery_key(known.key)] = known
                if known.content is not None:
                    self._topics[store.discovery_key(known.content)] = known

    def topics(self) -> dict[DiscoveryKey, Topic]:
        """Return what to look for among strangers: the drives that are open, but for the private ones."""
        return {
            topic: Topic(store.dialect, self.is_seeding(drive.known))
            for drive in self._open.values()
            if not (drive.known.private or drive.ended.is_set())
            for topic, store in self.topics_of(drive.known).items()
        }

    def may_ask(self, topic: DiscoveryKey) -> bool:
        """Tell whether strangers may be asked for a feed that no drive is known to have.

        It may be nested in a private drive, and then it is as private: while one is open nothing of that kind is asked.
        """
        return topic not in self._topics and not any(drive.known.private for drive in self._open.values())

    def topics_of(self, known: KnownDrive) -> dict[DiscoveryKey, OwnedStore]:
        """Return by what names a drive is known among peers: one per dialect that it may be of."""
        return {
            store.discovery_key(known.key): store
            for store in self._stores.values()
            if known.dialect in (None, store.dialect)
        }

    # Describing

    @asynccontextmanager
    async def feeds(self, known: KnownDrive) -> AsyncIterator[tuple[OwnedStore, list[Feed]] | None]:
        """Give the store and the feeds (metadata, then content) of a drive, as far as they are known; asks no peer."""
        if known.dialect is None:
            yield None
            return
        store = self._stores[known.dialect.name]
        keys = [key for key in (known.key, known.content) if key is not None]
        feeds: list[Feed] = []
        try:
            for key in keys:
                feeds.append(await store.open_feed(key=key))
            yield store, feeds
        finally:
            with trio.CancelScope(shield=True):
                for feed in feeds:
                    await store.release(feed)

    async def version(self, known: KnownDrive) -> int:
        """Return the newest known version of a drive, 0 when nothing is known of it."""
        async with self.feeds(known) as found:
            return found[1][0].length if found else 0

    def no_peers(self, known: KnownDrive, why: str = "nobody gives what is missing") -> NoPeers:
        """Return the error that says that nobody had the drive."""
        return NoPeers(f"no peer has drive {short(known.key)} ({why}): name one with --peer HOST:PORT, or try again")


def dialect_named(name: str | None) -> Dialect | None:
    """Return the dialect called `name`, None for None. Raises: DriveError."""
    if name is None:
        return None
    if name not in DIALECTS:
        raise DriveError(f"{name!r} is no dialect: use {' or '.join(DIALECTS)}")
    return DIALECTS[name]
