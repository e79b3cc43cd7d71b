"""An author and a copy in memory, joined over a stream in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from trio.testing import memory_stream_pair

from ddrive.feed.storage import MemoryDirectory
from ddrive.standalone import Replication, StandaloneFeed, open_feed

BLOCKS = [bytes([index]) * (index + 1) for index in range(20)]


def join(
    one: StandaloneFeed, other: StandaloneFeed, ones: dict[str, Any] | None = None, others: dict[str, Any] | None = None
) -> tuple[Replication, Replication]:
    """Exchange two feeds with each other, with the options of each side; `one` dials."""
    near, far = memory_stream_pair()
    return one.replicate(near, True, **ones or {}), other.replicate(far, False, **others or {})


@asynccontextmanager
async def author_and_copy(
    blocks: list[bytes] = BLOCKS, *, joined: bool = True, **options: Any
) -> AsyncIterator[tuple[StandaloneFeed, StandaloneFeed]]:
    """Open an author's feed with `blocks` and an empty copy, which gets `options` and is sparse by default."""
    options.setdefault("sparse", True)
    async with open_feed(MemoryDirectory()) as author:
        await author.append(list(blocks))
        async with open_feed(MemoryDirectory(), author.key, **options) as copy:
            if joined:
                join(author, copy)
            yield author, copy
