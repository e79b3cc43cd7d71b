"""A view of the feeds that an engine owns: reads their files itself and asks the engine for what is not there.

A block that is held costs no message. Wishes, appends and refreshes go over the control socket. When the engine dies,
held blocks are still served and everything else waits, for as long as its caller does, until an engine is back; then
all feeds are opened and all wishes told again.
"""

import itertools
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio

from ddrive.dialect import DIALECTS, Dialect
from ddrive.errors import Closed, EngineError
from ddrive.feed.feed import Feed
from ddrive.ids import PublicKey
from ddrive.store.attached_feed import AttachedFeed
from ddrive.store.calling import Calling, open_calling
from ddrive.store.derive import DEFAULT_NAME, checked_key, key_of, name_bytes

USE_S = 1.0  # between two messages about what was read: `stats` is at most this far behind
LOADER_THREADS = 2  # read and check blocks ahead of readers: hashing takes twice as long as serving a reader


class Supply(NamedTuple):
    """What there is of a feed: its known length, how many peers carry it, and whether blocks of it are wished for."""

    length: int
    peers: int
    is_wanted: bool


class AttachedStore:
    """The feeds of one dialect, as a view. Gives the same object for the same feed."""

    default_name = DEFAULT_NAME
    owner = None  # another process

    def __init__(self, attached: "Attached", dialect: Dialect) -> None:
        self.dialect = dialect
        self._attached = attached
        self._by_key: dict[PublicKey, AttachedFeed] = {}
        self._turn = trio.Lock()

    async def open_feed(
        self, *, key: PublicKey | None = None, name: bytes | str | None = None, live: bool = False
    ) -> Feed:
        """Return the feed with this key, or the one that the engine derives from `name`.

        `live` lets the engine ask for every new length at once. Waits for an engine when there is none.
        Raises: InvalidKey, what the engine raises; StorageError when its directory cannot be read.
        """
        if key is not None:
            key = checked_key(key)
        name = None if name is None else name_bytes(name)
        attached = self._usable(key)
        if attached is None:
            async with self._turn:
                attached = self._usable(key) or await self._open(key, name, live)
        if live and not attached.live:
            attached.live = True
            attached.tell()
        attached.users += 1
        assert attached.feed is not None
        return attached.feed

    def supply(self, key: PublicKey) -> Supply:
        """Return what there is of a feed, open or not."""
        attached = self._usable(key)
        if attached is None or attached.feed is None:
            return Supply(0, 0, is_wanted=False)
        return Supply(attached.feed.length, attached.peer_count, attached.wishes_blocks)

    async def release(self, feed: Feed) -> None:
        """Take one `open_feed` back, also when the caller is cancelled; a feed that nobody uses is closed."""
        attached = self._usable(key_of(feed))
        if attached is not None and attached.feed is feed:
            attached.users -= 1
            if attached.users <= 0:
                del self._by_key[feed.key]
                self._give_back(attached)
                await feed.aclose()
        await trio.lowlevel.checkpoint()

    async def _open(self, key: PublicKey | None, name: bytes | str | None, live: bool) -> AttachedFeed:
        owner = self._attached
        attached = AttachedFeed(owner.calling, owner.loader, self.dialect, owner.next_handle(), live=live)
        self._attached.feeds[attached.handle] = attached
        kept = False
        try:
            await self._attached.calling.call(
                "feed.open", attached.opening(key=key, name=name), lasting=True, on_answer=attached.answered
            )
            if attached.feed is None:
                raise attached.broken or EngineError("the engine did not open the feed")
            if known := self._usable(attached.feed.key):
                return known
            self._by_key[attached.feed.key] = attached
            kept = True
            return attached
        finally:
            if not kept:
                self._give_back(attached)

    def _usable(self, key: PublicKey | None) -> AttachedFeed | None:
        """Return what is open under `key`; a feed that its user closed is given back to the engine."""
        known = None if key is None else self._by_key.get(key)
        if known is None or key is None or known.feed is None or not known.feed.closed:
            return known
        del self._by_key[key]
        self._give_back(known)
        return None

    def _give_back(self, attached: AttachedFeed) -> None:
        attached.tell_use()
        del self._attached.feeds[attached.handle]
        self._attached.calling.post("feed.close", {"handle": attached.handle}, lambda answer: None)

    async def aclose(self) -> None:
        """Close all feeds."""
        for attached in list(self._by_key.values()):
            if attached.feed:
                await attached.feed.aclose()


class Attached:
    """One connection to an engine: its verbs and its feeds. Made by `open_attached`."""

    def __init__(self, calling: Calling) -> None:
        self.calling = calling
        self.loader = ThreadPoolExecutor(LOADER_THREADS, thread_name_prefix="load")
        self.feeds: dict[int, AttachedFeed] = {}
        self._handles = itertools.count(1)
        self._stores = {name: AttachedStore(self, dialect) for name, dialect in DIALECTS.items()}

    @property
    def is_connected(self) -> bool:
        """Whether an engine answers now."""
        return self.calling.connected

    def store(self, dialect: Dialect) -> AttachedStore:
        """Return the view of the engine's feeds of `dialect`."""
        return self._stores[dialect.name]

    async def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Return the engine's result of `method`. Raises: EngineError when it is gone; what the engine raised."""
        return await self.calling.call(method, params)

    def events(self, topic: str) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[dict[str, Any]]]:
        """Give the events of `topic` from now on."""
        return self.calling.events(topic)

    def wishes(self) -> frozenset[tuple[int, int]]:
        """Return names for all wishes that stand now: as long as they stay the same, whoever waits still waits."""
        return frozenset((feed.handle, wish) for feed in self.feeds.values() for wish in feed.wishes())

    @property
    def is_stranded(self) -> bool:
        """Whether blocks are wished for while no feed that is open has a peer."""
        feeds = self.feeds.values()
        return any(feed.wishes_blocks for feed in feeds) and not any(feed.peer_count for feed in feeds)

    @property
    def is_awaited(self) -> bool:
        """Whether there is no engine, or one that has not answered yet for all feeds: who has peers is not known."""
        return not (self.is_connected and all(feed.is_answered for feed in self.feeds.values()))

    def next_handle(self) -> int:
        """Return a number for a feed that was not used before."""
        return next(self._handles)

    async def tell_use(self) -> None:
        """Tell the engine now and then what was read, for ever."""
        while True:
            await trio.sleep(USE_S)
            for attached in list(self.feeds.values()):
                attached.tell_use()

    async def close_at_end(self) -> None:
        """Close all feeds when the connection has ended for good: whoever waits for a block waits in vain."""
        await self.calling.ended.wait()
        await self.aclose()

    async def aclose(self) -> None:
        """Close all feeds of all stores."""
        for attached in self.feeds.values():
            attached.tell_use()
        await self.calling.flush()
        for store in self._stores.values():
            await store.aclose()
        self.loader.shutdown(cancel_futures=True)

    # Restorer

    def connected(self) -> None:
        """Tell a new engine all that is open."""
        for attached in list(self.feeds.values()):
            attached.tell()

    def disconnected(self) -> None:
        """The engine is gone."""
        for attached in list(self.feeds.values()):
            attached.lost()

    def event(self, topic: str, params: dict[str, Any]) -> None:
        """Hand an event to the feed it is about."""
        if topic == "feed.changed" and (attached := self.feeds.get(params["handle"])):
            attached.changed(params)


@asynccontextmanager
async def open_attached(socket_path: Path, *, reconnect: bool = True) -> AsyncIterator[Attached]:
    """Give a connection to the engine that listens at `socket_path`.

    With `reconnect` it outlives the engine and finds the next one; without, calls fail when the engine goes.
    Raises: EngineError when no engine answers now.
    """
    async with open_calling(socket_path, reconnect=reconnect) as calling:
        attached = Attached(calling)
        calling.add(attached)
        failure: Exception | None = None  # raised below, as it is: not in a group of the nursery
        async with trio.open_nursery() as nursery:
            if not reconnect:
                nursery.start_soon(attached.close_at_end)
            nursery.start_soon(attached.tell_use)
            try:
                yield attached
            except Closed as error:
                failure = EngineError(f"the engine at {socket_path} went away") if calling.ended.is_set() else error
                failure.__cause__ = error if failure is not error else None
            except Exception as error:
                failure = error
            finally:
                with trio.CancelScope(shield=True):
                    await attached.aclose()
            nursery.cancel_scope.cancel()
        if failure:
            raise failure
