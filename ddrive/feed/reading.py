"""What an owner of a feed's files and a view of them have in common: reading, and telling bytes from blocks.

Nothing that leaves here is taken from the disk on trust: the roots are tied to the author's signature by whoever sets
them, the nodes on the way down from a root are checked against their parent, and a block against its leaf.
"""

from collections.abc import Sequence

from ddrive.errors import Closed, DriveError, InvalidProof, NotHeld
from ddrive.feed import flat, merkle
from ddrive.feed.ahead import JOB_BLOCKS, JOB_BYTES, MAX_AHEAD_BYTES, LoadAhead, Run
from ddrive.feed.bitfield import Bitfield
from ddrive.feed.hashing import leaf_hash, leaf_hashes
from ddrive.feed.layout import FeedFiles
from ddrive.feed.merkle import MAX_BLOCK_BYTES
from ddrive.feed.passing import Passing
from ddrive.feed.placing import placed_leaf, remember
from ddrive.feed.storage import Directory
from ddrive.ids import BlockIndex, Node, PublicKey, short

SEGMENT_BITS = 4  # use is noted by segments of 16 blocks, 1 MiB of a usual file
MAX_STARTS = 16384  # remembered byte offsets of blocks
PRELOAD_BYTES = 64 * 1024 * 1024  # read from disk in one go by `preload`, of the blocks and of the nodes
MAX_COPIED_BYTES = 64 * 1024  # of blocks read in one go; from there on a read of each costs less than a copy


class StoredFeed:
    """A feed of which some blocks lie in files here."""

    def __init__(self, directory: Directory, files: FeedFiles, bits: Bitfield, key: PublicKey) -> None:
        self.key = key
        self.length = 0
        self.byte_length = 0
        self.roots: list[Node] = []
        self.writable = False
        self.forked = False
        self.closed = False
        self.used: dict[int, None] | None = None  # segments read since it was emptied, where somebody wants to know
        self._gone_bad = Bitfield()  # blocks of which the disk has something else
        self.reads = 0  # blocks given out, but for those in `passing`
        self.misses = 0  # blocks that somebody had to wait for
        self.passing = Passing()
        self._directory = directory
        self._files = files
        self._bits = bits
        self._verified = Bitfield()
        self._starts: dict[int, int] = {}
        self._pairs: dict[int, tuple[Node, Node]] = {}  # checked ones, by the number of their parent
        self._ahead: LoadAhead | None = None

    @property
    def blocking(self) -> bool:
        """Whether making this feed durable waits for a disk."""
        return self._directory.blocking

    def has(self, index: int) -> bool:
        """Tell whether block `index` is held."""
        return self._bits.has(index)

    def held(self, start: int, end: int) -> int:
        """Return how many of the blocks `start` up to `end` are held."""
        return self._bits.held(start, end)

    def gone_bad(self, start: int, end: int) -> bool:
        """Tell whether one of the blocks `start` up to `end` is not held because the disk has something else for it."""
        return any(not self.has(index) for run in self._gone_bad.runs(start, end) for index in range(*run))

    def runs(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the held runs within blocks `start` up to `end`, half-open, in order."""
        return self._bits.runs(start, end)

    def block(self, index: int) -> bytes:
        """Return block `index`, checked against its stored leaf: by an owner once, by a view each time it is read.

        Raises: NotHeld, also when what lies on disk is not the block: it then counts as not held, so that it will be
        fetched again. CorruptStorage in that case on the author's own feed.
        """
        if self.closed:
            raise Closed(f"feed {short(self.key)} is closed")
        if not self._bits.has(index):
            raise self._not_held(index)
        if self.used is not None:
            self.used[index >> SEGMENT_BITS] = None
        self.reads += 1
        if self._ahead and (run := self._ahead.take(index)) is not None:
            self._note_run(index, run)
            return bytes(run.content)
        data = self._stored_block(index)
        if data is None and self._mend(index):
            data = self._stored_block(index)
        if data is None:
            raise self._lose(index)
        return data

    def part(self, start: int, end: int, near: int) -> bytes | None:
        """Return the bytes `start` up to `end` of the content, if their blocks were checked before and are still there.

        None otherwise: `block` checks them. `near` is the block that holds them, or the likely one, for `used`.
        """
        if self.closed or not self._is_checked(start, end):
            return None
        data = self._files.data.read(start, end - start)
        if len(data) < end - start or not self._is_unchanged():
            return None
        self.reads += 1
        if self.used is not None:
            self.used[near >> SEGMENT_BITS] = None
        return data

    def blocks(self, start: int, end: int) -> list[bytes] | None:
        """Return the blocks `start` up to `end`, checked as `block` does but side by side; small ones with one read.

        None when not all are held, or when something about them is unusual: `block` tells what.
        """
        if self.closed or self._bits.held(start, end) < end - start:
            return None
        leaves = self._leaves(start, end)
        offset = self.byte_offset(start)
        size = sum([size for _, size in leaves]) if leaves else 0
        if leaves is None or offset is None or size > MAX_BLOCK_BYTES:
            return None
        stamp = self._stamp()
        found = self._read_each(offset, [size for _, size in leaves])
        if sum(map(len, found)) < size:
            return None
        if not self._settled(start, end):
            empty = [index for index, block in enumerate(found, start) if not block]
            if not all(map(self._is_in_place, empty)) or leaf_hashes(found) != [digest for digest, _ in leaves]:
                return None
            self._note_verified(range(start, end), stamp, range(offset, offset + size))
        self.reads += len(found)
        if self.used is not None:
            self.used.update(dict.fromkeys(range(start >> SEGMENT_BITS, (end - 1 >> SEGMENT_BITS) + 1)))
        return found

    def loaded_run(self, index: int, max_bytes: int) -> tuple[bytes | memoryview, int] | None:
        """Return blocks from `index` on that were loaded ahead together, and how many: as `LoadAhead.take_run`."""
        if self._ahead is None or self.closed or not self._bits.has(index):
            return None
        run = self._ahead.take_run(index, max_bytes)
        if run is None or self._bits.held(index, index + run.blocks) < run.blocks:
            return None
        self._note_run(index, run)
        self.reads += run.blocks
        if self.used is not None:
            last = index + run.blocks - 1
            self.used.update(dict.fromkeys(range(index >> SEGMENT_BITS, (last >> SEGMENT_BITS) + 1)))
        return run.content, run.blocks

    def load_ahead(self, start: int, end: int) -> None:
        """Start to read and check the held blocks `start` up to `end` in threads, if there are threads for it."""
        ahead = self._ahead
        if ahead is None or self.closed:
            return
        together = max(1, min(JOB_BLOCKS, JOB_BYTES * self.length // max(1, self.byte_length)))
        for first, last in self._bits.runs(start, min(end, self.length)):
            for low in range(first, last, together):
                unread = range(low, min(last, low + together))
                wanted = [index for index in unread if not (ahead.has(index) or self._settled(index, index + 1))]
                leaves = [leaf for index in wanted if (leaf := self._node(2 * index)) is not None]
                offset = self.byte_offset(wanted[0]) if wanted else None
                gapless = len(leaves) == len(wanted) == (wanted[-1] - wanted[0] + 1 if wanted else 0)
                gapless = gapless and all(leaf.size or self._is_in_place(leaf.number >> 1) for leaf in leaves)
                if offset is not None and gapless and sum(leaf.size for leaf in leaves) <= MAX_AHEAD_BYTES:
                    ahead.load(self._files.data, offset, leaves, self._stamp())

    def note_order(self, index: int) -> None:
        """Take note that a program has read block `index`, and will maybe read those behind it."""

    def byte_offset(self, index: int) -> int | None:
        """Return where block `index` starts in the content of the feed, None when the nodes for it are missing."""
        if index == self.length:
            return self.byte_length
        missing: list[int] = []  # ends of subtrees, the last one first, down to an offset that is known
        end = index
        while end and end not in self._starts:
            missing.append(end)
            end &= end - 1
        start = self._starts[end] if end else 0
        for end in reversed(missing):
            node = self._node(flat.last_root(end))
            if node is None:
                return None
            start += node.size
            self._remember_start(end, start)
        return start

    def end_offset(self, index: int) -> int | None:
        """Return where held block `index` ends in the content of the feed, None when the nodes for it are missing."""
        start, leaf = self.byte_offset(index), self._node(2 * index)
        return None if start is None or leaf is None else start + leaf.size

    def preload(self) -> None:
        """Say that many blocks are going to be read here and there: a hint to the kernel, worth it for small feeds."""
        if not self.closed:  # a walk may go on with nodes that it has read
            self._files.preload(PRELOAD_BYTES)

    def locate(self, byte_offset: int) -> tuple[BlockIndex, int] | None:
        """Return the block that holds the byte at `byte_offset` and the place in it, None when nodes are missing.

        The end of the feed is (length, 0). Whether the answer could still be a peer's invention tells `size_proven`.
        """
        if byte_offset == self.byte_length:
            return BlockIndex(self.length), 0
        if not 0 <= byte_offset < self.byte_length:
            return None
        rest = byte_offset
        for node in self.roots:
            if rest < node.size:
                break
            rest -= node.size
        number: int = node.number
        certain: Node | None = node
        while number & 1:
            # normally both children are stored and checked; below an old root only what lies to the left may be
            pair = certain and (self._pairs.get(number) or self._load_pair(certain))
            left_number, right_number = flat.children(number) or (0, 0)
            left = pair[0] if pair else self._node(left_number)
            if left is None:
                return None
            if rest < left.size:
                number, certain = left_number, pair and left
            else:
                rest -= left.size
                number, certain = right_number, pair and pair[1]
        block = number >> 1
        self._remember_start(block, byte_offset - rest)
        return BlockIndex(block), rest

    def size_proven(self, index: int) -> bool:
        """Tell whether the size of block `index` is certain.

        A peer that sends a leaf without its block could shift bytes between the leaf and its sibling; a block once
        received settles both.
        """
        if self.writable or index >= self.length or self._bits.has(index) or self._bits.has(index ^ 1):
            return True
        return bool(self.roots) and self.roots[-1].number == 2 * index

    # -- inside

    def _stored_block(self, index: int) -> bytes | None:
        """Return the bytes of held block `index`, None when those on disk are not what its leaf says."""
        stamp = self._stamp()
        leaf = self._node(2 * index)
        start = self.byte_offset(index)
        if leaf is None or start is None or leaf.size > MAX_BLOCK_BYTES:
            return None
        data = self._files.data.read(start, leaf.size) if leaf.size else b""
        if len(data) != leaf.size:
            return None
        if not self._settled(index, index + 1):
            if leaf_hash(data) != leaf.hash or not (data or self._is_in_place(index)):
                return None
            self._note_verified(range(index, index + 1), stamp, range(start, start + leaf.size))
        self._remember_start(index + 1, start + leaf.size)
        return data

    def _is_in_place(self, index: int) -> bool:
        """Tell whether the nodes above it prove block `index`: an empty one fits wherever a disk has put its leaf."""
        try:
            placed_leaf(index, self.roots, self._node, self._pairs)
        except InvalidProof:
            return False
        return True

    def _mend(self, index: int) -> bool:
        """Make nodes on disk again that do not prove block `index`; tells whether there were any."""
        return False

    def _node(self, number: int) -> Node | None:
        """Return a stored node that was verified before it was written, None when it is missing."""
        raise NotImplementedError

    def _leaves(self, start: int, end: int) -> list[tuple[bytes, int]] | None:
        """Return (hash, size) of the leaves of the blocks `start` up to `end`; None unless `_node` has all of them."""
        return self._files.leaves(start, end) if self._bits.known_leaves(start, end) else None

    def _read_each(self, offset: int, sizes: Sequence[int]) -> list[bytes]:
        """Return pieces of some sizes that lie side by side from `offset` on in the content."""
        found: list[bytes] = []
        if sum(sizes) > MAX_COPIED_BYTES:
            for size in sizes:
                found.append(self._files.data.read(offset, size) if size else b"")
                offset += size
            return found
        data = self._files.data.read(offset, sum(sizes))
        place = 0
        for size in sizes:
            found.append(data[place : place + size])
            place += size
        return found

    def _stamp(self) -> int:
        """Return a number for what is on disk now: before and after something is cleared it is not the same."""
        return 0

    def _note_verified(self, blocks: range, stamp: int, content: range) -> None:
        """Take note that blocks on disk, the bytes `content`, agreed with their leaves after `stamp` was taken."""
        raise NotImplementedError

    def _note_run(self, index: int, run: Run) -> None:
        content = range(run.offset, run.offset + len(run.content))
        self._note_verified(range(index, index + run.blocks), run.stamp, content)

    def _is_checked(self, start: int, end: int) -> bool:
        """Tell whether the bytes `start` up to `end` lie in one held block that agreed with its leaf."""
        found = self.locate(start)
        if found is None or not (self._bits.has(found[0]) and self._verified.has(found[0])):
            return False
        leaf = self._node(2 * found[0])
        return leaf is not None and found[1] + end - start <= leaf.size

    def _is_unchanged(self) -> bool:
        """Tell whether what was checked before the last read is still there."""
        return True

    def _settled(self, start: int, end: int) -> bool:
        """Tell whether the blocks `start` up to `end` can be read without a check."""
        if end == start + 1:
            return self._verified.has(start)
        return self._verified.held(start, end) == end - start

    def _load_pair(self, parent: Node) -> tuple[Node, Node] | None:
        """Return the checked children of a node that is certain, None when one is missing or does not fit."""
        numbers = flat.children(parent.number) or (0, 0)
        for attempt in range(3):
            left, right = self._node(numbers[0]), self._node(numbers[1])
            if left is None or right is None:
                return None
            if merkle.fits(parent, left, right):
                remember(self._pairs, parent.number, (left, right))
                return left, right
            self._files.forget_nodes()
            if attempt == 2 or (attempt and not self._mend(numbers[0] >> 1)):
                self._distrust(left, right)
                break
        return None

    def _distrust(self, left: Node, right: Node) -> None:
        """Deal with two stored nodes that do not fit their parent."""

    def _remember_start(self, index: int, start: int) -> None:
        if len(self._starts) >= MAX_STARTS:
            self._starts.clear()
        self._starts[index] = start

    def _not_held(self, index: int) -> DriveError:
        """Return the error that says so."""
        return NotHeld(f"block {index} of feed {short(self.key)} is not held")

    def _lose(self, index: int) -> DriveError:
        """Count block `index` as not held, because the disk does not have it, and return the error that says so."""
        self._bits.set_blocks(index, index + 1, False)
        self._verified.set_blocks(index, index + 1, False)
        self._gone_bad.set_blocks(index, index + 1, True)
        self._files.forget_nodes()
        self._starts.clear()
        return NotHeld(f"block {index} of feed {short(self.key)} does not verify on disk")
