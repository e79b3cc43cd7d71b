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

from ddrive.feed.hashing import leaf_hash
from ddrive.feed.storage import Storage
from ddrive.ids import Node

JOB_BLOCKS = 8  # read by one thread in one go: a hand-over costs about as much as hashing one block
MAX_AHEAD_BYTES = 8 * 1024 * 1024  # of one feed, read and not yet taken
BEHIND_BYTES = 4 * 1024 * 1024  # dropped once more with each job: the kernel only drops whole pages, of up to 2 MiB


class _Job(NamedTuple):
    first: int
    sizes: tuple[int, ...]
    blocks: Future[list[bytes | None]]


class LoadAhead:
    """The loaded blocks of one feed, by index. Called from one thread; only the loading happens in others."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._jobs: dict[int, _Job] = {}  # by block, in the order of loading
        self._bytes = 0

    def has(self, index: int) -> bool:
        """Tell whether block `index` is loaded or being loaded."""
        return index in self._jobs

    def load(self, data: Storage, offset: int, leaves: Sequence[Node]) -> None:
        """Start loading neighbouring blocks, given their leaves and the place of the first one in `data`."""
        first = leaves[0].number >> 1
        job = _Job(first, tuple(leaf.size for leaf in leaves), self._executor.submit(_load, data, offset, leaves))
        for index, size in enumerate(job.sizes, first):
            self._jobs[index] = job
            self._bytes += size
        while self._bytes > MAX_AHEAD_BYTES:
            self._forget(next(iter(self._jobs)))

    def take(self, index: int) -> bytes | None:
        """Return a loaded block, waiting for its thread; None when it was not loaded or does not verify."""
        job = self._forget(index)
        return None if job is None or job.blocks.cancelled() else job.blocks.result()[index - job.first]

    def close(self) -> None:
        """Drop everything; no thread uses the files of the feed afterwards."""
        jobs = {id(job): job for job in self._jobs.values()}.values()
        self._jobs.clear()
        self._bytes = 0
        wait([job.blocks for job in jobs if not job.blocks.cancel()])

    def _forget(self, index: int) -> _Job | None:
        job = self._jobs.pop(index, None)
        if job is not None:
            self._bytes -= job.sizes[index - job.first]
        return job


def _load(data: Storage, offset: int, leaves: Sequence[Node]) -> list[bytes | None]:
    size = sum(leaf.size for leaf in leaves)
    joined = data.read(offset, size)
    blocks: list[bytes | None] = []
    place = 0
    for leaf in leaves:
        block = joined[place : place + leaf.size]
        place += leaf.size
        blocks.append(block if len(block) == leaf.size and leaf_hash(block) == leaf.hash else None)
    offset += size
    behind = max(0, offset - BEHIND_BYTES)
    data.unload(behind, offset - behind)
    return blocks
