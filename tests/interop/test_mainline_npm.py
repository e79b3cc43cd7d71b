"""The Mainline DHT with npm bittorrent-dht, which shares no code with libtorrent."""

import trio

from ddrive.dialect import DWEB
from ddrive.ids import DiscoveryKey
from ddrive.swarm.discovery import TOPIC_BYTES, Finding
from ddrive.swarm.mainline import open_mainline
from ddrive.swarm.static import Address
from tests.support.npm_dht import npm_mainline
from tests.support.until import until

TOPIC = DiscoveryKey(bytes(range(100, 132)))
INFO_HASH = TOPIC[:TOPIC_BYTES].hex()


async def test_each_finds_the_announcement_of_the_other() -> None:
    found: list[Finding] = []
    async with npm_mainline() as other:
        first = (await other.ask("node", bootstrap=[]))["port"]
        for _ in range(3):
            await other.ask("node", bootstrap=[f"127.0.0.1:{first}"])
        await other.ask("announce", node=1, topic=INFO_HASH, port=4242)
        nodes = [Address("127.0.0.1", first)]
        async with open_mainline(
            found.append, port=5151, map_port=False, nodes=nodes, listen="127.0.0.1:0"
        ) as mainline:
            mainline.join(TOPIC, DWEB, announce=True)
            await until(lambda: found)
            assert found == [Finding(Address("127.0.0.1", 4242), TOPIC, "mainline")]
            for asker in (2, 3):
                peers: list[str] = []
                with trio.fail_after(20):
                    while peers != ["127.0.0.1:4242", "127.0.0.1:5151"]:  # ours may be under way still
                        peers = (await other.ask("lookup", node=asker, topic=INFO_HASH))["peers"]
