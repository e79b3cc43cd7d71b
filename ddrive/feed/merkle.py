"""Growing a feed's Merkle tree, making proofs for peers and checking theirs.

Everything here takes values and two functions: `known(node)` tells whether we hold a node, `load(node)` returns it or
None. Nothing is written here; `check` says what may be written. Source: feed.md section 5, `proofs.json` and
`merkle.json` of the vectors.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from bitarray import bitarray
from bitarray.util import zeros

from ddrive import crypto
from ddrive.errors import InvalidProof
from ddrive.feed import flat
from ddrive.feed.hashing import HASH_BYTES, Buffer, leaf_hash, leaf_hashes, parent_hash, parent_node, signed_by
from ddrive.feed.signing import Verify
from ddrive.ids import Node, NodeIndex, PublicKey

Known = Callable[[int], bool]
Load = Callable[[int], Node | None]

MAX_BLOCK_BYTES = 8 * 1024 * 1024  # a longer block does not fit into a frame of the wire protocol
MAX_LENGTH = 1 << 36  # blocks; beyond it the tree file would pass the 16 TiB that common file systems allow
MAX_BYTES = 1 << 53  # sum of all block sizes; what npm peers can count
MAX_PROOF_NODES = 128  # two per level of the highest tree
NODE_BYTES = 40  # of a node in the tree file: hash, size

_NODE = Struct(">32sQ").pack_into
_PARENT = Struct(">BQ32s32s").pack
_HASH = blake2b(digest_size=HASH_BYTES)  # copied for each hash: 20 % faster than a new one


class Proof(NamedTuple):
    """What ties a block to the author's signature: nodes in the order of the wire, and the signature if needed."""

    nodes: tuple[Node, ...] = ()
    signature: bytes | None = None


class Plan(NamedTuple):
    """A proof to be made: the nodes to send, and the length whose signature goes with them (0: none needed)."""

    nodes: list[NodeIndex]
    signed_length: int


class Checked(NamedTuple):
    """What a verified proof allows to store.

    `nodes` are new or corrected nodes, `contradicted` the stored nodes whose hash differs from theirs, `resized` tells
    whether only the size of stored nodes is corrected. `length`, `roots` and `signature` are those of the signed tree,
    0 and empty when the proof ended at a node that was held already. `built_on` are nodes that it is computed from.
    `unused` tells whether it went on from there to nodes that are not held: to a longer tree, as a rule.
    """

    nodes: list[Node]
    contradicted: list[Node]
    resized: bool
    length: int
    roots: list[Node]
    signature: bytes | None
    built_on: Sequence[Node] = ()
    unused: bool = False

    def goes_on_from(self, roots: Iterable[Node]) -> bool:
        """Tell whether the signed tree contains the one with these roots.

        A proof of the first block behind that one shows it: the nodes to the left of the way up are these roots.
        """
        return set(roots) <= {*self.built_on, *self.roots}


class Grown(NamedTuple):
    """The tree after blocks were added.

    `tail` is the content of the tree file for nodes `2*old` up to `2*new - 2`, zeros where a node is not complete;
    `parents` are the completed nodes before it; `added` and `size` are how many blocks and bytes are new.
    """

    roots: list[Node]
    tail: bytearray
    parents: list[Node]
    added: int
    size: int


class RemoteTree:
    """The nodes that one peer claimed to hold, on one channel; grows only by what we hold ourselves."""

    def __init__(self) -> None:
        self._bits = zeros(0, "big")

    def knows(self, node: int) -> bool:
        """Tell whether the peer claimed to hold `node`, or children that determine it."""
        try:
            return self._bits[node] == 1
        except IndexError:
            return False

    def add(self, node: int) -> None:
        """Remember that the peer holds `node`, and the nodes above it that follow from it and others."""
        bits = self._bits
        while True:
            if node >= len(bits):
                bits.extend(zeros(max(node + 1 - len(bits), len(bits), 1024), "big"))
            elif bits[node]:
                return
            bits[node] = 1
            low = (node + 1) & ~node  # as in `flat.sibling` and `flat.parent`, whose calls would take most of the time
            sibling = node ^ (low << 1)
            if sibling >= len(bits) or not bits[sibling]:
                return
            node = (node | low) & ~(low << 1)

    def nodes(self) -> list[int]:
        """Return all claimed nodes in order."""
        return list(self._bits.search(bitarray("1")))


# -- growing


def grow(roots: Sequence[Node], length: int, blocks: Sequence[Buffer]) -> Grown:
    """Return the tree that results when `blocks` follow the `length` blocks under `roots`."""
    stack = list(roots)
    tail = bytearray(NODE_BYTES * max(2 * len(blocks) - 1, 0))
    parents: list[Node] = []
    total = 0
    copy, pack, pack_parent = _HASH.copy, _NODE, _PARENT
    first = number = 2 * length
    for block, digest in zip(blocks, leaf_hashes(blocks), strict=True):
        size = len(block)
        total += size
        pack(tail, (number - first) * NODE_BYTES, digest, size)
        stack.append(Node(NodeIndex(number), digest, size))
        merges = number >> 1
        while merges & 1:
            merges >>= 1
            right, left = stack.pop(), stack.pop()
            size = left.size + right.size
            state = copy()
            state.update(pack_parent(1, size, left.hash, right.hash))
            node = Node(NodeIndex((left.number + right.number) >> 1), state.digest(), size)
            stack.append(node)
            if node.number >= first:
                pack(tail, (node.number - first) * NODE_BYTES, node.hash, size)
            else:
                parents.append(node)
        number += 2
    return Grown(stack, tail, parents, len(blocks), total)


# -- telling peers what we hold and what they need


def coverage(known: Known, node: int) -> int:
    """Return twice the number of blocks that holding `node` proves, 0 when it is not held."""
    if not known(node):
        return 0
    top = node
    while known(flat.parent(top)) and known(flat.sibling(top)):
        top = flat.parent(top)
    end = flat.right_span(top) + 2
    for depth in reversed(range(flat.depth(top))):
        if known(end + (1 << depth) - 1):
            end += 2 << depth
    return end


def digest(known: Known, block: int, covers: Known) -> int:
    """Return the number that tells a peer which nodes for `block` are held: 0 none, 1 the leaf itself.

    `covers(node)` tells whether no known node lies outside the subtree of `node`.
    """
    node = 2 * block
    if known(node):
        return 1
    value, level = 0, 0
    while True:
        if known(flat.sibling(node)):
            value |= 2 << level
        node = flat.parent(node)
        if known(node):
            value |= (4 << level) | 1
            return 1 if value == (8 << level) - 1 else value
        if covers(node):
            return value
        level += 1


def absorb(known: Known, block: int, value: int, remote: RemoteTree) -> None:
    """Add to `remote` what the digest `value` of a request for `block` claims, as far as we hold it ourselves."""
    node = 2 * block
    rest = value >> 1
    while rest and node < 2 * MAX_LENGTH:
        if rest == 1 and value & 1:
            if known(node):
                remote.add(node)
            if flat.offset(node) & 1:
                node = flat.sibling(node)
            for root in flat.full_roots((flat.right_span(node) + 2) >> 1):
                if known(root):
                    remote.add(root)
            return
        if rest & 1 and known(flat.sibling(node)):
            remote.add(flat.sibling(node))
        node = flat.parent(node)
        rest >>= 1


def plan(
    known: Known, block: int, value: int, *, hash_only: bool, remote: RemoteTree, kept: bool = False
) -> Plan | None:
    """Return which nodes answer a request for `block` with digest `value`, None when its leaf is not known here.

    `kept`: the peer has all that is in `remote`, so the digest is not looked at where that is near enough.
    """
    node: int = 2 * block
    if not known(node):
        return None
    nodes = [NodeIndex(node)] if hash_only else []
    if value == 1:
        return Plan(nodes, 0)
    if not (kept and (remote.knows(node) or remote.knows(flat.parent(node)))):
        absorb(known, block, value, remote)
    while not remote.knows(node):
        sibling = flat.sibling(node)
        if known(sibling):
            if not remote.knows(sibling):
                nodes.append(sibling)
            node = flat.parent(node)
            continue
        if not known(node):  # although what is below it is: the disk has changed it
            node = _known_below(known, node, block, nodes)
        end = coverage(known, node)
        nodes += [root for root in flat.full_roots(end >> 1) if root != node and not remote.knows(root)]
        return Plan(nodes, end >> 1)
    return Plan(nodes, 0)


def _known_below(known: Known, node: int, block: int, nodes: list[NodeIndex]) -> int:
    """Return the first known node on the way down from `node` to `block`; planned nodes beside the way are dropped."""
    while not known(node) and (pair := flat.children(node)) is not None:
        node, beside = pair if 2 * block < node else pair[::-1]
        if nodes and nodes[-1] == beside:
            nodes.pop()
    return node


# -- checking what peers send


def check(
    block: int,
    value: Buffer | None,
    proof: Proof,
    load: Load,
    key: PublicKey,
    verify: Verify = crypto.verify,
    *,
    hashed: bytes | None = None,
) -> Checked:
    """Return what may be stored, after tying the block (or, without `value`, its leaf) to a held node or a signature.

    `hashed` is the leaf hash of `value`, where that was computed already.
    Raises: InvalidProof when it cannot be tied.
    """
    _check_bounds(block, value, proof)
    queue = proof.nodes
    position = 0
    if value is not None:
        top = Node(NodeIndex(2 * block), hashed or leaf_hash(value), len(value))
    elif queue and queue[0].number == 2 * block:
        top, position = queue[0], 1
    else:
        raise InvalidProof(f"block {block}: a proof without a block has to begin with its leaf")
    fresh: list[Node] = []
    contradicted: list[Node] = []
    built_on: list[Node] = []
    while True:
        held = load(top.number)
        if held is not None:
            if held.hash == top.hash:
                resized = held.size != top.size and value is not None
                if resized:
                    fresh += _corrected(block, top, load)
                unused = any(load(node.number) is None for node in queue[position:])
                return Checked(fresh, contradicted, resized, 0, [], None, unused=unused)
            contradicted.append(held)
        fresh.append(top)
        number = flat.sibling(top.number)
        if position < len(queue) and queue[position].number == number:
            sibling = _prefer_held(queue[position], load, fresh, contradicted)
            position += 1
        elif (stored := load(number)) is not None:
            sibling = stored
        else:
            break
        built_on.append(sibling)
        top = parent_node(top, sibling)
    checked = _check_roots(block, top, proof, position, load, fresh, contradicted)._replace(built_on=built_on)
    if proof.signature is None:
        raise InvalidProof(f"block {block}: the proof ends in roots and has no signature")
    if not signed_by(key, checked.roots, checked.length, proof.signature, verify):
        raise InvalidProof(f"block {block}: the signature of length {checked.length} does not verify")
    return checked


def _check_roots(
    block: int,
    top: Node,
    proof: Proof,
    position: int,
    load: Load,
    fresh: list[Node],
    contradicted: list[Node],
) -> Checked:
    """Finish `check` where no sibling is left, but for the signature: `top` has to be a root of a whole tree."""
    queue = proof.nodes
    last = queue[-1] if queue else top
    length = max(flat.right_span(top.number), flat.right_span(last.number)) // 2 + 1
    if length > MAX_LENGTH:
        raise InvalidProof(f"block {block}: a feed of {length} blocks is too long to be stored")
    roots: list[Node] = []
    for number in flat.full_roots(length):
        if number == top.number:
            roots.append(top)
        elif position < len(queue) and queue[position].number == number:
            roots.append(_prefer_held(queue[position], load, fresh, contradicted))
            position += 1
        elif (stored := load(number)) is not None:
            roots.append(stored)
        else:
            raise InvalidProof(f"block {block}: root {number} of length {length} is missing")
    if top not in roots:
        raise InvalidProof(f"block {block}: node {top.number} is no root of length {length}")
    if sum(root.size for root in roots) >= MAX_BYTES:
        raise InvalidProof(f"block {block}: the feed would be too big")
    return Checked(fresh, contradicted, False, length, roots, proof.signature)


def _prefer_held(received: Node, load: Load, fresh: list[Node], contradicted: list[Node]) -> Node:
    """Return the stored form of a node when its hash agrees, else the received one, noted as new.

    A sender could shift bytes between the sizes of two siblings without changing their parent, so a size that is
    stored already is never replaced by one that came with the same hash.
    """
    stored = load(received.number)
    if stored is not None:
        if stored.hash == received.hash:
            return stored
        contradicted.append(stored)
    fresh.append(received)
    return received


def _corrected(block: int, top: Node, load: Load) -> list[Node]:
    """Return a node with its true size in place of the stored one, and its sibling when that was false as well.

    The hash covers the size, so `top`, computed from a block, is true. Both sizes of a pair of leaves are false when a
    peer sent one of them without its block and shifted bytes between them.
    """
    if top.number & 1:
        return [top]
    sibling, parent = load(flat.sibling(top.number)), load(flat.parent(top.number))
    if sibling is None or parent is None:
        return [top]
    sibling = sibling._replace(size=max(parent.size - top.size, 0))
    if parent_node(top, sibling) != parent:
        raise InvalidProof(f"block {block}: its size does not fit the nodes that are stored")
    return [top, sibling]


def _check_bounds(block: int, value: Buffer | None, proof: Proof) -> None:
    if not 0 <= block < MAX_LENGTH:
        raise InvalidProof(f"block {block}: no feed is that long")
    if value is not None and len(value) > MAX_BLOCK_BYTES:
        raise InvalidProof(f"block {block}: has {len(value)} bytes, over the limit of {MAX_BLOCK_BYTES}")
    if len(proof.nodes) > MAX_PROOF_NODES:
        raise InvalidProof(f"block {block}: {len(proof.nodes)} nodes are more than any proof needs")
    for number, digest_of, size in proof.nodes:
        if not (0 <= number < 2 * MAX_LENGTH and 0 <= size < MAX_BYTES and len(digest_of) == HASH_BYTES):
            raise InvalidProof(f"block {block}: node {number} of its proof is out of bounds")


def fits(parent: Node, left: Node, right: Node) -> bool:
    """Tell whether `left` and `right` are the children of `parent`."""
    size = left.size + right.size
    return size == parent.size and parent_hash(size, left.hash, right.hash) == parent.hash


def total_size(nodes: Iterable[Node]) -> int:
    """Return the number of data bytes below `nodes`."""
    return sum(node.size for node in nodes)
