from collections.abc import Sequence

from ddrive.feed.hashing import Buffer

WORTH: int
"""How many blocks of one size take less time together than one after the other."""

def leaf_hashes(blocks: Sequence[Buffer]) -> list[bytes]:
    """Return the leaf hash of each block, in order. Other threads may run meanwhile; the blocks must not change."""
