"""Finding peers for the drives of an engine: which topics are looked for, by which mechanisms, and what came of it.

What is looked for follows from the drives and databases that are open; it is asked again whenever one of them changes,
and every few seconds, as a drive is announced while it is mounted. Private ones are never among them.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, fields
from functools import partial
from typing import Any, Final, NamedTuple

import trio

import ddrive.swarm
from ddrive.dialect import Dialect
from ddrive.ids import DiscoveryKey
from ddrive.swarm import Address, Peer, Swarm
from ddrive.swarm.dialing import DialCounts, Source
from ddrive.swarm.discovery import Counts, Discovery, DiscoveryReport, Finding, Mechanism
from ddrive.swarm.networks import parse_ip, refusal
from ddrive.swarm.watching import Networks, open_networks
from mountd.config import Config
from mountd.files import save_bytes
from mountd.remembered import Remembered

LOOK_S: Final = 2.0  # between two looks at what is to be looked for
SHOWN_FAILURES: Final = 3  # more would fill the screen; `info` shows all
TITLES: Final[dict[Mechanism, str]] = {"lan": "local network", "dht": "swarm network", "mainline": "BitTorrent network"}
NO_DIALS: Final = DialCounts()
MECHANISMS: Final[tuple[Mechanism, ...]] = ("lan", "dht", "mainline")

_log = logging.getLogger(__name__)


class Topic(NamedTuple):
    """What is looked for; `announce` tells others that we have it."""

    dialect: Dialect
    announce: bool


Topics = Mapping[DiscoveryKey, Topic]


class Finder:
    """The mechanisms of an engine. Made by `open_finder`."""

    def __init__(self, config: Config, swarm: Swarm, networks: Networks, remembered: Remembered) -> None:
        self._config = config
        self._swarm = swarm
        self._networks = networks
        self._remembered = remembered
        self._mechanisms: list[Discovery] = []
        self._topics: dict[DiscoveryKey, Topic] = {}
        self._linked: set[DiscoveryKey] = set()  # a peer that was found for them is connected
        self._failed: dict[Mechanism, str] = {}  # why those that are not there are not
        self._refused: Counter[Source] = Counter()
        self._last_refused: dict[Source, str] = {}
        self._changed = trio.Event()
        networks.subscribe(self._networks_changed)

    def _networks_changed(self) -> None:
        here = self._networks.here
        self._swarm.network_changed(lambda host: (ip := parse_ip(host)) is not None and here.owns(ip))
        for mechanism in self._mechanisms:
            mechanism.refresh()

    def changed(self) -> None:
        """Look again soon at what is to be looked for."""
        self._changed.set()

    async def follow(self, wanted: Callable[[], Topics]) -> None:
        """Look for what `wanted` returns, for ever."""
        while True:
            self._changed = trio.Event()
            self._want(wanted())
            self._remember()
            await self._remembered.save()
            with trio.move_on_after(LOOK_S):
                await self._changed.wait()

    def _want(self, topics: Topics) -> None:
        for key in [key for key in self._topics if key not in topics]:
            del self._topics[key]
            self._swarm.forget_topic(key)
            self._remembered.forget(key)
            for mechanism in self._mechanisms:
                mechanism.leave(key)
        for key, topic in topics.items():
            if self._topics.get(key) != topic:
                is_new = key not in self._topics
                self._topics[key] = topic
                if is_new and self._config.discovery:
                    for address in self._remembered.addresses(key):
                        self._try(address, key, "remembered")
                for mechanism in self._mechanisms:
                    mechanism.join(key, topic.dialect, announce=topic.announce and self._config.announce)

    def _remember(self) -> None:
        """Take note of where peers are that were found."""
        linked: set[DiscoveryKey] = set()
        for peer in self._swarm.peers():
            if peer.connected and peer.source is not None:
                linked |= peer.topics
                for topic in peer.topics:
                    self._remembered.note(topic, Address.parse(peer.address))
        for mechanism in self._mechanisms:
            for topic in linked | self._linked:
                mechanism.linked(topic, is_linked=topic in linked)
        self._linked = linked

    def _found(self, finding: Finding) -> None:
        """Take in what a mechanism has found."""
        if finding.discovery_key in self._topics:
            self._try(finding.address, finding.discovery_key, finding.mechanism)

    def _try(self, address: Address, topic: DiscoveryKey, source: Source) -> None:
        """Have an address dialled unless there is a reason against it."""
        is_private = source != "lan" and self._config.is_private_network
        here = self._networks.here
        why = refusal(address, source, here, self._port, near_too=is_private, far_too=not self._config.lan_only)
        if why is None:
            self._swarm.found(address, topic, source)
        else:
            self._refused[source] += 1
            self._last_refused[source] = f"{address}: {why}"

    @property
    def _port(self) -> int:
        return Address.parse(self._swarm.listen_addresses[0]).port

    @property
    def _open_port(self) -> int:
        """The port at which others can reach us, 0 when none can."""
        hosts = [Address.parse(address).host for address in self._swarm.listen_addresses]
        return 0 if all(host.startswith("127.") or host == "::1" for host in hosts) else self._port

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the mechanisms that are wanted; one that cannot be had does not keep the others away."""
        for name in MECHANISMS:
            if self._off_by(name) is None:
                try:
                    self._mechanisms.append(await stack.enter_async_context(self._opening(name)))
                except OSError as error:
                    self._failed[name] = str(error)
                    _log.warning("no discovery mechanism=%s reason=%s", name, error)

    async def close(self) -> None:
        """Keep what is to be remembered."""
        self._remember()
        await self._remembered.save()

    def _opening(self, name: Mechanism) -> AbstractAsyncContextManager[Discovery]:
        config, port = self._config, self._open_port
        match name:
            case "lan":
                return ddrive.swarm.open_lan(self._found, port=port, networks=self._networks)
            case "dht":
                nodes = [Address.parse(node) for node in config.dht_nodes]
                kept = config.state / "dht.nodes"
                return ddrive.swarm.open_dht(
                    self._found,
                    port=port,
                    nodes=nodes or None,
                    state=kept.read_bytes() if kept.exists() else b"",
                    save=partial(save_bytes, kept),
                )
            case "mainline":
                nodes = [Address.parse(node) for node in config.mainline_nodes]
                kept = config.state / "mainline.nodes"
                return ddrive.swarm.open_mainline(
                    self._found,
                    port=port,
                    map_port=config.port_mapping and config.announce,
                    state=kept.read_bytes() if kept.exists() else b"",
                    save=partial(save_bytes, kept),
                    nodes=nodes or None,
                    on_outside_port=self._reached_at,
                )

    def _reached_at(self, port: int) -> None:
        """Have a port of the router announced that leads to us."""
        for mechanism in self._mechanisms:
            mechanism.reached_at(port)

    def _off_by(self, name: Mechanism) -> str | None:
        """Return which setting keeps a mechanism off, None when it is on."""
        if not self._config.discovery:
            return "turned off by --no-discovery"
        if name != "lan" and self._config.lan_only:
            return "turned off by --lan-only"
        nodes = {"lan": True, "dht": self._config.dht_nodes, "mainline": self._config.mainline_nodes}
        if self._config.is_private_network and not nodes[name]:
            return "left alone, as a private network is given"
        return None

    def _hidden_by(self) -> str | None:
        """Return why nobody is told of us, None when others are."""
        if not self._config.announce:
            return "nothing is announced, by --no-announce"
        return None if self._open_port else "nothing is announced, as only this machine can connect to us"

    def report(self) -> dict[str, Any]:
        """Return how each mechanism is doing, as `status` shows it."""
        dials = self._swarm.dial_counts()
        connected = Counter(peer.source for peer in self._swarm.peers() if peer.connected)
        value: dict[str, Any] = {}
        for name in MECHANISMS:
            report = self._reports().get(name)
            if report is None:
                value[name] = {"running": False, "why": self._off_by(name) or self._failed.get(name)}
                continue
            value[name] = {
                "running": report.running,
                "topics": len(report.topics),
                **asdict(report.total),
                **asdict(dials.get(name, NO_DIALS)),
                "connected": connected[name],
                "refused": self._refused[name],
                "last_refused": self._last_refused.get(name),
                "last_error": report.last_error,
                "detail": "; ".join(filter(None, [report.detail, self._hidden_by()])) or None,
            }
        return value

    def about(self, topics: Collection[DiscoveryKey]) -> dict[str, Any]:
        """Return what came of looking for a drive, which has one topic or, while its dialect is unknown, several."""
        counts: dict[str, dict[str, int]] = {}
        for name, report in self._reports().items():
            per_topic = [report.topics[topic] for topic in topics if topic in report.topics]
            counts[name] = {
                field.name: sum(getattr(each, field.name) for each in per_topic) for field in fields(Counts)
            }
        return {"asked": counts, "addresses": [_shown(peer) for peer in self._addresses(topics)]}

    def why(self, topics: Collection[DiscoveryKey]) -> str:
        """Return in words for people why nobody who has a drive is connected."""
        linked = len(self._swarm.links)
        others = f"{linked} other peer{'s' * (linked != 1)} connected" if linked else "nobody is connected"
        parts = [self._why_unheard(name, report, topics) for name, report in self._reports().items()]
        if not self._mechanisms:
            parts.append("discovery is off")
        elif not any(topic in self._topics for topic in topics):
            parts.append("it is private, so nobody is asked for it")
        failed = [peer for peer in self._addresses(topics) if peer.last_error and not peer.connected]
        parts += [f"{peer.address}: {peer.last_error}" for peer in failed[:SHOWN_FAILURES]]
        return "; ".join([others, *(part for part in parts if part)])

    def _why_unheard(self, name: Mechanism, report: DiscoveryReport, topics: Collection[DiscoveryKey]) -> str | None:
        if not report.running:
            return f"{TITLES[name]}: {report.last_error or 'not ready yet'}"
        per_topic = [report.topics[topic] for topic in topics if topic in report.topics]
        if not per_topic:
            return None
        found = sum(counts.found for counts in per_topic)
        return f"{TITLES[name]}: {found} address{'es' * (found != 1)} found" if found else f"{TITLES[name]}: no answer"

    def _addresses(self, topics: Collection[DiscoveryKey]) -> list[Peer]:
        """Return the addresses at which a drive may be: those found for it, and those given, which are for all."""
        return [peer for peer in self._swarm.peers() if peer.source == "given" or not peer.topics.isdisjoint(topics)]

    def _reports(self) -> dict[Mechanism, DiscoveryReport]:
        return {mechanism.name: mechanism.report() for mechanism in self._mechanisms}


def _shown(peer: Peer) -> dict[str, Any]:
    return {
        "address": peer.address,
        "source": peer.source,
        "connected": peer.connected,
        "last_error": peer.last_error,
    }


@asynccontextmanager
async def open_finder(config: Config, swarm: Swarm) -> AsyncIterator[Finder]:
    """Give the mechanisms of an engine, opened as `config` says."""
    async with AsyncExitStack() as stack:
        networks = await stack.enter_async_context(open_networks())
        finder = Finder(config, swarm, networks, Remembered(config.state / "peers.sqlite"))
        await finder.open(stack)
        try:
            yield finder
        finally:
            with trio.CancelScope(shield=True):
                await finder.close()
