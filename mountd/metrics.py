"""Metrics for Prometheus: what the engine has counted, under names that begin with `ddrive_`, over HTTP.

They tell who connects and how much is exchanged, so they are served where the user says and nowhere by default.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from ddrive.errors import DriveError
from ddrive.replication.peer import FeedStats
from ddrive.store.store import OwnedStore
from ddrive.swarm import Address, Swarm
from mountd.finding import Finder
from mountd.mounts import MountTable

MAX_REQUEST_BYTES: Final = 8192
MAX_REQUESTS: Final = 32  # at a time; who has been asking for longest makes room for one more
REQUEST_S: Final = 5.0
PATHS: Final = (b"/", b"/metrics")

_COUNTED: Final = {
    "asked": "Lookups sent out",
    "answered": "Answers to lookups",
    "found": "Addresses of peers found",
    "announced": "Times we were made known to others",
    "dialled": "Addresses dialled",
    "refused": "Addresses that were not dialled",
}
_EXCHANGED: Final = {
    "uploaded_bytes": "Bytes of blocks sent",
    "uploaded_blocks": "Blocks sent",
    "downloaded_bytes": "Bytes of blocks received",
    "downloaded_blocks": "Blocks received",
    "timeouts": "Requests that were not answered in time",
    "verify_failures": "Blocks received that did not verify",
    "cache_hits": "Blocks read here that were held",
    "cache_misses": "Blocks read here that had to be fetched from peers first",
}


class Metrics:
    """What is told when somebody asks. A `Collector` of prometheus_client."""

    def __init__(
        self,
        swarm: Swarm,
        finder: Finder,
        stores: Mapping[str, OwnedStore],
        mounts: MountTable,
        space: Callable[[], dict[str, int]],
    ) -> None:
        self._swarm = swarm
        self._finder = finder
        self._stores = stores
        self._mounts = mounts
        self._space = space
        self._seen: dict[int, dict[str, int]] = {}  # what each open exchange had counted when we looked last
        self._totals = dict.fromkeys(_EXCHANGED, 0)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Give all metrics as they are now."""
        yield from self._traffic()
        yield from self._peers()
        yield from self._discovery()
        yield from self._exchange()
        yield from self._cache()
        mounts = GaugeMetricFamily("ddrive_mounts", "Mounts by state", labels=["state"])
        states = [mount.state for mount in self._mounts]
        for state in ("ok", "starting", "dead"):
            mounts.add_metric([state], states.count(state))
        yield mounts

    def _traffic(self) -> Iterator[Metric]:
        sent = CounterMetricFamily("ddrive_sent_bytes", "Bytes sent, by how peers were found", labels=["source"])
        received = CounterMetricFamily(
            "ddrive_received_bytes", "Bytes received, by how peers were found", labels=["source"]
        )
        for source, (out, into) in self._swarm.traffic().items():
            sent.add_metric([source], out)
            received.add_metric([source], into)
        yield from (sent, received)

    def _peers(self) -> Iterator[Metric]:
        peers = GaugeMetricFamily("ddrive_peers", "Peers connected, by how they were found", labels=["source"])
        connected = [peer.source or "incoming" for peer in self._swarm.peers() if peer.connected]
        for source in sorted(set(connected)):
            peers.add_metric([source], connected.count(source))
        yield peers
        trip = GaugeMetricFamily("ddrive_peer_round_trip_seconds", "Round trip to a peer", labels=["peer"])
        for key, seconds in self._swarm.round_trips().items():
            trip.add_metric([key.hex()[:16]], seconds)
        yield trip

    def _discovery(self) -> Iterator[Metric]:
        report: dict[str, dict[str, Any]] = self._finder.report()
        running = GaugeMetricFamily("ddrive_discovery_running", "Whether a mechanism can ask", labels=["mechanism"])
        for name, about in report.items():
            running.add_metric([name], int(about["running"]))
        yield running
        for what, text in _COUNTED.items():
            counter = CounterMetricFamily(f"ddrive_discovery_{what}", text, labels=["mechanism"])
            for name, about in report.items():
                if what in about:
                    counter.add_metric([name], about[what])
            yield counter

    def _exchange(self) -> Iterator[Metric]:
        self.look()
        for what, text in _EXCHANGED.items():
            yield CounterMetricFamily(f"ddrive_{what}", text, value=self._totals[what])

    def _cache(self) -> Iterator[Metric]:
        space = self._space()
        yield GaugeMetricFamily("ddrive_cache_bytes", "Bytes of others' drives held", value=space["cached"])
        yield GaugeMetricFamily("ddrive_cache_limit_bytes", "Bytes of them that may be held", value=space["cache_size"])
        yield GaugeMetricFamily("ddrive_disk_free_bytes", "Bytes free where the state is", value=space["free"])
        yield CounterMetricFamily("ddrive_evicted_bytes", "Bytes dropped to make room", value=space["evicted"])

    def look(self) -> None:
        """Add what was exchanged since the last look; a feed that is closed meanwhile takes its counts along."""
        seen = {}
        for store in self._stores.values():
            for feed in store.feeds():
                session = store.session(feed)
                seen[id(session)] = now = _counts(session.stats)
                before = self._seen.get(id(session), {})
                for what, count in now.items():
                    self._totals[what] += max(0, count - before.get(what, 0))
        self._seen = seen

    async def listen(self, address: str) -> list[trio.SocketListener]:
        """Return sockets for `serve` at `address`. Raises: DriveError when it cannot be listened on."""
        host, port = Address.parse(address, lowest_port=0)
        try:
            return await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise DriveError(f"cannot serve metrics on {address} ({error}): choose another --metrics-addr") from error

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Answer HTTP requests, for ever."""
        asking: dict[trio.CancelScope, None] = {}  # in the order in which they came

        async def answer(stream: trio.SocketStream) -> None:
            while len(asking) >= MAX_REQUESTS:
                oldest = next(iter(asking))
                del asking[oldest]
                oldest.cancel()
            with trio.move_on_after(REQUEST_S) as scope:
                asking[scope] = None
                try:
                    await self._answer(stream)
                finally:
                    asking.pop(scope, None)

        await trio.serve_listeners(answer, listeners)

    async def _answer(self, stream: trio.SocketStream) -> None:
        request = b""
        try:
            while b"\r\n\r\n" not in request and len(request) < MAX_REQUEST_BYTES:
                piece = await stream.receive_some(MAX_REQUEST_BYTES)
                if not piece:
                    return
                request += piece
            words = request.split(b"\r\n", 1)[0].split(b" ")
            if words[0] == b"GET" and len(words) > 1 and words[1].split(b"?")[0] in PATHS:
                status, kind, body = "200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry)
            else:
                status, kind, body = "404 Not Found", "text/plain", b"the metrics are at /metrics\n"
            head = f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            await stream.send_all(head.encode() + body)
        except trio.BrokenResourceError:
            pass  # whoever asked has gone


def _counts(stats: FeedStats) -> dict[str, int]:
    return {what: getattr(stats, what) for what in _EXCHANGED}
