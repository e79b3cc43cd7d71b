"""A node of the DHT that lies, on a real socket: what it can make us remember, dial and send stays little."""

import gc
import os
import random
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.errors import RemoteProtocolError
from ddrive.ids import DiscoveryKey
from ddrive.swarm import dht as dht_module
from ddrive.swarm import dht_node, dht_peers, dht_search
from ddrive.swarm import dht_rpc as rpc
from ddrive.swarm.dht import DhtDiscovery, open_dht
from ddrive.swarm.dht_rpc import Contact, Datagram, Kind
from ddrive.swarm.dht_socket import NodeSocket, open_dht_node
from ddrive.swarm.discovery import Finding
from ddrive.swarm.static import Address
from tests.support.until import until

TOPIC = DiscoveryKey(bytes(range(50, 82)))
HERE = Address("127.0.0.1", 0)
FLOOD = 6_000  # datagrams
MIB = 1 << 20

Lies = Callable[[Datagram], list[bytes]]  # what is sent back for a question


class Liar:
    """A socket that answers each question with lies."""

    def __init__(self, udp: trio.socket.SocketType) -> None:
        self.socket = udp
        self.address = Address(*udp.getsockname())
        self.lies: Lies = lambda asked: []
        self.asked: list[Datagram] = []
        self.asker: Address | None = None

    async def run(self) -> None:
        """Lie for ever."""
        while True:
            data, source = await self.socket.recvfrom(65536)
            self.asker = Address(*source)
            asked = rpc.decode(data)
            self.asked.append(asked)
            for lie in self.lies(asked):
                await self.socket.sendto(lie, source)

    async def flood(self, to: Address, datagrams: Iterator[bytes]) -> None:
        """Send many, as fast as they are taken off the socket."""
        for number, data in enumerate(datagrams):
            await self.socket.sendto(data, to)
            if number % 50 == 0:
                await trio.sleep(0.001)


@asynccontextmanager
async def liar() -> AsyncIterator[Liar]:
    """Give a node that says nothing yet."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        await udp.bind(HERE)
        made = Liar(udp)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
            yield made
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def looking(*nodes: Liar) -> AsyncIterator[tuple[DhtDiscovery, list[Finding]]]:
    """Look for the topic, and be there for others."""
    found: list[Finding] = []
    async with open_dht(found.append, port=5151, nodes=[node.address for node in nodes], listen=HERE) as dht:
        dht.join(TOPIC, DWEB, announce=True)
        yield dht, found


def answer(asked: Datagram, **fields: object) -> bytes:
    """Return an answer that is made as it should be."""
    return rpc.encode(Datagram(Kind.ANSWER, asked.rid, id=fields.pop("id", b"\x01" * 32), **fields))  # type: ignore[arg-type]


def packed(*addresses: str) -> bytes:
    """Return what an answer says of peers, without any rule of ours."""
    return rpc.encode_peers_answered(Address.parse(address, lowest_port=0) for address in addresses)


@asynccontextmanager
async def little_memory() -> AsyncIterator[None]:
    """Check that what the block leaves behind is less than 2 MiB soon, and no socket."""
    files = len(os.listdir("/proc/self/fd"))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]

        def is_little() -> bool:
            gc.collect()  # what waits for that is not left behind
            return tracemalloc.get_traced_memory()[0] - before < 2 * MIB and len(os.listdir("/proc/self/fd")) <= files

        yield
        await until(is_little)  # what came last may still be in work
    finally:
        tracemalloc.stop()


async def test_thousands_of_peers_are_not_believed_to_one_node() -> None:
    many = packed(*(f"9.9.{number >> 8}.{number & 255}:4000" for number in range(600)))
    assert len(many) > 3500
    async with liar() as node:
        node.lies = lambda asked: [answer(asked, value=many, token=b"t" * 32)] * 3
        async with looking(node) as (dht, found):
            await until(lambda: dht.report().total.announced)
            assert len(found) == dht_module.MAX_FOUND_BY_HOST
            assert dht.report().total.answered == 1


async def test_addresses_that_make_no_sense_are_not_given_on() -> None:
    nonsense = packed("9.9.9.9:0", "224.0.0.1:4000", "0.0.0.0:4000", "255.255.255.255:4000", "127.0.0.1:5151")
    async with liar() as node:
        node.lies = lambda asked: [answer(asked, value=nonsense, to=HERE)]
        async with looking(node) as (dht, found):
            await until(lambda: dht.report().total.answered)
            assert found == []


async def test_rubbish_in_place_of_answers_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dht_node, "TRY_S", (0.3, 0.2))

    def lies(asked: Datagram) -> list[bytes]:
        good = answer(asked, value=packed("9.9.9.9:4000"))
        return [
            random.randbytes(1200),
            random.randbytes(60_000),
            good + bytes(rpc.MAX_DATAGRAM_BYTES),
            good[:-1],
            answer(Datagram(Kind.ANSWER, asked.rid ^ 1), value=packed("9.9.9.9:4000")),
            rpc.encode(asked),
            b"",
        ]

    async with liar() as node, looking(node) as (dht, found):
        node.lies = lies
        await until(lambda: dht.report().last_error)
        assert (found, dht.report().total.answered) == ([], 0)


async def test_who_is_named_as_a_node_is_not_flooded_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer names the victim under twenty ids, and nodes on hosts all over the world."""
    monkeypatch.setattr(dht_node, "TRY_S", (0.3, 0.2))
    async with liar() as node, liar() as victim:

        def lies(asked: Datagram) -> list[bytes]:
            assert asked.target is not None
            same = [Contact(random.randbytes(32), victim.address) for _ in range(10)]
            bad = [Contact(asked.target, Address.parse(text)) for text in ("224.0.0.1:53", "255.255.255.255:53")]
            return [answer(asked, closer=(*same, *bad, Contact(asked.target, node.address)))]

        node.lies = lies
        async with looking(node) as (dht, _):
            await until(lambda: victim.asked)
            await until(lambda: not any(network.socket.node._walks for network in dht._networks))
            assert len(victim.asked) <= len(dht_node.TRY_S)
            assert len(node.asked) <= 2
            report = dht.report()
            assert (report.total.asked, report.total.announced) == (1, 0)


async def test_a_flood_leaves_nothing_behind() -> None:
    def datagrams() -> Iterator[bytes]:
        for number in range(FLOOD):
            kind = (Kind.QUERY, Kind.UPDATE, Kind.ANSWER)[number % 3]
            fields = {"id": random.randbytes(32), "target": random.randbytes(32), "token": random.randbytes(100)}
            yield rpc.encode(Datagram(kind, number & rpc.MAX_RID, rpc.PEERS, value=b"x" * 900, **fields))  # type: ignore[arg-type]

    async with liar() as node, looking(node) as (dht, found):
        await until(lambda: node.asker)
        assert node.asker is not None
        async with little_memory():
            await node.flood(node.asker, datagrams())
        node.lies = lambda asked: [answer(asked, value=packed("9.9.9.9:4000"))]
        dht.refresh()
        await until(lambda: found)


@asynccontextmanager
async def staying() -> AsyncIterator[NodeSocket]:
    """Give a node of ours that stays, as `ddrive bootstrap` runs it."""
    async with open_dht_node(HERE) as node:
        yield node


async def test_a_node_that_stays_bears_a_flood_of_announcements(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a true token, for ever new topics and ports."""
    monkeypatch.setattr(dht_peers, "MAX_OF_HOST", 200)
    async with staying() as node, liar() as stranger:
        token = node.node._tokens.make("127.0.0.1", trio.current_time())

        def datagrams() -> Iterator[bytes]:
            for number in range(FLOOD):
                value = rpc.encode_peers_asked(rpc.PeersAsked(1 + number))
                fields = {"target": random.randbytes(32), "token": token, "value": value}
                yield rpc.encode(Datagram(Kind.UPDATE, number & rpc.MAX_RID, rpc.PEERS, **fields))  # type: ignore[arg-type]

        async with little_memory():
            await stranger.flood(node.address, datagrams())
            await until(lambda: len(node.node.announcements) == 200)


async def test_forged_senders_get_few_answers() -> None:
    async with staying() as node:
        for number in range(3 * dht_node.MAX_UNPROVEN_ANSWERS_S):
            asked = rpc.encode(Datagram(Kind.QUERY, number, rpc.FIND_NODE, target=TOPIC))
            node.node.receive(asked, Address("9.9.9.9", 4000), trio.current_time())
        assert len(node.node.out) == dht_node.MAX_UNPROVEN_ANSWERS_S
        node.node.out.clear()


@pytest.mark.parametrize("size", [1, 100, rpc.MAX_DATAGRAM_BYTES, rpc.MAX_DATAGRAM_BYTES + 1, 65_000])
def test_no_bytes_are_anything_but_refused_or_read(size: int) -> None:
    for _ in range(200):
        try:
            datagram = rpc.decode(random.randbytes(size))
        except RemoteProtocolError:
            continue
        assert len(datagram.closer) <= rpc.MAX_CLOSER


def test_the_bounds_fit_together() -> None:
    assert dht_search.MAX_ASKED * dht_module.MAX_WALKS < dht_node.MAX_IN_FLIGHT
