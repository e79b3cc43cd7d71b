"""The names of the numbers and byte strings that every layer passes around.

Kept apart so that a block index is never mistaken for a tree node index, nor a public key for a discovery key.
"""

from typing import NamedTuple, NewType

BlockIndex = NewType("BlockIndex", int)  # position of a block in a feed, from 0
NodeIndex = NewType("NodeIndex", int)  # in-order number of a tree node; the leaf of block i is node 2*i
PublicKey = NewType("PublicKey", bytes)  # 32 bytes, Ed25519: names a feed or a drive
DiscoveryKey = NewType("DiscoveryKey", bytes)  # 32 bytes, hash of a public key: safe to show to strangers
ChannelId = NewType("ChannelId", int)  # our own number of a channel on one connection, from 1
PeerId = NewType("PeerId", int)  # our own number of a peer within one replication session


class Node(NamedTuple):
    """One node of a feed's Merkle tree.

    `number` is its place in the flat tree, `hash` has 32 bytes, `size` is the number of data bytes below it.
    """

    number: NodeIndex
    hash: bytes
    size: int


def short(key: bytes) -> str:
    """Return the first 8 hex digits of `key`, the form in which keys appear in logs and messages."""
    return key[:4].hex()
