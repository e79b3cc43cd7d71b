"""Which feed holds a drive's bytes, and appending files to it one at a time.

The blocks of a file lie side by side. So within this process a file keeps its feed's lock from its first block until
its `Stat` is stored. Other processes append small files in between, each with one append, as long as nobody has
reserved the end of the feed; who appends a large file does (`Feed.reserve`). When that took too long for others, or an
engine died, the length tells that somebody went between (compare-and-swap), and what was appended of the file so far is
appended once more.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import trio

from ddrive.drive.reader import Extent
from ddrive.errors import LengthChanged, Unsupported
from ddrive.feed import Feed
from ddrive.feed.file_blocks import loaded, sizes_of
from ddrive.ids import BlockIndex, PublicKey, short
from ddrive.store.interface import Store

BLOCK_BYTES = 64 * 1024  # of the files we write
APPEND_BYTES = 16 * 1024 * 1024  # appended at once, with one signature and one sync
COMPARED_BLOCKS = 64  # read together
LARGE_BYTES = 2 * 1024 * 1024  # more than that may go in several appends: others wait meanwhile
KEY_BYTES = 32

Block = bytes | memoryview

_locks: WeakKeyDictionary[Feed, trio.Lock] = WeakKeyDictionary()


def content_name(metadata_key: PublicKey) -> str:
    """Return the name from which a store derives the content feed of the drive `metadata_key`."""
    return f"{metadata_key.hex()}-content"


async def content_feed(store: Store, drive_key: PublicKey, header: bytes | None) -> Feed:
    """Return the content feed of a drive, given the metadata of its trie header.

    Raises: Unsupported when the header names no feed: the feed is no drive.
    """
    if header is None or len(header) != KEY_BYTES:
        raise Unsupported(f"the feed {short(drive_key)} is not a drive: its header names no content feed")
    return await store.open_feed(key=PublicKey(header))


def cut(data: Block, block_bytes: int = BLOCK_BYTES) -> Iterator[memoryview]:
    """Yield `data` in blocks; nothing when it is empty."""
    view = memoryview(data)
    for start in range(0, len(view), block_bytes):
        yield view[start : start + block_bytes]


class Spare:
    """Blocks of a content feed that no entry names: what an interrupted write has appended. They are used once.

    `start` and `byte_start` tell where they begin; they go up to the feed's end.
    """

    def __init__(self, feed: Feed, start: int, byte_start: int) -> None:
        self.start = start
        self.byte_start = byte_start
        self._feed = feed
        self._end = feed.length

    async def take(self, blocks: Sequence[Block]) -> int:
        """Return how many of the first `blocks` need not be appended, as they are what comes next here.

        When something else comes next, nothing can be taken any more.
        """
        count = min(len(blocks), self._end - self.start)
        if self._feed.held(self.start, self.start + count) < count or not await self._are_next(blocks[:count]):
            self._end = self.start
            return 0
        self.start += count
        self.byte_start += sum(sizes_of(blocks[:count]))
        return count

    async def _are_next(self, blocks: Sequence[Block]) -> bool:
        for start in range(0, len(blocks), COMPARED_BLOCKS):
            for index, block in enumerate(await loaded(blocks[start : start + COMPARED_BLOCKS]), self.start + start):
                if await self._feed.get(BlockIndex(index)) != block:
                    return False
        return True


class FileWriter:
    """Appends the blocks of one file (or of several files, as one run) to a content feed; given by `writing`."""

    def __init__(self, feed: Feed, spare: Spare | None = None, *, began: float | None = None) -> None:
        self._feed = feed
        self._spare = spare
        self._began = began  # when its first block was appended
        self._is_reserved = False
        self._start = 0
        self._byte_start = 0
        self._blocks = 0
        self._size = 0

    @property
    def extent(self) -> Extent:
        """Where everything written so far is. Without a block: where the feed ends."""
        if not self._blocks:
            return Extent(self._feed.length, 0, self._feed.byte_length, 0)
        return Extent(self._start, self._blocks, self._byte_start, self._size)

    async def write(self, blocks: Sequence[Block]) -> None:
        """Append `blocks`, durable on return. Raises: NotWritable, TooLarge, SourceChanged, OSError of the disk."""
        if self._spare is not None:
            start, byte_start = self._spare.start, self._spare.byte_start
            if taken := await self._spare.take(blocks):
                self._count(start, byte_start, blocks[:taken])
                blocks = blocks[taken:]
        if not self._is_reserved and (self._blocks or sum(sizes_of(blocks)) > LARGE_BYTES):
            await self._reserve()
        while blocks:
            length, byte_length = self._feed.length, self._feed.byte_length
            if self._blocks and length != self._start + self._blocks:
                await self._again()
                continue
            try:
                await self._feed.append(blocks, expected_length=length, atomic=False)
            except LengthChanged:
                await self._reserve()
                continue
            await self._feed.wait_length(length + len(blocks))  # a view may be told of it a moment later
            self._count(length, byte_length, blocks)
            return

    def end(self) -> None:
        """Let others append."""
        if self._is_reserved:
            self._feed.unreserve()

    def _count(self, start: int, byte_start: int, blocks: Sequence[Block]) -> None:
        """Take note that `blocks` are at `start`, behind those that were written before."""
        if not self._blocks:
            self._start, self._byte_start = start, byte_start
            self._began = self._began or trio.current_time()
        self._blocks += len(blocks)
        self._size += sum(sizes_of(blocks))

    async def _reserve(self) -> None:
        """Return when it is up to us to append, and the length is known that the feed has now."""
        self._is_reserved = True
        await self._feed.reserve(0.0 if self._began is None else trio.current_time() - self._began)

    async def _again(self) -> None:
        """Append what was written so far once more at the end; somebody else appended behind it."""
        await self._reserve()
        length, byte_length = self._feed.length, self._feed.byte_length
        old = range(self._start, self._start + self._blocks)
        fresh = FileWriter(self._feed, began=self._began)
        fresh._start, fresh._byte_start, fresh._is_reserved = length, byte_length, True
        group: list[bytes] = []
        for index in old:
            group.append(await self._feed.get(index))
            if sum(map(len, group)) >= APPEND_BYTES or index == old[-1]:
                await fresh.write(group)
                group = []
        self._start, self._byte_start = fresh._start, fresh._byte_start


@asynccontextmanager
async def writing(feed: Feed, spare: Spare | None = None) -> AsyncIterator[FileWriter]:
    """Give what appends to `feed`, and let nobody else in this process append files meanwhile.

    Stay within until the entry that names the blocks is stored. What is there to `spare` is not appended again.
    """
    async with _locks.setdefault(feed, trio.Lock()):
        written = FileWriter(feed, spare)
        try:
            yield written
        finally:
            written.end()
