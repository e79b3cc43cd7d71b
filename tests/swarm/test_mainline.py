"""The Mainline DHT on loopback: sessions of libtorrent as strangers, and ours among them."""

import time
from collections.abc import Iterator
from typing import Any

import libtorrent
import pytest
import trio
import trio.testing

from ddrive.dialect import DWEB, HYPERCORE
from ddrive.ids import DiscoveryKey
from ddrive.swarm import mainline as module
from ddrive.swarm.discovery import Finding
from ddrive.swarm.mainline import open_mainline
from ddrive.swarm.repeating import QUIET_S
from ddrive.swarm.static import Address
from tests.support.until import until

TOPIC = DiscoveryKey(bytes(range(50, 82)))
OTHER_TOPIC = DiscoveryKey(bytes(range(150, 182)))
HERE = "127.0.0.1:0"


class Stranger:
    """A session of libtorrent that knows nothing of ddrive."""

    def __init__(self) -> None:
        params: Any = libtorrent.session_params()
        params.settings = module._settings([], HERE, map_port=False)
        self.session = libtorrent.session(params)
        self.peers: set[tuple[str, int]] = set()
        self._looked_s = 0.0

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.session.listen_port())

    def look(self, topic: bytes) -> None:
        """Ask, but not so often that the others take it for an attack."""
        if time.monotonic() < self._looked_s + 0.5:
            return
        self._looked_s = time.monotonic()
        self.session.dht_get_peers(libtorrent.sha1_hash(topic[:20]))

    def announce(self, topic: bytes, port: int) -> None:
        self.session.dht_announce(libtorrent.sha1_hash(topic[:20]), port, 0)

    def nodes(self) -> int:
        """Take in what was told; return how many nodes it knew when it was asked last, and ask again."""
        found = 0
        for alert in self.session.pop_alerts():
            if isinstance(alert, libtorrent.dht_get_peers_reply_alert):
                self.peers |= set(alert.peers())
            elif isinstance(alert, libtorrent.dht_stats_alert):
                found = sum(bucket["num_nodes"] for bucket in alert.routing_table)
        self.session.post_dht_stats()
        return found


@pytest.fixture(scope="module")
def strangers() -> Iterator[list[Stranger]]:
    """Eight strangers that know each other."""
    made = [Stranger() for _ in range(8)]
    deadline = time.monotonic() + 30
    while min(stranger.nodes() for stranger in made) < len(made) - 1:
        assert time.monotonic() < deadline, "the strangers do not find each other"
        for stranger in made:
            for other in made:
                if other is not stranger:
                    stranger.session.add_dht_node(tuple(other.address))
        time.sleep(0.1)
    yield made
    made.clear()


async def test_each_finds_the_announcement_of_the_other(strangers: list[Stranger]) -> None:
    found: list[Finding] = []
    strangers[0].announce(TOPIC, 4242)
    nodes = [stranger.address for stranger in strangers]
    async with open_mainline(found.append, port=5151, map_port=False, nodes=nodes, listen=HERE) as mainline:
        mainline.join(TOPIC, DWEB, announce=True)
        mainline.join(OTHER_TOPIC, HYPERCORE, announce=False)
        await until(lambda: mainline.report().running)
        await until(lambda: found)
        assert found == [Finding(Address("127.0.0.1", 4242), TOPIC, "mainline")]
        for asker in strangers:

            def sees_us(asker: Stranger = asker) -> bool:
                asker.look(TOPIC)
                asker.nodes()
                return ("127.0.0.1", 5151) in asker.peers

            await until(sees_us)
        report = mainline.report()
        assert (report.topics[TOPIC].announced, report.topics[TOPIC].found, report.last_error) == (1, 1, None)
        assert (report.topics[OTHER_TOPIC].announced, report.topics[OTHER_TOPIC].asked) == (0, 1)
        await until(lambda: mainline.report().detail == "8 nodes")
        mainline.leave(TOPIC)
        assert list(mainline.report().topics) == [OTHER_TOPIC]


async def test_its_table_is_kept_over_a_restart(strangers: list[Stranger]) -> None:
    kept: list[bytes] = []
    nodes = [stranger.address for stranger in strangers]
    async with open_mainline(
        lambda _: None, port=0, map_port=False, save=kept.append, nodes=nodes, listen=HERE
    ) as mainline:
        await until(lambda: mainline.report().running)
    async with open_mainline(lambda _: None, port=0, map_port=False, state=kept[-1], nodes=[], listen=HERE) as mainline:
        await until(lambda: mainline.report().running)


@pytest.mark.parametrize("state", [b"", b"d", b"no state at all", b"\x00" * 500])
async def test_nothing_is_announced_before_there_are_nodes(state: bytes) -> None:
    """With a damaged state it begins without."""
    async with open_mainline(lambda _: None, port=5151, map_port=False, state=state, nodes=[], listen=HERE) as mainline:
        mainline.join(TOPIC, DWEB, announce=True)
        await trio.testing.wait_all_tasks_blocked()
        report = mainline.report()
        assert (report.running, report.total.announced, report.total.asked) == (False, 0, 0)
        assert report.last_error is not None
        assert "no node" in report.last_error


async def test_its_own_socket_is_apart_from_our_port() -> None:
    with trio.socket.socket() as ours:
        await ours.bind(("127.0.0.1", 0))
        port = ours.getsockname()[1]
        async with open_mainline(lambda _: None, port=port, map_port=False, nodes=[], listen=HERE) as mainline:
            assert mainline._session.listen_port() not in (0, port)


async def test_it_begins_at_the_nodes_that_everybody_knows(
    strangers: list[Stranger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """These are asked for others, and not held."""
    monkeypatch.setattr(module, "NODES", [strangers[0].address, Address("no-such-host.invalid", 1)])
    async with open_mainline(lambda _: None, port=0, map_port=False, listen=HERE) as mainline:
        await until(lambda: mainline.report().running)


async def test_it_announces_again_after_a_refresh_and_once_told_to(
    strangers: list[Stranger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.1)
    monkeypatch.setattr(module, "SOON_S", 0.2)
    nodes = [stranger.address for stranger in strangers]
    async with open_mainline(lambda _: None, port=5151, map_port=False, nodes=nodes, listen=HERE) as mainline:
        mainline.join(TOPIC, DWEB, announce=False)
        await until(lambda: mainline.report().total.asked)
        assert mainline.report().total.announced == 0
        mainline.join(TOPIC, DWEB, announce=True)
        await until(lambda: mainline.report().total.announced >= 1)
        mainline.refresh()
        mainline.refresh()
        await until(lambda: mainline.report().total.announced >= 2)


async def test_it_looks_rarely_once_somebody_is_connected(strangers: list[Stranger]) -> None:
    nodes = [stranger.address for stranger in strangers]
    async with open_mainline(lambda _: None, port=0, map_port=False, nodes=nodes, listen=HERE) as mainline:
        mainline.join(TOPIC, DWEB, announce=False)
        await until(lambda: mainline.report().total.asked)
        topic = mainline._topics[TOPIC]
        assert topic.next_s <= trio.current_time() + QUIET_S
        mainline.linked(TOPIC, is_linked=True)
        assert topic.next_s >= trio.current_time() + module.REPEAT_S[0]
        mainline.linked(TOPIC, is_linked=False)
        assert topic.next_s <= trio.current_time() + module.REFRESH_S
        mainline.linked(OTHER_TOPIC, is_linked=True)
