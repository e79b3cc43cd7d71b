"""Peers found through the DHT of the npm peers: `hyperswarm@2` and `dswarm@1`, a network for each family of peers.

We ask the network and announce ourselves in it, but are no node of it: a machine that comes and goes, behind a router,
would only cost the others time. `ddrive bootstrap` runs a node. Only discovery keys and our port are sent.
"""

import logging
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address

import trio

from ddrive.dialect import DIALECTS, Dialect
from ddrive.errors import RemoteProtocolError
from ddrive.ids import DiscoveryKey
from ddrive.swarm.background import background
from ddrive.swarm.dht_kept import MAX_KEPT, pack, unpack
from ddrive.swarm.dht_node import Walk, is_plausible
from ddrive.swarm.dht_rpc import (
    PEERS,
    Datagram,
    PeersAsked,
    decode_peers_answered,
    encode_peers_asked,
)
from ddrive.swarm.dht_socket import NodeSocket
from ddrive.swarm.discovery import DiscoveryReport, Finding, Mechanism, Sink, Tally
from ddrive.swarm.repeating import silence_s, wait_s, whose_turn
from ddrive.swarm.static import Address

REPEAT_S = (300.0, 480.0)  # a topic is looked for again after a time between these; npm nodes forget it after 720
MAX_WALKS = 8  # at the same time, in one network
MAX_FOUND = 256  # addresses given on from one walk
MAX_FOUND_BY_HOST = 16  # of these by one host that was asked: one that names thousands keeps us from nobody else's
REFRESH_S = 5.0  # topics are not looked for more often than this, whatever happens
SAVE_S = 600.0  # between two savings of the nodes that answer
FAREWELL_S = 2.0  # for taking back what was announced, at the end

ANY_PORT = Address("0.0.0.0", 0)

Save = Callable[[bytes], None]  # keeps the nodes that have answered; called in a thread

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Topic:
    """A topic that is joined."""

    announce: bool
    due_s: float  # when to look for it next; infinity while it is looked for, unless it is to be again
    walk: Walk | None = None
    began_s: float = -math.inf
    vain: int = 0  # walks in a row after which nobody was connected
    keepers: list[tuple[Address, bytes]] = field(default_factory=list)  # where it is announced, with their tokens


class _Network:
    """One network of nodes, and our topics there."""

    def __init__(self, name: str, given: Sequence[Address], sink: Sink, port: int, listen: Address) -> None:
        self.name = name
        self.tally = Tally()
        self._given = given
        self._sink = sink
        self._port = port  # on which we listen
        self._outside_port = port  # at which others reach us: that of the router, if it gave us one
        self._topics: dict[DiscoveryKey, _Topic] = {}
        self._changed = trio.Event()
        self._farewells: set[Walk] = set()
        self._one_parted = trio.Event()
        self.socket = NodeSocket(given, listen=listen, is_ephemeral=True)

    @property
    def last_error(self) -> str | None:
        """What is wrong, in words for people."""
        if len(self.socket.node.table) or not self.tally.total.asked:
            return None
        nodes = ", ".join(map(str, self._given)) or "none is given"
        return self.socket.last_error or f"no node of the DHT answers ({nodes}): is UDP let out here?"

    @property
    def given(self) -> str:
        """The nodes that it begins at: they say which network it is."""
        return ",".join(map(str, self._given))

    def nodes(self) -> list[Address]:
        """Return nodes that have answered lately; those of last time as long as nobody has."""
        return [contact.address for contact in self.socket.node.table.latest(MAX_KEPT)] or self.socket.kept

    def join(self, key: DiscoveryKey, *, announce: bool) -> None:
        self.tally.join(key)
        topic = self._topics.setdefault(key, _Topic(announce, trio.current_time()))
        if topic.announce != announce:
            self._drop(key, topic)
            self._topics[key] = _Topic(announce, trio.current_time())
        self._changed.set()

    def leave(self, key: DiscoveryKey) -> None:
        topic = self._topics.pop(key, None)
        self.tally.leave(key)
        if topic is not None:
            self._drop(key, topic)

    def reached_at(self, port: int) -> None:
        """Announce this port from now on, in the place of the one before."""
        if port == self._outside_port:
            return
        for key, topic in self._topics.items():
            if topic.announce:
                self._drop(key, topic)
                self._topics[key] = _Topic(True, trio.current_time())
        self._outside_port = port
        self._changed.set()

    def _drop(self, key: DiscoveryKey, topic: _Topic) -> None:
        """End the walk of a topic, and take back what was announced."""
        keepers = topic.keepers
        if topic.walk is not None:
            self.socket.stop(topic.walk)
            keepers = topic.walk.keepers or keepers
        if keepers:
            asked = encode_peers_asked(PeersAsked(self._outside_port, unannounce=True))
            walk = Walk(key, PEERS, update=asked, on_done=self._parted)
            self._farewells.add(walk)
            self.socket.update(walk, keepers)

    def _parted(self, walk: Walk) -> None:
        self._farewells.discard(walk)
        self._one_parted.set()

    def refresh(self) -> None:
        now = trio.current_time()
        self.socket.forget_names()
        for topic in self._topics.values():
            topic.due_s = min(topic.due_s, max(now, topic.began_s + REFRESH_S))
            topic.vain = 0
        self._changed.set()

    def linked(self, key: DiscoveryKey, *, is_linked: bool) -> None:
        topic, now = self._topics.get(key), trio.current_time()
        if topic is None or topic.walk is not None:
            return
        if is_linked and topic.vain:
            topic.vain, topic.due_s = 0, now + wait_s(REPEAT_S, 0, random.random())
        elif not is_linked:
            topic.due_s = min(topic.due_s, max(now, topic.began_s + REFRESH_S))
            self._changed.set()

    async def keep_asking(self) -> None:
        """Look for each topic when it is due, for ever."""
        while True:
            self._changed = trio.Event()
            due_s = min((topic.due_s for topic in self._idle().values()), default=math.inf)
            if due_s <= trio.current_time() and self._walks() < MAX_WALKS:
                await self.socket.resolve()
                while self._walks() < MAX_WALKS:
                    key = whose_turn(self._idle(), trio.current_time())
                    if key is None:
                        break
                    self._ask(key, self._topics[key])
                continue
            with trio.move_on_at(due_s if self._walks() < MAX_WALKS else math.inf):
                await self._changed.wait()

    def _idle(self) -> dict[DiscoveryKey, _Topic]:
        return {key: topic for key, topic in self._topics.items() if topic.walk is None}

    def _walks(self) -> int:
        return len(self._topics) - len(self._idle())

    def _ask(self, key: DiscoveryKey, topic: _Topic) -> None:
        """Begin a walk for a topic."""
        found: set[Address] = set()
        told: Counter[str | Address] = Counter()

        def answered(datagram: Datagram, node: Address) -> None:
            self.tally.add(key, answered=1)
            teller = node.host if IPv4Address(node.host).is_global else node  # many private nodes may share a host
            news = [peer for peer in self._peers(datagram, node) if peer not in found]
            room = min(MAX_FOUND_BY_HOST - told[teller], MAX_FOUND - len(found), len(news))
            for peer in random.sample(news, room):
                found.add(peer)
                self.tally.add(key, found=1)
                self._sink(Finding(peer, key, "dht"))
            told[teller] += room

        def done(walk: Walk) -> None:
            topic.walk = None
            if walk.updated:
                topic.keepers = walk.keepers
                self.tally.add(key, announced=1)
            self._plan_next(topic, walk)
            self._changed.set()

        value = encode_peers_asked(PeersAsked(self._outside_port))
        topic.walk = Walk(key, PEERS, value, value if topic.announce else None, answered, done)
        topic.began_s, topic.due_s = trio.current_time(), math.inf
        self.tally.add(key, asked=1)
        self.socket.start(topic.walk)

    def _peers(self, datagram: Datagram, node: Address) -> list[Address]:
        """Return the peers that a node names, without ourselves."""
        try:
            peers, _ = decode_peers_answered(datagram.value or b"")
        except RemoteProtocolError:
            return []
        ours = {(datagram.to.host, port) for port in (self._port, self._outside_port)} if datagram.to else ()
        return [peer for peer in dict.fromkeys(peers) if is_plausible(peer, node) and peer not in ours]

    def _plan_next(self, topic: _Topic, walk: Walk) -> None:
        topic.vain += 1
        wait = wait_s(REPEAT_S, topic.vain, random.random()) if walk.answers else silence_s(topic.vain)
        topic.due_s = min(topic.due_s, trio.current_time() + wait)

    async def part(self) -> None:
        """Take back all that was announced; the caller sets a deadline."""
        for key in list(self._topics):
            await self._farewells_fall_below(MAX_WALKS)
            self.leave(key)
        await self._farewells_fall_below(1)

    async def _farewells_fall_below(self, count: int) -> None:
        while len(self._farewells) >= count:
            self._one_parted = trio.Event()
            await self._one_parted.wait()


class DhtDiscovery:
    """The `Discovery` through the DHT of the npm peers. Made by `open_dht`."""

    name: Mechanism = "dht"

    def __init__(self, networks: dict[str, _Network], *, can_announce: bool) -> None:
        self._by_dialect = networks
        self._networks = list(dict.fromkeys(networks.values()))
        self._can_announce = can_announce
        self._scope = trio.CancelScope(shield=True)

    def join(self, discovery_key: DiscoveryKey, dialect: Dialect, *, announce: bool) -> None:
        """Look for peers of a topic, in the network of its dialect."""
        self._by_dialect[dialect.name].join(discovery_key, announce=announce and self._can_announce)

    def leave(self, discovery_key: DiscoveryKey) -> None:
        """Look for a topic no more, and take back what was announced."""
        for network in self._networks:
            network.leave(discovery_key)

    def reached_at(self, port: int) -> None:
        """Announce a port of the router that leads to us; what was announced before is taken back."""
        if self._can_announce:
            for network in self._networks:
                network.reached_at(port)

    def linked(self, discovery_key: DiscoveryKey, *, is_linked: bool) -> None:
        """Look for a topic rarely while somebody is connected, and soon when nobody is any more."""
        for network in self._networks:
            network.linked(discovery_key, is_linked=is_linked)

    def refresh(self) -> None:
        """Look for all topics again now."""
        for network in self._networks:
            network.refresh()

    def report(self) -> DiscoveryReport:
        """Return how it is doing, in all networks together."""
        tally = Tally()
        for network in self._networks:
            tally.topics |= network.tally.topics
            counts = network.tally.total
            tally.total.asked += counts.asked
            tally.total.answered += counts.answered
            tally.total.found += counts.found
            tally.total.announced += counts.announced
        known = {network.name: len(network.socket.node.table) for network in self._networks}
        errors = [network.last_error for network in self._networks if network.last_error is not None]
        return tally.report(
            running=any(known.values()),
            last_error="; ".join(errors) or None,
            detail=", ".join(f"{name}: {count} nodes" for name, count in known.items()),
        )

    async def _run(self) -> None:
        """Run all networks; a cancellation from outside does not end them before the farewell."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                for network in self._networks:
                    nursery.start_soon(network.socket.run)
                    nursery.start_soon(network.keep_asking)

    async def _keep(self, save: Save) -> None:
        """Keep the nodes that have answered now and then, for ever."""
        while True:
            await trio.sleep(SAVE_S)
            await self._save(save)

    async def _save(self, save: Save) -> None:
        state = pack({network.given: network.nodes() for network in self._networks})
        try:
            if state:
                await trio.to_thread.run_sync(save, state)
        except OSError as error:
            _log.warning("the nodes of the dht were not saved reason=%s", error)

    async def _part(self, save: Save | None) -> None:
        if save is not None:
            with trio.CancelScope(shield=True):
                await self._save(save)
        with trio.move_on_after(FAREWELL_S, shield=True):
            async with trio.open_nursery() as nursery:
                for network in self._networks:
                    nursery.start_soon(network.part)
        self._scope.cancel()


@asynccontextmanager
async def open_dht(
    sink: Sink,
    *,
    port: int,
    nodes: Sequence[Address] | None = None,
    listen: Address = ANY_PORT,
    state: bytes = b"",
    save: Save | None = None,
) -> AsyncIterator[DhtDiscovery]:
    """Give the discovery through the DHT; what it finds goes to `sink`. `port` 0: nobody can reach us, only look.

    `nodes` are those of a private network, in which peers of all dialects then look for each other. We send from the
    UDP port `listen`. `state` is what `save` was given last time. Nothing is sent before a topic is joined.
    Raises: OSError when that port cannot be had.
    """
    networks: dict[str, _Network] = {}
    try:
        if nodes is not None:
            networks = dict.fromkeys(DIALECTS, _Network("private network", nodes, sink, port, listen))
        for name, dialect in DIALECTS.items():
            if name not in networks:
                given = [Address.parse(node) for node in dialect.dht_nodes]
                networks[name] = _Network(name, given, sink, port, listen)
        dht = DhtDiscovery(networks, can_announce=bool(port))
        kept = unpack(state)
        for network in networks.values():
            network.socket.kept = kept.get(network.given, [])
        tasks = [dht._run] if save is None else [dht._run, partial(dht._keep, save)]
        async with background(*tasks):
            try:
                yield dht
            finally:
                await dht._part(save)
    finally:
        for network in set(networks.values()):
            network.socket.close()
