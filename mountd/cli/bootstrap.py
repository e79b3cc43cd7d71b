"""`bootstrap`: a node of the peers' DHT, for a network of one's own; it needs no engine and no state."""

import signal
from collections.abc import Sequence

import trio

from ddrive.errors import DriveError
from ddrive.swarm import Address
from ddrive.swarm.dht_socket import open_dht_node
from mountd.cli import options, report
from mountd.config import load_config

DEFAULT_LISTEN = "0.0.0.0:49737"  # the port of the nodes that npm peers know


def bootstrap(listen: options.Listen = None, dht_node: options.DhtNodes = None, as_json: options.Json = False) -> None:
    """Run a node at which peers of a private network find each other, until SIGTERM or SIGINT."""
    nodes = [Address.parse(node) for node in dht_node or load_config().dht_nodes]
    address = Address.parse(listen or DEFAULT_LISTEN, lowest_port=0)
    try:
        trio.run(_serve, address, nodes, as_json)
    except* OSError as errors:
        reason = getattr(errors.exceptions[0], "strerror", None)
        raise DriveError(
            f"cannot listen on {address} (UDP, {reason}): choose another address with --listen"
        ) from errors


async def _serve(listen: Address, nodes: Sequence[Address], as_json: bool) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_dht_node(listen, nodes) as node:
            report.say({"address": str(node.address)}, [f"listening on {node.address} (UDP)"], as_json=as_json)
            async for _ in signals:
                return
