"""Finding peers and keeping links to them."""

from ddrive.swarm.static import Address
from ddrive.swarm.swarm import Peer, Swarm, open_swarm

__all__ = ["Address", "Peer", "Swarm", "open_swarm"]
