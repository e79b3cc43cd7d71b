"""A set of block numbers as a peer claims them: runs where they are long, bit maps where they are broken up.

Claims are cheap to make, so memory is bounded whatever is claimed: one `Have` of 2^50 blocks is one run, and what
exceeds the limits below is forgotten (we then merely do not know that the peer has it).
"""

from bisect import bisect_left, bisect_right

from bitarray import bitarray
from bitarray.util import zeros

REGION_BLOCKS = 1 << 20  # one bit map covers this many blocks (128 KiB); also the unit of Want
MAX_RUNS = 4096  # more runs than this turn the region that is being changed into a bit map
MAX_MAPS = 64  # bit maps per set: at most 8 MiB


class BlockSet:
    """Block numbers; in a region that has a bit map the map alone counts, elsewhere the runs do."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._maps: dict[int, bitarray] = {}
        self.length = 0  # highest member + 1

    def has(self, index: int) -> bool:
        """Tell whether `index` is a member."""
        bits = self._maps.get(index // REGION_BLOCKS)
        if bits is not None:
            offset = index % REGION_BLOCKS
            return offset < len(bits) and bool(bits[offset])
        at = bisect_right(self._starts, index) - 1
        return at >= 0 and index < self._ends[at]

    def add(self, start: int, end: int) -> None:
        """Make [start, end) members."""
        if start >= end:
            return
        for region in self._touched(start, end):
            self._fill_map(region, start, end)
        region = start // REGION_BLOCKS
        if region not in self._maps or region != (end - 1) // REGION_BLOCKS:
            self._add_run(start, end)
        self.length = max(self.length, end if self.has(end - 1) else 0)

    def add_bits(self, start: int, packed: bytes) -> None:
        """Make members of those blocks from `start` on whose bit (most significant first) is set in `packed`."""
        bits = bitarray(endian="big")
        bits.frombytes(packed)
        position = 0
        while position < len(bits):
            region, offset = divmod(start + position, REGION_BLOCKS)
            piece = bits[position : position + REGION_BLOCKS - offset]
            self._add_piece(region, offset, piece)
            position += len(piece)

    def remove(self, start: int, end: int) -> None:
        """Make [start, end) no members."""
        if start >= end:
            return
        for region in self._touched(start, end):
            bits, base = self._maps[region], region * REGION_BLOCKS
            bits[max(0, start - base) : min(len(bits), end - base)] = 0
        self._remove_run(start, end)
        if end >= self.length:
            self.length = self._highest(self.length)

    def clear(self) -> None:
        """Forget every member."""
        self._starts.clear()
        self._ends.clear()
        self._maps.clear()
        self.length = 0

    def next(self, start: int, end: int) -> int | None:
        """Return the first member in [start, end), or None."""
        position = start
        end = min(end, self.length)
        while position < end:
            region = position // REGION_BLOCKS
            bits = self._maps.get(region)
            if bits is not None:
                base = region * REGION_BLOCKS
                found = bits.find(1, position - base, min(len(bits), max(end - base, 0)))
                if found >= 0:
                    return base + found
                position = base + REGION_BLOCKS
                continue
            limit = min((other * REGION_BLOCKS for other in self._maps if other > region), default=end)
            at = bisect_right(self._ends, position)
            if at < len(self._starts):
                found = max(position, self._starts[at])
                if found < min(limit, end):
                    return found
            position = limit
        return None

    def covers(self, start: int, end: int) -> bool:
        """Tell whether all of [start, end) are members, looking at runs only: False may mean "not sure"."""
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and end <= self._ends[at] and not self._touched(start, end)

    def _touched(self, start: int, end: int) -> list[int]:
        """Return the regions with a bit map that [start, end) reaches into."""
        if not self._maps:
            return []
        first, last = start // REGION_BLOCKS, (end - 1) // REGION_BLOCKS
        return [region for region in self._maps if first <= region <= last]

    def _fill_map(self, region: int, start: int, end: int) -> None:
        """Set the bits of [start, end) that lie in `region`."""
        bits, base = self._maps[region], region * REGION_BLOCKS
        low, high = max(0, start - base), min(REGION_BLOCKS, end - base)
        if high > len(bits):
            bits.extend(zeros(high - len(bits), "big"))
        bits[low:high] = 1

    def _add_run(self, start: int, end: int) -> None:
        """Join [start, end) with the runs that it touches."""
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low == high and len(self._starts) >= MAX_RUNS:
            region = start // REGION_BLOCKS
            if len(self._maps) < MAX_MAPS and region == (end - 1) // REGION_BLOCKS:
                self._make_map(region)
                self._fill_map(region, start, end)
            return
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def _remove_run(self, start: int, end: int) -> None:
        """Cut [start, end) out of the runs."""
        low = bisect_right(self._ends, start)
        high = bisect_left(self._starts, end)
        if low >= high:
            return
        pieces = [
            (first, last) for first, last in ((self._starts[low], start), (end, self._ends[high - 1])) if first < last
        ]
        self._starts[low:high] = [first for first, _ in pieces]
        self._ends[low:high] = [last for _, last in pieces]

    def _make_map(self, region: int) -> None:
        """Turn `region`, which has none, from runs into a bit map."""
        base = region * REGION_BLOCKS
        low = bisect_right(self._ends, base)
        high = bisect_left(self._starts, base + REGION_BLOCKS)
        self._maps[region] = bitarray(endian="big")
        for first, last in zip(self._starts[low:high], self._ends[low:high], strict=True):
            self._fill_map(region, first, last)
        self._remove_run(base, base + REGION_BLOCKS)

    def _add_piece(self, region: int, offset: int, piece: bitarray) -> None:
        """Add the set bits of `piece`, which starts `offset` blocks into `region`."""
        last = piece.find(1, right=True)
        if last < 0:
            return
        del piece[last + 1 :]
        start = region * REGION_BLOCKS + offset
        if piece.all():
            self.add(start, start + len(piece))
            return
        if region not in self._maps:
            if len(self._maps) >= MAX_MAPS:
                return
            self._make_map(region)
        bits = self._maps[region]
        if offset + len(piece) > len(bits):
            bits.extend(zeros(offset + len(piece) - len(bits), "big"))
        bits[offset : offset + len(piece)] |= piece
        self.length = max(self.length, start + len(piece))

    def _highest(self, below: int) -> int:
        """Return the highest member + 1, knowing that no member is at `below` or above."""
        highest = self._ends[-1] if self._ends else 0
        if highest and (highest - 1) // REGION_BLOCKS in self._maps:
            highest = self._last_outside_maps(len(self._ends) - 1)
        for region, bits in self._maps.items():
            last = bits.find(1, right=True)
            if last >= 0:
                highest = max(highest, region * REGION_BLOCKS + last + 1)
        return min(highest, below)

    def _last_outside_maps(self, at: int) -> int:
        """Return the end of the last part of the runs up to number `at` that no bit map overrules, or 0."""
        while at >= 0:
            end = self._ends[at]
            while end > self._starts[at]:
                region = (end - 1) // REGION_BLOCKS
                if region not in self._maps:
                    return end
                end = region * REGION_BLOCKS
            at -= 1
        return 0
