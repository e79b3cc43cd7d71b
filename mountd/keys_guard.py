"""Keeps the two feeds of a drive of ours in step while they are filled up again.

Entries that come back from a peer tell how long the feed with the content was: that may be shorter here, at everybody
we know, or nowhere to be found. Nothing is appended to it before it is as long again. Of a feed whose filling up was
interrupted, the entries held already are looked through, a few at a time; until that is done all appends wait.
"""

import logging
from collections import deque

import trio

from ddrive.drive.walks import stat_or_none
from ddrive.errors import CorruptStorage, DriveError, InvalidProof
from ddrive.feed import Feed
from ddrive.ids import BlockIndex, PublicKey, short
from ddrive.store.store import OwnedStore
from ddrive.trie.node import decode_node
from mountd.keeping_reach import content_key
from mountd.space_following import ENTRIES_PER_TURN, LOOKED_THROUGH

_log = logging.getLogger(__name__)


class Guard:
    """Watches all feeds of ours in the stores."""

    def __init__(self, stores: list[OwnedStore]) -> None:
        self._behind: deque[_Watched] = deque()  # to be looked through
        self._wake = trio.Event()
        self._settled = trio.Event()
        self._settled.set()
        for store in stores:
            store.subscribe(self.feed_opened)

    def feed_opened(self, store: OwnedStore, feed: Feed) -> None:
        """Watch a feed if it is ours."""
        if feed.writable:
            watched = _Watched(store, feed)
            feed.subscribe(watched)
            if feed.behind:
                self._behind.append(watched)
                self._wake.set()
                if self._settled.is_set():
                    self._settled = trio.Event()

    async def settled(self) -> None:
        """Return when everything that is open has been looked through: before that nothing may be appended."""
        await self._settled.wait()

    async def run(self) -> None:
        """Look through what is opened, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._behind:
                await self._behind.popleft().look_through()
            self._settled.set()


async def look_through(store: OwnedStore, feed: Feed) -> None:
    """Let nothing be appended to the content of a drive of ours before it has all that the drive's entries tell of."""
    await _Watched(store, feed).look_through()


class _Watched:
    """One feed of ours, which may hold the entries of a drive."""

    def __init__(self, store: OwnedStore, feed: Feed) -> None:
        self._store = store
        self._feed = feed
        self._content: PublicKey | None = None
        self._end = 0  # of the content that entries from peers tell of

    async def look_through(self) -> None:
        """Look at what came before; other tasks get their turn in between."""
        length = self._feed.length
        try:
            for start, end in self._feed.runs(max(0, length - LOOKED_THROUGH), length):
                for piece in range(start, end, ENTRIES_PER_TURN):
                    self._look(piece, min(end, piece + ENTRIES_PER_TURN))
                    await trio.lowlevel.checkpoint()
        except (DriveError, OSError) as error:  # closed meanwhile, for one: it is looked through when opened again
            _log.warning("not looked through feed=%s error=%s", short(self._feed.key), error)

    def stored(self, start: int, end: int) -> None:
        """Look at entries that came from a peer."""
        if self._store.session(self._feed).giver is not None:
            self._look(start, end)

    def cleared(self, start: int, end: int) -> None:
        """Nothing to do."""

    def grew(self, length: int) -> None:
        """Nothing to do: what came is told by `stored`."""

    def nodes_stored(self) -> None:
        """Nothing to do."""

    def _look(self, start: int, end: int) -> None:
        self._end = max([self._end, *(self._content_end(index) for index in range(start, end))])
        if self._end and self._content is None:
            self._content = content_key(self._feed)
        if self._content is not None:
            self._store.must_reach(self._content, self._end, durable=not self._feed.behind)

    def _content_end(self, index: int) -> int:
        """Return where the content of an entry ends, 0 when it has none."""
        try:
            block = self._feed.get_held(BlockIndex(index)) if index else None
            node = None if block is None else decode_node(index, block, self._feed.name)
        except (CorruptStorage, InvalidProof):
            return 0
        stat = stat_or_none(node)
        return stat.offset + stat.blocks if stat is not None and stat.is_file and stat.mount is None else 0
