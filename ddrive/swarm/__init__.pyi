from .dht import open_dht
from .lan import open_lan
from .mainline import open_mainline
from .static import Address
from .swarm import Peer, Swarm, open_swarm

__all__ = ["Address", "Peer", "Swarm", "open_dht", "open_lan", "open_mainline", "open_swarm"]
