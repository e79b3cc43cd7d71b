"""The DHT of the npm peers, on loopback: their nodes and ours in one network, with either kind to begin at."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DIALECTS
from ddrive.ids import DiscoveryKey
from ddrive.swarm import dht as module
from ddrive.swarm.dht import open_dht
from ddrive.swarm.discovery import Finding
from ddrive.swarm.static import Address
from tests.support import npm
from tests.support.npm_dht import npm_dht
from tests.support.program import COMMAND, Program
from tests.support.until import until

TOPIC = DiscoveryKey(bytes(range(100, 132)))
HERE = Address("127.0.0.1", 0)

both = pytest.mark.parametrize("dialect", npm.DIALECTS)


@both
async def test_each_finds_the_other_through_an_npm_node(dialect: str) -> None:
    found: list[Finding] = []
    async with npm_dht(dialect) as other:
        (first,) = await other.nodes(1)
        await other.nodes(3, first)
        await other.announce(1, TOPIC, port=4242)
        async with open_dht(found.append, port=5151, nodes=[Address.parse(first)], listen=HERE) as dht:
            dht.join(TOPIC, DIALECTS[dialect], announce=True)
            await until(lambda: dht.report().total.announced)
            assert found == [Finding(Address("127.0.0.1", 4242), TOPIC, "dht")]
            assert await other.lookup(2, TOPIC) == ["127.0.0.1:4242", "127.0.0.1:5151"]
            report = dht.report()
            assert (report.running, report.last_error, report.topics[TOPIC].found) == (True, None, 1)
        assert await other.lookup(3, TOPIC) == ["127.0.0.1:4242"], "taken back at the end"


@asynccontextmanager
async def bootstrap(tmp_path: Path, *nodes: str) -> AsyncIterator[str]:
    """Run `ddrive bootstrap` while the block runs, and give its address."""
    begin = [word for node in nodes for word in ("--dht-node", node)]
    process = await trio.lowlevel.open_process(
        [*COMMAND, "bootstrap", "--listen", "127.0.0.1:0", "--json", *begin],
        stdout=subprocess.PIPE,
        env=Program(tmp_path / "state").environment(),
    )
    try:
        assert process.stdout is not None
        with trio.fail_after(20):
            yield json.loads(await process.stdout.receive_some())["address"]
        process.terminate()
        with trio.fail_after(20):
            assert await process.wait() == 0
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


@both
async def test_ddrive_bootstrap_is_a_node_to_npm_peers(dialect: str, tmp_path: Path) -> None:
    async with bootstrap(tmp_path) as first, bootstrap(tmp_path, first) as second, npm_dht(dialect) as other:
        await other.nodes(1, second, ephemeral=True)
        await other.nodes(2, first)
        await other.announce(0, TOPIC, port=4242)
        await other.announce(2, TOPIC, port=4343, localAddress={"host": "192.168.1.7", "port": 4444})
        assert await other.lookup(1, TOPIC) == ["127.0.0.1:4242", "127.0.0.1:4343"]
        asked = {"port": 1, "localAddress": {"host": "192.168.9.9", "port": 1}}
        answer = await other.ask("lookup", node=1, topic=TOPIC.hex(), options=asked)
        assert answer["local"] == ["192.168.1.7:4444"]
        ports = [Address.parse(node).port for node in (first, second)]
        assert set(ports) <= set((await other.ask("known", node=1))["ports"]), "both stay in its table"
        await other.ask("unannounce", node=0, topic=TOPIC.hex(), options={"port": 4242})
        assert await other.lookup(1, TOPIC) == ["127.0.0.1:4343"]
        pong = await other.ask("ping", node=1, port=ports[0])
        assert pong["pong"]["host"] == "127.0.0.1"


@both
async def test_whole_swarms_and_we_reach_each_other_through_ddrive_bootstrap(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An npm swarm dials what we announced, and we find where it listens: it greets whoever comes."""
    monkeypatch.setattr(module, "REFRESH_S", 0.1)
    found: list[Finding] = []
    async with bootstrap(tmp_path) as first, npm_dht(dialect) as other, trio.open_nursery() as nursery:
        greeted = trio.Event()

        async def greet(stream: trio.SocketStream) -> None:
            assert await stream.receive_some() == b"hello"
            greeted.set()

        (listener,) = await nursery.start(partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with open_dht(found.append, port=port, nodes=[Address.parse(first)], listen=HERE) as dht:
            dht.join(TOPIC, DIALECTS[dialect], announce=True)
            await until(lambda: dht.report().total.announced)
            swarm = await other.ask("swarm", bootstrap=[first], topic=TOPIC.hex(), announce=True, lookup=True)
            with trio.fail_after(20):
                await greeted.wait()
            dht.refresh()
            await until(lambda: found)
            assert found[0].address == Address("127.0.0.1", swarm["port"])
            async with await trio.open_tcp_stream(*found[0].address) as stream:
                assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()
