"""The exchange of feeds over one stream, as a program sees it."""

from ddrive.errors import Closed
from ddrive.feed.subscription import Subscription
from ddrive.ids import DiscoveryKey
from ddrive.protocol.keys import NoiseKeyPair
from ddrive.protocol.link import Link, LinkEnd
from ddrive.replication.observing import PeerOptions as PeerOptions
from ddrive.standalone.arguments import check_kind
from ddrive.standalone.carrying import Carried, Carrying
from ddrive.standalone.encodings import Encoding
from ddrive.standalone.extending import FeedExtension


def static_secret_of(key_pair: NoiseKeyPair) -> bytes:
    """Return the secret half of a pair that a program gave. Raises: TypeError when it is no pair."""
    if not isinstance(key_pair, NoiseKeyPair):
        raise TypeError(f"key_pair is a ddrive.NoiseKeyPair, not of type {type(key_pair).__name__}")  # it may be secret
    return key_pair.secret_key


def check_stream(stream: object) -> None:
    """Raise TypeError for what bytes cannot be exchanged over."""
    if not all(callable(getattr(stream, name, None)) for name in ("receive_some", "send_all", "aclose")):
        raise TypeError(f"feeds are exchanged over a stream of trio, not over {stream!r:.80}")


class Replication:
    """A link under way or ended, with the feeds on it. Made by `replicate`."""

    def __init__(self, carrying: Carrying) -> None:
        self._carrying = carrying

    def __repr__(self) -> str:
        return f"<Replication {self._carrying.link} feeds={len(self._carrying)}>"

    @property
    def link(self) -> Link:
        """The connection: its counters, the peer's key, the handshake hash.

        Raises: Closed before the handshake is done; `connected` waits for that.
        """
        if self._carrying.link is None:
            raise Closed("the handshake is not done")
        return self._carrying.link

    @property
    def end(self) -> LinkEnd | None:
        """Why the link has ended, None while it has not."""
        return self._carrying.end

    @property
    def is_pending(self) -> bool:
        """Whether the handshake is still to be done."""
        return self._carrying.is_pending

    async def connected(self) -> Link:
        """Return the connection when the handshake is done.

        Raises: Closed when the link ended before.
        """
        await self._carrying.connected.wait()
        if self._carrying.link is None:
            raise Closed(f"the link ended before it was up: {self.end.reason if self.end else ''}")
        return self._carrying.link

    async def wait(self) -> LinkEnd:
        """Return why the link has ended, when it has."""
        await self._carrying.ended.wait()
        assert self.end is not None
        return self.end

    def add(self, feed: Carried, options: PeerOptions | None = None) -> None:
        """Carry one more feed, now or from the handshake on; one that is carried already changes nothing.

        `options` are by default those of the link.
        Raises: Closed when the link has ended, or the feed is closed.
        """
        self._carrying.add(feed, options)

    def remove(self, feed: Carried) -> None:
        """Carry a feed no more."""
        self._carrying.remove(feed)

    def requests(self) -> Subscription[DiscoveryKey]:
        """Return an iterator over the feeds that the peer asks for and that are not carried.

        With `keep_unknown` it begins with those that were asked for before and are undecided.
        """
        requests = self._carrying.unknown.subscribe()
        if self.end is None and self._carrying.link is not None:
            for requested in self._carrying.link.requested():
                requests.offer(requested)
        return requests

    def refuse(self, requested: DiscoveryKey) -> None:
        """Tell the peer that we do not take part in a feed that it asked for."""
        check_kind("a feed is refused by its discovery key, which is bytes", requested, bytes)
        self.link.refuse(requested)

    def register_extension(self, name: str, encoding: str | Encoding = "binary") -> FeedExtension:
        """Return the extension `name` of the link itself: messages that are about no feed. They end with the link.

        Raises: as `register_extension` of a feed, Closed when the link has ended.
        """
        return self._carrying.register_extension(name, encoding)

    def close(self, reason: str = "we ended it") -> None:
        """End the link for `reason`; what is queued is still sent if that is quick."""
        self._carrying.close(reason)
