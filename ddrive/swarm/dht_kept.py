"""Nodes of the DHT that answered, kept over a restart: one in a line, after the given nodes of its network.

With them we get in when the given nodes do not answer. Whoever is given other nodes is in another network.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from ddrive.swarm.static import Address

MAX_KEPT = 12  # of a network: as many as are asked at once, so that it costs no time when they have gone


def pack(networks: Mapping[str, Sequence[Address]]) -> bytes:
    """Return the nodes of networks, by the given nodes of each."""
    return "".join(f"{given} {node}\n" for given, nodes in networks.items() for node in nodes[:MAX_KEPT]).encode()


def unpack(state: bytes) -> dict[str, list[Address]]:
    """Return what `pack` was given; what makes no sense is passed over."""
    found: dict[str, list[Address]] = {}
    for line in state.decode(errors="replace").splitlines():
        given, _, text = line.rpartition(" ")
        try:
            node = Address.parse(text)
            IPv4Address(node.host)
        except ValueError:
            continue
        nodes = found.setdefault(given, [])
        if len(nodes) < MAX_KEPT:
            nodes.append(node)
    return found
