"""A directory of feeds under one master key, and its one owner.

The owner holds the lock of the directory, derives keys, opens each feed once and gives it a session, so that whatever
is open can be exchanged with peers. Which links there are is the business of `linked`. Folders are those of the npm
stores: either side opens what the other wrote. Source: store.md, `basestorex@1`, `corestore@5`.
"""

import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from ddrive.crypto import KEY_BYTES, KeyPair
from ddrive.dialect import DWEB, Dialect
from ddrive.errors import Closed, DriveError, NotFound, StorageLocked, WrongKey
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.opening import TakesLong, open_now
from ddrive.feed.storage import SECRET_KEY
from ddrive.feed.subscription import Source, Subscription
from ddrive.ids import DiscoveryKey, PublicKey, short
from ddrive.replication.session import FeedSession
from ddrive.store.cleared import NAME as CLEARED
from ddrive.store.cleared import Cleared
from ddrive.store.derive import (
    DEFAULT_NAME,
    check_store,
    checked_key,
    derive_pair,
    discovery_of,
    encode_name,
    feed_folder,
    key_of,
    name_bytes,
)
from ddrive.store.events import FeedClosed, FeedOpened, FeedWatcher
from ddrive.store.files import lock_store, make_folders, stored_master_key, write_durably
from ddrive.store.interface import StoreEvent
from ddrive.store.opening import Openings, stored_feed
from ddrive.store.refilling import Refill
from ddrive.store.shelf import NAME, feed_folder_at, signed_length
from ddrive.store.signed import SignedLengths

TICK_S = 0.25  # how often sessions look after what takes too long
FLUSH_S = 1.0  # how often received blocks are made durable
IDLE_S = 30.0  # a feed that only peers asked for is closed when none has been there for this long

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    """One open feed."""

    feed: Feed
    session: FeedSession
    users: int = 0  # calls of `open_feed` without a `release`
    idle_since: float = 0.0


class OwnedStore:
    """The feeds below `path`, of one dialect. Made by `open_store`."""

    default_name = DEFAULT_NAME

    def __init__(self, path: Path, dialect: Dialect, master_key: bytes, nursery: trio.Nursery) -> None:
        self.path = path
        self.dialect = dialect
        self.master_key = master_key
        self._nursery = nursery
        self._signed = SignedLengths(path)
        self.cleared = Cleared(path / CLEARED)
        self._floors: dict[PublicKey, int] = {}  # the same, not written down yet
        self._entries: dict[DiscoveryKey, _Entry] = {}
        self._openings = Openings()
        self._closing: dict[DiscoveryKey, trio.Event] = {}  # feeds whose files are not given back yet
        self._listeners: list[Callable[[OwnedStore, Feed], object]] = []
        self._events: Source[StoreEvent] = Source()
        self._is_closed = False

    @property
    def owner(self) -> "OwnedStore":
        """The store itself."""
        return self

    # -- feeds -----------------------------------------------------------------------------------------------------

    async def open_feed(
        self,
        *,
        key: PublicKey | None = None,
        name: bytes | str | None = None,
        discovery_key: DiscoveryKey | None = None,
        live: bool = False,
    ) -> Feed:
        """Return the feed with this key, or the writable one that this name determines; one object per feed.

        By its discovery key only a feed that is held is found. `live`: follow it, fetching the last block as soon as a
        peer announces it. Each call is one use, which `release` takes back.
        Raises: InvalidKey, NotFound, StorageLocked when another process has the feed open.
        """
        pair = None
        if discovery_key is not None and key is None and (key := self.known(discovery_key)) is None:
            raise NotFound(f"no feed {short(discovery_key)} in {self.path}")
        if name is not None:
            pair = derive_pair(self.master_key, name := name_bytes(name), self.dialect)
            key = pair.public_key
        key = checked_key(key)
        await trio.lowlevel.checkpoint()
        await self._settled(self.discovery_key(key))
        try:
            entry = self._entry(key, name=name, pair=pair)
        except TakesLong:
            opening = self._openings.open(self.discovery_key(key), self._files_of(key, name, pair))
            entry = self._started(await opening)
        entry.users += 1
        if live:
            entry.session.set_eager_length()
        return entry.feed

    async def create_feed(self, name: bytes | str | None = None) -> Feed:
        """Return the writable feed called `name`, by default under a new random name of 32 bytes."""
        return await self.open_feed(name=os.urandom(KEY_BYTES) if name is None else name)

    async def release(self, feed: Feed) -> None:
        """Take one `open_feed` back; a feed that nobody uses is closed a while after its last peer has left.

        Done even when the caller is cancelled: a use that nobody takes back would keep the feed open for ever.
        """
        entry = self._entries.get(self.discovery_key(key_of(feed)))
        if entry is not None and entry.feed is feed and entry.users:
            entry.users -= 1
            entry.idle_since = trio.current_time()
        await trio.lowlevel.checkpoint()

    async def forget(self, key: PublicKey, *, constant: int = 0) -> None:
        """Close the feed and delete its files.

        Of a feed of ours the number of signed blocks is remembered: whoever opens it again under its name can append
        only when it has as many again, so that nothing is signed twice. Unless it has none but the first ones, of which
        so many are `constant`: written again, they are the same.
        """
        found = self.discovery_key(key)
        folder = self.path / feed_folder(found)
        async with self._taken_out(found, for_good=True):
            stored = feed_folder_at(folder)
            if stored is not None and stored.own and (length := signed_length(folder)) > constant:
                self._signed.note({key: length})
            await trio.to_thread.run_sync(shutil.rmtree, folder, True)

    async def become_author(
        self, key: PublicKey, *, name: bytes | None = None, secret_key: bytes | None = None, length: int = 0
    ) -> None:
        """Take over the secret key of a feed, which follows from its name or is given; it is opened anew afterwards.

        `length` blocks were signed already: nothing is appended before all of them are here.
        Raises: WrongKey when the name, with the master key of this store, stands for another feed.
        """
        if name is not None and derive_pair(self.master_key, name, self.dialect).public_key != key:
            raise WrongKey(f"with the master key of this store, another feed than {short(key)} has its name")
        found = self.discovery_key(key)
        folder = self.path / feed_folder(found)
        self._signed.note({key: length})
        async with self._taken_out(found):
            make_folders(folder)
            if name is not None:
                write_durably(folder / NAME, encode_name(name))
            elif secret_key is not None:
                write_durably(folder / SECRET_KEY, secret_key)

    def must_reach(self, key: PublicKey, length: int, *, durable: bool) -> None:
        """Append nothing to a feed of ours before it has `length` blocks again; remembered if `durable`."""
        self._floors[key] = max(length, self._floors.get(key, 0))
        entry = self._entries.get(self.discovery_key(key))
        if entry is not None and isinstance(entry.feed.log, FeedLog):
            entry.feed.log.must_reach(length)
            entry.feed.report_floor()
        if durable:
            self._signed.note({key: length})

    def take_master_key(self, master_key: bytes) -> None:
        """Derive keys from this master key from now on; the caller makes sure that no feed needs the present one."""
        write_durably(self.path / "master_key", master_key)
        self.master_key = master_key

    def users(self, key: PublicKey) -> int:
        """Return how many calls of `open_feed` for this feed were not taken back."""
        entry = self._entries.get(self.discovery_key(key))
        return entry.users if entry is not None else 0

    def feeds(self) -> list[Feed]:
        """Return the feeds that are open."""
        return [entry.feed for entry in self._entries.values()]

    def events(self, *kinds: type[StoreEvent], about: Callable[[Feed], bool] | None = None) -> Subscription[StoreEvent]:
        """Return an iterator over what happens to the feeds from now on: events of these classes, or all.

        `about` chooses the feeds. The classes are in `ddrive.store.events`.
        """
        return self._events.subscribe(*kinds, where=None if about is None else lambda event: about(event.feed))

    def session(self, feed: Feed) -> FeedSession:
        """Return the exchange of an open feed.

        Raises: Closed when the feed is not open in this store.
        """
        entry = self._entries.get(self.discovery_key(key_of(feed)))
        if entry is None or entry.feed is not feed:
            raise Closed(f"feed {short(feed.key)} is not open")
        return entry.session

    def folder(self, key: PublicKey) -> Path:
        """Return where the files of a feed are, or would be."""
        return self.path / feed_folder(self.discovery_key(key))

    def discovery_key(self, key: PublicKey) -> DiscoveryKey:
        """Return the name under which peers of this dialect look for a feed."""
        return discovery_of(key, self.dialect)

    def known(self, discovery_key: DiscoveryKey) -> PublicKey | None:
        """Return the key of a feed that is open or on disk, or None."""
        folder = self.path / feed_folder(discovery_key)
        if (entry := self._entries.get(discovery_key)) is not None:
            return entry.feed.key
        try:
            key = (folder / "key").read_bytes()
        except OSError:
            return None
        return PublicKey(key) if len(key) == KEY_BYTES and self.discovery_key(PublicKey(key)) == discovery_key else None

    def load(self, discovery_key: DiscoveryKey) -> Feed:
        """Return the feed of this name in the open, opening it from disk; no use is counted.

        Raises: NotFound when no such feed is held, StorageLocked while its files are looked through, which goes on.
        """
        key = self.known(discovery_key)
        if key is None:
            raise NotFound(f"no feed {short(discovery_key)} in {self.path}")
        try:
            return self._entry(key).feed
        except TakesLong:
            self._nursery.start_soon(self._open_beside, key)
            raise StorageLocked(f"feed {short(key)} was damaged and is being looked through") from None

    def subscribe(self, listener: Callable[["OwnedStore", Feed], object]) -> Callable[[], None]:
        """Call `listener` with this store and each feed that is opened from now on; the result ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def _entry(self, key: PublicKey, *, name: bytes | None = None, pair: KeyPair | None = None) -> _Entry:
        """Return the open feed with this key, opening it when it is not.

        Raises: TakesLong when that is too much to be done at once, StorageLocked while it is opened or closed.
        """
        if self._is_closed:
            raise Closed(f"the store {self.path} is closed")
        found = self.discovery_key(key)
        entry = self._entries.get(found)
        if entry is None and (found in self._closing or found in self._openings):
            raise StorageLocked(f"feed {short(key)} is being closed, or its files are being looked through")
        return self._started(open_now(self._files_of(key, name, pair))) if entry is None else entry

    async def _open_beside(self, key: PublicKey) -> None:
        """Open a feed that no call waits for."""
        try:
            await self.release(await self.open_feed(key=key))
        except (OSError, DriveError) as error:
            logger.warning("cannot open feed=%s reason=%s", short(key), error)

    def _files_of(self, key: PublicKey, name: bytes | None, pair: KeyPair | None) -> Callable[[], FeedLog]:
        return partial(stored_feed, self.folder(key), key, self.master_key, self.dialect, name=name, pair=pair)

    def _started(self, log: FeedLog) -> _Entry:
        """Let an opened feed be exchanged, and tell who wants to know."""
        log.clearing = partial(self.cleared.clearing, log.key)
        log.must_reach(max(self._signed.of(log.key), self._floors.get(log.key, 0)))
        feed = Feed(log)
        session = FeedSession(feed)
        feed.set_source(session)
        if feed.writable:
            Refill(feed, log, session, self._signed)
        session.observer = watcher = FeedWatcher(feed, self._events)
        feed.subscribe(watcher)
        entry = _Entry(feed, session, idle_since=trio.current_time())
        self._entries[self.discovery_key(feed.key)] = entry
        for listener in list(self._listeners):
            listener(self, feed)
        self._events.publish(FeedOpened(feed))
        return entry

    # -- time ------------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Let the sessions look after what takes too long, for ever."""
        while True:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            for entry in list(self._entries.values()):
                if entry.session.is_idle:
                    continue
                entry.idle_since = now
                try:
                    entry.session.tick(now)
                except Exception:
                    logger.exception("tick failed feed=%s", short(entry.feed.key))

    async def _tidy(self) -> None:
        """Make received blocks durable every second and close what nobody uses, for ever."""
        while True:
            await trio.sleep(FLUSH_S)
            for found, entry in list(self._entries.items()):
                try:
                    if entry.users or not entry.session.is_idle or trio.current_time() - entry.idle_since <= IDLE_S:
                        await entry.feed.flush()
                    elif self._entries.get(found) is entry:
                        async with self._taken_out(found):
                            pass
                except (OSError, DriveError) as error:
                    logger.error("cannot save feed=%s error=%s", short(entry.feed.key), error)

    @asynccontextmanager
    async def _taken_out(self, found: DiscoveryKey, *, for_good: bool = False) -> AsyncIterator[None]:
        """Close a feed, if it is open (`for_good`: even without room to flush), and let nobody open it meanwhile."""
        await self._settled(found)
        event = self._closing[found] = trio.Event()
        try:
            entry = self._entries.pop(found, None)
            if entry is not None:
                entry.session.close()
                with suppress(OSError) if for_good else nullcontext():
                    await entry.feed.aclose()
                self._events.publish(FeedClosed(entry.feed))
            yield
        finally:
            del self._closing[found]
            event.set()

    async def _settled(self, found: DiscoveryKey) -> None:
        """Return when a feed is neither being opened nor being closed."""
        await self._openings.settled(found)
        while (closing := self._closing.get(found)) is not None:
            await closing.wait()
            await self._openings.settled(found)

    async def _close(self) -> None:
        """Close every feed; what was received is durable then."""
        self._is_closed = True
        await self._openings.cancel()
        for closing in list(self._closing.values()):
            await closing.wait()
        for found in list(self._entries):
            try:
                async with self._taken_out(found):
                    pass
            except OSError as error:
                logger.error("cannot save feed=%s error=%s", short(found), error)
        self.cleared.close()
        self._events.close()


@asynccontextmanager
async def open_store(
    path: Path | str, dialect: Dialect = DWEB, *, master_key: bytes | None = None
) -> AsyncIterator[OwnedStore]:
    """Own the directory `path`, made when missing, for as long as the context lasts.

    `master_key` (32 bytes) is used instead of the stored one, which is then neither read nor written.
    Raises: StorageLocked when another process owns it.
    """
    check_store(dialect, master_key)
    root = Path(path)
    make_folders(root)
    lock = lock_store(root)
    failure: BaseException | None = None
    try:
        master_key = stored_master_key(root) if master_key is None else master_key
        async with trio.open_nursery() as nursery:
            store = OwnedStore(root, dialect, master_key, nursery)
            nursery.start_soon(store._tick)
            nursery.start_soon(store._tidy)
            try:
                yield store
            except trio.Cancelled:
                raise
            except BaseException as error:  # raised again outside, where no nursery wraps it into a group
                failure = error
            finally:
                with trio.CancelScope(shield=True):
                    await store._close()
                nursery.cancel_scope.cancel()
    finally:
        os.close(lock)
    if failure is not None:
        raise failure
