"""Blocks that lie in a file: named by their places, and read by whoever appends them.

So a file of any size is appended without going through the memory of the one who asks for it, and without its bytes
crossing a socket: the open file does.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast, overload

import trio

from ddrive.errors import SourceChanged, TimedOut
from ddrive.feed.hashing import Buffer
from ddrive.feed.uncached import read_into

THREADS = 16  # of one kind
TURN_S = 60.0  # while none of them has done its work, until those that wait are told

Found = TypeVar("Found")


class FileThreads:
    """Threads for files of others, each of which may lie where nothing answers any more, and keep its thread for ever.

    They are apart from those for our own files, which must not wait for that.
    """

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(THREADS)
        self._freed = 0  # how often one of them had done its work

    async def run(self, work: Callable[..., Found], *arguments: Any) -> Found:
        """Return what `work` returns in a thread, which is left to itself when the caller is cancelled.

        Raises: TimedOut when all threads are kept by files that do not answer, and what `work` raises.
        """
        limiter = cast(trio.CapacityLimiter, self)  # all that trio wants of one are the methods below
        return await trio.to_thread.run_sync(work, *arguments, limiter=limiter, abandon_on_cancel=True)

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Return when there is a thread for `borrower`. Raises: TimedOut."""
        freed = None
        while freed != self._freed:
            freed = self._freed
            with trio.move_on_after(TURN_S):
                await self._limiter.acquire_on_behalf_of(borrower)
                return
        raise TimedOut(
            f"{THREADS} files that are being stored have not answered for {TURN_S:g} s, and no other can be read: "
            "wait for their disk or network, or start the engine anew"
        )

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give the thread of `borrower` to whoever waits."""
        self._freed += 1
        self._limiter.release_on_behalf_of(borrower)


_threads = FileThreads()


class OpenFile(Protocol):
    """A file that somebody has open."""

    def fileno(self) -> int:
        """Return its descriptor."""


class Place(NamedTuple):
    """Where a block lies: its first byte, and how many there are."""

    offset: int
    size: int


class FileBlocks(Sequence[bytes]):
    """The blocks at some places of an open file, which has to stay open and as it is."""

    def __init__(self, file: OpenFile, places: Sequence[Place]) -> None:
        self.file = file
        self.places = places

    @property
    def sizes(self) -> list[int]:
        """How many bytes each block has."""
        return [place.size for place in self.places]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> "FileBlocks": ...

    def __getitem__(self, index: int | slice) -> "bytes | FileBlocks":
        if isinstance(index, slice):
            return FileBlocks(self.file, self.places[index])
        return bytes(FileBlocks(self.file, [self.places[index]]).load()[0])

    def load(self, buffer: bytearray | None = None) -> list[memoryview]:
        """Return all blocks, read now, those side by side with one call, into a `buffer` of their size if it is given.

        Raises: SourceChanged, OSError.
        """
        memory = memoryview(bytearray(sum(self.sizes)) if buffer is None else buffer)
        start = 0
        for run in _runs(self.places):
            end = start + run.size
            done = start
            while done < end:
                count = read_into(self.file.fileno(), memory[done:end], run.offset + done - start)
                if not count:
                    raise SourceChanged("a file became shorter while it was stored")
                done += count
            start = end
        blocks: list[memoryview] = []
        for size in self.sizes:
            blocks.append(memory[:size])
            memory = memory[size:]
        return blocks


def sizes_of(blocks: Sequence[Buffer]) -> list[int]:
    """Return how many bytes each of some blocks has, without reading those in a file."""
    return blocks.sizes if isinstance(blocks, FileBlocks) else list(map(len, blocks))


async def loaded(blocks: Sequence[Buffer]) -> Sequence[Buffer]:
    """Return blocks that are in memory; those in a file are read in a thread.

    When that is cancelled the thread is left to itself. Raises: SourceChanged, OSError, TimedOut.
    """
    if not isinstance(blocks, FileBlocks):
        return blocks
    buffer = bytearray(sum(blocks.sizes))  # made here, as each thread would keep memory of its own for the next one
    return await _threads.run(blocks.load, buffer)


def _runs(places: Sequence[Place]) -> Iterator[Place]:
    """Yield the places, those side by side as one."""
    run = Place(0, 0)
    for place in places:
        if run.offset + run.size == place.offset:
            run = Place(run.offset, run.size + place.size)
            continue
        if run.size:
            yield run
        run = place
    if run.size:
        yield run
