"""The feed methods of the control socket: what one attached client has open, wants and hears, on the engine's side.

A client names its open feeds (handles) and its wishes with numbers of its own, so that it can use them at once. All
of them go when the client goes. Each open feed has at most one change record in the client's outbox; changes gather
in it until it is written, and when there are too many it tells everything anew.

    feed.open    {handle, dialect, key | name, live} -> {key, path, length, byte_length, writable, forked, runs, peers}
    feed.append  {handle, blocks | places + file, expected_length, run} -> {index, length}; places: [[offset, size]…]
    feed.reserve {handle, took_s} -> {length}: others append after feed.unreserve, though they do not wait for ever
    feed.refresh {handle} -> {length, ends}, feed.settle: the same, when appends that had begun before have ended
    feed.close   {handle} -> {}
    notices: feed.want {handle, wish, start, end, urgent}, feed.want_offset {handle, wish, byte_offset, start, end},
        feed.want_length {handle, wish, min_length}, feed.drop {handle, wish}, feed.ask_peers {handle, name, payload},
        feed.used {handle, segments, hits, misses}, feed.unreserve {handle}
    event feed.changed {handle, length, byte_length, writable, forked, peers, clears, nodes, passed: [[index, block]…],
        lost: [[start, end]…], and changes: [[held, start, end]…] or runs}
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from ddrive.errors import BadHandle, Closed, CorruptStorage, DriveError, LocalProtocolError
from ddrive.feed.appending import Step
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.passing import Passing
from ddrive.feed.reading import SEGMENT_BITS
from ddrive.ids import BlockIndex, PublicKey, short
from ddrive.replication.demand import AHEAD_BLOCKS
from ddrive.store.answering import Outbox
from ddrive.store.derive import feed_folder
from ddrive.store.reserving import reservations
from ddrive.store.rpc import Event
from ddrive.store.sent import blocks_in
from ddrive.store.store import OwnedStore

MAX_CHANGES = 256  # gathered for one feed; with more, all held runs are sent instead
MAX_WISHES = 100_000  # of one client for one feed
NOTICES = frozenset(
    f"feed.{name}" for name in ("want", "want_offset", "want_length", "drop", "unreserve", "ask_peers", "used")
)
_DISPUTES = 3  # a block that the client finds unusable so many times is fetched again

_log = logging.getLogger(__name__)


class _Served:
    """One feed as one client sees it: the listener that records its changes, and the client's wishes."""

    def __init__(self, handle: int, store: OwnedStore, feed: Feed, outbox: Outbox) -> None:
        self.handle, self.feed = handle, feed
        self.store = store
        self._outbox = outbox
        self._queued = self._nodes = self._all = False
        self._changes: list[tuple[bool, int, int]] = []
        self._peers = feed.peer_count, feed.giver_count
        self._wishes: dict[int, Callable[[], None]] = {}
        self._wanted: dict[int, tuple[int, int]] = {}  # the blocks of those wishes that are for blocks
        self._passed = Passing()  # blocks that there is no room for, not told yet
        self._lost: dict[tuple[int, int], None] = {}  # blocks that nobody has, not told yet
        self._passed_by: dict[int, None] = {}  # their numbers, and those of which there were too many
        self._disputed: dict[int, int] = {}
        self._unsubscribe = [feed.subscribe(self), store.session(feed).watch_peers(self._look_at_peers)]
        self._unsubscribe += [feed.watch_passing(self._pass_on), feed.watch_lost(self._tell_lost)]

    async def aclose(self) -> None:
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        for withdraw in self._wishes.values():
            withdraw()
        self._wishes.clear()
        reservations(self.feed).end(self)
        await self.store.release(self.feed)

    # What the feed tells (FeedListener).

    def stored(self, start: int, end: int) -> None:
        self._change(True, start, end)

    def cleared(self, start: int, end: int) -> None:
        self._disputed = {index: doubts for index, doubts in self._disputed.items() if not start <= index < end}
        self._change(False, start, end)

    def grew(self, length: int) -> None:
        self._queue()

    def nodes_stored(self) -> None:
        self._nodes = True
        self._queue()

    def _pass_on(self, index: int, block: bytes) -> None:
        """Give a block that cannot be kept to a client that reads it soon; one that downloads only hears of it."""
        lengths = [end - start for start, end in self._wanted.values() if start <= index < end]
        if lengths:
            self._passed.add(index, block if min(lengths) <= AHEAD_BLOCKS else b"")
            self._passed_by[index] = None
            self._queue()

    def _tell_lost(self, start: int, end: int) -> None:
        if any(first < end and start < last for first, last in self._wanted.values()):
            self._lost[start, end] = None
            self._queue()

    def _look_at_peers(self) -> None:
        if (self.feed.peer_count, self.feed.giver_count) != self._peers:
            self._queue()

    def _change(self, held: bool, start: int, end: int) -> None:
        last = self._changes[-1] if self._changes else None
        if last and last[0] == held and last[1] <= start <= last[2]:
            self._changes[-1] = (held, last[1], max(last[2], end))
        elif len(self._changes) < MAX_CHANGES and not self._all:
            self._changes.append((held, start, end))
        else:
            self._all = True
            self._changes.clear()
        self._queue()

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self._outbox.defer(self)

    def render(self) -> Event:
        params = self.facts() | {"handle": self.handle, "nodes": self._nodes}
        blocks = self._passed.take_all()
        params["passed"] = [(index, blocks.get(index, b"")) for index in self._passed_by]
        self._passed_by.clear()
        params["lost"], self._lost = list(self._lost), {}
        if self._all:
            params["runs"] = self.feed.runs(0, self.feed.length)
        else:
            params["changes"] = self._changes
        self._queued = self._nodes = self._all = False
        self._changes = []
        return Event("feed.changed", params)

    def facts(self) -> dict[str, Any]:
        feed = self.feed
        peers, givers = self._peers = feed.peer_count, feed.giver_count
        return {
            "length": feed.length,
            "byte_length": feed.byte_length,
            "writable": feed.writable and (bool(feed.length) or not feed.behind),
            "behind": feed.behind,
            "forked": feed.forked,
            "peers": peers,
            "givers": givers,
            "clears": self.store.cleared.count(feed.key),
        }

    # What the client wants.

    def want(self, method: str, params: dict[str, Any]) -> None:
        if method == "feed.unreserve":
            reservations(self.feed).end(self)
            return
        if method == "feed.ask_peers":
            self.store.session(self.feed).ask_peers(str(params["name"]), bytes(params["payload"]))
            return
        if method == "feed.used":
            self._note_use(params["segments"])
            stats = self.store.session(self.feed).stats
            stats.cache_hits += int(params.get("hits", 0))  # a mount that outlived an update does not count
            stats.cache_misses += int(params.get("misses", 0))
            return
        wish = int(params["wish"])
        if method == "feed.drop":
            self._wanted.pop(wish, None)
            if withdraw := self._wishes.pop(wish, None):
                withdraw()
            return
        source = self.feed.source
        if source is None or wish in self._wishes:
            return
        if len(self._wishes) >= MAX_WISHES:
            raise LocalProtocolError(f"more than {MAX_WISHES} wishes for one feed")
        if method == "feed.want_length":
            self._wishes[wish] = source.want_length(int(params["min_length"]))
            return
        start, end = BlockIndex(int(params["start"])), BlockIndex(int(params["end"]))
        if method == "feed.want_offset":
            self._wishes[wish] = source.want_offset(int(params["byte_offset"]), start, end)
            return
        self._tell_held(start, end)
        self._wanted[wish] = start, end
        self._wishes[wish] = source.want_blocks(start, end, urgent=bool(params["urgent"]))

    def _note_use(self, segments: Iterable[int]) -> None:
        """Take note of what the client has read itself."""
        used, last = self.feed.log.used, self.feed.length >> SEGMENT_BITS
        if used is not None:
            for segment in map(int, segments):
                if 0 <= segment <= last:
                    used.pop(segment, None)
                    used[segment] = None  # the last ones at the end

    def _tell_held(self, start: int, end: int) -> None:
        """Say again which blocks of [start, end) are held: the client asks because it does not know, or doubts."""
        if end - start == 1 and self.feed.has(start) and (start, end) not in self._wanted.values():
            # several wishes at once are of readers that have not been told yet
            doubts = self._disputed[start] = self._disputed.get(start, 0) + 1
            if doubts >= _DISPUTES:
                self._settle_dispute(BlockIndex(start))
                return
            if doubts > 1:  # what we have read once, the client may find damaged
                self.feed.check_again(start)
            try:
                self.feed.get_held(BlockIndex(start))  # verifies it; a bad one is forgotten and fetched again
            except CorruptStorage as error:
                _log.error("held block is bad feed=%s block=%d error=%s", short(self.feed.key), start, error)
        if end - start == 1:
            self.feed.look_for(start)
        for first, last in self.feed.runs(start, end):
            self._change(True, first, last)

    def _settle_dispute(self, index: BlockIndex) -> None:
        _log.error("held block is bad for a view feed=%s block=%d", short(self.feed.key), index)
        if not self.feed.writable:  # our own block would be lost for ever
            self.feed.clear(index, index + 1)


@dataclass
class _Opening:
    """What came for a handle before its feed was open: notices wait here, calls wait for `done`."""

    calls: int = 0
    notices: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)


@dataclass
class _Turn:
    """An append among those of one client to one feed."""

    number: Any  # of its run
    step: Step
    begun: trio.Event = field(default_factory=trio.Event)


class FeedService:
    """The feed methods for one client connection, which appends when `may_append` returns."""

    def __init__(
        self,
        stores: Mapping[str, OwnedStore],
        outbox: Outbox,
        may_append: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        self._stores = stores
        self._outbox = outbox
        self._may_append = may_append
        self._served: dict[int, _Served] = {}
        self._opening: dict[Any, _Opening] = {}
        self._turns: dict[Any, _Turn] = {}  # handle -> the append that came last
        self._closed = False

    def owns(self, method: str) -> bool:
        """Tell whether `method` is one of those answered here."""
        return method.startswith("feed.")

    def expect(self, method: str, params: dict[str, Any]) -> None:
        """Take note of a call that is about to run: what comes for its handle waits until the feed is open.

        Appends to a feed are begun in the order in which they came, so that a client may send the next one, which
        expects the length that the first one makes, before it has the answer to that. Those which name one `run` are
        made one behind the other: when a stranger comes in between with as many blocks, what follows fails as well.
        """
        handle = params.get("handle")
        if method == "feed.open":
            self._opening.setdefault(handle, _Opening()).calls += 1
        elif method == "feed.append":
            before, number = self._turns.get(handle), params.get("run")
            goes_on = before is not None and number is not None and number == before.number
            turn = _Turn(number, Step(before.step if before is not None and goes_on else None))
            self._turns[handle], params["turn"] = turn, (before, turn)

    async def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a feed method that `expect` was told of. Raises: BadHandle, and what the feed raises."""
        if method == "feed.open":
            return await self._open(params)
        if method == "feed.append":
            return await self._append(params)
        feed = await self._feed_of(params)
        match method:
            case "feed.reserve":
                await reservations(feed).reserve(self._at(params), float(params["took_s"]))
                return {"length": feed.length}
            case "feed.refresh" | "feed.settle":
                await (feed.refresh() if method == "feed.refresh" else feed.settle())
                return {"length": feed.length, "ends": self._at(params).store.session(feed).is_whole()}
            case "feed.close":
                self._turns.pop(params["handle"], None)
                await self._served.pop(params["handle"]).aclose()
                return {}
        raise LocalProtocolError(f"{method}: no such method")

    async def _append(self, params: dict[str, Any]) -> dict[str, Any]:
        before, turn = params["turn"]
        try:
            try:  # whatever ends this one, also before it has begun: the next one must not wait for it
                await self._may_append()
                blocks = await blocks_in(params)  # of a file, while those before are stored
                if before is not None:
                    await before.begun.wait()
                feed = await self._feed_of(params)
                reservations(feed).check(self._at(params))
            finally:
                turn.begun.set()  # the next one goes on after the append below has taken its place
            index = await feed.append(blocks, expected_length=params["expected_length"], step=turn.step)
        except BaseException as error:
            turn.step.end(failed=True)  # a row of failures is not kept
            if isinstance(error, BadHandle) and self._turns.get(params.get("handle")) is turn:
                del self._turns[params.get("handle")]
            raise
        return {"index": index, "length": feed.length}

    async def _feed_of(self, params: dict[str, Any]) -> Feed:
        if opening := self._opening.get(params.get("handle")):
            await opening.done.wait()
        return self._at(params).feed

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """Take note of a wish, or of the end of one. Raises: BadHandle."""
        if opening := self._opening.get(params.get("handle")):
            opening.notices.append((method, params))
        elif method in NOTICES:
            self._at(params).want(method, params)
        else:
            raise LocalProtocolError(f"{method}: no such notice")

    async def aclose(self) -> None:
        """Drop all that the client has open."""
        self._closed = True
        while self._served:
            _, served = self._served.popitem()
            await served.aclose()

    def _at(self, params: dict[str, Any]) -> _Served:
        try:
            return self._served[params["handle"]]
        except (KeyError, TypeError):
            raise BadHandle(f"feed {params.get('handle')} is not open on this connection") from None

    async def _open(self, params: dict[str, Any]) -> dict[str, Any]:
        handle = params.get("handle")
        try:
            return await self._opened(handle, params)
        finally:
            opening = self._opening[handle]
            opening.calls -= 1
            if not opening.calls:
                del self._opening[handle]
                opening.done.set()
                if handle in self._served:
                    self._catch_up(opening.notices)

    def _catch_up(self, notices: list[tuple[str, dict[str, Any]]]) -> None:
        for method, params in notices:
            try:
                self.notice(method, params)
            except (DriveError, KeyError, TypeError, ValueError) as error:
                _log.warning("notice refused method=%s error=%r", method, error)

    async def _opened(self, handle: Any, params: dict[str, Any]) -> dict[str, Any]:
        key, name, store = params.get("key"), params.get("name"), self._stores.get(str(params.get("dialect")))
        if not isinstance(handle, int) or store is None or (key is None) == (name is None):
            raise LocalProtocolError("feed.open: handle, a known dialect, and either key or name are needed")
        feed = await store.open_feed(
            key=None if key is None else PublicKey(bytes(key)), name=name, live=bool(params.get("live"))
        )
        served = await self._serve(handle, store, feed)
        if isinstance(feed.log, FeedLog):
            feed.log.show_roots()
        return served.facts() | {
            "key": feed.key,
            "path": str(store.path / feed_folder(store.discovery_key(feed.key))),
            "cleared": str(store.cleared.path),
            "runs": feed.runs(0, feed.length),
        }

    async def _serve(self, handle: int, store: OwnedStore, feed: Feed) -> _Served:
        """Return the feed under its handle; one that is open already is released once: it was opened twice."""
        served = self._served.get(handle)
        if served and served.feed is feed:
            await store.release(feed)
        elif served:
            await store.release(feed)
            raise LocalProtocolError(f"feed.open: handle {handle} is another feed")
        elif self._closed:
            await store.release(feed)
            raise Closed("the client went away")
        else:
            served = self._served[handle] = _Served(handle, store, feed, self._outbox)
        return served
