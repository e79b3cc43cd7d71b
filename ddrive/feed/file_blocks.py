"""Blocks that lie in a file: named by their places, and read by whoever appends them.

So a file of any size is appended without going through the memory of the one who asks for it, and without its bytes
crossing a socket: the open file does.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, overload

import trio

from ddrive.errors import SourceChanged
from ddrive.feed.hashing import Buffer
from ddrive.feed.uncached import read_into

_threads = trio.CapacityLimiter(16)  # reading; apart from those that write, which must not wait for a slow file


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

    When that is cancelled the thread is left to itself, as a file may lie where nothing answers.
    Raises: SourceChanged, OSError.
    """
    if not isinstance(blocks, FileBlocks):
        return blocks
    buffer = bytearray(sum(blocks.sizes))  # made here, as each thread would keep memory of its own for the next one
    return await trio.to_thread.run_sync(blocks.load, buffer, limiter=_threads, abandon_on_cancel=True)


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
