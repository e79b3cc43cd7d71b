"""Where things lie in the files of one feed: headers, offsets, and a cache of tree pages.

Knows nothing of the rules of a feed; what is verified or held is decided elsewhere. Source: feed.md section 4,
`feeds/` of the vectors.
"""

from collections.abc import Iterable, Iterator
from logging import getLogger
from struct import Struct

from bitarray import bitarray

from ddrive.errors import CorruptStorage
from ddrive.feed.bitfield import BLOCKS_PER_PAGE, OLD_PAGE_BYTES, PAGE_BYTES
from ddrive.feed.hashing import HASH_BYTES, Buffer
from ddrive.feed.merkle import MAX_BYTES, NODE_BYTES
from ddrive.feed.storage import BITFIELD, DATA, SIGNATURES, TREE, Directory, Storage
from ddrive.ids import Node, NodeIndex

HEADER_BYTES = 32
SIGNATURE_BYTES = 64
TREE_PAGE_NODES = 256  # nodes read and kept together: one pread serves 128 blocks in a row
MAX_TREE_PAGES = 384  # 4 MB of cached tree per feed: of 50,000 blocks read here and there
HIGH_NODE = 127  # a node with these low bits covers 128 blocks or more: it is kept by itself, decoded
MAX_HIGH_NODES = 16384  # enough for 10^6 blocks; with them a random block of so many is found in a third of the time
SCAN_SLOTS = 1024  # signatures read at once when looking for one

_log = getLogger(__name__)

_MAGIC = b"\x05\x02\x57"
_NODE = Struct(">32sQ")
_LEAF_AND_PARENT = Struct(">32sQ40x")
_BLANK = (bytes(HASH_BYTES), 0)
_NO_HASH = bytes(HASH_BYTES)
_NO_SIGNATURE = bytes(SIGNATURE_BYTES)
LOST_SIGNATURE = b"\xff" * SIGNATURE_BYTES  # in the place of one that was there once: no author signs so
_NONE = (_NO_SIGNATURE, LOST_SIGNATURE)
_PAGE_SIZE = TREE_PAGE_NODES * NODE_BYTES


def header(kind: int, entry_bytes: int, name: bytes) -> bytes:
    """Return the 32 bytes at the start of a SLEEP file of type `kind`."""
    text = _MAGIC + bytes([kind, 0]) + entry_bytes.to_bytes(2, "big") + bytes([len(name)]) + name
    return text.ljust(HEADER_BYTES, b"\x00")


BITFIELD_HEADER = header(0, PAGE_BYTES, b"")
SIGNATURES_HEADER = header(1, SIGNATURE_BYTES, b"Ed25519")
TREE_HEADER = header(2, NODE_BYTES, b"BLAKE2b")


class FeedFiles:
    """The four files of a feed that change: data, tree, signatures, bitfield."""

    def __init__(self, directory: Directory, *, read_only: bool = False, cache_bytes: int | None = None) -> None:
        self._read_only = read_only
        self._max_pages = MAX_TREE_PAGES if cache_bytes is None else max(1, cache_bytes // _PAGE_SIZE)
        self._pages: dict[int, bytearray] = {}
        self._high: dict[int, Node] = {}
        self._opened: list[Storage] = []
        try:
            self._tree = self._open(directory, TREE)
            self._signatures = self._open(directory, SIGNATURES)
            self._bitfield = self._open(directory, BITFIELD)
            self.data = self._open(directory, DATA)
            self._check_header(self._tree, TREE, TREE_HEADER)
            self._check_header(self._signatures, SIGNATURES, SIGNATURES_HEADER)
            found = self._check_header(self._bitfield, BITFIELD, BITFIELD_HEADER)
            self.page_bytes = int.from_bytes(found[5:7], "big")
            if self.page_bytes not in (PAGE_BYTES, OLD_PAGE_BYTES):  # its bits are checked, and made anew if need be
                _log.warning("header of a file is damaged file=%s pages=%d", BITFIELD, self.page_bytes)
                self.page_bytes = PAGE_BYTES
                if not read_only:
                    self._bitfield.write(0, BITFIELD_HEADER)
        except BaseException:
            self.close()
            raise

    def preload(self, size: int) -> None:
        """Have the kernel read the first `size` bytes of blocks, and their nodes, into its cache."""
        self._tree.preload(size)
        self.data.preload(size)

    # -- tree

    def node(self, number: int) -> Node | None:
        """Return the stored node `number`, None when its place is blank."""
        is_high = number & HIGH_NODE == HIGH_NODE
        if is_high and (kept := self._high.get(number)) is not None:
            return kept
        page = self._pages.get(number >> 8)
        if page is None:
            page = self._load_page(number >> 8)
        digest, size = _NODE.unpack_from(page, (number & 255) * NODE_BYTES)
        if size == 0 and digest == _NO_HASH:
            if not self._read_only:
                return None
            # the owner may have written it since the page was read
            digest, size = _NODE.unpack_from(self._load_page(number >> 8), (number & 255) * NODE_BYTES)
            if size == 0 and digest == _NO_HASH:
                return None
        if size >= MAX_BYTES:
            return None
        node = Node(NodeIndex(number), digest, size)
        if is_high:
            if len(self._high) >= MAX_HIGH_NODES:
                self._high.clear()
            self._high[number] = node
        return node

    def on_disk(self, node: Node) -> bool:
        """Tell whether the disk has `node` as it is, whatever is kept of it here."""
        return self._tree.read(HEADER_BYTES + NODE_BYTES * node.number, NODE_BYTES) == _NODE.pack(node.hash, node.size)

    def leaves(self, start: int, end: int) -> list[tuple[bytes, int]] | None:
        """Return (hash, size) of the stored leaves of the blocks `start` up to `end`, None when one is blank."""
        found: list[tuple[bytes, int]] = []
        while start < end:
            number = start >> 7
            page = self._pages.get(number) or self._load_page(number)
            stop = min(end, (number + 1) << 7)
            low, high = (start & 127) * 2 * NODE_BYTES, ((stop - 1) & 127) * 2 * NODE_BYTES + 2 * NODE_BYTES
            found += _LEAF_AND_PARENT.iter_unpack(memoryview(page)[low:high])
            start = stop
        return None if _BLANK in found else found

    def node_count(self) -> int:
        """Return for how many nodes, blank ones included, the file has room."""
        return max(0, self._tree.size() - HEADER_BYTES) // NODE_BYTES

    def write_nodes(self, nodes: Iterable[Node]) -> None:
        """Store nodes, neighbours with one write."""
        first = following = -1
        run: list[bytes] = []
        for number, digest, size in sorted(nodes):
            packed = _NODE.pack(digest, size)
            if number != following:
                if run:
                    self._tree.write(HEADER_BYTES + NODE_BYTES * first, b"".join(run))
                first, run = number, []
            run.append(packed)
            following = number + 1
            page = self._pages.get(number >> 8)
            if page is not None:
                place = (number & 255) * NODE_BYTES
                page[place : place + NODE_BYTES] = packed
            if number & HIGH_NODE == HIGH_NODE:
                self._high.pop(number, None)
        if run:
            self._tree.write(HEADER_BYTES + NODE_BYTES * first, b"".join(run))

    def write_tail(self, first: int, packed: Buffer) -> None:
        """Store packed nodes from number `first` on."""
        end = first + len(packed) // NODE_BYTES
        for page in range(first >> 8, (end >> 8) + 1):
            self._pages.pop(page, None)
        for number in range(first | HIGH_NODE, end, HIGH_NODE + 1):
            self._high.pop(number, None)
        self._tree.write(HEADER_BYTES + NODE_BYTES * first, packed)

    def forget_nodes(self) -> None:
        """Drop the cache of nodes."""
        self._pages.clear()
        self._high.clear()

    def _load_page(self, page: int) -> bytearray:
        if len(self._pages) >= self._max_pages:
            del self._pages[next(iter(self._pages))]
        content = self._tree.read(HEADER_BYTES + _PAGE_SIZE * page, _PAGE_SIZE)
        loaded = bytearray(content if len(content) == _PAGE_SIZE else content.ljust(_PAGE_SIZE, b"\x00"))
        self._pages[page] = loaded
        return loaded

    # -- signatures

    def signature(self, length: int) -> bytes | None:
        """Return the signature of the first `length` blocks, None when there is none."""
        found = self._signatures.read(HEADER_BYTES + SIGNATURE_BYTES * (length - 1), SIGNATURE_BYTES)
        return found if len(found) == SIGNATURE_BYTES and found not in _NONE else None

    def write_signature(self, length: int, signature: bytes) -> None:
        """Store the signature of the first `length` blocks."""
        self._signatures.write(HEADER_BYTES + SIGNATURE_BYTES * (length - 1), signature)

    def signature_slots(self) -> int:
        """Return the longest length for whose signature the file has room."""
        return max(0, -(-(self._signatures.size() - HEADER_BYTES) // SIGNATURE_BYTES))

    def cut_signatures(self, length: int) -> None:
        """Take away, durably, what was written behind the signature of the first `length` blocks. Raises: OSError."""
        self._signatures.truncate(min(self._signatures.size(), HEADER_BYTES + SIGNATURE_BYTES * length))
        self._signatures.sync()

    def signed_lengths(self, start: int, end: int) -> Iterator[int]:
        """Yield the lengths from `start` up to `end` (exclusive) that have, or had, a signature, the longest first."""
        for low, high in reversed(self._signatures.extents()):
            first = max(start, (low - HEADER_BYTES) // SIGNATURE_BYTES + 1, 1)
            stop = min(end, -(-(high - HEADER_BYTES) // SIGNATURE_BYTES) + 1)
            end = min(end, first)
            while stop > first:
                base = max(first, stop - SCAN_SLOTS)
                slots = self._signatures.read(
                    HEADER_BYTES + SIGNATURE_BYTES * (base - 1), SIGNATURE_BYTES * (stop - base)
                )
                for length in range(base + len(slots) // SIGNATURE_BYTES - 1, base - 1, -1):
                    place = SIGNATURE_BYTES * (length - base)
                    if slots[place : place + SIGNATURE_BYTES] != _NO_SIGNATURE:
                        yield length
                stop = base

    def first_signed(self, start: int, end: int) -> int | None:
        """Return the shortest length from `start` up to `end` (exclusive) that has a signature."""
        for low, high in self._signatures.extents():
            first = max(start, (low - HEADER_BYTES) // SIGNATURE_BYTES + 1, 1)
            stop = min(end, -(-(high - HEADER_BYTES) // SIGNATURE_BYTES) + 1)
            for base in range(first, stop, SCAN_SLOTS):
                slots = self._signatures.read(
                    HEADER_BYTES + SIGNATURE_BYTES * (base - 1), SIGNATURE_BYTES * min(SCAN_SLOTS, stop - base)
                )
                for place in range(0, len(slots), SIGNATURE_BYTES):
                    if slots[place : place + SIGNATURE_BYTES] not in _NONE:
                        return base + place // SIGNATURE_BYTES
        return None

    # -- bitfield

    def read_pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield the pages of the bitfield that may have a set bit, with their numbers."""
        following = 0
        for start, end in self._bitfield.extents():
            first = max((start - HEADER_BYTES) // self.page_bytes, following, 0)
            following = max(-(-(end - HEADER_BYTES) // self.page_bytes), first)
            content = self._bitfield.read(HEADER_BYTES + first * self.page_bytes, (following - first) * self.page_bytes)
            for place in range(0, len(content), self.page_bytes):
                yield first + place // self.page_bytes, content[place : place + self.page_bytes]

    def write_pages(self, pages: Iterable[tuple[int, bytes]]) -> None:
        """Store whole pages of the bitfield."""
        for number, page in pages:
            self._bitfield.write(HEADER_BYTES + number * self.page_bytes, page)

    def drop_bits(self, start: int, end: int) -> None:
        """Take the bits of the blocks `start` up to `end` off the disk, and nothing else of their pages."""
        for number in range(start // BLOCKS_PER_PAGE, -(-end // BLOCKS_PER_PAGE)):
            first = number * BLOCKS_PER_PAGE
            low, high = max(start - first, 0), min(end - first, BLOCKS_PER_PAGE)
            place = HEADER_BYTES + number * self.page_bytes + low // 8
            bits = bitarray(endian="big")
            bits.frombytes(self._bitfield.read(place, -(-high // 8) - low // 8))
            skipped = low - low % 8
            if bits.find(1, low - skipped, high - skipped) >= 0:
                bits[low - skipped : high - skipped] = 0
                self._bitfield.write(place, bits.tobytes())

    # -- all files

    def sync_content(self) -> None:
        """Return when data and tree are durable. May be called from another thread."""
        self.data.sync()
        self._tree.sync()

    def sync_signatures(self) -> None:
        """Return when the signatures are durable. May be called from another thread."""
        self._signatures.sync()

    def sync_bitfield(self) -> None:
        """Return when the bitfield is durable. May be called from another thread."""
        self._bitfield.sync()

    def close(self) -> None:
        """Close the files."""
        for storage in self._opened:
            storage.close()
        self.forget_nodes()

    def _open(self, directory: Directory, name: str) -> Storage:
        storage = directory.open(name, create=not self._read_only)
        self._opened.append(storage)
        return storage

    def _check_header(self, storage: Storage, name: str, wanted: bytes) -> bytes:
        """Return the header of a file, written first where it is blank or damaged: what follows is checked anyway."""
        found = storage.read(0, HEADER_BYTES)
        if not found.startswith(_MAGIC):
            if found.strip(b"\x00"):
                _log.warning("header of a file is damaged file=%s starts=%s", name, found[:4].hex())
            if not self._read_only:
                storage.write(0, wanted)
            return wanted
        if found[:4] != wanted[:4]:
            raise CorruptStorage(f"the file {name} is of another kind: it starts with {found[:4].hex()}")
        return found.ljust(HEADER_BYTES, b"\x00")
