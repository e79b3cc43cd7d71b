"""A node of the Mainline DHT that lies, on a real socket: what it can make us remember, dial and send stays little."""

import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import libtorrent
import trio

from ddrive.dialect import DWEB
from ddrive.ids import DiscoveryKey
from ddrive.swarm import mainline as module
from ddrive.swarm.discovery import Finding
from ddrive.swarm.mainline import open_mainline
from ddrive.swarm.static import Address
from tests.support.until import until

TOPIC = DiscoveryKey(bytes(range(50, 82)))
HERE = "127.0.0.1:0"
ID = b"\x07" * 20

Lies = Callable[[dict[bytes, Any]], list[bytes]]  # what is sent back for a question `get_peers`


def packed(host: str, port: int) -> bytes:
    """Return an IPv4 address as BEP 5 has it."""
    return socket.inet_aton(host) + port.to_bytes(2, "big")


def answer(asked: dict[bytes, Any], **fields: object) -> bytes:
    """Return an answer that is made as it should be."""
    body = {b"id": ID, **{name.encode(): value for name, value in fields.items()}}
    encoded: bytes = libtorrent.bencode({b"t": asked[b"t"], b"y": b"r", b"r": body})
    return encoded


@asynccontextmanager
async def found_at(lies: Lies) -> AsyncIterator[tuple[module.MainlineDiscovery, list[Finding], list[bytes]]]:
    """Look for the topic with nobody to ask but a liar; give what is found, and what the liar was asked."""
    found: list[Finding] = []
    questions: list[bytes] = []

    async def run() -> None:
        while True:
            data, source = await udp.recvfrom(65536)
            asked = libtorrent.bdecode(data)
            if asked.get(b"y") == b"q":
                questions.append(asked[b"q"])
                is_lookup = asked[b"q"] == b"get_peers" and asked[b"a"][b"info_hash"] == TOPIC[:20]
                for lie in lies(asked) if is_lookup else [answer(asked, nodes=b"")]:
                    await udp.sendto(lie, source)

    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        await udp.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            nodes = [Address(*udp.getsockname())]
            async with open_mainline(found.append, port=5151, map_port=False, nodes=nodes, listen=HERE) as mainline:
                mainline.join(TOPIC, DWEB, announce=False)
                yield mainline, found, questions
            nursery.cancel_scope.cancel()


async def test_hundreds_of_peers_are_not_believed_to_one_node() -> None:
    # libtorrent takes no datagram of more than 1500 bytes
    values = [packed(f"9.9.{number >> 8}.{number & 255}", 4000) for number in range(150)]
    async with found_at(lambda asked: [answer(asked, values=values, token=b"t")] * 3) as (mainline, found, _):
        await until(lambda: mainline.report().total.answered)
        await trio.sleep(0.3)
        assert len(found) == module.MAX_FOUND_BY_NODE * mainline.report().total.answered
        assert mainline.report().total.answered == 1


async def test_peers_without_a_port_are_not_given_on() -> None:
    values = [packed("9.9.9.9", 0), packed("8.8.8.8", 4000), b"short", packed("9.9.9.9", 1) * 2]
    async with found_at(lambda asked: [answer(asked, values=values, token=b"t")]) as (_, found, _questions):
        await until(lambda: found)
        assert found == [Finding(Address("8.8.8.8", 4000), TOPIC, "mainline")]


async def test_rubbish_brings_nothing_and_does_no_harm() -> None:
    good = packed("9.9.9.9", 4000)

    def lies(asked: dict[bytes, Any]) -> list[bytes]:
        return [
            random.randbytes(1000),
            random.randbytes(60_000),
            answer(asked | {b"t": b"other"}, values=[good]),
            libtorrent.bencode(asked),
            answer(asked, nodes=random.randbytes(26 * 40), values=b"no list"),
            b"",
        ]

    files = len(os.listdir("/proc/self/fd"))
    async with found_at(lies) as (mainline, found, questions):
        await until(lambda: mainline.report().total.asked)
        await trio.sleep(0.5)
        assert found == []
        assert len(questions) < 100
        assert mainline.report().total.answered == 0
    assert len(os.listdir("/proc/self/fd")) <= files + 8, "a session of libtorrent ends in its own time"
