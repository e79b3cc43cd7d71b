"""The DHT of the npm peers, on loopback: their nodes and ours in one network, with either kind to begin at."""

import pytest

from ddrive.dialect import DIALECTS
from ddrive.ids import DiscoveryKey
from ddrive.swarm.dht import open_dht
from ddrive.swarm.discovery import Finding
from ddrive.swarm.static import Address
from tests.support import npm
from tests.support.npm_dht import npm_dht
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
