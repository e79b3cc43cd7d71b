"""Peers found through the Mainline DHT of BitTorrent, and a way through the home router: libtorrent does both.

The session has no torrents and takes no part in file sharing; its socket is apart from ours. What libtorrent tells, it
tells as alerts, which live until the next ones are fetched: their values are copied at once. It wakes us through a
socket. An announcement cannot be taken back; it is forgotten within half an hour.
Source: BEP 5; documentation of libtorrent 2.
"""

import logging
import math
import random
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import libtorrent
import trio

from ddrive.dialect import Dialect
from ddrive.ids import DiscoveryKey
from ddrive.swarm.background import background
from ddrive.swarm.discovery import TOPIC_BYTES, DiscoveryReport, Finding, Mechanism, Sink, Tally
from ddrive.swarm.mainline_nodes import Save, keep, nodes_of
from ddrive.swarm.repeating import wait_s, whose_turn
from ddrive.swarm.resolving import resolve
from ddrive.swarm.static import Address

REPEAT_S = (900.0, 1500.0)  # a topic is looked for, and announced, again after a time between these
REFRESH_S = 10.0  # topics are not looked for more often than this, whatever happens
ENOUGH_NODES = 16  # in the routing table; with fewer, an announcement may not have got to the right nodes
GAP_S = 0.4  # between two topics: libtorrent drops what goes beyond its limit
LIMIT_BYTES_S = 20_000  # sent by the DHT; a topic takes about 8 kB in a large network
SOON_S = 60.0  # it is then made again after this long
MAX_FOUND = 256  # addresses given on from one lookup
MAX_FOUND_BY_NODE = 16  # of these from one answer: a node that names thousands keeps us from nobody else's
MAX_OUTSIDE = 8  # addresses of our own, as others see us
STARTING_S = 0.5  # between two looks at the routing table, while it is empty
FEW_S = 2.0  # likewise while it has few nodes
LOOK_S = 30.0  # likewise afterwards
SETTLE_S = 0.1  # sockets on several networks come up one after the other
KNOCK_S = 20.0  # between two attempts to fill the routing table, while it is empty
GIVE_BACK_S = 0.5  # for giving back a port of the router
SAVE_S = 600.0  # between two savings of the routing table
PRIVATE_DATAGRAMS_S = 1000  # from one address, before it is blocked; in the public network libtorrent's own 5
MAX_ALERTS = 2000  # that wait for us; more are dropped by libtorrent

NODES = (
    Address("dht.libtorrent.org", 25401),
    Address("router.bittorrent.com", 6881),
    Address("dht.transmissionbt.com", 6881),
    Address("router.utorrent.com", 6881),
)
EVERYWHERE = "0.0.0.0:0,[::]:0"

_ALERTS = (
    libtorrent.alert.category_t.dht_operation_notification
    | libtorrent.alert.category_t.port_mapping_notification
    | libtorrent.alert.category_t.status_notification
)

_QUIET = {**dict.fromkeys(("enable_upnp", "enable_natpmp", "enable_dht"), False), "alert_mask": 0}
_left: list[Any] = []  # sessions that are not waited for

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Topic:
    """A topic that is joined."""

    announce: bool
    next_s: float  # when to look for it
    announce_s: float = -math.inf  # when to announce it, if it is to be
    began_s: float = -math.inf  # when it was looked for last
    announced_s: float = -math.inf  # when it was announced last
    vain: int = 0  # lookups in a row after which nobody was connected
    found: set[Address] = field(default_factory=set)  # by the last lookup

    @property
    def due_s(self) -> float:
        """When there is something to do."""
        return min(self.next_s, self.announce_s) if self.announce else self.next_s


class MainlineDiscovery:
    """The `Discovery` through the Mainline DHT. Made by `open_mainline`."""

    name: Mechanism = "mainline"

    def __init__(self, sink: Sink, port: int, on_outside_port: Callable[[int], None]) -> None:
        self._sink = sink
        self._on_outside_port = on_outside_port
        self._port = port
        self._tally = Tally()
        self._topics: dict[DiscoveryKey, _Topic] = {}
        self._session: Any = None  # made in a thread, by `_begin`
        self._nodes = 0
        self._mappings: set[int] = set()  # numbers of ours
        self._mapped: dict[str, tuple[int, int]] = {}  # way of mapping -> its number, the port that leads to ours
        self._mapping_error: str | None = None
        self._last_error: str | None = None
        self._outside: deque[str] = deque(maxlen=MAX_OUTSIDE)  # our addresses, as others see us
        self._listening = trio.Event()
        self._relistening = trio.Event()  # on one network more
        self._changed = trio.Event()

    def join(self, discovery_key: DiscoveryKey, dialect: Dialect, *, announce: bool) -> None:
        """Look for peers of a topic; those of all dialects are in the one network."""
        self._tally.join(discovery_key)
        topic = self._topics.setdefault(discovery_key, _Topic(announce, trio.current_time()))
        topic.announce = announce and self._port != 0
        self._changed.set()

    def leave(self, discovery_key: DiscoveryKey) -> None:
        """Look for a topic no more; what was announced is forgotten by the others in time."""
        self._tally.leave(discovery_key)
        self._topics.pop(discovery_key, None)

    def refresh(self) -> None:
        """Look for all topics again now."""
        now = trio.current_time()
        for topic in self._topics.values():
            topic.next_s = min(topic.next_s, max(now, topic.began_s + REFRESH_S))
            topic.announce_s = min(topic.announce_s, max(now, topic.announced_s + SOON_S))
            topic.vain = 0
        self._changed.set()

    def reached_at(self, port: int) -> None:
        """Go on as before: the router is asked here, so its port is known already."""

    def linked(self, discovery_key: DiscoveryKey, *, is_linked: bool) -> None:
        """Look for a topic rarely while somebody is connected, and soon when nobody is any more."""
        topic, now = self._topics.get(discovery_key), trio.current_time()
        if topic is None:
            return
        if is_linked and topic.vain:
            topic.vain, topic.next_s = 0, now + wait_s(REPEAT_S, 0, random.random())
        elif not is_linked:
            topic.next_s = min(topic.next_s, max(now, topic.began_s + REFRESH_S))
            self._changed.set()

    def report(self) -> DiscoveryReport:
        """Return how it is doing."""
        ways = ", ".join(f"port {port} of the router by {way}" for way, (_, port) in self._mapped.items())
        mapping = ways or (self._mapping_error and f"no port of the router: {self._mapping_error}")
        error = self._last_error
        if not self._nodes and self._topics:
            error = error or "no node of the Mainline DHT answers yet: is UDP let out here?"
        detail = f"{self._nodes} nodes" + (f", {mapping}" if mapping else "")
        return self._tally.report(running=self._nodes > 0, last_error=error, detail=detail)

    @property
    def outside_port(self) -> int:
        """The port at which others reach us: that of the router, if it gave us one."""
        return next((port for _, port in self._mapped.values()), self._port)

    def _begin(self, settings: dict[str, Any], wake: int) -> None:
        """Make the session; takes a while."""
        params: Any = libtorrent.session_params()
        params.settings = settings
        session = libtorrent.session(params)
        session.set_alert_fd(wake)
        self._session = session

    async def _keep_mapped(self) -> None:
        """Ask for a port on every network that the session comes to listen on: it asks on those alone, for ever."""
        while True:
            await self._relistening.wait()
            await trio.sleep(SETTLE_S)
            self._relistening = trio.Event()
            await trio.to_thread.run_sync(self._map)

    def _map(self) -> None:
        handles = self._session.add_port_mapping(libtorrent.portmap_protocol.tcp, self._port, self._port)
        self._mappings.update(int(handle) for handle in handles or ())

    async def _end(self) -> None:
        """End the session; the interpreter stands still meanwhile, for some milliseconds.

        When a router has gone that gave us a port, that would be ten seconds: libtorrent insists on giving it back. So
        it is given some time for that, and then left alone: nothing but the end of the process ends it.
        """
        if self._mapped:
            self._session.set_alert_fd(-1)
            self._session.apply_settings(_QUIET)
            await trio.sleep(GIVE_BACK_S)
            _left.append(self._session)
        self._session = None

    async def _listen(self, waker: trio.socket.SocketType) -> None:
        """Take in alerts, for ever."""
        while True:
            await waker.recv(4096)
            for alert in self._session.pop_alerts():
                self._told(alert)

    def _told(self, alert: Any) -> None:
        """Take in one alert."""
        if isinstance(alert, libtorrent.dht_get_peers_reply_alert):
            self._answered(alert.info_hash.to_bytes(), alert.peers())
        elif isinstance(alert, libtorrent.dht_stats_alert):
            nodes = sum(bucket["num_nodes"] for bucket in alert.routing_table)
            if nodes and not self._nodes:
                _log.info("mainline dht is up nodes=%d", nodes)
                self._changed.set()
            self._nodes = nodes
        elif isinstance(alert, libtorrent.external_ip_alert):
            self._outside.append(str(alert.external_address))
        elif isinstance(alert, libtorrent.portmap_alert):
            self._mapped_port(alert)
        elif isinstance(alert, libtorrent.portmap_error_alert) and alert.mapping in self._mappings:
            self._mapping_error = str(alert.error.message())
            if self._mapped.get(_way(alert), (None,))[0] == alert.mapping:
                self._map_changed(_way(alert), None)
        elif isinstance(alert, libtorrent.listen_succeeded_alert):
            self._listening.set()
            self._relistening.set()
            self._last_error = None
        elif isinstance(alert, libtorrent.listen_failed_alert) and not self._listening.is_set():
            self._last_error = str(alert.message())  # of one network; another one may do

    def _mapped_port(self, alert: Any) -> None:
        """Take note of a port that the router gave us, or gave us anew."""
        mine = alert.mapping in self._mappings and alert.external_port != self._session.listen_port()
        if not mine or alert.map_protocol != libtorrent.portmap_protocol.tcp:
            return
        _log.info("port mapped way=%s port=%d", _way(alert), alert.external_port)
        self._map_changed(_way(alert), (alert.mapping, alert.external_port))

    def _map_changed(self, way: str, mapped: tuple[int, int] | None) -> None:
        """Make known where others reach us, if that is news."""
        before = self.outside_port
        if mapped is None:
            self._mapped.pop(way, None)
        else:
            self._mapped[way] = mapped
        if self.outside_port != before:
            self._on_outside_port(self.outside_port)
            self.refresh()

    def _answered(self, info_hash: bytes, peers: Sequence[tuple[str, int]]) -> None:
        """Give on what a node has found."""
        for key, topic in self._topics.items():
            if key[:TOPIC_BYTES] != info_hash:
                continue
            self._tally.add(key, answered=1)
            addresses = {Address(str(host), int(port)) for host, port in peers} - topic.found
            news = [address for address in addresses if address.port and not self._is_ours(address)]
            room = min(MAX_FOUND_BY_NODE, MAX_FOUND - len(topic.found), len(news))
            for address in random.sample(news, room):
                topic.found.add(address)
                self._tally.add(key, found=1)
                self._sink(Finding(address, key, self.name))

    def _is_ours(self, address: Address) -> bool:
        return address.port == self.outside_port and address.host in self._outside

    async def _ask(self) -> None:
        """Look for each topic when it is due, and announce it, for ever: as soon as there are nodes to ask."""
        while True:
            self._changed = trio.Event()
            key = whose_turn(self._topics, trio.current_time()) if self._nodes else None
            if key is not None:
                self._look(key, self._topics[key])
                await trio.sleep(GAP_S)
                continue
            due_s = min((topic.due_s for topic in self._topics.values()), default=math.inf)
            with trio.move_on_at(due_s if self._nodes else math.inf):
                await self._changed.wait()

    def _look(self, key: DiscoveryKey, topic: _Topic) -> None:
        now = trio.current_time()
        info_hash = libtorrent.sha1_hash(key[:TOPIC_BYTES])
        topic.found.clear()
        topic.vain += 1  # until somebody is connected
        topic.began_s, topic.next_s = now, now + wait_s(REPEAT_S, topic.vain, random.random())
        self._tally.add(key, asked=1)
        self._session.dht_get_peers(info_hash)
        if topic.announce and topic.announce_s <= now:
            enough = self._nodes >= ENOUGH_NODES
            topic.announced_s = now
            topic.announce_s = now + (wait_s(REPEAT_S, 0, random.random()) if enough else SOON_S)
            self._tally.add(key, announced=1)
            self._session.dht_announce(info_hash, self.outside_port, 0)

    async def _watch_table(self, nodes: Sequence[Address] | None, state: bytes, save: Save | None) -> None:
        """Look at the routing table, fill it while it is empty, and save it now and then, for ever."""
        saved_s = trio.current_time()
        knocked_s = -math.inf
        await self._listening.wait()
        while True:
            if self._nodes:
                knocked_s = -math.inf  # once it is empty again, as when our address changes, begin at once
            elif trio.current_time() >= knocked_s + KNOCK_S:
                await self._knock(nodes, nodes_of(state))
                knocked_s = trio.current_time()
            self._session.post_dht_stats()
            await trio.sleep(STARTING_S if not self._nodes else FEW_S if self._nodes < ENOUGH_NODES else LOOK_S)
            if self._nodes and save is not None and trio.current_time() >= saved_s + SAVE_S:
                saved_s = trio.current_time()
                await trio.to_thread.run_sync(keep, save, self._session)

    async def _knock(self, nodes: Sequence[Address] | None, kept: Sequence[Address]) -> None:
        """Begin to fill the routing table: from the nodes that everybody knows or our own, and those of last time.

        The former are asked but never held. libtorrent begins with them when it starts its DHT, and is given no names:
        it would not end before its name server has answered.
        """
        found, self._last_error = await resolve(NODES if nodes is None else nodes)
        if nodes is None:
            self._session.apply_settings({"enable_dht": False})
            self._session.apply_settings({"dht_bootstrap_nodes": ",".join(map(str, found)), "enable_dht": True})
        for node in [*(found if nodes is not None else ()), *kept]:
            self._session.add_dht_node(tuple(node))


def _way(alert: Any) -> str:
    return {"natpmp": "NAT-PMP", "upnp": "UPnP"}.get(str(alert.map_transport), str(alert.map_transport))


def _settings(nodes: Sequence[Address] | None, listen: str, *, map_port: bool) -> dict[str, Any]:
    private = nodes is not None
    return {
        "user_agent": "ddrive",
        "listen_interfaces": listen,
        "alert_mask": _ALERTS,
        "alert_queue_size": MAX_ALERTS,
        "dht_bootstrap_nodes": "",
        "enable_dht": private,  # else it is started by `_knock`
        "dht_upload_rate_limit": LIMIT_BYTES_S,
        "enable_lsd": False,
        "enable_upnp": map_port,
        "enable_natpmp": map_port,
        **dict.fromkeys(("enable_incoming_tcp", "enable_outgoing_tcp"), False),
        **dict.fromkeys(("enable_incoming_utp", "enable_outgoing_utp"), False),
        **dict.fromkeys(("aio_threads", "hashing_threads"), 1),
        # In a network of one's own, many nodes may have one address, and none is of the internet.
        **({"dht_block_ratelimit": PRIVATE_DATAGRAMS_S} if private else {}),
        **dict.fromkeys(("dht_restrict_routing_ips", "dht_restrict_search_ips", "dht_enforce_node_id"), not private),
        **dict.fromkeys(("dht_prefer_verified_node_ids", "dht_ignore_dark_internet"), not private),
    }


@asynccontextmanager
async def open_mainline(
    sink: Sink,
    *,
    port: int,
    map_port: bool = True,
    state: bytes = b"",
    save: Save | None = None,
    nodes: Sequence[Address] | None = None,
    listen: str = EVERYWHERE,
    on_outside_port: Callable[[int], None] = lambda port: None,
) -> AsyncIterator[MainlineDiscovery]:
    """Give the discovery through the Mainline DHT; what it finds goes to `sink`. `port` 0: nobody can reach us.

    With `map_port` the router is asked to lead `port` to us. `state` is what `save` was given last time. `nodes` are
    those of a private network; `listen` is a list of addresses with ports, and commas in between. `on_outside_port`
    is told the port at which others reach us, when the router gives another one than before.
    """
    mainline = MainlineDiscovery(sink, port, on_outside_port)
    settings = _settings(nodes, listen, map_port=map_port)
    waker, wake = socket.socketpair()
    with waker, wake:
        for end in (waker, wake):
            end.setblocking(False)
        await trio.to_thread.run_sync(mainline._begin, settings, wake.fileno())
        try:
            async with background(
                lambda: mainline._listen(trio.socket.from_stdlib_socket(waker)),
                mainline._ask,
                lambda: mainline._watch_table(nodes, state, save),
                *([mainline._keep_mapped] if port and map_port else []),
            ):
                yield mainline
        finally:
            with trio.CancelScope(shield=True):
                if save is not None:
                    await trio.to_thread.run_sync(keep, save, mainline._session)
                await mainline._end()
