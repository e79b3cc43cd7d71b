"""Blocks that threads read and check before they are asked for.

A reader that goes through a file in order is bound by hashing: 49 us for 64 KiB on one core. hashlib and `pread` let go
of the interpreter lock meanwhile, so a second core can do that work while the first one serves requests. What is
loaded ahead is bounded, and given away once.

What such a reader leaves behind is dropped from the kernel's cache of our files: a mount's bytes stay in the cache of
the mount, and memory that is used again costs less than fresh memory (0.9 of 1.5 s of system time per 512 MiB).
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from typing import NamedTuple

from ddrive.feed.hashing import leaf_hashes
from ddrive.feed.storage import Storage
from ddrive.ids import Node

LARGE_BYTES = 16 * 1024  # of a block on average: from here on checking it takes longer than handing it to a thread
JOB_BLOCKS = 16  # read by one thread in one go: a hand-over costs as much as hashing some
JOB_BYTES = 1024 * 1024  # the same, where blocks are large: what the kernel asks a mount for at a time
JOBS_AHEAD = 3  # of who reads in order: one is waited for, the others keep two threads busy
MAX_AHEAD_BYTES = 8 * 1024 * 1024  # of one feed, read and not yet taken
BEHIND_BYTES = 4 * 1024 * 1024  # dropped once more with each job: the kernel only drops whole pages, of up to 2 MiB


class InOrder:
    """Notices a program that reads one block after the other."""

    def __init__(self) -> None:
        self._following = 0  # the block behind the one that was read last
        self._count = 0

    def ahead_of(self, index: int) -> range:
        """Take note that block `index` was read; return the blocks to load now, mostly none."""
        self._count = self._count + 1 if index == self._following else 1
        self._following = index + 1
        return range(index + 1, index + 1 + (0 if self._count % JOB_BLOCKS else JOBS_AHEAD * JOB_BLOCKS))


class _Loaded(NamedTuple):
    content: bytes  # of all blocks of a job
    verified: tuple[bool, ...]  # of each block, whether it agrees with its leaf


class _Job(NamedTuple):
    first: int
    offset: int  # of the first block in the content of the feed
    sizes: tuple[int, ...]
    stamp: int
    loaded: Future[_Loaded]


class Run(NamedTuple):
    """The content of some blocks that were loaded together, where it lies, and the stamp that was taken before."""

    content: bytes | memoryview
    offset: int
    blocks: int
    stamp: int


class LoadAhead:
    """The loaded blocks of one feed, by index. Called from one thread; only the loading happens in others."""

    def __init__(self, executor: Executor, *, unload: bool) -> None:
        """`unload`: whether what was read is dropped from the kernel's cache, as it is in that of a mount then."""
        self._executor = executor
        self._unload = unload
        self._jobs: dict[int, _Job] = {}  # by block, in the order of loading
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many blocks are loaded or being loaded."""
        return len(self._jobs)

    def has(self, index: int) -> bool:
        """Tell whether block `index` is loaded or being loaded."""
        return index in self._jobs

    def load(self, data: Storage, offset: int, leaves: Sequence[Node], stamp: int = 0) -> None:
        """Start loading neighbouring blocks, given their leaves and the place of the first one in `data`."""
        first = leaves[0].number >> 1
        loaded = self._executor.submit(_load, data, offset, leaves, self._unload)
        job = _Job(first, offset, tuple(leaf.size for leaf in leaves), stamp, loaded)
        for index, size in enumerate(job.sizes, first):
            self._jobs[index] = job
            self._bytes += size
        while self._bytes > MAX_AHEAD_BYTES:
            self._forget(next(iter(self._jobs)))

    def take(self, index: int) -> Run | None:
        """Return a loaded block, waiting for its thread; None when it was not loaded or does not verify."""
        run = self.take_run(index, 0)
        if run is None:
            self._forget(index)
        return run

    def take_run(self, index: int, max_bytes: int) -> Run | None:
        """Return blocks from `index` on that were loaded together, and how many: those within `max_bytes`, or one.

        None as with `take`. The bytes are not copied: what is given out keeps all that was loaded together in memory.
        """
        job = self._jobs.get(index)
        if job is None or job.loaded.cancelled():
            return None
        if job.loaded.exception() is not None:  # maybe not for ever: whoever reads the block itself is told
            for failed in range(job.first, job.first + len(job.sizes)):
                self._forget(failed)
            return None
        content, verified = job.loaded.result()
        position = index - job.first
        start = end = sum(job.sizes[:position])
        count = 0
        for size, is_good in zip(job.sizes[position:], verified[position:], strict=True):
            if not is_good or (count and end + size - start > max_bytes) or self._jobs.get(index + count) is not job:
                break
            end += size
            count += 1
        for taken in range(index, index + count):
            self._forget(taken)
        if not count:
            return None
        taken_bytes = content if end - start == len(content) else memoryview(content)[start:end]
        return Run(taken_bytes, job.offset + start, count, job.stamp)

    def close(self) -> None:
        """Drop everything; no thread uses the files of the feed afterwards."""
        jobs = {id(job): job for job in self._jobs.values()}.values()
        self._jobs.clear()
        self._bytes = 0
        wait([job.loaded for job in jobs if not job.loaded.cancel()])

    def _forget(self, index: int) -> None:
        job = self._jobs.pop(index, None)
        if job is not None:
            self._bytes -= job.sizes[index - job.first]


def _load(data: Storage, offset: int, leaves: Sequence[Node], unload: bool) -> _Loaded:
    size = sum(leaf.size for leaf in leaves)
    content = data.read(offset, size)
    view = memoryview(content)
    blocks: list[memoryview] = []
    place = 0
    for leaf in leaves:
        blocks.append(view[place : place + leaf.size])
        place += leaf.size
    digests = leaf_hashes(blocks)  # which tell a block that is cut off, too: the size is a part of what is hashed
    if unload:
        offset += size
        behind = max(0, offset - BEHIND_BYTES)
        data.unload(behind, offset - behind)
    return _Loaded(content, tuple(digest == leaf.hash for digest, leaf in zip(digests, leaves, strict=True)))
