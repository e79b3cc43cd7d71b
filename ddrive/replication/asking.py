"""The half of a feed's exchange that asks: wishes in, requests out, and the wait for news.

What is asked of whom is decided by `scheduler`; here its actions become messages on links.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import trio

from ddrive.errors import LocalProtocolError
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.merkle import MAX_BYTES
from ddrive.ids import BlockIndex, ChannelId, PeerId, short
from ddrive.protocol.link import Link
from ddrive.protocol.messages import Message, Request
from ddrive.replication.demand import Wish
from ddrive.replication.local import HeldBlocks
from ddrive.replication.observing import DEFAULT_OPTIONS, PeerOptions
from ddrive.replication.peer import PeerState
from ddrive.replication.scheduler import Action, Drop, Scheduler
from ddrive.replication.serving import Uploads

REFRESH_S = 5.0  # the longest wait for peers to prove what they announced
ENDLESS = 1 << 52  # longer than any feed
MAX_LOST = 1024  # blocks of one wish: who waits for more of them is told of those

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class LinkedPeer:
    """A peer on the channel that carries the feed."""

    link: Link
    channel: ChannelId
    state: PeerState
    uploads: Uploads
    options: PeerOptions = DEFAULT_OPTIONS
    bytes_seen: int = 0
    distrusted: int = 0  # nodes that had turned out to be damaged here when its account of what we keep was begun
    offers: bool = True  # it says that it serves requests; `state.uploading` also needs that we want to ask it
    done: bool = False  # we have told it that we ask for nothing more
    wants_receipts: bool = False

    def send(self, *messages: Message) -> None:
        """Queue messages to the peer."""
        self.link.send(self.channel, *messages)


class Asking:
    """Who gets the missing blocks of `feed` from its peers: the feed's `BlockSource` but for `peer_count`."""

    def __init__(self, feed: Feed, *, eager_length: bool, request_timeout_s: float) -> None:
        if not isinstance(feed.log, FeedLog):
            raise LocalProtocolError("only the owner of a feed's files exchanges it with peers")
        self.feed = feed
        self._log = feed.log
        self._local = HeldBlocks(self._log)
        self._scheduler = Scheduler(
            self._local,
            downloading=not feed.writable,
            eager_length=eager_length,
            request_timeout_s=request_timeout_s,
        )
        self._by_id: dict[PeerId, LinkedPeer] = {}
        self._expected: dict[Link, float] = {}  # links on which we asked for the feed -> until when we hope
        self._changed: trio.Event | None = None  # somebody waits for news
        self._watchers: list[Callable[[], None]] = []
        self._givers_told: int | None = 0  # of which the watchers know

    def set_eager_length(self) -> None:
        """Fetch from now on the last block of each peer as soon as it is announced."""
        if not self._scheduler.eager_length:
            self._run(self._scheduler.set_eager_length(trio.current_time()))

    def want_blocks(self, start: BlockIndex, end: BlockIndex, *, urgent: bool) -> Callable[[], None]:
        """Wish for the blocks [start, end) until the result is called. Raises: ValueError."""
        _check_place(start, ENDLESS)
        wish, actions = self._scheduler.want_blocks(start, end, trio.current_time(), urgent=urgent)
        self._run(actions)
        self._tell_lost(start, end)
        return self._withdrawal(wish)

    def want_offset(self, byte_offset: int, start: BlockIndex, end: BlockIndex) -> Callable[[], None]:
        """Wish for the nodes that tell which block holds a byte until the result is called. Raises: ValueError."""
        _check_place(start, ENDLESS)
        _check_place(byte_offset, MAX_BYTES)
        wish, actions = self._scheduler.want_offset(byte_offset, start, end, trio.current_time())
        self._run(actions)
        return self._withdrawal(wish)

    def want_length(self, min_length: int) -> Callable[[], None]:
        """Wish for a proof of `min_length` blocks until the result is called."""
        wish, actions = self._scheduler.want_length(min_length, trio.current_time())
        self._run(actions)
        return self._withdrawal(wish)

    async def refresh(self) -> None:
        """Return when every announced length is proven or nobody has news, after 5 s at the latest."""
        if self.feed.writable and not self.feed.behind:
            return
        withdraw = self.want_length(ENDLESS)
        try:
            with trio.move_on_after(REFRESH_S):
                while self._expected or not self._scheduler.settled():
                    await self.news()
        finally:
            withdraw()

    async def ends(self) -> bool:
        """Tell whether a peer that serves requests has all blocks of the feed, and nobody tells of more."""
        await self.refresh()
        return self.is_whole()

    def is_whole(self) -> bool:
        """Tell the same of what is known now."""
        length = self.feed.length
        found = [peer.remote for peer in self._scheduler.peers.values() if peer.uploading]
        return bool(length) and self.claimed_length() <= length and any(remote.covers(0, length) for remote in found)

    def claimed_length(self) -> int:
        """Return the greatest length that a peer says the feed has, but for those that did not prove it when asked."""
        peers = [peer for peer in self._scheduler.peers.values() if peer.uploading]
        return max((peer.remote.length for peer in peers if peer.remote.length > peer.doubted), default=0)

    @property
    def giver_count(self) -> int:
        """How many of those who carry the feed have some of it, or have yet to say what they have."""
        states = [peer.state for peer in self._by_id.values() if peer.state.uploading]
        return sum(bool(state.remote.length) or not state.first_want_answered for state in states)

    def watch_peers(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` whenever a link comes or goes, or the count of those with some of the feed changes.

        The result ends that.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def wished(self, start: int, end: int) -> bool:
        """Tell whether somebody wishes for some of the blocks [start, end)."""
        return any(wish.start < end and start < wish.end for wish in self._scheduler.demand.blocks)

    def availability(self, index: int) -> bool | None:
        """Tell whether a peer that serves requests has announced block `index`; None while one has yet to say."""
        undecided = bool(self._expected)
        for peer in self._by_id.values():
            if peer.state.uploading and peer.state.remote.has(index):
                return True
            undecided = undecided or (self._scheduler.downloading and peer.state.has_yet_to_say(index))
        return None if undecided else False

    def may_have_length(self, length: int) -> bool | None:
        """Tell whether a peer has announced `length` blocks and was not found lying; None while one has yet to say."""
        undecided = bool(self._expected)
        for peer in self._by_id.values():
            if peer.state.uploading and peer.state.remote.length >= max(length, peer.state.doubted + 1):
                return True
            undecided = undecided or (self._scheduler.downloading and peer.state.has_yet_to_say(0))
        return None if undecided else False

    async def news(self) -> None:
        """Return when a peer said or sent something, came or went; a quarter of a second later at the latest."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def _withdrawal(self, wish: Wish) -> Callable[[], None]:
        """Return a call that takes the wish back, once."""
        is_open = True

        def withdraw() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._run(self._scheduler.withdraw(wish, trio.current_time()))

        return withdraw

    def _tell_lost(self, start: int, end: int) -> None:
        """Tell who wishes for the blocks [start, end) which of them our disk has lost and no peer has."""
        for index in self._log.lost_own(start, min(end, self._log.length))[:MAX_LOST]:
            if self.availability(index) is False:
                self.feed.report_lost(index, index + 1)

    def _look_again(self) -> None:
        """Let those look again who wait for something else than blocks that arrive."""
        for wish in self._scheduler.demand.blocks if self._log.any_lost else ():
            self._tell_lost(wish.start, wish.end)
        self._notify()
        if self._givers_told != (givers := self.giver_count):
            self._givers_told = givers
            for watcher in list(self._watchers):
                watcher()

    def _notify(self) -> None:
        """Let `refresh` look again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _run(self, actions: list[Action]) -> None:
        """Do what the scheduler decided; all requests of one call leave in one piece."""
        for action in actions:
            peer = self._by_id.get(action.peer)
            if peer is None:
                continue
            if isinstance(action, Drop):
                logger.info("peer dropped feed=%s address=%s", short(self.feed.key), peer.link.address)
                peer.link.disconnect(action.reason)
            elif isinstance(action.message, Request):
                asked = action.message
                peer.send(Request(asked.index, asked.bytes, asked.hash, self._log.digest(asked.index)))
            else:
                peer.send(action.message)


def _check_place(place: int, end: int) -> None:
    """Raise when no feed has anything there: a message about it could not be written, and none of those with it."""
    if not 0 <= place < end:
        raise ValueError(f"there is nothing at {place}: blocks and bytes are numbered from 0")
