"""Links to peers: dial the addresses that are given or found, take in who comes, keep one link per peer.

What travels on the links is the business of the handler. A peer is known by its static key; two links to the same
peer collapse to the one that the side with the smaller key began, so that both sides keep the same one.
"""

import logging
import math
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import trio

from ddrive.ids import DiscoveryKey, short
from ddrive.protocol import Link, LinkEnd, LinkHandler, run_link, static_public_key
from ddrive.protocol.sharing import Share
from ddrive.swarm.background import background
from ddrive.swarm.dialing import OURSELVES, DialCounts, DialPlan, Source
from ddrive.swarm.members import MAX_LINKS, Member, make_room
from ddrive.swarm.silence import INFO_BYTES, LOOK_S, LOST_S, Told
from ddrive.swarm.static import Address

DIAL_TIMEOUT_S = 5.0  # until the stream is there
TURNED_AWAY_S = 5.0  # in which who has no room for us ends the connection
FIRST_BYTE_S = 20.0  # in which who has connected has to begin

PROBE_S = 4.0  # in which what we sent has to be confirmed, after our networks have changed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """An address that was given or found, or a peer that came by itself."""

    address: str
    key: bytes | None  # static key, 32 bytes, once somebody has answered
    connected: bool
    last_error: str | None  # why there is no link, if it was tried
    link: Link | None = None
    source: Source | None = "given"  # who told the address; None: the peer came by itself, from `address`
    topics: frozenset[DiscoveryKey] = frozenset()  # for which the address was found


class Swarm:
    """The links of one engine. Made by `open_swarm`."""

    def __init__(
        self,
        handler: LinkHandler,
        static_secret: bytes,
        listeners: list[trio.SocketListener],
        nursery: trio.Nursery,
        admits: Callable[[bytes], bool],
        share: Share,
        copy_met: Callable[[bool], bytes | None],
    ) -> None:
        self._handler = handler
        self._admits = admits
        self._share = share
        self._static_secret = static_secret
        self._copy_met = copy_met
        self._nursery = nursery
        self._plan = DialPlan()
        self._members: dict[Member, None] = {}  # in the order in which they came
        self._own_key_at: dict[bytes, Address] = {}  # who showed it when we dialled, by handshake hash
        self._traffic: dict[str, tuple[int, int]] = {}  # of links that have ended
        self._changed = trio.Event()
        self.public_key = static_public_key(static_secret)  # by which peers know us, 32 bytes
        self.listen_addresses = [str(Address(*listener.socket.getsockname()[:2])) for listener in listeners]

    @property
    def links(self) -> list[Link]:
        """The links that are up."""
        return [member.link for member in self._members if member.link is not None and member.is_up]

    def add_peer(self, address: str) -> None:
        """Dial `address` (`host:port`) now, and keep a link to whoever is there.

        Raises: ValueError when this is no address.
        """
        self._plan.add(Address.parse(address), trio.current_time())
        self._wake()

    def found(self, address: Address, topic: DiscoveryKey, source: Source) -> None:
        """Link to whoever is at `address` if there is room, as a peer of `topic` may be there."""
        if self._plan.found(address, topic, source, trio.current_time()):
            self._wake()

    def forget_topic(self, topic: DiscoveryKey) -> None:
        """Dial no more what was found for `topic` alone; links that are up stay."""
        self._plan.forget_topic(topic)

    def network_changed(self, owns: Callable[[str], bool]) -> None:
        """Mend what a change of our networks has broken; `owns` tells whether an IP address is one of ours.

        Links from an address that is gone end; the others have to show signs of life; what failed is tried again.
        """
        self._plan.retry(trio.current_time())
        for member in self._members:
            if member.link is not None and member.socket is not None:
                self._nursery.start_soon(self._probe, member.link, member.socket, owns)
        self._wake()

    async def _probe(self, link: Link, connection: trio.socket.SocketType, owns: Callable[[str], bool]) -> None:
        """End a link that comes from a wrong address, or when nobody confirms that anything of ours has arrived."""
        with suppress(OSError):
            if not owns(connection.getsockname()[0]):
                link.disconnect("our address has changed")
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(PROBE_S * 1000))
            link.send_sign_of_life()
            await trio.sleep(2 * PROBE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)

    def remove_peer(self, address: str) -> None:
        """Dial `address` no more, and end the link to whoever was there.

        Raises: ValueError when this is no address.
        """
        parsed = Address.parse(address)
        target = self._plan.targets.get(parsed)
        self._plan.remove(parsed)
        for member in self._members:
            known = target is not None and target.key is not None and member.key == target.key
            if known or member.address == parsed:
                member.disconnect("the peer was removed")

    def peers(self) -> list[Peer]:
        """Return the addresses in the order in which they were told, then the peers that came by themselves."""
        by_key = {link.remote_public_key: link for link in self.links}
        found = []
        for address, target in self._plan.targets.items():
            link = by_key.get(target.key) if target.key is not None else None
            topics = frozenset(target.topics)
            found.append(
                Peer(str(address), target.key, link is not None, target.last_error, link, target.source, topics)
            )
        dialled = {peer.key for peer in found}
        found += [Peer(link.address, key, True, None, link, None) for key, link in by_key.items() if key not in dialled]
        return found

    def dial_counts(self) -> dict[Source, DialCounts]:
        """Return what came of dialling, by who told the addresses."""
        return {source: replace(counts) for source, counts in self._plan.counts.items()}

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Return the bytes sent and received on all links so far, by who told the addresses; "incoming" if nobody."""
        found = dict(self._traffic)
        for member in self._members:
            self._count(member, found)
        return found

    def _count(self, member: Member, found: dict[str, tuple[int, int]]) -> None:
        """Add what was exchanged with a member."""
        source, (sent, received) = self._source(member), member.traffic()
        before = found.get(source, (0, 0))
        found[source] = before[0] + sent, before[1] + received

    def round_trips(self) -> dict[bytes, float]:
        """Return the seconds that it takes there and back, by static key, as the system has measured them."""
        told = {member.key: _told(member) for member in self._members if member.is_up and member.key is not None}
        return {key: about.round_trip_s for key, about in told.items() if about is not None}

    def _source(self, member: Member) -> str:
        target = self._plan.targets.get(member.address) if member.address is not None else None
        return target.source if target is not None else "incoming" if member.address is None else "given"

    def _wake(self) -> None:
        self._changed.set()

    async def _keep_dialing(self) -> None:
        """Dial what is due, whenever there is room for a link."""
        while True:
            self._changed = trio.Event()
            now = trio.current_time()
            for address in self._plan.due(now):
                if len(self._members) >= MAX_LINKS:
                    break
                self._plan.began(address)
                member = Member(self._admit, self._handler, address)
                self._members[member] = None
                self._nursery.start_soon(self._dial, member, address)
            has_room = len(self._members) < MAX_LINKS
            with trio.move_on_at(self._plan.next_s(after=now) if has_room else math.inf):
                await self._changed.wait()

    async def _end_lost_links(self) -> None:
        """End links on which nothing arrives any more, so that they are dialled anew, for ever."""
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for member in self._members:
                told = _told(member)
                if told is not None and member.silence.is_lost(told, now):
                    member.disconnect(f"nothing has arrived there for {LOST_S:g} s")

    async def _dial(self, member: Member, address: Address) -> None:
        end = LinkEnd("no answer")
        try:
            with trio.move_on_after(DIAL_TIMEOUT_S):
                stream: trio.SocketStream | None = None
                stream = await trio.open_tcp_stream(address.host, address.port)
            if stream is not None:
                end, began_s = LinkEnd("we ended it"), trio.current_time()
                end = await self._run(member, stream, str(address))
                if trio.current_time() < began_s + TURNED_AWAY_S:
                    end, member.turned_away = member.ended_early(end), member.link is None
        except (OSError, UnicodeError) as error:
            end = LinkEnd(_reason(error))
        finally:
            self._leave(member, end)

    async def _accept(self, stream: trio.SocketStream) -> None:
        if not make_room(list(self._members), trio.current_time()):
            logger.info("turned away a peer links=%d", len(self._members))
            await trio.aclose_forcefully(stream)
            return
        member = Member(self._admit, self._handler, None)
        self._members[member] = None
        end = LinkEnd("cancelled")
        try:
            with member.scope:
                address = str(Address(*stream.socket.getpeername()[:2]))
                member.has_begun = await _begins(stream.socket)
                if member.has_begun:
                    end = await self._run(member, stream, address)
            if member.scope.cancelled_caught:
                await trio.aclose_forcefully(stream)
        except OSError:  # gone before we could ask who it is
            await trio.aclose_forcefully(stream)
        finally:
            self._leave(member, end)

    async def _run(self, member: Member, stream: trio.SocketStream, address: str) -> LinkEnd:
        member.socket = stream.socket
        return await run_link(
            stream,
            initiator=member.we_began,
            handler=member,
            static_secret=self._static_secret,
            address=address,
            authenticate=partial(self._let_in, address),
            share=self._share,
        )

    def _let_in(self, address: str, key: bytes) -> None:
        """Refuse whoever may be no peer; his whole key is logged, for whoever wants to let him in after all.

        Raises: PermissionError for him.
        """
        if not self._admits(key):
            logger.info("peer refused key=%s address=%s reason=not among the allowed peers", key.hex(), address)
            raise PermissionError("it is not among the allowed peers")

    def _admit(self, member: Member, link: Link) -> str | None:
        """Return why the link of `member` must not stay, or None when it may."""
        key, now = link.remote_public_key, trio.current_time()
        if key == self.public_key:
            self._met_own_key(member.address, link)
            return OURSELVES
        if member.address is not None:
            if member.address not in self._plan.targets:
                return "the peer was removed"
            self._plan.answered(member.address, key)
            self._wake()  # one may be dialled instead
        if self._plan.refuses(key, now):
            return "the peer broke the protocol lately"
        others = [other for other in self._members if other.key == key and other.is_up]
        for other in others:  # the peer may have lost it: if so, its system will tell ours
            other.send_sign_of_life()
        begun_otherwise = [other for other in others if other.we_began != member.we_began]
        if len(begun_otherwise) < len(others) and member.we_began:
            return "a link to this peer is up already"  # of two that the peer began, it alone knows which is alive
        if begun_otherwise and member.we_began != (self.public_key < key):
            return "a link to this peer is up already"
        for other in begun_otherwise:
            other.disconnect("another link to this peer is up")
        self._plan.linked(key)
        logger.info("peer connected key=%s address=%s", short(key), link.address)
        return None

    def _met_own_key(self, dialled: Address | None, link: Link) -> None:
        """Find out who has our key: we ourselves, or the engine of a copy of our state directory.

        Of a link to ourselves we see both ends. From a copy, one of us has to take a new key, so that the two can be
        linked at the next attempt, and nobody takes them for one.
        """
        if dialled is not None:
            self._own_key_at[link.handshake_hash] = dialled
            if len(self._own_key_at) > MAX_LINKS:
                del self._own_key_at[next(iter(self._own_key_at))]
        elif (address := self._own_key_at.pop(link.handshake_hash, None)) is not None:
            self._plan.found_ourselves(address)
            return
        secret = self._copy_met(dialled is not None)
        if secret is not None:
            self._static_secret, self.public_key = secret, static_public_key(secret)
            logger.warning("a copy of us is there address=%s our new key=%s", link.address, self.public_key.hex())

    def _leave(self, member: Member, end: LinkEnd) -> None:
        self._members.pop(member, None)
        self._count(member, self._traffic)
        now, jitter = trio.current_time(), random.random()
        if member.key is not None:
            lived_s = now - member.since_s
            logger.info("peer gone key=%s lived_s=%.0f reason=%s", short(member.key), lived_s, end.reason)
            self._plan.ended(
                member.key, now, jitter, end.reason, lived_s=lived_s, lied=end.lied, address=member.address
            )
        elif member.address is not None:
            logger.info("peer not reached address=%s reason=%s", member.address, end.reason)
            self._plan.failed(member.address, now, jitter, end.reason, lied=end.lied, turned_away=member.turned_away)
        self._wake()


@asynccontextmanager
async def open_swarm(
    handler: LinkHandler,
    *,
    listen: str,
    static_secret: bytes,
    ipv6_too: bool = False,
    admits: Callable[[bytes], bool] = lambda key: True,
    share: Share | None = None,
    copy_met: Callable[[bool], bytes | None] = lambda we_dialled: None,
) -> AsyncIterator[Swarm]:
    """Give a swarm that listens on `listen` (`host:port`, port 0 = any free one); leaving the block ends all links.

    `static_secret` is our X25519 secret key (32 bytes): peers tell us by it, so it should outlive the process. There
    are links to those alone whom `admits(public key)` lets in. With `ipv6_too`, all IPv6 addresses are listened
    on at the same port as well, where there are any. `share` limits all links together. When somebody with our secret
    is met, `copy_met(we dialled)` may return another one: it is a copy, or ourselves if we dialled.
    Raises: ValueError when `listen` is no address; OSError when it cannot be listened on.
    """
    listeners = await _listen(Address.parse(listen, lowest_port=0), ipv6_too=ipv6_too)
    async with background() as nursery:
        swarm = Swarm(handler, static_secret, listeners, nursery, admits, share or Share(), copy_met)
        nursery.start_soon(swarm._keep_dialing)
        nursery.start_soon(swarm._end_lost_links)
        nursery.start_soon(partial(trio.serve_listeners, swarm._accept, listeners, handler_nursery=nursery))
        yield swarm


def _told(member: Member) -> Told | None:
    """Return what the system tells of the connection of a member, None while it tells nothing."""
    if member.socket is not None:
        with suppress(OSError):
            return Told.parse(member.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES))
    return None


async def _begins(connection: trio.socket.SocketType) -> bool:
    """Tell whether anything comes from who has connected: by the protocol he begins, and until then he costs little.

    Hundreds that say nothing and come back when they are turned away would keep peers waiting otherwise.
    """
    with trio.move_on_after(FIRST_BYTE_S):
        return bool(await connection.recv(1, socket.MSG_PEEK))
    return False


def _reason(error: BaseException) -> str:
    """Return why nobody was reached; of several addresses of one name, the first tells."""
    while error.__cause__ is not None or isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:  # those of name servers are not
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error)


async def _listen(address: Address, *, ipv6_too: bool) -> list[trio.SocketListener]:
    """Return sockets that take in peers at `address`."""
    listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    if ipv6_too:
        with suppress(OSError):  # this machine has no IPv6, or somebody else has the port there
            listeners += await trio.open_tcp_listeners(listeners[0].socket.getsockname()[1], host="::")
    return listeners
