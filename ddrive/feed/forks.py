"""Two histories signed with one key: telling them from damage on our own disk, and keeping the evidence.

npm peers mix both histories into one file. Here the stored one is kept, and what contradicts it is recorded.
Source: feed.md section 7, `forks.json` of the vectors.
"""

import json
from collections.abc import Sequence
from itertools import islice

from ddrive import crypto
from ddrive.feed import flat
from ddrive.feed.bitfield import Bitfield
from ddrive.feed.hashing import parent_node
from ddrive.feed.layout import FeedFiles
from ddrive.feed.merkle import Checked
from ddrive.feed.recovery import signed_roots, stored_roots
from ddrive.feed.signing import Verify
from ddrive.feed.storage import FORKED, Directory, write_small
from ddrive.ids import Node, NodeIndex, PublicKey

MAX_TRIES = 16  # signatures verified (80 us each) before a node's own signed lengths are given up


def author_signed(files: FeedFiles, key: PublicKey, bits: Bitfield, node: Node, verify: Verify = crypto.verify) -> int:
    """Return a length whose stored signature covers the stored `node`, 0 when the files do not prove one.

    Tells a fork from damage on our own disk: only what the author signed can contradict the author.
    """
    while True:
        start, end = flat.span(node.number)
        if not flat.offset(node.number) & 1:  # only a left node is ever a root
            for length in islice(files.signed_lengths(end, 2 * end - start), MAX_TRIES):
                roots = signed_roots(files, key, length, verify)
                if roots is not None and node in roots:
                    return length
        sibling, number = flat.sibling(node.number), flat.parent(node.number)
        other = files.node(sibling) if bits.known(sibling) else None
        stored = files.node(number) if bits.known(number) else None
        if other is None or stored is None or parent_node(node, other) != stored:
            return 0
        node = Node(NodeIndex(number), stored.hash, stored.size)


def record_fork(directory: Directory, files: FeedFiles, length: int, received: Checked) -> None:
    """Write the stored history of `length` blocks and the one `received` to the file `forked`."""
    evidence = {
        "stored": _signed(length, stored_roots(files, length) or [], files.signature(length)),
        "received": _signed(received.length, received.roots, received.signature),
        "received_nodes": [_plain(node) for node in received.nodes],
        "contradicted_nodes": [_plain(node) for node in received.contradicted],
    }
    write_small(directory, FORKED, json.dumps(evidence, indent=1).encode())
    directory.sync()


def _plain(node: Node) -> list[object]:
    return [node.number, node.hash.hex(), node.size]


def _signed(length: int, roots: Sequence[Node], signature: bytes | None) -> dict[str, object]:
    return {
        "length": length,
        "roots": [_plain(root) for root in roots],
        "signature": None if signature is None else signature.hex(),
    }
