"""One feed and all the links that carry it: messages in, verified blocks into the feed, answers out.

Everything here is a plain call, so that no lock is needed. Which block is asked of whom is decided by `scheduler`; the
feed verifies and stores; this module connects the two with the links and keeps the counts.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import trio

from ddrive.errors import Forked, InvalidProof, LocalProtocolError, RemoteProtocolError
from ddrive.feed import rle
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.merkle import Proof
from ddrive.ids import BlockIndex, ChannelId, PeerId, short
from ddrive.protocol.link import Link
from ddrive.protocol.messages import (
    Cancel,
    Data,
    Extension,
    Have,
    Message,
    Options,
    Request,
    Status,
    Unhave,
    Want,
)
from ddrive.replication.announcing import Announcer
from ddrive.replication.blocks import REGION_BLOCKS
from ddrive.replication.demand import Wish
from ddrive.replication.extensions import Extensions
from ddrive.replication.local import HeldBlocks
from ddrive.replication.peer import PeerState, PeerStats
from ddrive.replication.scheduler import REQUEST_TIMEOUT_S, Action, Drop, Scheduler
from ddrive.replication.serving import Uploads

REFRESH_S = 5.0  # the longest wait for peers to prove what they announced
EXPECTED_S = 5.0  # how long a channel that we asked for counts as about to open
ENDLESS = 1 << 52  # longer than any feed
PROGRESS_BYTES = 256  # between two ticks: more than signs of life, so an answer is on its way

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Peer:
    """One link of the session."""

    link: Link
    channel: ChannelId
    state: PeerState
    uploads: Uploads
    wants_receipts: bool = False
    bytes_seen: int = 0

    def send(self, message: Message) -> None:
        """Queue a message to the peer."""
        self.link.send(self.channel, message)


class FeedSession:
    """The exchange of one feed; it is the feed's `BlockSource` and one of its listeners.

    `eager_length`: the last block of each peer is fetched as soon as it is announced, so that the feed follows.
    """

    def __init__(self, feed: Feed, *, eager_length: bool = False, request_timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        if not isinstance(feed.log, FeedLog):
            raise LocalProtocolError("only the owner of a feed's files exchanges it with peers")
        self.feed = feed
        self.stats = PeerStats()
        self._log = feed.log
        self._scheduler = Scheduler(
            HeldBlocks(self._log),
            downloading=not feed.writable,
            eager_length=eager_length,
            request_timeout_s=request_timeout_s,
        )
        self._peers: dict[Link, _Peer] = {}
        self._by_id: dict[PeerId, _Peer] = {}
        self._expected: dict[Link, float] = {}  # links on which we asked for the feed -> until when we hope
        self._uploading = True
        self._finished = False
        self._giver: _Peer | None = None  # whose Data is being stored
        self._changed = trio.Event()
        self._watchers: list[Callable[[], None]] = []
        self._announcer = Announcer(self._log, lambda: self._peers.values())
        self._extensions = Extensions(self)
        self._unsubscribe = feed.subscribe(self)

    # -- links -----------------------------------------------------------------------------------------------------

    @property
    def peer_count(self) -> int:
        """How many links carry the feed now."""
        return len(self._peers)

    @property
    def is_idle(self) -> bool:
        """Whether no link carries the feed or is about to."""
        return not self._peers and not self._expected

    def links(self) -> list[Link]:
        """Return the links that carry the feed now."""
        return list(self._peers)

    def peer_stats(self) -> dict[Link, PeerStats]:
        """Return the counts of each link that carries the feed now."""
        return {link: peer.state.stats for link, peer in self._peers.items()}

    def remote_length(self) -> int:
        """Return the greatest length that a peer claims; nothing of it may be proven."""
        return max((peer.state.remote.length for peer in self._peers.values()), default=0)

    def watch_peers(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` whenever a link comes or goes; the result ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def expect(self, link: Link) -> None:
        """Note that the feed was asked for on `link`: `refresh` waits a while for the answer."""
        if link not in self._peers:
            self._expected[link] = trio.current_time() + EXPECTED_S

    def add_peer(self, link: Link, channel: ChannelId) -> None:
        """Start the exchange on a channel that both sides have opened."""
        self.remove_peer(link)
        now = trio.current_time()
        state, actions = self._scheduler.add_peer(now)
        peer = _Peer(link, channel, state, Uploads(lambda message: peer.send(message), (state.stats, self.stats)))
        peer.bytes_seen = link.bytes_received
        self._peers[link] = self._by_id[state.id] = peer
        options = self._extensions.options()
        if options is not None:
            peer.send(options)
        if not self._uploading or not self._downloading:
            peer.send(self._status())
        self._run(actions)
        self._peers_changed()

    def remove_peer(self, link: Link) -> None:
        """End the exchange on `link`: what its peer owed is asked of the others."""
        self._expected.pop(link, None)
        peer = self._peers.pop(link, None)
        if peer is None:
            self._notify()
            return
        del self._by_id[peer.state.id]
        self._extensions.forget(link)
        self._run(self._scheduler.remove_peer(peer.state, trio.current_time()))
        self._peers_changed()

    def drained(self, link: Link) -> None:
        """Answer more requests: the link has room again."""
        peer = self._peers.get(link)
        if peer is not None:
            self._serve(peer)

    def close(self) -> None:
        """Leave all channels; the feed loses its source."""
        self._unsubscribe()
        for link, peer in list(self._peers.items()):
            link.close_channel(peer.channel)
            self.remove_peer(link)
        if self.feed.source is self:
            self.feed.set_source(None)

    def finish(self) -> None:
        """Tell all peers that nothing more is asked for, so that those which end when all is done can end."""
        self._finished = True
        for peer in list(self._peers.values()):
            peer.send(self._status())
            if not peer.state.downloading:
                self._leave(peer)

    def _peers_changed(self) -> None:
        self._notify()
        for watcher in list(self._watchers):
            watcher()

    def _leave(self, peer: _Peer) -> None:
        """End a channel on which nobody wants anything. Source: wire.md section 10."""
        peer.send(Status(uploading=False, downloading=False))
        peer.link.close_channel(peer.channel)
        self.remove_peer(peer.link)

    # -- what we offer ---------------------------------------------------------------------------------------------

    @property
    def uploading(self) -> bool:
        """Whether requests are answered."""
        return self._uploading

    @uploading.setter
    def uploading(self, uploading: bool) -> None:
        if uploading == self._uploading:
            return
        self._uploading = uploading
        for peer in self._peers.values():
            peer.uploads.clear()
            peer.send(self._status())

    @property
    def _downloading(self) -> bool:
        return self._scheduler.downloading and not self._finished

    @property
    def extensions(self) -> Extensions:
        """The feed's own messages of other layers: `extensions.register(name, handler)`."""
        return self._extensions

    def _status(self) -> Status:
        return Status(uploading=self._uploading, downloading=self._downloading)

    def send(self, link: Link, message: Message) -> None:
        """Send a message to the peer on `link`, if it still takes part."""
        peer = self._peers.get(link)
        if peer is not None:
            peer.send(message)

    # -- wishes ----------------------------------------------------------------------------------------------------

    def set_eager_length(self) -> None:
        """Fetch from now on the last block of each peer as soon as it is announced."""
        if not self._scheduler.eager_length:
            self._run(self._scheduler.set_eager_length(trio.current_time()))

    def want_blocks(self, start: BlockIndex, end: BlockIndex, *, urgent: bool) -> Callable[[], None]:
        """Wish for the blocks [start, end) until the result is called."""
        wish, actions = self._scheduler.want_blocks(start, end, trio.current_time(), urgent=urgent)
        self._run(actions)
        return self._withdrawal(wish)

    def want_offset(self, byte_offset: int, start: BlockIndex, end: BlockIndex) -> Callable[[], None]:
        """Wish for the nodes that tell which block holds a byte until the result is called."""
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
        if self.feed.writable:
            return
        withdraw = self.want_length(ENDLESS)
        try:
            with trio.move_on_after(REFRESH_S):
                while self._expected or not self._scheduler.settled():
                    await self._changed.wait()
        finally:
            withdraw()

    def _withdrawal(self, wish: Wish) -> Callable[[], None]:
        """Return a call that takes the wish back, once."""
        is_open = True

        def withdraw() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._run(self._scheduler.withdraw(wish, trio.current_time()))

        return withdraw

    # -- messages --------------------------------------------------------------------------------------------------

    def received(self, link: Link, message: Message) -> None:
        """Take in one message of the peer on `link`.

        Raises: RemoteProtocolError when it lies or asks for too much.
        """
        peer = self._peers.get(link)
        handle = _HANDLERS.get(type(message))
        if peer is not None and handle is not None:
            handle(self, peer, message)

    def _on_data(self, peer: _Peer, data: Data) -> None:
        if not self._scheduler.expects(peer.state, data):
            if data.value is not None and not self._log.has(data.index):
                peer.send(Unhave(data.index))
            return
        self._giver = peer
        try:
            self.feed.put(data.index, data.value, Proof(data.nodes, data.signature))
        except InvalidProof as error:
            for stats in (peer.state.stats, self.stats):
                stats.verify_failures += 1
            if isinstance(error, Forked):
                self.uploading = False
            raise RemoteProtocolError(f"feed {short(self.feed.key)}: {error}") from error
        finally:
            self._giver = None
        size = None
        if data.value is not None:
            size = len(data.value)
            for stats in (peer.state.stats, self.stats):
                stats.downloaded_blocks += 1
                stats.downloaded_bytes += size
        if peer.wants_receipts:
            peer.send(Have(data.index, 1, ack=True))
        self._run(self._scheduler.answered(peer.state, data.index, size, trio.current_time()))
        self._notify()

    def _on_request(self, peer: _Peer, request: Request) -> None:
        peer.state.asks = True
        if self._uploading:
            peer.uploads.add(request)
            self._serve(peer)

    def _on_cancel(self, peer: _Peer, cancel: Cancel) -> None:
        peer.uploads.cancel(cancel)

    def _on_have(self, peer: _Peer, have: Have) -> None:
        if have.ack:
            return
        now = trio.current_time()
        if have.bitfield is None:
            actions = self._scheduler.has(peer.state, have.start, have.start + have.length, now)
        else:
            packed = rle.decode(have.bitfield, REGION_BLOCKS // 8)
            actions = self._scheduler.has_bits(peer.state, have.start, have.length, packed, now)
        self._run(actions)
        self._notify()

    def _on_unhave(self, peer: _Peer, unhave: Unhave) -> None:
        end = unhave.start + unhave.length
        self._run(self._scheduler.lacks(peer.state, unhave.start, end, trio.current_time()))
        self._notify()

    def _on_want(self, peer: _Peer, want: Want) -> None:
        peer.state.asks = True
        if self._uploading:
            self._announcer.wanted(peer, want)

    def _on_status(self, peer: _Peer, status: Status) -> None:
        was_downloading = peer.state.downloading
        self._run(self._scheduler.status(peer.state, status, trio.current_time()))
        self._notify()
        # a peer that never asks (a writer) says so at the start, and stays; one that has asked is done with it
        if status.downloading or not (self._finished or (was_downloading and peer.state.asks)):
            return
        if self._has_no_use_for(peer):
            self._leave(peer)

    def _on_options(self, peer: _Peer, options: Options) -> None:
        peer.wants_receipts = options.ack
        self._extensions.learn(peer.link, options)

    def _on_extension(self, peer: _Peer, message: Extension) -> None:
        self._extensions.received(peer.link, message)

    def _has_no_use_for(self, peer: _Peer) -> bool:
        """Tell whether nothing may be asked of a peer that asks nothing either."""
        if not self._downloading:
            return True
        return not self._scheduler.eager_length and not self._scheduler.demand.blocks

    def _serve(self, peer: _Peer) -> None:
        peer.uploads.serve(self.feed, self._log, lambda: peer.link.room)

    # -- what the feed tells us ------------------------------------------------------------------------------------

    def stored(self, start: BlockIndex, end: BlockIndex) -> None:
        """Announce new blocks: our own at once, downloaded ones with the next tick."""
        if self._giver is None:
            self._run(self._scheduler.stored(start, end))
            self._announcer.stored(start, end, None)
        elif len(self._peers) > 1:
            self._announcer.stored(start, end, self._giver)

    def grew(self, length: int) -> None:
        """Nothing to do: the blocks themselves are announced, and the answer that grew the feed asks for more."""

    def nodes_stored(self) -> None:
        """Nothing to do: the answer that brought the nodes is followed up by `answered`."""

    def cleared(self, start: BlockIndex, end: BlockIndex) -> None:
        """Take the announcement back."""
        self._announcer.cleared(start, end)
        self._run(self._scheduler.cleared(start, end, trio.current_time()))

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look after what takes too long; to be called several times a second with the time of `trio`'s clock."""
        for peer in self._peers.values():
            received = peer.link.bytes_received
            if received - peer.bytes_seen >= PROGRESS_BYTES:
                self._scheduler.progress(peer.state, now)
            peer.bytes_seen = received
        for link in [link for link, until in self._expected.items() if until <= now]:
            del self._expected[link]
        self._announcer.flush()
        timeouts = sum(peer.state.stats.timeouts for peer in self._peers.values())
        self._run(self._scheduler.tick(now))
        self.stats.timeouts += sum(peer.state.stats.timeouts for peer in self._peers.values()) - timeouts
        self._notify()

    def _notify(self) -> None:
        """Let `refresh` look again."""
        if self._changed.statistics().tasks_waiting:
            self._changed.set()
            self._changed = trio.Event()

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
                digest = self._log.digest(action.message.index)
                peer.send(replace(action.message, nodes=digest))
            else:
                peer.send(action.message)


_HANDLERS: dict[type[Message], Callable[[FeedSession, _Peer, Any], None]] = {
    Data: FeedSession._on_data,
    Request: FeedSession._on_request,
    Cancel: FeedSession._on_cancel,
    Have: FeedSession._on_have,
    Unhave: FeedSession._on_unhave,
    Want: FeedSession._on_want,
    Status: FeedSession._on_status,
    Options: FeedSession._on_options,
    Extension: FeedSession._on_extension,
}
