"""Which blocks a peer holds is asked region by region, as far as somebody wishes for something in them."""

from collections.abc import Iterator

from ddrive.ids import BlockIndex
from ddrive.protocol.messages import Want
from ddrive.replication.blocks import REGION_BLOCKS
from ddrive.replication.demand import DemandTable, Level
from ddrive.replication.peer import PeerState


def want(region: int) -> Want:
    """Return the question for a region; the first one promises to keep all nodes that answers bring."""
    return Want(BlockIndex(region * REGION_BLOCKS), REGION_BLOCKS, keeps=region == 0)


def wants(peer: PeerState, demand: DemandTable) -> Iterator[Want]:
    """Yield, and note in `peer`, what it has to be asked: the first region always, then the ones that wishes lie in."""
    if not demand.far and 0 in peer.regions_asked:
        return
    spans = [(0, 1)]
    for wish in demand.blocks:
        # blocks that somebody waits for may be asked about before the peer has shown to be that long
        end = wish.end if wish.level is Level.URGENT else min(wish.end, peer.remote.length)
        if not peer.remote.covers(wish.start, end):
            spans.append((wish.start, end))
    for start, end in spans:
        while (region := peer.region_to_ask(start, end)) is not None:
            peer.regions_asked.add(region)
            peer.regions_unanswered.add(region)
            peer.promise.wants += region == 0
            yield want(region)
