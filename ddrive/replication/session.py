"""One feed and all the links that carry it: messages in, verified blocks into the feed, answers out.

Everything here is a plain call, so that no lock is needed. Which block is asked of whom is decided by `scheduler`; the
feed verifies and stores; this module connects the two with the links and keeps the counts. The wishes are in `asking`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import trio

from ddrive.errors import Forked, InvalidProof, RemoteProtocolError, Untied, WriteRefused
from ddrive.feed import rle
from ddrive.feed.feed import Feed
from ddrive.feed.merkle import Proof
from ddrive.ids import BlockIndex, ChannelId, short
from ddrive.protocol.link import Link
from ddrive.protocol.messages import Cancel, Data, Extension, Have, Message, Options, Request, Status, Unhave, Want
from ddrive.replication.announcing import Announcer
from ddrive.replication.asking import LinkedPeer
from ddrive.replication.blocks import REGION_BLOCKS
from ddrive.replication.ending import Ending
from ddrive.replication.extensions import Extensions
from ddrive.replication.observing import DEFAULT_OPTIONS, PeerObserver, PeerOptions
from ddrive.replication.peer import MAX_IN_FLIGHT_BYTES, FeedStats, PeerState, PeerStats
from ddrive.replication.scheduler import REQUEST_TIMEOUT_S
from ddrive.replication.serving import Uploads

EXPECTED_S = 5.0  # how long a channel that we asked for counts as about to open
PROGRESS_BYTES = 256  # between two ticks: more than signs of life, so an answer is on its way

logger = logging.getLogger(__name__)


class FeedSession(Ending):
    """The exchange of one feed; it is the feed's `BlockSource` and one of its listeners.

    `eager_length`: the last block of each peer is fetched as soon as it is announced, so that the feed follows.
    """

    def __init__(self, feed: Feed, *, eager_length: bool = False, request_timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        super().__init__(feed, eager_length=eager_length, request_timeout_s=request_timeout_s)
        self.stats = FeedStats()
        self.observer: PeerObserver | None = None
        self._giver: LinkedPeer | None = None  # whose Data is being stored
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

    def peer_state(self, link: Link) -> PeerState | None:
        """Return what the peer on a link has and wants, None when it carries the feed no more; not to be changed."""
        peer = self._peers.get(link)
        return None if peer is None else peer.state

    def remote_length(self) -> int:
        """Return the greatest length that a peer claims; nothing of it may be proven."""
        return max((peer.state.remote.length for peer in self._peers.values()), default=0)

    def expect(self, link: Link) -> None:
        """Note that the feed was asked for on `link`: `refresh` waits a while for the answer."""
        if link not in self._peers:
            self._expected[link] = trio.current_time() + EXPECTED_S
            if self.observer is not None:
                self.observer.peer_added(link)

    def add_peer(self, link: Link, channel: ChannelId, options: PeerOptions = DEFAULT_OPTIONS) -> None:
        """Start the exchange on a channel that both sides have opened."""
        self._take_out(link)
        most_bytes = link.in_flight_bytes(MAX_IN_FLIGHT_BYTES)
        state, actions = self._scheduler.add_peer(trio.current_time(), most_bytes)
        uploads = Uploads(
            lambda *messages: peer.send(*messages),
            (state.stats, self.stats),
            lambda answers: self.observer.uploaded(link, answers) if self.observer else None,
        )
        peer = LinkedPeer(link, channel, state, uploads, options, link.bytes_received, self._log.distrusted)
        self._peers[link] = self._by_id[state.id] = peer
        if self._extensions.names or options.ack:
            self.send_options(link)
        if not (self._serves(peer) and self._asks(peer)):
            peer.send(self._status(peer))
        if options.download:
            self._run(actions)
        else:
            self._pause(peer)
        if self.observer is not None:
            self.observer.peer_opened(link)
        self._peers_changed()

    def remove_peer(self, link: Link) -> None:
        """End the exchange on `link`: what its peer owed is asked of the others."""
        self._take_out(link)
        if self.observer is not None:
            self.observer.peer_removed(link)

    def _take_out(self, link: Link) -> None:
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
        self._notify()

    def _peers_changed(self) -> None:
        self._givers_told = None  # whoever watches is told in any case
        self._look_again()

    @property
    def giver(self) -> Link | None:
        """The link whose block is being stored right now."""
        return self._giver.link if self._giver is not None else None

    # -- extensions ------------------------------------------------------------------------------------------------

    @property
    def extensions(self) -> Extensions:
        """The feed's own messages of other layers: `extensions.register(name, handler)`."""
        return self._extensions

    def ask_peers(self, name: str, payload: bytes) -> None:
        """Send `payload` to every peer through the extension `name`, for a reader of the feed."""
        self._extensions.ask(name, payload)

    def send_options(self, link: Link) -> None:
        """Tell the peer on `link` our extensions, and whether we ask for receipts."""
        peer = self._peers.get(link)
        if peer is not None:
            peer.send(Options(self._extensions.names, peer.options.ack))

    def send(self, link: Link, message: Message) -> None:
        """Send a message to the peer on `link`, if it still takes part."""
        peer = self._peers.get(link)
        if peer is not None:
            peer.send(message)

    # -- messages --------------------------------------------------------------------------------------------------

    def received(self, link: Link, messages: Sequence[Message]) -> None:
        """Take in messages of the peer on `link` that came together.

        Raises: RemoteProtocolError when it lies or asks for too much.
        """
        peer = self._peers.get(link)
        position = 0
        while peer is not None and self._takes_part(peer):
            if position == len(messages):
                if self._serves(peer):
                    self._serve(peer)
                return
            message = messages[position]
            if isinstance(message, Data) and (stored := self._store_all(peer, messages, position)):
                position += stored
                continue
            if (handle := _HANDLERS.get(type(message))) is not None:
                handle(self, peer, message)
            position += 1

    def _takes_part(self, peer: LinkedPeer) -> bool:
        """Tell whether what the peer sends still counts."""
        return peer.link.end is None and self._peers.get(peer.link) is peer

    def _store_all(self, peer: LinkedPeer, messages: Sequence[Message], position: int) -> int:
        """Store the blocks from `position` on in one go while they are usual answers; returns how many were stored."""
        blocks: dict[BlockIndex, tuple[bytes, Proof]] = {}
        for message in islice(messages, position, None):
            if not isinstance(message, Data) or message.value is None or message.signature is not None:
                break
            if message.index not in peer.state.asked or message.index in blocks:
                break
            blocks[message.index] = message.value, Proof(message.nodes)
        if len(blocks) < 2:
            return 0
        self._giver = peer
        try:
            count = self.feed.put_all(blocks, soon=self._scheduler.read_soon(next(iter(blocks))))
        finally:
            self._giver = None
        if count:
            peer.state.broken_promises = 0
            self._answered(peer, {index: value for index, (value, _) in islice(blocks.items(), count)})
        return count

    def _on_data(self, peer: LinkedPeer, data: Data) -> None:
        now = trio.current_time()
        if not self._scheduler.expects(peer.state, data):
            if data.value is not None and not self._log.has(data.index):
                peer.send(Unhave(data.index))
            if data.nodes or not self._log.has(data.index):
                self._run(self._scheduler.dropped(peer.state))
            return
        self._giver = peer
        try:
            tied = self._scheduler.can_tie
            soon = self._scheduler.read_soon(data.index)
            stored = self.feed.put(data.index, data.value, Proof(data.nodes, data.signature), tied=tied, soon=soon)
        except Untied:
            self._run(self._scheduler.untied(peer.state, data.index, now))
            return
        except InvalidProof as error:
            if not isinstance(error, Forked):
                was_suspected = peer.state.suspected
                if peer.distrusted != self._log.distrusted:  # it counts on nodes that turned out to be damaged here
                    peer.distrusted = self._log.distrusted
                    self._run(self._scheduler.dropped(peer.state, verified=True))
                elif data.signature is not None and self._log.length and not was_suspected:
                    # nodes of ours that the proof builds on may be of another history: a whole proof will tell
                    peer.state.suspected = True
                    self._run(self._scheduler.dropped(peer.state))
                if self._scheduler.excuses(peer.state, data.index):
                    if was_suspected:  # it counts on what it has sent, and would leave that out of the whole proof
                        self._run(self._scheduler.dropped(peer.state))
                    return
            for stats in (peer.state.stats, self.stats):
                stats.verify_failures += 1
            if isinstance(error, Forked):  # which its author is to blame for, not this peer
                self.uploading = False
                self._leave(peer)
                return
            raise RemoteProtocolError(f"feed {short(self.feed.key)}: {error}") from error
        except WriteRefused as error:
            peer.link.disconnect(f"block {data.index} was refused: {error}")
            return
        except OSError as error:
            # the disk is full or fails: the peer is not to blame, and asking others at once would not help
            logger.error("cannot store block feed=%s block=%d error=%s", short(self.feed.key), data.index, error)
            self._scheduler.failed(peer.state, data.index, now)
            self._run(self._scheduler.dropped(peer.state, verified=True))
            return
        finally:
            self._giver = None
        peer.state.broken_promises = 0
        if not stored.proof:
            self._run(self._scheduler.dropped(peer.state, verified=True))
        if data.value is not None:
            self._answered(peer, {data.index: data.value}, is_new=stored.block or not self._log.has(data.index))
            return
        if peer.wants_receipts:
            peer.send(Have(data.index, 1, ack=True))
        self._run(self._scheduler.proven(peer.state, data.index, now))
        self._notify()
        self._end_if_complete(peer)

    def _answered(self, peer: LinkedPeer, blocks: Mapping[BlockIndex, bytes], *, is_new: bool = True) -> None:
        """Follow up on verified blocks of the peer."""
        sizes = {index: len(value) for index, value in blocks.items()}
        for stats in (peer.state.stats, self.stats):
            stats.downloaded_blocks += len(sizes)
            stats.downloaded_bytes += sum(sizes.values())
        if self.observer is not None and is_new:
            for index, value in blocks.items():
                self.observer.downloaded(peer.link, index, value)
        if peer.wants_receipts:
            peer.send(*(Have(index, 1, ack=True) for index in blocks))
        self._run(self._scheduler.answered(peer.state, sizes, trio.current_time()))
        self._notify()
        self._end_if_complete(peer)

    def _on_request(self, peer: LinkedPeer, request: Request) -> None:
        if self._serves(peer):
            peer.uploads.add(request)

    def _on_cancel(self, peer: LinkedPeer, cancel: Cancel) -> None:
        peer.uploads.cancel(cancel)

    def _on_have(self, peer: LinkedPeer, have: Have) -> None:
        if have.ack:
            if peer.options.ack and self.observer is not None:
                self.observer.acknowledged(peer.link, have.start, have.length)
            return
        now = trio.current_time()
        if have.bitfield is None:
            actions = self._scheduler.has(peer.state, have.start, have.start + have.length, now)
        else:
            packed = rle.decode(have.bitfield, REGION_BLOCKS // 8)
            actions = self._scheduler.has_bits(peer.state, have.start, have.length, packed, now)
        self._run(actions)
        self._notify()
        if self.observer is not None:
            self.observer.announced(peer.link)
        self._end_if_complete(peer)

    def _on_unhave(self, peer: LinkedPeer, unhave: Unhave) -> None:
        end = unhave.start + unhave.length
        self._run(self._scheduler.lacks(peer.state, unhave.start, end, trio.current_time()))
        self._notify()

    def _on_want(self, peer: LinkedPeer, want: Want) -> None:
        if want.keeps:
            peer.uploads.begin_account()
        if self._serves(peer):
            self._announcer.wanted(peer, want)

    def _on_options(self, peer: LinkedPeer, options: Options) -> None:
        peer.wants_receipts = options.ack
        self._extensions.learn(peer.link, options)

    def _on_extension(self, peer: LinkedPeer, message: Extension) -> None:
        self._extensions.received(peer.link, message)

    def _serve(self, peer: LinkedPeer) -> None:
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
                self._scheduler.progress(peer.state, now, answering=peer.link.is_answering(peer.channel))
            peer.bytes_seen = received
        for link in [link for link, until in self._expected.items() if until <= now]:
            del self._expected[link]
        self._announcer.flush()
        timeouts = sum(peer.state.stats.timeouts for peer in self._peers.values())
        self._run(self._scheduler.tick(now))
        self.stats.timeouts += sum(peer.state.stats.timeouts for peer in self._peers.values()) - timeouts
        self._look_again()


_HANDLERS: dict[type[Message], Callable[[FeedSession, LinkedPeer, Any], None]] = {
    Data: FeedSession._on_data,
    Request: FeedSession._on_request,
    Cancel: FeedSession._on_cancel,
    Have: FeedSession._on_have,
    Unhave: FeedSession._on_unhave,
    Want: FeedSession._on_want,
    Status: Ending._on_status,
    Options: FeedSession._on_options,
    Extension: FeedSession._on_extension,
}
