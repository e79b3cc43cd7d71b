"""The links that are up or coming up, and who among them has to make room for one more."""

import math
from collections.abc import Callable, Sequence

import trio

from ddrive.ids import ChannelId, DiscoveryKey
from ddrive.protocol import Link, LinkEnd, LinkHandler, Message
from ddrive.swarm.silence import Silence
from ddrive.swarm.static import Address

MAX_LINKS = 64  # up or coming up, both directions
MAX_INCOMING = 48  # of these; strangers cannot take the place of peers that we were told to dial
MAX_INCOMING_HANDSHAKES = 32  # of these, not yet done with the handshake: the oldest makes room for one that comes
STRANGER_S = 5.0  # a peer that came, and in so long shows no key of a feed of ours, makes room too

Admit = Callable[["Member", Link], str | None]  # returns why a link must not stay, None when it may


class Member:
    """The `LinkHandler` of one link: lets the swarm decide whether it stays, then hands all on."""

    def __init__(self, admit: Admit, handler: LinkHandler, address: Address | None) -> None:
        self.address = address  # where we dialled; None for a peer that came
        self.link: Link | None = None  # once the handshake is done
        self.key: bytes | None = None  # once admitted
        self.since_s = math.inf  # when it was admitted
        self.has_begun = False  # something came from it, if it came
        self.turned_away = False  # the peer that we dialled has no room
        self.shares = False  # it has shown that it knows a feed of ours
        self.scope = trio.CancelScope()  # of the whole connection, if it came
        self.socket: trio.socket.SocketType | None = None  # once there is a connection
        self.silence = Silence()
        self._admit = admit
        self._handler = handler

    @property
    def we_began(self) -> bool:
        """Whether we dialled."""
        return self.address is not None

    @property
    def is_up(self) -> bool:
        """Whether the link was admitted and has not ended."""
        return self.key is not None and self.link is not None and self.link.end is None

    def traffic(self) -> tuple[int, int]:
        """Return the bytes sent and received."""
        return (0, 0) if self.link is None else (self.link.bytes_sent, self.link.bytes_received)

    def ended_early(self, end: LinkEnd) -> LinkEnd:
        """Return why a link that we began has ended after a moment: a peer that wants none of us does not say so."""
        if not end.left or self.shares:
            return end
        if self.link is None:
            why = "before it said who it is: it may have no room"
        else:
            why = "at once: it may let in only some, or refuse us for some minutes after what we sent"
        return LinkEnd(f"the peer closed the connection {why}", left=True)

    def disconnect(self, reason: str) -> None:
        """End the link, if the handshake is done."""
        if self.link is not None:
            self.link.disconnect(reason)

    def send_sign_of_life(self) -> None:
        """Send something that means nothing, if the handshake is done."""
        if self.link is not None:
            self.link.send_sign_of_life()

    def established(self, link: Link) -> None:
        self.link = link
        reason = self._admit(self, link)
        if reason is not None:
            link.disconnect(reason)
            return
        self.key, self.since_s = link.remote_public_key, trio.current_time()
        self._handler.established(link)

    def channel_requested(self, link: Link, discovery_key: DiscoveryKey) -> None:
        self._handler.channel_requested(link, discovery_key)

    def channel_opened(self, link: Link, channel: ChannelId) -> None:
        self.shares = True
        self._handler.channel_opened(link, channel)

    def channel_closed(self, link: Link, channel: ChannelId) -> None:
        self._handler.channel_closed(link, channel)

    def received(self, link: Link, channel: ChannelId, messages: Sequence[Message]) -> None:
        self._handler.received(link, channel, messages)

    def drained(self, link: Link) -> None:
        if self.key is not None:
            self._handler.drained(link)

    def closed(self, link: Link) -> None:
        if self.key is not None:
            self._handler.closed(link)


def make_room(members: Sequence[Member], now: float) -> bool:
    """Tell whether one more may come in; who is slowest to say who he is, or what he wants, has to leave for him.

    A peer that is honest needs milliseconds for that, and who has begun to say it is not pushed out by any number that
    has not. So whoever opens connections and says nothing, or nothing that tells that he knows a feed of ours, can
    neither keep us busy nor keep others out.
    """
    staying = [member for member in members if not member.scope.cancel_called]
    incoming = [member for member in staying if not member.we_began]
    shaking = [member for member in incoming if member.link is None]
    if len(incoming) < MAX_INCOMING and len(staying) < MAX_LINKS and len(shaking) < MAX_INCOMING_HANDSHAKES:
        return True
    strangers = [member for member in incoming if not member.shares and member.since_s < now - STRANGER_S]
    begun = [member for member in shaking if member.has_begun]
    silent = [member for member in shaking if not member.has_begun]
    slow = [*begun, *silent] if len(begun) > MAX_INCOMING_HANDSHAKES // 2 else [*silent, *begun]
    leaving = [*slow, *strangers] if len(shaking) >= MAX_INCOMING_HANDSHAKES else [*strangers, *slow]
    for member in leaving[:1]:
        member.scope.cancel()
    return bool(leaving)
