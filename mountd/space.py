"""Keeps the bytes of others' drives within `cache_size`, and so much of the disk free: asked before a block is stored.

What goes first is decided by `ddrive.store.ledger`; here its decisions are carried out. Our own feeds, databases and
pinned blocks are neither counted nor dropped. When nothing may be dropped, a block is not stored but passed on.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import trio

from ddrive.errors import Closed, CorruptStorage, DriveError, NotFound, StorageError, StorageLocked
from ddrive.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.reading import SEGMENT_BITS
from ddrive.ids import BlockIndex, DiscoveryKey, PublicKey, short
from ddrive.store.ledger import Ledger, Segment, Tier
from ddrive.store.runs import Run, within, without
from ddrive.store.shelf import feed_folders, held_on_disk, sizes
from ddrive.store.store import OwnedStore
from mountd.files import load_json, save_json
from mountd.keeping_reach import header_in
from mountd.space_following import Following
from mountd.space_pins import Pins

CACHE_BYTES = 20 << 30  # of others' drives, unless told otherwise
FREE_BYTES = 20 << 30  # are left free on the disk, or a tenth of it, whichever is less
FREE_SHARE = 10
LOOK_S = 5.0  # between two looks at what was used, and at the disk
SAVE_S = 60.0
LOOK_BYTES = 1 << 20  # written since the last look at the disk
SEGMENT_BLOCKS = 1 << SEGMENT_BITS
MAX_POSTPONED = 64  # segments that are just wished for, one after the other, until nothing can be dropped
_PER_TURN = 256  # segments counted before other tasks get their turn

_log = logging.getLogger(__name__)


class _Counted:
    """Listens to one feed of others and keeps the ledger true."""

    def __init__(self, space: "Space", topic: DiscoveryKey, store: OwnedStore, feed: Feed) -> None:
        self.topic, self.store, self.feed = topic, store, feed
        self.tier = Tier.CONTENT
        self._space = space
        feed.subscribe(self)

    def stored(self, start: int, end: int) -> None:
        """Count more."""
        if start == 0:
            self._space.judge(self)
        self._space.following.came(self.feed, start, end)
        self._space.count(self, start, end, 1)

    def cleared(self, start: int, end: int) -> None:
        """Count less."""
        self._space.count(self, start, end, -1)

    def grew(self, length: int) -> None:
        """Nothing is held for that."""

    def nodes_stored(self) -> None:
        """Nodes are not counted."""


class Space:
    """What may be stored. `kept_feeds` names feeds that are neither counted nor dropped."""

    def __init__(
        self,
        state: Path,
        stores: Mapping[str, OwnedStore],
        kept_feeds: Callable[[], Iterable[PublicKey]],
        *,
        cache_size: int | None = None,
        min_free: int | None = None,
    ) -> None:
        self.pins = Pins(state / "pins.json")
        self.cache_size = CACHE_BYTES if cache_size is None else cache_size
        self._path = state / "use.json"
        self._state = state
        self._stores = stores
        self._kept_feeds = kept_feeds
        self._ledger = Ledger()
        self._open: dict[DiscoveryKey, _Counted] = {}
        self._repinned: set[PublicKey] = set()  # feeds of which other blocks are pinned than were counted
        self.following = Following(self.pins, self._repinned.add)
        self._free = 0
        self._evicted = 0  # bytes dropped so far
        self._unseen = LOOK_BYTES  # written since the last look at the disk
        disk = os.statvfs(state)
        whole = disk.f_blocks * disk.f_frsize
        self.min_free = min(FREE_BYTES, whole // FREE_SHARE) if min_free is None else min_free
        for topic, uses in load_json(self._path, {}).items():
            try:
                self._ledger.remember(DiscoveryKey(bytes.fromhex(topic)), uses)
            except (TypeError, ValueError) as error:
                raise StorageError(f"{self._path} is damaged ({error!r}): move it away to start anew") from error
        for store in stores.values():
            store.subscribe(self.feed_opened)
            for feed in store.feeds():
                self.feed_opened(store, feed)

    def report(self) -> dict[str, int]:
        """Return the limits and what is in use of them, and what was dropped since we began, in bytes."""
        self._look()
        return {
            "cache_size": self.cache_size,
            "cached": self._ledger.bytes,
            "min_free": self.min_free,
            "free": self._free,
            "evicted": self._evicted,
        }

    # What stores tell

    def feed_opened(self, store: OwnedStore, feed: Feed) -> None:
        """Count a feed of others from now on, and be asked before anything is written to a feed."""
        log = feed.log
        assert isinstance(log, FeedLog), "a store owns the files of its feeds"
        if feed.writable:
            log.room = self._room_for_own
            return
        if feed.key in set(self._kept_feeds()):
            return
        topic = store.discovery_key(feed.key)
        log.used = {}
        counted = self._open[topic] = _Counted(self, topic, store, feed)
        log.room = partial(self._room, counted)
        self.judge(counted)
        self.following.opened(feed)

    def judge(self, counted: _Counted) -> None:
        """Decide when a feed is to be dropped from: entries of a drive only when there is no content left."""
        self._ledger.add_feed(counted.topic, counted.tier)  # reading may find that the block is damaged, and tell us
        try:
            counted.tier = _tier(counted.feed.get_held(BlockIndex(0)))
        except CorruptStorage:
            counted.tier = Tier.CONTENT
        self._ledger.add_feed(counted.topic, counted.tier)

    def count(self, counted: _Counted, start: int, end: int, sign: int) -> None:
        """Count blocks that came (1) or went (-1)."""
        now = time.time()
        for number, size in _counted(counted.feed, self.pins.outside(counted.feed.key, start, end)):
            self._ledger.changed(Segment(counted.topic, number), sign * size, now)

    def forget(self, topic: DiscoveryKey) -> None:
        """Count a feed no longer, as its files are gone."""
        self._open.pop(topic, None)
        self._ledger.forget_feed(topic)

    # Room

    def _room(self, counted: _Counted, index: int, size: int) -> bool:
        """Make room for a block of others; tells whether there is some.

        What is pinned is stored in any case, and so are entries: without them nothing can be found, and they are few.
        """
        self._unseen += size
        if within(self.pins.runs(counted.feed.key), index, index + 1):
            self._make_free(size)
            return True
        over = self._ledger.bytes + size - self.cache_size
        if over > 0 and self._drop(over) < over:
            return counted.tier is Tier.ENTRIES
        return self._make_free(size) or counted.tier is Tier.ENTRIES

    def _room_for_own(self, index: int, size: int) -> bool:
        self._unseen += size
        self._make_free(size)
        return True

    def _make_free(self, size: int) -> bool:
        """Drop what is needed to keep the disk from filling up; tells whether that was enough."""
        if self._unseen >= LOOK_BYTES:
            self._look()
        if self._free - self._unseen - size >= self.min_free:
            return True
        self._look()
        lacking = self.min_free + size - self._free
        if lacking <= 0:
            return True
        self._drop(lacking)
        self._look()
        return self._free - size >= self.min_free

    def _look(self) -> None:
        disk = os.statvfs(self._state)
        self._free = disk.f_bavail * disk.f_frsize
        self._unseen = 0

    def _drop(self, wanted: int) -> int:
        """Drop at least so many bytes, if there are so many; returns how many went."""
        if self.following.is_behind:
            return 0
        self._gather_use()
        before, postponed = self._ledger.bytes, 0
        while (gone := before - self._ledger.bytes) < wanted and postponed < MAX_POSTPONED:
            segment = self._ledger.oldest()
            if segment is None:
                break
            if self._drop_from(segment, max(wanted - gone, min(LOOK_BYTES, self.cache_size // 64))):
                postponed = 0
            else:
                postponed += 1
        self._evicted += gone
        return gone

    def _drop_from(self, segment: Segment, wanted: int) -> bool:
        """Drop blocks of a segment until so much is gone, if it can be dropped now."""
        start = segment.number << SEGMENT_BITS
        try:
            found = self._loaded(segment.feed)
            if found.store.session(found.feed).wished(start, start + SEGMENT_BLOCKS):
                self._ledger.postpone(segment)
                return False
        except (Closed, StorageLocked):  # it is being closed
            self._ledger.postpone(segment)
            return False
        except (DriveError, OSError) as error:
            _log.warning("cannot drop from feed=%s error=%s", short(segment.feed), error)
            self._ledger.forget_feed(segment.feed)
            return True
        before = self._ledger.bytes
        pinned = within(self.pins.runs(found.feed.key), start, start + SEGMENT_BLOCKS)
        runs = list(without(found.feed.runs(start, start + SEGMENT_BLOCKS), pinned))
        for first, last in runs:
            for piece in _pieces(found.feed, first, last, wanted - (before - self._ledger.bytes)):
                found.feed.clear(*piece)
            if before - self._ledger.bytes >= wanted:
                return True
        self._ledger.recount(segment, 0)  # nothing is left, whatever was counted
        return True

    def _loaded(self, topic: DiscoveryKey) -> _Counted:
        """Return a feed, opened if need be. Raises: NotFound, StorageLocked while it is being closed, StorageError."""
        counted = self._open.get(topic)
        if counted is not None and not counted.feed.closed:
            return counted
        for store in self._stores.values():
            if store.known(topic) is not None:
                store.load(topic)
                return self._open[topic]
        raise NotFound("it is on the disk no more")

    def _gather_use(self) -> None:
        """Take note of what was read."""
        now = time.time()
        for topic, counted in list(self._open.items()):
            used = counted.feed.log.used
            if used:
                for number in used:
                    self._ledger.used(Segment(topic, number), now)
                used.clear()
            if counted.feed.closed:
                del self._open[topic]

    # Time

    async def run(self) -> None:
        """Count what is held, then keep to the limits also when others fill the disk, until cancelled."""
        try:
            await self._open_pinned()
            await self._count_all()
            saved_at = trio.current_time()
            while True:
                self._gather_use()
                await self.following.catch_up()
                repinned = list(self._repinned)
                self._repinned.clear()
                await self.recount(repinned)
                self.enforce()
                if trio.current_time() - saved_at >= SAVE_S:
                    saved_at = trio.current_time()
                    self.save()
                with trio.move_on_after(LOOK_S):
                    await self.following.wait()
        finally:
            self._gather_use()
            self.save()

    async def _open_pinned(self) -> None:
        """Let all pins follow their paths, before anything is dropped."""
        for store in self._stores.values():
            for topic in {store.discovery_key(pin.key) for pin in self.pins}:
                try:
                    if store.known(topic) is not None:
                        await store.release(await store.open_feed(discovery_key=topic))
                except (DriveError, OSError) as error:
                    _log.warning("pinned drive not opened feed=%s error=%s", short(topic), error)
        await self.following.catch_up()

    def enforce(self) -> None:
        """Drop what is too much."""
        over = self._ledger.bytes - self.cache_size
        if over > 0:
            self._drop(over)
        self._look()
        self._make_free(0)

    def save(self) -> None:
        """Keep the times of use."""
        try:
            save_json(self._path, {topic.hex(): uses for topic, uses in self._ledger.uses().items()})
        except OSError as error:
            _log.warning("times of use not saved error=%s", error)

    async def recount(self, keys: Iterable[PublicKey]) -> None:
        """Count these feeds anew, because pins have changed."""
        for store in self._stores.values():
            for key in keys:
                counted = self._open.get(store.discovery_key(key))
                if counted is not None:
                    await self._count_open(counted)
                elif store.known(store.discovery_key(key)) is not None:
                    await self._count_closed(store, key)
        self._ledger.sort()

    async def _count_all(self) -> None:
        """Count what lies on the disk."""
        for store in self._stores.values():
            for stored in await trio.to_thread.run_sync(lambda root: list(feed_folders(root)), store.path):
                if stored.own or stored.key in set(self._kept_feeds()):
                    continue
                counted = self._open.get(store.discovery_key(stored.key))
                try:
                    if counted is not None:
                        await self._count_open(counted)
                    else:
                        await self._count_closed(store, stored.key)
                except (DriveError, OSError) as error:
                    _log.warning("not counted feed=%s error=%s", short(stored.key), error)
        self._ledger.counted_all()

    async def _count_open(self, counted: _Counted) -> None:
        """Count a feed that may change meanwhile, piece by piece."""
        feed, pinned = counted.feed, self.pins.runs(counted.feed.key)
        last = feed.length >> SEGMENT_BITS
        for number in range(last + 1):
            start = number << SEGMENT_BITS
            runs = without(feed.runs(start, start + SEGMENT_BLOCKS), within(pinned, start, start + SEGMENT_BLOCKS))
            self._ledger.recount(Segment(counted.topic, number), sum(size for _, size in _counted(feed, runs)))
            if number % _PER_TURN == 0:
                await trio.lowlevel.checkpoint()

    async def _count_closed(self, store: OwnedStore, key: PublicKey) -> None:
        """Count a feed that is not open, in a thread."""
        topic = store.discovery_key(key)
        held = await trio.to_thread.run_sync(held_on_disk, store.folder(key), key, self.pins.runs(key))
        if (counted := self._open.get(topic)) is not None:  # opened meanwhile
            await self._count_open(counted)
            return
        self._ledger.add_feed(topic, _tier(held.first))
        for number, size in held.segments:
            self._ledger.recount(Segment(topic, number), size)


def _counted(feed: Feed, runs: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """Yield (segment, bytes) of these blocks."""
    for start, end in runs:
        yield from sizes(feed.log, start, end)


def _tier(block: bytes | None) -> Tier:
    """Return in which order a feed is dropped from, by its first block."""
    return Tier.CONTENT if header_in(block) is None else Tier.ENTRIES


def _pieces(feed: Feed, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield the part of a run that has so many bytes, from its start on."""
    origin, stop = feed.byte_offset(start), start
    while stop < end:
        stop += 1
        reached = feed.byte_offset(stop)
        if origin is None or reached is None:
            stop = end
        elif reached - origin >= wanted:
            break
    if start < stop:
        yield start, stop
