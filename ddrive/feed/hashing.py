"""The hashes of a feed's Merkle tree and the text that its author signs.

Everything is unkeyed BLAKE2b with 32 bytes of output over a type byte and the content. Source: feed.md section 3.1
and 3.2. hashlib is used for a single hash: measured at 64 KiB it takes 49 us, libsodium through PyNaCl 95 us. Several
blocks are hashed side by side by `_lanes.c`, where it was built and the processor can do it: 13 us for each 64 KiB of
eight blocks with AVX-512, 38 us with AVX2.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import Struct

from ddrive import crypto
from ddrive.feed.signing import Verify
from ddrive.ids import Node, NodeIndex, PublicKey

try:
    from ddrive.feed import _lanes
except ImportError:  # not built, or not for this processor
    _lanes = None  # type: ignore[assignment]

HASH_BYTES = 32
Buffer = bytes | bytearray | memoryview

_LEAF = Struct(">BQ").pack  # type 0, size
_PARENT = Struct(">BQ32s32s").pack  # type 1, sum of sizes, left hash, right hash
_ROOT = Struct(">32sQQ").pack  # hash, node number, size
_U64 = Struct(">Q").pack
_HASH = blake2b(digest_size=HASH_BYTES)  # copied for each leaf: 0.62 us at 512 B, a new one 0.75 us


def leaf_hash(data: Buffer) -> bytes:
    """Return the hash of the leaf of a block of `data`."""
    state = _HASH.copy()
    state.update(_LEAF(0, len(data)))
    state.update(data)
    return state.digest()


def leaf_hashes(blocks: Sequence[Buffer]) -> list[bytes]:
    """Return the hashes of the leaves of several blocks; neighbours of one feed are mostly of one size, which helps."""
    sizes = [len(block) for block in blocks]
    if _lanes is None or sum(sizes) < _lanes.WORTH * max(sizes, default=1):  # a long one alone would hold up the others
        return [leaf_hash(block) for block in blocks]
    return _lanes.leaf_hashes(blocks)


def parent_hash(size: int, left: bytes, right: bytes) -> bytes:
    """Return the hash of a node of `size` data bytes whose children have the hashes `left` and `right`."""
    return blake2b(_PARENT(1, size, left, right), digest_size=HASH_BYTES).digest()


def parent_node(one: Node, other: Node) -> Node:
    """Return the node above two siblings, given in any order."""
    left, right = (one, other) if one.number < other.number else (other, one)
    size = left.size + right.size
    number = NodeIndex((left.number + right.number) >> 1)
    return Node(number, parent_hash(size, left.hash, right.hash), size)


def roots_hash(roots: Iterable[Node]) -> bytes:
    """Return the hash of a whole tree, given its roots from left to right."""
    text = b"".join([b"\x02", *(_ROOT(root.hash, root.number, root.size) for root in roots)])
    return blake2b(text, digest_size=HASH_BYTES).digest()


def signable(roots: Iterable[Node], length: int) -> bytes:
    """Return the 40 bytes that an author signs for a feed of `length` blocks with these roots."""
    return roots_hash(roots) + _U64(length)


def signed_by(
    key: PublicKey, roots: Iterable[Node], length: int, signature: bytes, verify: Verify = crypto.verify
) -> bool:
    """Tell whether `signature` is the author's for this tree.

    Feeds written before May 2020 signed the tree hash without the length; both forms are accepted.
    """
    text = signable(roots, length)
    return verify(text, signature, key) or verify(text[:HASH_BYTES], signature, key)
