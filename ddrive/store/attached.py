"""A view of the feeds that an engine owns: reads their files itself and asks the engine for what is not there.

A block that is held costs no message. Wishes, appends and refreshes go over the control socket. When the engine dies,
held blocks are still served and everything else waits, for as long as its caller does, until an engine is back; then
all feeds are opened and all wishes told again.
"""

import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from ddrive.dialect import DIALECTS, Dialect
from ddrive.errors import Closed, CorruptStorage, DriveError, EngineError, LengthChanged, LocalProtocolError
from ddrive.feed.feed import Feed
from ddrive.feed.storage import FileDirectory
from ddrive.feed.view import FeedView
from ddrive.ids import BlockIndex, PublicKey, short
from ddrive.store.calling import Calling, open_calling
from ddrive.store.rpc import Failure, Reply, exception

LOADER_THREADS = 2  # that read and check blocks ahead of a reader; more than cores gain nothing
APPEND_BYTES = 32 * 1024 * 1024  # of one call; half the frame limit
_REFRESH_S = 6.0  # the engine's own limit is 5 s

_log = logging.getLogger(__name__)


class AttachedFeed:
    """What stands behind one feed of a view: its `BlockSource`, its appender, and its share of the connection."""

    def __init__(self, calling: Calling, loader: Executor, dialect: Dialect, handle: int, *, live: bool) -> None:
        self.handle = handle
        self.dialect = dialect
        self.live = live
        self.feed: Feed | None = None
        self.broken: Exception | None = None  # why the feed could not be opened
        self.users = 0  # calls of `open_feed` without a `release`
        self._calling = calling
        self._loader = loader
        self._peers = 0
        self._wish_ids = itertools.count(1)
        self._wishes: dict[int, tuple[str, dict[str, Any]]] = {}
        self._is_ready = False  # the engine of this connection has the feed open
        self._news = trio.Event()  # that may have changed

    # BlockSource

    @property
    def peer_count(self) -> int:
        """How many peers the engine has for this feed; 0 while there is no engine."""
        return self._peers

    def want_blocks(self, start: BlockIndex, end: BlockIndex, *, urgent: bool) -> Callable[[], None]:
        """Ask for the blocks [start, end) until the result is called."""
        return self._wish("feed.want", start=start, end=end, urgent=urgent)

    def want_offset(self, byte_offset: int, start: BlockIndex, end: BlockIndex) -> Callable[[], None]:
        """Ask for what is needed to find `byte_offset` within the blocks [start, end) until the result is called."""
        return self._wish("feed.want_offset", byte_offset=byte_offset, start=start, end=end)

    def want_length(self, min_length: int) -> Callable[[], None]:
        """Ask for news until there are `min_length` blocks, or the result is called."""
        return self._wish("feed.want_length", min_length=min_length)

    async def refresh(self) -> None:
        """Return when the engine knows no newer length; at once when there is no engine or nobody to ask."""
        if self._peers:
            with trio.move_on_after(_REFRESH_S):
                try:
                    await self._calling.call("feed.refresh", {"handle": self.handle})
                except EngineError:
                    return

    def _wish(self, method: str, **params: Any) -> Callable[[], None]:
        wish = next(self._wish_ids)
        self._wishes[wish] = method, params | {"handle": self.handle, "wish": wish}
        self._calling.notice(*self._wishes[wish])

        def withdraw() -> None:
            if self._wishes.pop(wish, None):
                self._calling.notice("feed.drop", {"handle": self.handle, "wish": wish})

        return withdraw

    # Appending

    async def append(self, blocks: Sequence[Any], expected_length: int | None) -> BlockIndex:
        """Return the index of the first of `blocks`, which the engine has signed and stored.

        More than `APPEND_BYTES` go in several calls; when somebody appends in between, the first of them stay.
        Raises: LengthChanged, NotWritable, TooLarge.
        """
        feed = self._opened()
        while True:
            first = feed.length if expected_length is None else expected_length
            try:
                at = first
                for batch in _batches(blocks):
                    await self._append_batch(feed, batch, at)
                    at += len(batch)
                return BlockIndex(first)
            except LengthChanged:
                if expected_length is not None:
                    raise

    async def _append_batch(self, feed: Feed, blocks: list[bytes], at: int) -> None:
        """Append exactly once, whatever happens to the engine meanwhile."""
        params = {"handle": self.handle, "blocks": blocks, "expected_length": at}
        while True:
            try:
                await self._calling.call("feed.append", params)
                return
            except EngineError:
                await self._wait_ready()
            if feed.length >= at + len(blocks) and all(
                feed.get_held(BlockIndex(at + number)) == block for number, block in enumerate(blocks)
            ):
                return
            if feed.length != at:
                raise LengthChanged(f"feed {short(feed.key)} has {feed.length} blocks, not {at}")

    # Its share of the connection

    def tell(self) -> None:
        """Open the feed again at an engine that does not know it, and tell it all wishes."""
        if self.feed is None:
            return  # its first call is still waiting and is sent again
        self._calling.post("feed.open", self.opening(key=self.feed.key), self.answered)
        for method, params in self._wishes.values():
            self._calling.notice(method, params)

    def opening(self, *, key: PublicKey | None = None, name: bytes | str | None = None) -> dict[str, Any]:
        """Return the parameters of `feed.open`."""
        which = {"name": name} if key is None else {"key": key}
        return {"handle": self.handle, "dialect": self.dialect.name, "live": self.live} | which

    def answered(self, answer: Reply | Failure) -> None:
        """Take the answer to `feed.open`."""
        if isinstance(answer, Failure):
            _log.warning("feed not open at the engine handle=%d error=%s", self.handle, exception(answer))
            return
        facts = answer.result
        try:
            if self.feed is None:
                directory = FileDirectory(Path(facts["path"]), read_only=True)
                view = FeedView(directory, PublicKey(facts["key"]), self._loader)
                view.writable, view.forked = facts["writable"], facts["forked"]
                feed = Feed(view)
                _renew(feed, facts["length"], facts["runs"])
                feed.appender = self.append
                feed.set_source(self)
                self.feed = feed
            else:
                _renew(self.feed, facts["length"], facts["runs"])
            self._peers = facts["peers"]
            self._set_ready(True)
        except (DriveError, OSError) as error:
            self.broken = error

    def lost(self) -> None:
        """The engine is gone."""
        self._peers = 0
        self._set_ready(False)

    def changed(self, params: dict[str, Any]) -> None:
        """Take the event `feed.changed`."""
        feed = self.feed
        if feed is None or feed.closed:
            return
        self._peers = params["peers"]
        feed.log.forked = params["forked"]
        try:
            if "runs" in params:
                _renew(feed, params["length"], params["runs"])
                return
            feed.report_grew(params["length"])
        except (CorruptStorage, OSError) as error:  # what is known already stays readable
            _log.error("view cannot follow its owner feed=%s error=%s", short(feed.key), error)
            return
        for held, start, end in params["changes"]:
            if held:
                feed.report_stored(start, end)
            else:
                feed.report_cleared(start, end)
        if params["nodes"]:
            feed.report_nodes()

    def _set_ready(self, is_ready: bool) -> None:
        self._is_ready = is_ready
        self._news.set()
        self._news = trio.Event()

    async def _wait_ready(self) -> None:
        """Return when an engine has the feed open. Raises: EngineError when there will be none."""
        await self._calling.wait_connected()
        while not self._is_ready:
            await self._news.wait()
            await self._calling.wait_connected()

    def _opened(self) -> Feed:
        if self.feed is None:
            raise LocalProtocolError("the feed is not open")
        return self.feed


class AttachedStore:
    """The feeds of one dialect, as a view. Gives the same object for the same feed."""

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
        Raises: what the engine raises; StorageError when its directory cannot be read.
        """
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

    async def release(self, feed: Feed) -> None:
        """Take one `open_feed` back; a feed that nobody uses is closed."""
        await trio.lowlevel.checkpoint()
        attached = self._usable(feed.key)
        if attached is None or attached.feed is not feed:
            return
        attached.users -= 1
        if attached.users <= 0:
            del self._by_key[feed.key]
            self._give_back(attached)
            await feed.aclose()

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
        del self._attached.feeds[attached.handle]
        self._attached.calling.post("feed.close", {"handle": attached.handle}, lambda answer: None)

    async def aclose(self) -> None:
        """Close all feeds."""
        for attached in self._by_key.values():
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

    def next_handle(self) -> int:
        """Return a number for a feed that was not used before."""
        return next(self._handles)

    async def close_at_end(self) -> None:
        """Close all feeds when the connection has ended for good: whoever waits for a block waits in vain."""
        await self.calling.ended.wait()
        await self.aclose()

    async def aclose(self) -> None:
        """Close all feeds of all stores."""
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


def _renew(feed: Feed, length: int, runs: list[tuple[int, int]]) -> None:
    """Replace all that a view knows of its owner, and wake who waits for some of it."""
    view = feed.log
    assert isinstance(view, FeedView)
    feed.report_grew(length)
    view.adopt(length, runs)
    for start, end in runs:
        feed.report_stored(start, end)
    feed.report_nodes()


def _batches(blocks: Sequence[Any]) -> list[list[bytes]]:
    """Return `blocks` in pieces of at most `APPEND_BYTES`, at least one block each."""
    batches: list[list[bytes]] = []
    room = 0
    for block in map(bytes, blocks):
        if not batches or len(block) > room:
            batches.append([])
            room = APPEND_BYTES
        batches[-1].append(block)
        room -= len(block)
    return batches
