"""Which feed holds a drive's bytes, and appending files to it one at a time.

The blocks of a file lie side by side. So within this process a file keeps its feed's lock from its first block until
its `Stat` is stored; another process appending to the same feed is noticed by the length (compare-and-swap), and what
was appended of the file so far is appended once more behind the stranger's blocks, when the stranger's file is whole.
"""

from collections.abc import Iterator, Sequence
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
WITHIN_BYTES = 2 * 1024 * 1024  # a large file comes in pieces of more than that, the last one may be smaller
QUIET_S = 0.25  # more than lies between two pieces of one file
PATIENCE_S = 60.0  # with somebody who never pauses; then we go between
KEY_BYTES = 32

Block = bytes | memoryview

_locks: WeakKeyDictionary[Feed, trio.Lock] = WeakKeyDictionary()


def writing(feed: Feed) -> trio.Lock:
    """Return the lock of those who append files to `feed`; hold it until the entry that names the blocks is stored."""
    return _locks.setdefault(feed, trio.Lock())


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
    """Appends the blocks of one file (or of several files, as one run) to a content feed.

    The caller holds `writing(feed)`. Blocks that are there to `spare` are not appended again.
    """

    def __init__(self, feed: Feed, spare: Spare | None = None) -> None:
        self._feed = feed
        self._spare = spare
        self._start = 0
        self._byte_start = 0
        self._blocks = 0
        self._size = 0
        self._is_patient = True

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
        while blocks:
            length, byte_length = self._feed.length, self._feed.byte_length
            if self._blocks and length != self._start + self._blocks:
                await self._again()
                continue
            try:
                await self._feed.append(blocks, expected_length=length, atomic=False)
            except LengthChanged:
                await self._feed.wait_length(length + 1)
                if not self._blocks and self._feed.byte_length - byte_length >= WITHIN_BYTES:
                    await self._until_quiet()
                continue
            await self._feed.wait_length(length + len(blocks))  # a view may be told of it a moment later
            self._count(length, byte_length, blocks)
            return

    def _count(self, start: int, byte_start: int, blocks: Sequence[Block]) -> None:
        """Take note that `blocks` are at `start`, behind those that were written before."""
        if not self._blocks:
            self._start, self._byte_start = start, byte_start
        self._blocks += len(blocks)
        self._size += sum(sizes_of(blocks))

    async def _until_quiet(self) -> None:
        """Return when nobody seems to be within a file, who would have to repeat it because of us.

        That is when little was appended at once, or nothing for a moment.
        """
        is_quiet = not self._is_patient
        with trio.move_on_after(PATIENCE_S) as patience:
            while not is_quiet:
                before = self._feed.byte_length
                with trio.move_on_after(QUIET_S):
                    await self._feed.wait_length(self._feed.length + 1)
                is_quiet = self._feed.byte_length - before < WITHIN_BYTES
        self._is_patient = self._is_patient and not patience.cancelled_caught

    async def _again(self) -> None:
        """Append what was written so far once more at the end; somebody else appended behind it."""
        await self._until_quiet()
        length, byte_length = self._feed.length, self._feed.byte_length
        old = range(self._start, self._start + self._blocks)
        fresh = FileWriter(self._feed)
        fresh._start, fresh._byte_start, fresh._is_patient = length, byte_length, self._is_patient
        group: list[bytes] = []
        for index in old:
            group.append(await self._feed.get(index))
            if sum(map(len, group)) >= APPEND_BYTES or index == old[-1]:
                await fresh.write(group)
                group = []
        self._start, self._byte_start = fresh._start, fresh._byte_start
