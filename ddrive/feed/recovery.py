"""How long a feed is after it was opened: the longest signed tree that its files prove.

npm peers believe the tree bits alone. Here a length needs the author's signature over roots that are stored. A feed is
never continued from a shorter length than one that was signed once, because a second signature for the same block would
fork it for ever: an author's feed whose files contradict each other can be read, not appended to.

Where bits are lost, many blocks are read and hashed. Whoever opens a feed may say what is to be called after each
piece of that work: a call that raises ends it, and nothing but signatures that were missing has been written then.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice, pairwise
from logging import getLogger
from typing import NamedTuple

from ddrive import crypto
from ddrive.feed import flat, merkle
from ddrive.feed.bitfield import BLOCKS_PER_PAGE, DATA_BYTES, Bitfield
from ddrive.feed.hashing import leaf_hash, parent_node, signable, signed_by
from ddrive.feed.layout import HEADER_BYTES, LOST_SIGNATURE, FeedFiles
from ddrive.feed.mending import mended_roots
from ddrive.feed.merkle import MAX_BLOCK_BYTES, MAX_LENGTH
from ddrive.feed.rebuilding import Rebuilt, rebuild_pages
from ddrive.feed.signing import Sign, Verify
from ddrive.ids import Node, PublicKey, short

MENDED_LENGTHS = 16  # signed lengths, the longest ones, whose roots are made again where they do not fit
UNSYNCED_BATCHES = 64  # appends whose bits may not be on disk yet; the batches looked at when a feed is opened
SECTOR_BYTES = 512  # written to the disk entirely or not at all
PIECE_BLOCKS = 1024  # blocks looked at, signatures tried (16 blocks' worth each), ...
PIECE_BYTES = 1 << 20  # ... or bytes hashed before the opener hears of it: some milliseconds
SIGNATURE_BLOCKS = 16  # what a signature costs, in blocks

_log = getLogger(__name__)
_after_piece: ContextVar[Callable[[], None]] = ContextVar("after_piece", default=lambda: None)


class Recovered(NamedTuple):
    """The state of a feed as its files prove it; `damaged` when more was signed than they prove."""

    length: int
    roots: list[Node]
    damaged: bool
    marked: int = 0  # the length according to the bits, as far as they make sense
    signed_once: int = 0  # the longest length that may have been signed
    rebuilt: Rebuilt | None = None  # what bits that make no sense, or that were lost, were replaced by
    unsure: tuple[tuple[int, int], ...] = ()  # runs of blocks whose bits were lost: none tells what was cleared


@contextmanager
def after_each_piece(call: Callable[[], None]) -> Iterator[None]:
    """Have `call` called after each piece of the work of `recover`, in this context, while the manager lasts."""
    token = _after_piece.set(call)
    try:
        yield
    finally:
        _after_piece.reset(token)


class _Pieces:
    """Counts work, and calls what `after_each_piece` was given when a piece is done."""

    def __init__(self) -> None:
        self._call = _after_piece.get()
        self._blocks = self._bytes = 0

    def add(self, blocks: int, size_bytes: int = 0) -> None:
        self._blocks += blocks
        self._bytes += size_bytes
        if self._blocks >= PIECE_BLOCKS or self._bytes >= PIECE_BYTES:
            self._blocks = self._bytes = 0
            self._call()


def recover(
    files: FeedFiles, bits: Bitfield, key: PublicKey, sign: Sign | None, verify: Verify = crypto.verify
) -> Recovered:
    """Return the proven state of a feed, with `bits` (and signatures that can be restored) brought in line with it."""
    marked = bits.length()
    length, roots, skipped = _longest_signed(files, key, sign, verify)
    odd = bits.odd_pages(max(length, marked))
    makes_sense = not odd and (sign is None or bits.known_leaves(length, marked))
    if length < marked and not makes_sense and not _stored_beyond(files, length, roots):
        marked, odd = length, bits.odd_pages(length)  # what says that more was signed is damaged itself
    if sign is not None:
        lost = max(marked, _lost_length(files, length))
        complete = _complete(files, length, roots, lost) if length < lost else None
        is_known = marked > length or files.signature_slots() > length
        if complete is not None and _ends_in_its_bytes(files, complete) and (is_known or _has_all(files, lost)):
            # the signature is lost, the tree is whole: signing the same content again gives the same signature
            length, roots = lost, complete
            files.sync_content()
            files.write_signature(length, sign(signable(roots, length)))
    signed_once = marked if makes_sense else min(marked, (files.node_count() + 1) // 2)
    if length < signed_once and sign is not None and files.signature(signed_once) is None:
        files.write_signature(signed_once, LOST_SIGNATURE)  # known still when the bits are forgotten
    if length < marked or odd:
        bits.forget_after(length)

    def signed(end: int) -> list[Node] | None:
        return signed_roots(files, key, end, verify)

    unsure: list[tuple[int, int]] = []
    if length >= marked and not odd and (length > marked or sign is not None):
        unsure = _restore_bits(files, bits, signed, marked, length, roots)
    pages = dict.fromkeys(bits.incomplete_pages(length), False) if sign is not None or not marked else {}
    pages.update(dict.fromkeys(odd, True))
    rebuilt = rebuild_pages(files, bits, roots, signed, pages, _Pieces().add) if pages else None
    longest = max(length, marked, skipped)
    return Recovered(length, roots, length < longest, marked, longest, rebuilt, (*unsure, *map(_page, pages)))


def _lost_length(files: FeedFiles, length: int) -> int:
    """Return how far a feed of ours of `length` blocks may have been signed by what else its files show than bits.

    A signature is written when what it is for is durable, so that its empty place alone makes it worth a look at the
    tree. Of a feed without any signature the tree is looked at as well: its first append may have been acknowledged,
    and signing what was appended is no second history, even if it was not; but then all of its blocks have to be there,
    or a loss of power while it was made would leave a feed whose first blocks nobody has. What follows a signature that
    is there is left alone: it may be left over from an append that failed, with others written over a part of it.
    """
    slots = files.signature_slots()
    return slots if slots > length else (files.node_count() + 1) // 2 if not length else 0


def stored_roots(files: FeedFiles, length: int) -> list[Node] | None:
    """Return the stored roots of `length` blocks, None when one is missing."""
    roots: list[Node] = []
    for number in flat.full_roots(length):
        node = files.node(number)
        if node is None:
            return None
        roots.append(node)
    return roots


def signed_roots(files: FeedFiles, key: PublicKey, length: int, verify: Verify = crypto.verify) -> list[Node] | None:
    """Return the stored roots of `length` blocks when the stored signature confirms them."""
    signature = files.signature(length)
    roots = stored_roots(files, length) if signature is not None else None
    if roots is None or signature is None or not signed_by(key, roots, length, signature, verify):
        return None
    return roots


def _stored_beyond(files: FeedFiles, length: int, roots: list[Node]) -> bool:
    """Tell whether tree or data have more than `length` blocks."""
    return files.node(2 * length) is not None or files.data.size() > merkle.total_size(roots)


def _longest_signed(files: FeedFiles, key: PublicKey, sign: Sign | None, verify: Verify) -> tuple[int, list[Node], int]:
    """Return the longest length with a good signature, its roots, and the longest one with a bad signature."""
    skipped, pieces = 0, _Pieces()
    for tried, length in enumerate(files.signed_lengths(1, MAX_LENGTH + 1)):
        roots = signed_roots(files, key, length, verify)
        if roots is None and tried < MENDED_LENGTHS:
            roots = _with_mended_roots(files, key, length, verify)
        if roots is None and sign is not None:
            roots = _mended(files, length, sign)
        if roots is not None:
            return length, roots, skipped
        skipped = skipped or length
        pieces.add(SIGNATURE_BLOCKS)
    return 0, [], skipped


def _with_mended_roots(files: FeedFiles, key: PublicKey, length: int, verify: Verify) -> list[Node] | None:
    """Return the roots of `length` when the disk has changed some that follow from what is below them."""
    signature = files.signature(length)
    if signature is None:
        return None
    roots = mended_roots(files, length, lambda roots: signed_by(key, roots, length, signature, verify))
    if roots is not None:
        _log.warning("roots of %d blocks of feed %s were damaged and are made anew", length, short(key))
    return roots


def _mended(files: FeedFiles, length: int, sign: Sign) -> list[Node] | None:
    """Return the roots of `length` when half of their signature is stored: a power loss can tear a slot in two."""
    stored, roots = files.signature(length), stored_roots(files, length)
    if stored is None or roots is None:
        return None
    signature = sign(signable(roots, length))
    if stored[:32] != signature[:32] and stored[32:] != signature[32:]:
        return None
    files.write_signature(length, signature)
    return roots


def _complete(files: FeedFiles, start: int, roots: list[Node], end: int) -> list[Node] | None:
    """Return the roots of `end` blocks when all leaves from `start` on are stored and lead to the stored roots."""
    stack, pieces = list(roots), _Pieces()
    for block in range(start, end):
        pieces.add(1)
        leaf = files.node(2 * block)
        if leaf is None:
            return None
        stack.append(leaf)
        merges = block
        while merges & 1:
            merges >>= 1
            right, left = stack.pop(), stack.pop()
            stack.append(parent_node(left, right))
    return stack if stack == stored_roots(files, end) else None


def _has_all(files: FeedFiles, length: int) -> bool:
    """Tell whether all of the first `length` blocks are there as their leaves say."""
    offset, pieces = 0, _Pieces()
    for block in range(length):
        leaf = files.node(2 * block)
        if leaf is None or leaf.size > MAX_BLOCK_BYTES or leaf_hash(files.data.read(offset, leaf.size)) != leaf.hash:
            return False
        offset += leaf.size
        pieces.add(1, leaf.size)
    return True


def _ends_in_its_bytes(files: FeedFiles, roots: list[Node]) -> bool:
    """Tell whether the last root, if it is a leaf, has the hash of the last block: no node above it shows that."""
    last = roots[-1] if roots else None
    if last is None or last.number & 1:
        return True
    data = files.data.read(merkle.total_size(roots) - last.size, last.size) if last.size <= MAX_BLOCK_BYTES else b""
    return leaf_hash(data) == last.hash


def _restore_bits(
    files: FeedFiles,
    bits: Bitfield,
    signed: Callable[[int], list[Node] | None],
    marked: int,
    length: int,
    roots: list[Node],
) -> list[tuple[int, int]]:
    """Mark what the files hold of the last batches, where a power loss kept their bits from the disk.

    Returns the runs of which even the tree bits are missing.
    Bits are lost by the sector: a batch that has one bit left in a sector has lost none in it, others were cleared.
    """
    borders = [length, *islice(files.signed_lengths(1, length), UNSYNCED_BATCHES + 1)]
    if borders[-1] > marked:
        borders += islice(files.signed_lengths(1, marked + 1), 1)
    complete = len(borders) < UNSYNCED_BATCHES + 2
    start_roots = None if complete else signed(borders[-1])
    if start_roots is None or borders[-1] > marked:
        borders, start_roots = [*borders, 0], []
    lost = [
        piece
        for end, start in pairwise(borders)
        for piece in _sectors(start, end)
        if not bits.held(*piece) or end > marked
    ]
    start = borders[-1]
    if lost and _complete(files, start, start_roots, length) != roots:
        for root in roots:
            bits.add_node(root.number)
        lost = []
    if not lost:
        return []
    bits.add_complete(start, length)
    looked_for = Bitfield()
    for piece in lost:
        looked_for.set_blocks(*piece, True)
    _restore_blocks(files, bits, looked_for, start, length, merkle.total_size(start_roots))
    return [(low, high) for low, high in lost if high > marked]


def _restore_blocks(files: FeedFiles, bits: Bitfield, looked_for: Bitfield, start: int, end: int, offset: int) -> None:
    """Mark those of the blocks that are looked for whose bytes are those of their leaf; the first is at `offset`."""
    pieces = _Pieces()
    for block in range(start, end):
        leaf = files.node(2 * block)
        if leaf is None or leaf.size > MAX_BLOCK_BYTES:
            return
        looked = looked_for.has(block)
        if looked and leaf_hash(files.data.read(offset, leaf.size)) == leaf.hash:
            bits.add_block(block)
        offset += leaf.size
        pieces.add(1, leaf.size if looked else 0)


def _page(number: int) -> tuple[int, int]:
    return number * BLOCKS_PER_PAGE, (number + 1) * BLOCKS_PER_PAGE


def _sectors(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the blocks `start` up to `end` in pieces whose bits lie in one sector of the bitfield file."""
    while start < end:
        page, byte = divmod(start >> 3, DATA_BYTES)
        place = (HEADER_BYTES + byte) % SECTOR_BYTES  # pages are a whole number of sectors long
        stop = min(end, (start >> 3 << 3) + 8 * (SECTOR_BYTES - place), (page + 1) * 8 * DATA_BYTES)
        yield start, stop
        start = stop
