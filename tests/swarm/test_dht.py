"""Looking for peers through the DHT, on real sockets: when it asks, what it takes back, and what it says of itself."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from ddrive.dialect import DWEB, HYPERCORE
from ddrive.ids import DiscoveryKey
from ddrive.swarm import dht as module
from ddrive.swarm import dht_node, repeating
from ddrive.swarm.dht import DhtDiscovery, open_dht
from ddrive.swarm.dht_node import Walk
from ddrive.swarm.dht_rpc import Contact
from ddrive.swarm.dht_socket import NodeSocket, open_dht_node
from ddrive.swarm.discovery import Finding
from ddrive.swarm.static import Address
from tests.support.until import until

TOPIC = DiscoveryKey(bytes(range(50, 82)))
OTHER_TOPIC = DiscoveryKey(bytes(range(150, 182)))
HERE = Address("127.0.0.1", 0)


@pytest.fixture
async def node() -> AsyncIterator[NodeSocket]:
    """A node that stays."""
    async with open_dht_node(HERE) as made:
        yield made


@asynccontextmanager
async def discovery(*nodes: NodeSocket, port: int = 5151) -> AsyncIterator[tuple[DhtDiscovery, list[Finding]]]:
    found: list[Finding] = []
    async with open_dht(found.append, port=port, nodes=[node.address for node in nodes], listen=HERE) as dht:
        yield dht, found


def announced(node: NodeSocket) -> list[int]:
    """Return the ports announced for the topic."""
    nobody = Address("10.0.0.1", 1)
    return [peer.port for peer in node.node.announcements.find(TOPIC, nobody, 0, trio.current_time())]


async def test_two_find_each_other(node: NodeSocket) -> None:
    """In a private network, whatever the dialect."""
    async with discovery(node) as (one, _), discovery(node, port=6161) as (other, found):
        one.join(TOPIC, DWEB, announce=True)
        await until(lambda: announced(node))
        other.join(TOPIC, HYPERCORE, announce=False)
        await until(lambda: found)
        assert found == [Finding(Address("127.0.0.1", 5151), TOPIC, "dht")]
        report = other.report()
        assert (report.running, report.last_error, report.detail) == (True, None, "private network: 1 nodes")
        assert (report.total.asked, report.total.answered, report.total.announced) == (1, 1, 0)
    assert announced(node) == []


async def test_a_port_of_the_router_is_announced_instead(node: NodeSocket) -> None:
    async with discovery(node) as (dht, found):
        dht.join(TOPIC, DWEB, announce=True)
        dht.join(OTHER_TOPIC, DWEB, announce=False)
        await until(lambda: announced(node) == [5151])
        dht.reached_at(40000)
        await until(lambda: announced(node) == [40000])
        dht.reached_at(40000)
        dht.reached_at(5151)
        await until(lambda: announced(node) == [5151])
        assert dht.report().topics[OTHER_TOPIC].announced == 0
        assert found == [], "we are not told of ourselves"
    assert announced(node) == []


async def test_nodes_are_kept_over_a_restart(node: NodeSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_node, "TRY_S", (0.2, 0.2))
    kept: list[bytes] = []
    async with open_dht_node(HERE) as given:
        given.start(Walk(given.node.id))
        node.start(Walk(node.node.id))
        given.node.table.heard(Contact(node.node.id, node.address), trio.current_time())
        begins = [given.address]
        async with open_dht(lambda _: None, port=5151, nodes=begins, listen=HERE, save=kept.append) as dht:
            dht.join(TOPIC, DWEB, announce=True)
            await until(lambda: announced(node))
    assert str(node.address) in kept[-1].decode()
    assert announced(node) == []
    state = kept[-1] + b"\xff\xff\nnonsense\n"
    async with open_dht(lambda _: None, port=5151, nodes=begins, listen=HERE, state=state, save=kept.append) as dht:
        dht.join(TOPIC, DWEB, announce=True)
        await until(lambda: announced(node))
    async with open_dht(lambda _: None, port=5151, nodes=[HERE._replace(port=9)], listen=HERE, state=state) as dht:
        dht.join(TOPIC, DWEB, announce=True)
        await until(lambda: dht.report().last_error)
        assert announced(node) == [], "another network"


async def test_leaving_takes_back_what_was_announced(node: NodeSocket) -> None:
    async with discovery(node) as (dht, _):
        dht.join(TOPIC, DWEB, announce=True)
        dht.join(OTHER_TOPIC, DWEB, announce=True)
        await until(lambda: dht.report().total.announced == 2)
        dht.leave(TOPIC)
        dht.leave(TOPIC)
        await until(lambda: not announced(node))
        assert list(dht.report().topics) == [OTHER_TOPIC]
        dht.join(OTHER_TOPIC, DWEB, announce=False)
        await until(lambda: not len(node.node.announcements))
        assert list(dht.report().topics) == [OTHER_TOPIC]


async def test_a_cancellation_does_not_keep_it_from_taking_back(node: NodeSocket) -> None:
    with trio.CancelScope() as scope:
        async with discovery(node) as (dht, _):
            dht.join(TOPIC, DWEB, announce=True)
            await until(lambda: announced(node))
            scope.cancel()
            await trio.sleep_forever()
    assert announced(node) == []


async def test_an_error_of_the_block_comes_out_as_it_is(node: NodeSocket) -> None:
    async def fail() -> None:
        async with discovery(node) as (dht, _):
            dht.join(TOPIC, DWEB, announce=True)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()


async def test_without_a_port_nothing_is_announced(node: NodeSocket) -> None:
    async with discovery(node, port=0) as (dht, _):
        dht.join(TOPIC, DWEB, announce=True)
        await until(lambda: dht.report().total.answered)
        assert (dht.report().total.announced, announced(node)) == (0, [])


async def test_it_announces_again_and_again(node: NodeSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPEAT_S", (0.01, 0.02))
    async with discovery(node) as (dht, _):
        dht.join(TOPIC, DWEB, announce=True)
        await until(lambda: dht.report().total.announced >= 3)


async def test_many_topics_take_turns(node: NodeSocket) -> None:
    async with discovery(node) as (dht, _):
        for number in range(5 * module.MAX_WALKS):
            dht.join(DiscoveryKey(bytes([number]) * 32), DWEB, announce=True)
        await until(lambda: dht.report().total.announced == 5 * module.MAX_WALKS)


async def test_it_says_so_when_no_node_answers_and_finds_one_that_comes_later(
    node: NodeSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPEAT_S", (0.01, 0.02))
    monkeypatch.setattr(module, "silence_s", lambda vain: 0.1)
    monkeypatch.setattr(dht_node, "TRY_S", (0.2, 0.2))
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as silent:
        await silent.bind(HERE)
        address = Address(*silent.getsockname())
        async with open_dht(lambda _: None, port=5151, nodes=[address], listen=HERE) as dht:
            assert dht.report().last_error is None, "nothing was asked yet"
            dht.join(TOPIC, DWEB, announce=True)
            await until(lambda: dht.report().total.asked >= 2)
            report = dht.report()
            assert (report.running, report.total.answered, report.total.announced) == (False, 0, 0)
            assert report.last_error == f"no node of the DHT answers ({address}): is UDP let out here?"
            silent.close()
            async with open_dht_node(address) as late:
                await until(lambda: announced(late))
                assert dht.report().last_error is None


async def test_names_that_nobody_knows_are_told() -> None:
    nodes = [Address("no-such-host.invalid", 1)]
    async with open_dht(lambda _: None, port=5151, nodes=nodes, listen=HERE) as dht:
        dht.join(TOPIC, DWEB, announce=True)
        await until(lambda: dht.report().last_error)
        assert "no-such-host.invalid" in (dht.report().last_error or "")


async def test_a_refresh_asks_soon_again(node: NodeSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.1)
    async with discovery(node) as (dht, _):
        dht.join(TOPIC, DWEB, announce=False)
        await until(lambda: dht.report().total.answered)
        for _ in range(100):
            dht.refresh()
        await until(lambda: dht.report().total.asked >= 2)
        assert dht.report().total.asked == 2


async def test_a_refresh_while_it_asks_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.1)
    monkeypatch.setattr(dht_node, "TRY_S", (0.1, 0.1))
    monkeypatch.setattr(module, "silence_s", lambda vain: 1000.0)
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        await mute.bind(HERE)
        nodes = [Address(*mute.getsockname())]
        async with open_dht(lambda _: None, port=5151, nodes=nodes, listen=HERE) as dht:
            dht.join(TOPIC, DWEB, announce=False)
            await until(lambda: dht.report().total.asked)
            dht.refresh()
            await until(lambda: dht.report().total.asked == 2)


async def test_public_networks_are_apart_and_silent_until_a_topic_is_joined() -> None:
    async with open_dht(lambda _: None, port=5151, listen=HERE) as dht:
        report = dht.report()
        assert report.detail == "dweb: 0 nodes, hypercore: 0 nodes"
        assert (report.running, report.last_error, report.total.asked) == (False, None, 0)


async def test_a_port_that_is_taken_is_an_error(node: NodeSocket) -> None:
    with pytest.raises(OSError, match="in use"):
        async with open_dht_node(node.address):
            raise AssertionError


async def test_addresses_alone_do_not_make_it_look_rarely(node: NodeSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who told them may lie."""
    monkeypatch.setattr(repeating, "QUIET_S", 0.001)
    async with discovery(node) as (one, _), discovery(node, port=6161) as (other, found):
        one.join(TOPIC, DWEB, announce=True)
        await until(lambda: announced(node))
        other.join(TOPIC, DWEB, announce=False)
        await until(lambda: found and other.report().total.asked >= 5)
        topic = other._by_dialect["dweb"]._topics[TOPIC]
        await until(lambda: topic.walk is None)
        other.linked(TOPIC, is_linked=True)
        assert topic.due_s >= trio.current_time() + module.REPEAT_S[0]
        due_s = topic.due_s
        other.linked(TOPIC, is_linked=True)
        assert topic.due_s == due_s
        other.linked(TOPIC, is_linked=False)
        assert topic.due_s <= trio.current_time() + module.REFRESH_S
        other.linked(OTHER_TOPIC, is_linked=True)
