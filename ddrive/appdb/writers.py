"""The feeds of one database: which there are, which are authorised, and their entries, decoded and kept for a while.

Feed numbers: 0 is the source, 1 our own feed unless we own the source, then the others as they become known. A feed
is opened, and so asked for and shared, once it is authorised: listed by the source or by a feed that is authorised. Of
each feed we show the newest entry whose clock counts nothing that we have not heard of yet, so that what is read is
complete: links bring feeds one after the other.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from logging import getLogger
from typing import Final, NamedTuple

import trio

from ddrive.appdb.clock import lost_in_circle, unseen
from ddrive.appdb.node import (
    MAX_FEEDS,
    Entry,
    FeedList,
    InvalidEntry,
    Meter,
    check_header,
    decode_entry,
    listed_keys,
    parse,
)
from ddrive.appdb.table import Pointer, feed_of, pointer_to, seq_of
from ddrive.errors import Closed, NotHeld
from ddrive.feed import MAX_LENGTH, Feed
from ddrive.ids import PublicKey, short
from ddrive.store.interface import Store

CACHE_BYTES: Final = 128 * 1024 * 1024  # of entries per database; one takes 1 to 4 KiB
ARRIVAL_S: Final = 5.0  # connected peers have so long to bring the last blocks; then what is complete is shown
MAX_ROUNDS: Final = 64  # of hiding what is early; clocks that agree need one or two
MAX_LISTS: Final = 2048  # kept, of up to 512 feeds each
SOURCE: Final = 0

_log = getLogger(__name__)


class View(NamedTuple):
    """What a database shows at one moment: the heads, and how many blocks of each feed number they stand for."""

    heads: tuple[Entry, ...]
    lengths: tuple[int, ...]


class Writers:
    """All feeds of a database, and the `Load` of its walks; shared by a database and its checkouts.

    Two generations of decoded entries stand in for an exact order of use, as in a trie.
    """

    def __init__(self, store: Store, source: Feed, local: Feed, *, limit_bytes: int = CACHE_BYTES) -> None:
        self.store = store
        self.keys: list[PublicKey] = []
        self.feeds: list[Feed | None] = []
        self.local = 0 if local is source else 1
        self.authorized: frozenset[int] = frozenset({SOURCE})
        self.news = trio.Event()  # set, and replaced, when a feed has grown
        self.cut_off = False  # some feed is not held whole, so the view may show less when its peers leave
        self._origins: list[str] = []
        self._numbers: dict[PublicKey, int] = {}
        self._lists: dict[Pointer, FeedList] = {}
        self._limit_bytes = limit_bytes // 2
        self._young: dict[Pointer, Entry] = {}
        self._old: dict[Pointer, Entry] = {}
        self._young_bytes = 0
        self._meter = Meter()
        self._turn = trio.Lock()
        self._seen: list[int] = []
        self._view = View((), ())
        self._late: dict[int, int] = {}  # lengths of feeds at which the last block was waited for in vain
        self._wishes: list[AbstractContextManager[None]] = []
        self._begun: set[int] = set()  # feeds whose header is checked
        self._alien: set[int] = set()  # those that are something else: a drive that was authorised by mistake
        self._unsubscribe: list[Callable[[], None]] = []
        self._is_closed = False
        for feed in [source] if local is source else [source, local]:
            self._adopt(self.number(feed.key, "the caller"), feed)

    # Feeds

    @property
    def source(self) -> Feed:
        """The feed that gives the database its key."""
        feed = self.feeds[SOURCE]
        assert feed is not None
        return feed

    @property
    def own(self) -> Feed:
        """The feed that we write to."""
        feed = self.feeds[self.local]
        assert feed is not None
        return feed

    def number(self, key: PublicKey, whose: str) -> int:
        """Return the number of a feed, a new one when it was not known. Raises: InvalidEntry for too many feeds."""
        number = self._numbers.get(key)
        if number is None:
            number = len(self.keys)
            if number >= MAX_FEEDS:
                raise InvalidEntry(f"{whose} makes this a database of more than {MAX_FEEDS} feeds")
            self._numbers[key] = number
            self.keys.append(key)
            self.feeds.append(None)
            self._origins.append(f"feed {short(key)}")
        return number

    def known(self, key: PublicKey) -> int | None:
        """Return the number of a feed, None when it has none."""
        return self._numbers.get(key)

    def _adopt(self, number: int, feed: Feed) -> None:
        self.feeds[number] = feed
        self._unsubscribe.append(feed.subscribe(_Growth(self)))
        if not feed.writable:
            wish = feed.want(0, MAX_LENGTH)  # everything, also what is appended later: so it can be read offline
            wish.__enter__()
            self._wishes.append(wish)

    def close(self) -> None:
        """Withdraw all wishes and listen no longer."""
        while self._wishes:
            self._wishes.pop().__exit__(None, None, None)
        while self._unsubscribe:
            self._unsubscribe.pop()()
        self._is_closed = True
        self.changed()

    def changed(self) -> None:
        """Wake who waits for news."""
        self.news.set()
        self.news = trio.Event()

    async def until(self, news: trio.Event) -> None:
        """Return when `news`, an earlier value of our attribute, was set. Raises: Closed."""
        source = self.source
        async with trio.open_nursery() as nursery:

            async def end() -> None:
                await source.wait_closed()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end)
            await news.wait()
            nursery.cancel_scope.cancel()
        if self._is_closed or source.closed:
            raise Closed(f"database {self.origin(SOURCE)} was closed")

    # Load

    def recent(self) -> Mapping[Pointer, Entry]:
        """Return what was used last."""
        return self._young

    def peek(self, pointer: Pointer) -> Entry | None:
        """Return the entry if its block is held. Raises: InvalidEntry."""
        return self._young.get(pointer) or self._peek_further(pointer)

    async def entry(self, pointer: Pointer) -> Entry:
        """Return the entry, waiting for its block when there is a peer to wait for.

        Raises: InvalidEntry, NotHeld when the feed is too short or no peer is there; what the feed raises.
        """
        entry = self.peek(pointer)
        while entry is None:
            number, seq = feed_of(pointer), seq_of(pointer)
            await self._block(number, seq)
            entry = self.peek(pointer)
            if entry is None:  # its list of feeds is missing
                await self._block(number, parse(seq, await self._block(number, seq), self.origin(number)).inflate)
                entry = self.peek(pointer)
        return entry

    async def give_way(self) -> None:
        """Let other tasks have their turn."""
        await trio.lowlevel.checkpoint()

    def add(self, entry: Entry) -> Entry:
        """Keep `entry`, and return it."""
        return self._keep(entry.pointer, entry)

    def _keep(self, pointer: Pointer, entry: Entry) -> Entry:
        size = entry.size_bytes
        self._young_bytes += size
        if self._young_bytes + self._meter.bytes > self._limit_bytes:
            self._old, self._young = self._young, {}
            self._young_bytes = size
            self._meter.bytes = 0
        self._young[pointer] = entry
        return entry

    def _peek_further(self, pointer: Pointer) -> Entry | None:
        entry = self._old.get(pointer)
        if entry is None:
            number, seq = feed_of(pointer), seq_of(pointer)
            feed = self.feeds[number]
            block = feed.get_held(seq) if feed is not None else None
            if block is None:
                return None
            origin = self.origin(number)
            fields = parse(seq, block, origin)
            listed = self._list(number, fields.inflate)
            if listed is None:
                return None
            entry = decode_entry(number, seq, fields, listed, origin, self._meter)
        return self._keep(pointer, entry)

    def _list(self, number: int, seq: int) -> FeedList | None:
        """Return the list in block `seq` of a feed, None when it is not held. Raises: InvalidEntry."""
        pointer = pointer_to(number, seq)
        found = self._lists.get(pointer)
        if found is None:
            feed, origin = self.feeds[number], self.origin(number)
            block = feed.get_held(seq) if feed is not None else None
            if block is None:
                return None
            keys = listed_keys(seq, parse(seq, block, origin), origin)
            found = FeedList(tuple(self.number(key, f"block {seq} of {origin}") for key in keys), seq)
            if len(self._lists) >= MAX_LISTS:
                del self._lists[next(iter(self._lists))]
            self._lists[pointer] = found
        return found

    async def _block(self, number: int, seq: int) -> bytes:
        feed, origin = self.feeds[number], self.origin(number)
        if feed is None:
            raise InvalidEntry(f"block {seq} of {origin} is pointed at, but nobody who may has authorised that feed")
        if seq >= feed.length:
            await feed.refresh()
        if seq >= feed.length:
            raise NotHeld(f"block {seq} of {origin} is needed, and only {feed.length} of its blocks are known here yet")
        if not feed.has(seq) and not feed.peer_count:
            raise NotHeld(f"block {seq} of {origin} is needed, and there is no peer to get it from")
        return await feed.get(seq)

    def origin(self, number: int) -> str:
        """Return a feed as messages name it."""
        return self._origins[number]

    # Heads

    async def view(self) -> View:
        """Return what the database shows now. Raises: InvalidEntry, what the feeds raise."""
        if self._lengths() == self._seen:
            return self._view
        async with self._turn:
            while True:
                limit = trio.current_time() + ARRIVAL_S  # for all feeds together
                self.cut_off = False
                seen = self._lengths()
                newest = [await self._newest(number, length, limit) for number, length in enumerate(seen)]
                if not await self._open_authorized(newest):
                    break
            shown = [_shown(entry, length) for entry, length in zip(newest, seen, strict=True)]
            await self._hide_early(newest, shown, seen)
            present = [entry for entry in newest if entry is not None]
            heads = unseen(present)
            lost = lost_in_circle(present, heads)
            if lost is not None:
                raise lost.fault("its clock and those of other feeds say in a circle that each came after the other")
            self._view, self._seen = View(tuple(heads), tuple(shown)), [] if self.cut_off else seen
        return self._view

    def _lengths(self) -> list[int]:
        return [0 if feed is None else feed.length for feed in self.feeds]

    async def _newest(self, number: int, length: int, limit: float) -> Entry | None:
        """Return the last entry of a feed of which the first `length` blocks are looked at, None when it has none.

        What connected peers have not brought until `limit`, on trio's clock, is done without, also from then on.
        """
        feed = self.feeds[number]
        if feed is None or not length:
            return None
        if number not in self._begun and feed.has(0):
            self._begin(number, await feed.get(0))
        if length < 2 or number in self._alien:
            return None
        pointer = pointer_to(number, length - 1)
        if feed.held(0, length) == length:
            return self.peek(pointer)
        self.cut_off = True
        if feed.peer_count and self._late.get(number) != length:
            with trio.move_on_at(limit) as waiting, suppress(NotHeld):
                if number not in self._begun:
                    self._begin(number, await self._block(number, 0))
                return None if number in self._alien else self.peek(pointer) or await self.entry(pointer)
            if waiting.cancelled_caught:
                self._late[number] = length
        runs = feed.runs(0, length)
        complete = runs[0][1] if runs and not runs[0][0] else 0
        return self.peek(pointer_to(number, complete - 1)) if complete > 1 else None

    def _begin(self, number: int, header: bytes) -> None:
        """Look at block 0 of a feed. Raises: InvalidEntry when the source begins something else than a database.

        Any other feed that does has no entries: nobody can take an authorisation back, and a key that was given by
        mistake must not cost the whole database.
        """
        try:
            check_header(header, self.origin(number))
        except InvalidEntry as error:
            if number == SOURCE:
                raise
            self._alien.add(number)
            _log.warning("writer passed over database=%s error=%s", self.origin(SOURCE), error)
        self._begun.add(number)

    async def _open_authorized(self, newest: Sequence[Entry | None]) -> bool:
        """Open what the newest lists authorise; tell whether anything is new."""
        reached = [SOURCE]
        for number in reached:
            entry = newest[number] if number < len(newest) else None
            reached += [other for other in entry.listed.numbers if other not in reached] if entry is not None else []
        self.authorized |= frozenset(reached)
        missing = [number for number in reached if self.feeds[number] is None]
        for number in missing:
            feed = await self.store.open_feed(key=self.keys[number], live=True)
            self._adopt(number, feed)
        return bool(missing)

    async def _hide_early(self, newest: list[Entry | None], shown: list[int], lengths: Sequence[int]) -> None:
        """Replace entries that have seen what we have not by older ones of the same feed, until all fit together.

        Raises: InvalidEntry when they hide each other without end.
        """
        changed: Entry | None = None
        for _ in range(MAX_ROUNDS):
            changed = None
            await trio.lowlevel.checkpoint()
            for number, entry in enumerate(newest):
                if entry is None or number == self.local or _fits(entry, shown):
                    continue
                newest[number] = self._last_fitting(number, entry.seq, shown)
                shown[number] = _shown(newest[number], lengths[number])
                changed = entry
            if changed is None:
                return
        if changed is not None:  # after the last round
            raise changed.fault("its clock and those of other feeds contradict each other, each hides the other")

    def _last_fitting(self, number: int, end: int, shown: Sequence[int]) -> Entry | None:
        """Return the last entry before block `end` that fits, None when none is found among those that are held."""
        first = 0
        while end - first > 1:
            middle = (first + end) // 2
            entry = self.peek(pointer_to(number, middle))
            if entry is not None and _fits(entry, shown):
                first = middle
            else:
                end = middle
        return self.peek(pointer_to(number, first)) if first else None


def _shown(entry: Entry | None, length: int) -> int:
    return entry.seq + 1 if entry is not None else min(length, 1)


def _fits(entry: Entry, shown: Sequence[int]) -> bool:
    """Tell whether the clock counts no entry (a header is none) beyond those shown."""
    return all(
        seen < 2 or number == entry.feed or (number < len(shown) and seen <= shown[number])
        for number, seen in enumerate(entry.clock)
    )


class _Growth:
    """Listener of one feed that wakes who waits for news of the database."""

    def __init__(self, writers: Writers) -> None:
        self._writers = writers

    def grew(self, length: int) -> None:
        self._writers.changed()

    def stored(self, start: int, end: int) -> None:
        if self._writers.cut_off:
            self._writers.changed()

    def cleared(self, start: int, end: int) -> None: ...
    def nodes_stored(self) -> None: ...
