"""Reading a file's bytes out of the blocks of a content feed.

What is held is read without a single await. What is missing is asked for as blocks: those that hold the bytes of this
read, and, when reads follow each other, a window ahead of them (`readahead`). The numbers of a `Stat` come from the
author of the drive and are checked against the verified feed: a reader gets the right bytes or an error, never fewer.
"""

from collections.abc import Coroutine
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import trio

from ddrive.drive.lifetime import Lifetime
from ddrive.drive.readahead import ReadAhead
from ddrive.drive.stat import Stat
from ddrive.errors import BadHandle, CorruptStorage, ImpossibleEntry, NoPeers
from ddrive.feed import MAX_LENGTH, Feed

NUMBER_MAX = 1 << 53  # sizes and positions beyond it are nonsense; the peers cannot even count that far
SMALL_BYTES = 16 * 1024  # of a read: it may be spared the whole block
BEHIND_S = 3.0  # for blocks behind the end of a feed of which a connected peer has all: they may just be on their way
YIELD_EVERY = 64  # reads without waiting before other tasks get their turn
_USUAL_BLOCK_BYTES = (65536, 524288)  # what our writers and the npm peers cut files into


class Extent(NamedTuple):
    """Where the bytes of a file are: in `blocks` blocks of a feed from `offset` on, which starts at `byte_offset`."""

    offset: int
    blocks: int
    byte_offset: int
    size: int


class _Place(NamedTuple):
    """A block of the file: its number in the feed, and the position of its first byte in the file."""

    block: int
    start: int


def extent_of(stat: Stat) -> Extent:
    """Return where `stat` says the bytes are; what has no blocks is empty. Raises: ImpossibleEntry for nonsense."""
    size = stat.size
    too_large = max(size, stat.byte_offset + size) > NUMBER_MAX or stat.offset + stat.blocks > MAX_LENGTH
    if too_large or (size and not stat.blocks):
        raise ImpossibleEntry(f"the attributes claim {stat.size} bytes in {stat.blocks} blocks, which cannot be")
    return Extent(stat.offset, stat.blocks, stat.byte_offset, size)


class _Needed(ExitStack):
    """The wish for the blocks of one read. It stands until the read is done: nothing in flight is cancelled between."""

    def __init__(self) -> None:
        super().__init__()
        self._until = 0

    def wish(self, feed: Feed, start: int, end: int) -> None:
        """Wish for the blocks from `start` to `end`, unless that has been done or one block is all there is."""
        if end > max(self._until, start + 1):
            self.enter_context(feed.want(start, end, urgent=True))
            self._until = end


class FileReader:
    """An open file. It keeps showing the content it was opened with. Reads may run at the same time.

    `name` is used in messages only. With `lifetime`, that of a drive, it ends when the drive is closed.
    """

    def __init__(self, feed: Feed, extent: Extent, name: str = "", lifetime: Lifetime | None = None) -> None:
        self.feed = feed
        self._lifetime = lifetime or Lifetime()
        self.extent = extent
        self.size = extent.size
        self._name = name
        self._first = extent.offset
        self._last = extent.offset + extent.blocks  # exclusive
        self._block_bytes = _usual_block_bytes(extent)
        self._mean_bytes = self._block_bytes or max(1, self.size // max(1, extent.blocks))
        self._ahead = ReadAhead(feed, self._last, self._mean_bytes)
        self._place = _Place(self._first, 0)  # of the block read last: sequential reads go on from it
        self._data: bytes | memoryview | None = None  # its bytes, and those of the blocks behind it that came with it
        self._following = self._first  # the block behind those; `_data` is None when nothing was read yet
        self._reads = 0
        self._checked = False
        self._fits: bool | None = None  # whether it ends where its last block is known to end, once that was looked at
        self._closed = False

    async def read(self, offset: int, size: int) -> bytes:
        """Return the bytes `offset` up to `offset + size`; fewer only where the file ends.

        Waits for missing blocks as long as the caller does.
        Raises: ImpossibleEntry when the feed does not hold what the entry claims; BadHandle after `aclose`;
        Closed when the drive is.
        """
        self._reads += 1
        if not self._reads % YIELD_EVERY:
            await trio.lowlevel.checkpoint()
        found = self.begin_read(offset, size)
        return found if isinstance(found, bytes) else await found

    def begin_read(self, offset: int, size: int) -> bytes | Coroutine[Any, Any, bytes]:
        """Return what `read` does if all of it is here, else what waits for the rest; for who watches over waiting.

        Raises as `read`, which gives other tasks their turn besides.
        """
        if self._closed:
            raise BadHandle(f"{self._name} is closed")
        if self._lifetime.ended:
            self._lifetime.check()
        end = min(offset + size, self.size)
        if offset < 0 or offset >= end:
            return b""
        if not self._checked:
            return self._read_checked(offset, end)
        self._ahead.note(offset, end)
        if (part := self._part(offset, end)) is not None:
            return part
        parts: list[bytes | memoryview] = []
        position = offset
        while position < end:
            data = self._read_held(position, end)
            if data is None:
                return self._read_rest(parts, position, end)
            position = self._take(parts, data, position, end)
        return _joined(parts)

    async def _read_checked(self, offset: int, end: int) -> bytes:
        await self._check()
        self._ahead.note(offset, end)
        return await self._read_rest([], offset, end)

    async def _read_rest(self, parts: list[bytes | memoryview], position: int, end: int) -> bytes:
        """Return `parts`, which end at `position`, with all up to `end` behind them."""
        with _Needed() as needed:
            while position < end:
                data = self._read_held(position, end)
                if data is None:
                    data = await self._lifetime.wait(partial(self._fetch, position, end, needed))
                position = self._take(parts, data, position, end)
        return _joined(parts)

    def _take(self, parts: list[bytes | memoryview], data: bytes | memoryview, position: int, end: int) -> int:
        """Add to `parts` what a read from `position` up to `end` needs of `data`; return where that ends."""
        begin = position - self._place.start
        taken = data[begin : begin + end - position] if begin or len(data) > end - position else data
        parts.append(taken)
        return position + len(taken)

    def held(self, offset: int, size: int) -> bool:
        """Tell whether these bytes can be read without asking anybody."""
        blocks = self._blocks(offset, size)
        return blocks is not None and self.feed.held(blocks.start, blocks.stop) == len(blocks)

    def damaged(self, offset: int, size: int) -> bool:
        """Tell whether some of these bytes were here and are damaged; what was dropped since is just not held."""
        blocks = self._blocks(offset, size)
        return blocks is not None and self.feed.log.gone_bad(blocks.start, blocks.stop)

    def _blocks(self, offset: int, size: int) -> range | None:
        """Return in which blocks these bytes are, None when that is not known."""
        end = min(offset + size, self.size)
        if offset >= end:
            return range(0)
        blocks: list[int] = []
        for position in (offset, end - 1):
            place = self._locate(position)
            if place is None:
                return None
            found = self.feed.locate(self.extent.byte_offset + position)  # passes over empty blocks, as reading does
            blocks.append(place.block if found is None or found[0] >= self._last else max(place.block, found[0]))
        return range(blocks[0], blocks[1] + 1)

    async def aclose(self) -> None:
        """Withdraw every wish. Closing twice is fine."""
        self._closed = True
        self._data = None
        self._ahead.stop()

    def _part(self, position: int, end: int) -> bytes | None:
        """Return what a small read, one that follows no other, needs of a block that was checked before, else None."""
        if self._ahead.in_run or end - position > SMALL_BYTES:
            return None
        if self._data is not None and 0 <= position - self._place.start < len(self._data):
            return None  # in memory already
        base, near = self.extent.byte_offset, self._first + position // self._mean_bytes
        data = self.feed.get_held_part(base + position, base + end, near)
        return data if data is not None and self._is_inside(end) else None

    def _is_inside(self, end: int) -> bool:
        """Tell whether the bytes before `end` are known to lie in the blocks of the file, whatever its entry claims."""
        base = self.extent.byte_offset
        if self._fits is None:
            self._fits = self.feed.locate(base + self.size) == (self._last, 0)
        if self._fits:
            return True
        found = self.feed.locate(base + end - 1)
        return found is not None and found[0] < self._last

    def _read_held(self, position: int, end: int) -> bytes | memoryview | None:
        """Return the block that holds byte `position` when all that is needed is here, and remember it.

        Blocks behind it that were loaded with it come with it.
        """
        if self._data is not None and 0 <= position - self._place.start < len(self._data):
            return self._data
        place = self._locate(position)
        if place is None:
            return None
        loaded = self.feed.loaded_run(place.block, end - place.start)
        data, blocks = loaded if loaded is not None else (self._block_held(place.block), 1)
        if not data:  # missing, or an empty block that seeking leaves out
            return None
        self._ahead.fetch_from(place.block, end - place.start)
        return self._remember(place, position, data, blocks)

    async def _fetch(self, position: int, end: int, needed: _Needed) -> bytes | memoryview:
        """Return the block that holds byte `position`, waiting for it, and remember it.

        Raises: NoPeers when it lies behind the end of the feed, as far as peers who have all of that tell.
        """
        if self._is_behind(position):
            place = self._locate(position) or self._guess(position)
            if place is not None:  # as long as the read lasts
                needed.enter_context(self.feed.want(place.block, place.block + 1, urgent=True))
            with trio.move_on_after(BEHIND_S):
                return await self._obtain(position, end, needed)
            is_whole = await self.feed.ends()
            await self._check()  # more is known of the feed by now
            if is_whole and self._is_behind(position):
                raise NoPeers(
                    f"{self._name or 'the file'} lies in blocks {self._first} to {self._last} of its feed, of which"
                    f" nobody knows more than {self.feed.length}: try again when its author is connected"
                )
        return await self._obtain(position, end, needed)

    def _is_behind(self, position: int) -> bool:
        """Tell whether byte `position` lies behind what the feed is known to have, by its number or by its block."""
        if self.extent.byte_offset + position >= self.feed.byte_length:
            return True
        place = self._locate(position) or self._guess(position)
        return place is not None and place.block >= self.feed.length

    async def _obtain(self, position: int, end: int, needed: _Needed) -> bytes | memoryview:
        """Return the block that holds byte `position`, waiting for it as long as that takes, and remember it.

        Where it is may be unknown, or told by a peer's nodes that only the block itself proves: so the likely block is
        fetched first, and when its proof shows that the byte lies elsewhere, the byte is sought.
        """
        place = self._locate(position) or self._guess(position)
        if place is not None:
            data = await self._get(place, end, needed)
            if data and self._locate(position) == place:
                return self._remember(place, position, data)
        place = await self._seek(position)
        return self._remember(place, position, await self._get(place, end, needed))

    async def _get(self, place: _Place, end: int, needed: _Needed) -> bytes:
        """Return a block of the file; the others that a read up to `end` needs are asked for at the same time."""
        index = place.block
        data = self._block_held(index)
        if data is None:
            self._ahead.fetch_from(index, end - place.start)
            needed.wish(self.feed, index, self._ahead.blocks_to(index, end - place.start))
            data = await self.feed.get(index)
        return data

    def _block_held(self, index: int) -> bytes | None:
        """Return a block if it is here; one that was damaged on disk counts as missing while a peer can replace it."""
        try:
            return self.feed.get_held(index)
        except CorruptStorage:
            if not self.feed.peer_count:
                raise
            return None

    def _remember(self, place: _Place, position: int, data: bytes | memoryview, blocks: int = 1) -> bytes | memoryview:
        """Keep a block, or some in a row, for the next read; return `data`.

        Raises: ImpossibleEntry when it ends before `position`.
        """
        reached, following = place.start + len(data), place.block + blocks
        if reached <= position or (following == self._last and reached < self.size):
            raise self._mismatch(f"its blocks end at byte {reached}")
        self._place, self._data, self._following = place, data, following
        return data

    def _locate(self, position: int) -> _Place | None:
        """Return the block of byte `position` if that is known here; an empty block may stand before it.

        Raises: ImpossibleEntry when it lies outside the blocks of the file.
        """
        if position == 0 or self.extent.blocks == 1:
            return _Place(self._first, 0)
        if self._data is not None and position == self._place.start + len(self._data):
            return self._checked_place(self._following, position)
        found = self.feed.locate(self.extent.byte_offset + position)
        return None if found is None else self._checked_place(found[0], position - found[1])

    def _guess(self, position: int) -> _Place | None:
        """Return where the byte is if the file was cut as usual: right or not, it saves one round trip mostly."""
        if not self._block_bytes:
            return None
        number = position // self._block_bytes
        return _Place(self._first + number, number * self._block_bytes)

    async def _seek(self, position: int) -> _Place:
        """Return the block of byte `position`, never an empty one, asking a peer for what that takes."""
        index, rest = await self.feed.seek(self.extent.byte_offset + position, start=self._first, end=self._last)
        return self._checked_place(index, position - rest)

    def _checked_place(self, index: int, start: int) -> _Place:
        if not self._first <= index < self._last:
            raise self._mismatch(f"byte {start} is not in its blocks")
        return _Place(index, start)

    async def _check(self) -> None:
        """Compare the entry with the lengths that are proven. Raises: ImpossibleEntry."""
        feed, extent = self.feed, self.extent
        if feed.writable and feed.length < self._last:
            await feed.refresh()  # a view of our own feed may be told a moment late
            if feed.length < self._last:
                raise self._mismatch(f"its feed has only {feed.length} blocks")
        if self._last <= feed.length:
            if extent.byte_offset + extent.size > feed.byte_length:
                raise self._mismatch(f"its feed has only {feed.byte_length} bytes")
            start = feed.locate(extent.byte_offset)
            if start is not None and (start[1] or not self._first <= start[0] < self._last):
                raise self._mismatch(f"block {self._first} of its feed starts elsewhere")
            self._checked = True
        elif self._first >= feed.length and extent.byte_offset < feed.byte_length:
            raise self._mismatch(f"block {self._first} of its feed starts behind byte {feed.byte_length}")

    def _mismatch(self, found: str) -> ImpossibleEntry:
        extent = self.extent
        return ImpossibleEntry(
            f"{self._name or 'the file'} should be {extent.size} bytes in blocks {extent.offset} to {self._last}"
            f" from byte {extent.byte_offset} of its feed, but {found}"
        )


def _joined(parts: list[bytes | memoryview]) -> bytes:
    return parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else b"".join(parts)


def _usual_block_bytes(extent: Extent) -> int:
    """Return the block size with which `extent` has as many blocks as it has, 0 when it is none of the usual ones."""
    return next((size for size in _USUAL_BLOCK_BYTES if -(-extent.size // size) == extent.blocks), 0)
