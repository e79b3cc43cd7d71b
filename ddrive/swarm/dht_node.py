"""A node of the DHT of the npm peers as a machine: datagrams and the time in, datagrams out.

A node that stays (`is_ephemeral` false) shows its id, so that others learn of it, keeps announcements for them and
answers what they ask. One that does not only asks, and answers nothing but a ping, in few bytes: a stranger who forges
the address of a sender has others flooded by it with hardly more than he sends. Only nodes that have answered us are
told to others.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from ddrive.errors import RemoteProtocolError
from ddrive.swarm import dht_rpc as rpc
from ddrive.swarm.dht_peers import Announcements, Entropy, Tokens
from ddrive.swarm.dht_rpc import Contact, Datagram, Kind
from ddrive.swarm.dht_search import NEAREST, Search
from ddrive.swarm.dht_table import NodeTable
from ddrive.swarm.static import Address

TRY_S = (1.0, 1.5)  # waits for an answer; after the last one a node counts as silent
WALK_S = 30.0  # the first half of a walk ends after this long with what it has found
MAX_IN_FLIGHT = 2000  # questions of ours without an answer
CHECK_S = 5.0  # between two looks for nodes that may be gone, and announcements that are old
SILENT_S = 60.0  # a node that has not answered for so long is pinged
CHECKED_AT_ONCE = 8
MAX_ANSWERS_S = 500  # to one host in a second; many nodes may be behind one address
MAX_UNPROVEN_ANSWERS_S = 50  # likewise, while nobody there has shown to get them: the address may be forged
PROVEN_S = 600.0  # for so long that counts
MAX_PROVEN = 4096  # hosts
MAX_NEWCOMERS = 64  # pinged at the same time before they are told to others


def is_plausible(address: Address, teller: Address) -> bool:
    """Tell whether somebody can be at an address of which `teller` told us.

    What a node on the internet says cannot make us send to our own network; in a private one all are private.
    """
    told, told_by = IPv4Address(address.host), IPv4Address(teller.host)
    if told.is_multicast or told.is_unspecified or told == IPv4Address("255.255.255.255") or not address.port:
        return False
    return told.is_global or not told_by.is_global


@dataclass(slots=True)
class _Asked:
    """A question of ours that waits for its answer."""

    address: Address
    data: bytes
    next_s: float
    on_answer: Callable[[Datagram], None]
    on_silence: Callable[[], None]
    tries: int = 1


@dataclass(slots=True, eq=False)
class Walk:
    """A question that is asked of nodes nearer and nearer to a target, then an update for the nearest of them."""

    target: bytes
    command: str = rpc.FIND_NODE
    value: bytes | None = None
    update: bytes | None = None  # value of the update, if there is to be one
    on_answer: Callable[[Datagram, Address], None] = lambda datagram, address: None
    on_done: Callable[["Walk"], None] = lambda walk: None
    asked: int = 0  # nodes
    answers: int = 0  # to the question
    keepers: list[tuple[Address, bytes]] = field(default_factory=list)  # nodes the update was sent to, their tokens
    updated: int = 0  # nodes that took the update
    updates_left: int = 0


class Node:
    """The state of one node. Datagrams to send gather in `out`."""

    def __init__(self, entropy: Entropy, now: float, *, is_ephemeral: bool) -> None:
        self.id = entropy(rpc.ID_BYTES)
        self.table = NodeTable(self.id)
        self.announcements = Announcements()
        self.out: list[tuple[bytes, Address]] = []
        self._entropy = entropy
        self._is_ephemeral = is_ephemeral
        self._now = now  # of the last call
        self._tokens = Tokens(entropy, now)
        self._asked: dict[int, _Asked] = {}
        self._walks: dict[Walk, tuple[Search, float]] = {}  # in their first half, and when that ends
        self._check_s = math.inf if is_ephemeral else now + CHECK_S
        self._answers: Counter[str] = Counter()  # given to each host in the second that began at `_second`
        self._second = now
        self._proven: dict[str, float] = {}  # hosts that get what is sent to them, and when they last showed it
        self._newcomers: set[Address] = set()

    def next_s(self) -> float:
        """Return when `tick` has something to do; infinity when it does not."""
        waits = [asked.next_s for asked in self._asked.values()]
        return min([self._check_s, *waits, *(end_s for _, end_s in self._walks.values())])

    def tick(self, now: float) -> None:
        """Do what is due: ask again, give up, and look after what is kept."""
        self._now = now
        for rid, asked in [item for item in self._asked.items() if item[1].next_s <= now]:
            if asked.tries < len(TRY_S):
                asked.next_s = now + TRY_S[asked.tries]
                asked.tries += 1
                self.out.append((asked.data, asked.address))
            else:
                del self._asked[rid]
                self.table.lost(asked.address)
                asked.on_silence()
        for walk in [walk for walk, (_, end_s) in self._walks.items() if end_s <= now]:
            self._finish(walk)
        if self._check_s <= now:
            self._check_s = now + CHECK_S
            self.announcements.expire(now)
            for contact in self.table.silent(now - SILENT_S, CHECKED_AT_ONCE):
                self._ask(contact.address, Datagram(Kind.QUERY, 0, rpc.PING))

    def start(self, walk: Walk, given: Iterable[Address], now: float) -> None:
        """Begin a walk: at the nodes that we know, and at the `given` addresses when these are few."""
        self._now = now
        search = Search(walk.target)
        search.add(self.table.nearest(walk.target))
        if len(self.table) < NEAREST:
            for address in given:
                search.add_given(address)
        self._walks[walk] = search, now + WALK_S
        self._go_on(walk)

    def stop(self, walk: Walk) -> None:
        """Give a walk up, without a word; an update that is on its way is not called back."""
        self._walks.pop(walk, None)
        walk.on_answer = lambda datagram, address: None
        walk.on_done = lambda walk: None

    def _go_on(self, walk: Walk) -> None:
        """Ask the next nodes of a walk in its first half, or begin the second."""
        search, _ = self._walks.get(walk, (None, 0.0))
        if search is None:
            return
        question = Datagram(Kind.QUERY, 0, walk.command, target=walk.target, value=walk.value)
        while (address := search.next()) is not None:
            walk.asked += 1
            self._ask(address, question, *self._steps(walk, search, address))
        if search.is_done:
            self._finish(walk)

    def _steps(
        self, walk: Walk, search: Search, address: Address
    ) -> tuple[Callable[[Datagram], None], Callable[[], None]]:
        """Return what follows an answer from `address`, and what follows its silence."""

        def answered(datagram: Datagram) -> None:
            search.answered(address, datagram.id, datagram.token)
            search.add([contact for contact in datagram.closer if is_plausible(contact.address, address)])
            walk.answers += 1
            walk.on_answer(datagram, address)
            self._go_on(walk)

        def silent() -> None:
            search.failed(address)
            self._go_on(walk)

        return answered, silent

    def _finish(self, walk: Walk) -> None:
        """End the first half of a walk: send the update, if there is one, to the nearest nodes."""
        search, _ = self._walks.pop(walk)
        self.update(walk, [] if walk.update is None else search.found(), self._now)

    def update(self, walk: Walk, keepers: list[tuple[Address, bytes]], now: float) -> None:
        """Send the update of a walk to nodes that gave a token, in this walk or in one not long ago."""
        self._now = now
        walk.keepers, walk.updates_left = keepers, len(keepers)
        if not keepers:
            walk.on_done(walk)

        def ended() -> None:
            walk.updates_left -= 1
            if not walk.updates_left:
                walk.on_done(walk)

        def taken(datagram: Datagram) -> None:
            walk.updated += not datagram.error
            ended()

        for address, token in keepers:
            update = Datagram(Kind.UPDATE, 0, walk.command, target=walk.target, token=token, value=walk.update)
            self._ask(address, update, taken, ended)

    def _ask(
        self,
        address: Address,
        question: Datagram,
        on_answer: Callable[[Datagram], None] = lambda datagram: None,
        on_silence: Callable[[], None] = lambda: None,
    ) -> None:
        """Send a question; its number and ids are filled in here. One of the two functions is called, later."""
        if len(self._asked) >= MAX_IN_FLIGHT:  # the oldest is given up, next time
            oldest = self._asked[next(iter(self._asked))]
            oldest.tries, oldest.next_s = len(TRY_S), self._now
        rid = int.from_bytes(self._entropy(2), "big")
        while rid in self._asked:
            rid = (rid + 1) & rpc.MAX_RID
        data = rpc.encode(replace(question, rid=rid, to=address, id=self._shown_id))
        self._asked[rid] = _Asked(address, data, self._now + TRY_S[0], on_answer, on_silence)
        self.out.append((data, address))

    @property
    def _shown_id(self) -> bytes | None:
        return None if self._is_ephemeral else self.id

    def receive(self, data: bytes, source: Address, now: float) -> None:
        """Take in a datagram. What makes no sense is passed over: anybody can send anything."""
        self._now = now
        try:
            datagram = rpc.decode(data)
            if datagram.kind is Kind.ANSWER:
                self._take(datagram, source)
            elif source.port and self._may_answer(source):
                self._answer(datagram, source)
        except RemoteProtocolError:
            return

    def _take(self, datagram: Datagram, source: Address) -> None:
        asked = self._asked.get(datagram.rid)
        if asked is None or asked.address != source:
            return
        del self._asked[datagram.rid]
        self._prove(source.host)
        if datagram.id is not None:
            self.table.heard(Contact(datagram.id, source), self._now)
        asked.on_answer(datagram)

    def _may_answer(self, source: Address) -> bool:
        if self._now >= self._second + 1.0:
            self._answers.clear()
            self._second = self._now
        self._answers[source.host] += 1
        is_proven = self._now < self._proven.get(source.host, -math.inf) + PROVEN_S
        return self._answers[source.host] <= (MAX_ANSWERS_S if is_proven else MAX_UNPROVEN_ANSWERS_S)

    def _prove(self, host: str) -> None:
        """Take note that somebody at `host` gets what we send there."""
        self._proven.pop(host, None)
        self._proven[host] = self._now
        if len(self._proven) > MAX_PROVEN:
            del self._proven[next(iter(self._proven))]

    def _answer(self, datagram: Datagram, source: Address) -> None:
        """Answer a question or take an update."""
        if datagram.command == rpc.PING:
            self._reply(datagram, source, value=rpc.pack_address(source))
        elif self._is_ephemeral:
            return
        elif datagram.command == rpc.HOLEPUNCH:
            self._introduce(datagram, source)
        elif datagram.target is None:
            return
        elif datagram.command == rpc.PEERS and datagram.value is not None:
            self._answer_peers(datagram, datagram.target, datagram.value, source)
        elif datagram.command == rpc.FIND_NODE:
            self._reply(datagram, source)
        else:
            self._reply(datagram, source, error="Unsupported command")
        if datagram.id is not None:
            self._meet(Contact(datagram.id, source))

    def _reply(self, datagram: Datagram, source: Address, *, value: bytes | None = None, error: str = "") -> None:
        closer = () if datagram.target is None else tuple(self.table.nearest(datagram.target))
        token = None if self._is_ephemeral else self._tokens.make(source.host, self._now)
        answer = Datagram(
            Kind.ANSWER, datagram.rid, "", source, self._shown_id, None, closer, token, error=error, value=value
        )
        self.out.append((rpc.encode(answer), source))

    def _answer_peers(self, datagram: Datagram, topic: bytes, value: bytes, source: Address) -> None:
        asked = rpc.decode_peers_asked(value)
        peer = Address(source.host, asked.port or source.port)
        if datagram.kind is Kind.UPDATE:
            if not self._tokens.fits(datagram.token, source.host, self._now):
                return
            self._prove(source.host)
            if asked.unannounce:
                self.announcements.remove(topic, peer)
            else:
                self.announcements.add(topic, peer, asked.local_address, self._now)
            self._reply(datagram, source)
            return
        start = int.from_bytes(self._entropy(2), "big")
        found = self.announcements.find(topic, peer, start, self._now)
        local = []
        if asked.local_address is not None:
            local = self.announcements.find_local(topic, peer, asked.local_address, self._now)
        self._reply(datagram, source, value=rpc.encode_peers_answered(found, local))

    def _introduce(self, datagram: Datagram, source: Address) -> None:
        """Tell a peer that somebody wants to reach it, if it is one that we told of."""
        _, wanted = rpc.decode_holepunch(datagram.value or b"")
        if wanted is not None and self.announcements.knows(wanted):
            value = rpc.encode_holepunch(asker=source)
            request = Datagram(Kind.QUERY, datagram.rid, rpc.HOLEPUNCH, wanted, self._shown_id, value=value)
            self.out.append((rpc.encode(request), wanted))

    def _meet(self, contact: Contact) -> None:
        """Ask a node that we do not know whether it is there, before we tell others of it."""
        if not self.table.has_room(contact) or contact.address in self._newcomers:
            return
        if len(self._newcomers) < MAX_NEWCOMERS:
            self._newcomers.add(contact.address)

            def met(*_: object) -> None:
                self._newcomers.discard(contact.address)

            self._ask(contact.address, Datagram(Kind.QUERY, 0, rpc.PING), met, met)
