"""Which way blocks may flow between us and each peer, and when an exchange is over.

A link of two live peers stays until somebody closes it. A side that is not live says that it asks for nothing more as
soon as it has what it wants; when neither side asks, the channel is closed. Source: wire.md sections 6 and 10.
"""

from abc import abstractmethod

import trio

from ddrive.feed.feed import Feed
from ddrive.protocol.link import Link
from ddrive.protocol.messages import Status
from ddrive.replication.asking import Asking, LinkedPeer


class Ending(Asking):
    """The directions of a feed's exchange, and its end."""

    def __init__(self, feed: Feed, *, eager_length: bool, request_timeout_s: float) -> None:
        super().__init__(feed, eager_length=eager_length, request_timeout_s=request_timeout_s)
        self.wants_all = False  # everything that is announced is downloaded, so an exchange can be complete
        self._peers: dict[Link, LinkedPeer] = {}
        self._uploading = True

    @abstractmethod
    def remove_peer(self, link: Link) -> None:
        """End the exchange on `link`."""

    # -- directions ------------------------------------------------------------------------------------------------

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
            peer.send(self._status(peer))

    @property
    def downloading(self) -> bool:
        """Whether peers are asked for blocks; a feed of our own asks for none unless it is told to."""
        return self._scheduler.downloading

    @downloading.setter
    def downloading(self, downloading: bool) -> None:
        if downloading == self._scheduler.downloading:
            return
        self._scheduler.downloading = downloading
        for peer in self._peers.values():
            peer.done = False
            self._pause(peer)
            if downloading:
                self._apply_directions(peer)
            peer.send(self._status(peer))
        self._notify()

    def _serves(self, peer: LinkedPeer) -> bool:
        return self._uploading and peer.options.upload

    def _asks(self, peer: LinkedPeer) -> bool:
        return self.downloading and peer.options.download and not peer.done

    def _status(self, peer: LinkedPeer) -> Status:
        return Status(uploading=self._serves(peer), downloading=self._asks(peer))

    def _pause(self, peer: LinkedPeer) -> None:
        """Take back what the peer was asked for, and ask it for nothing."""
        status = Status(uploading=False, downloading=peer.state.downloading)
        self._run(self._scheduler.status(peer.state, status, trio.current_time()))

    def _apply_directions(self, peer: LinkedPeer) -> None:
        """Ask the peer if it serves requests and we are to ask it."""
        offers = peer.offers and peer.options.download
        status = Status(uploading=offers, downloading=peer.state.downloading)
        self._run(self._scheduler.status(peer.state, status, trio.current_time()))

    # -- the end ---------------------------------------------------------------------------------------------------

    def _on_status(self, peer: LinkedPeer, status: Status) -> None:
        peer.offers, peer.state.downloading = status.uploading, status.downloading
        self._apply_directions(peer)
        self._notify()
        # who stays does so whatever the peer says: its directions are switches, and may be back on at any time
        if not status.downloading and not peer.options.live:
            self._consider_end(peer)

    def _consider_end(self, peer: LinkedPeer) -> None:
        """Move one step towards the end with a peer that asks for nothing, when we need nothing more of it."""
        if self._asks(peer):
            if self._is_missing_something(peer) or not self.wants_all:
                return
            self._say_done(peer)
        elif self.wants_all or not peer.offers or peer.done or not self.downloading:
            self._leave(peer)

    def _end_if_complete(self, peer: LinkedPeer) -> None:
        """Tell all peers, once, that we have everything, where the exchange is not to stay; `peer` was heard last."""
        if not self.wants_all or not self._may_be_done_with(peer) or self._is_missing_something(peer):
            return
        for other in list(self._peers.values()):
            if self._may_be_done_with(other):
                self._say_done(other)
                if not other.state.downloading:  # one that stays would not answer
                    self._leave(other)

    def _may_be_done_with(self, peer: LinkedPeer) -> bool:
        """Tell, without looking through our blocks (0.1 ms), whether the end with a peer may have come."""
        if peer.options.live or peer.state.asked or not peer.state.first_want_answered:
            return False
        return self._asks(peer)

    def _say_done(self, peer: LinkedPeer) -> None:
        peer.done = True
        peer.send(Status(uploading=True, downloading=False))

    def _is_missing_something(self, peer: LinkedPeer) -> bool:
        """Tell whether a wish covers a block that some peer may have; so it is until the peer has said what it has."""
        if not peer.state.first_want_answered:
            return True
        reach = max([self._log.length, *(other.state.remote.length for other in self._peers.values())])
        return any(
            self._local.next_missing(wish.start, min(wish.end, reach)) is not None
            for wish in self._scheduler.demand.blocks
        )

    def _leave(self, peer: LinkedPeer) -> None:
        """End a channel on which nobody wants anything. Source: wire.md section 10."""
        peer.send(Status(uploading=False, downloading=False))
        peer.link.close_channel(peer.channel)
        self.remove_peer(peer.link)
