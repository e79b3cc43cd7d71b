"""Storing entries: content first, then the attributes that name it.

Whoever sees a `Stat` can rely on its blocks: they are appended, synced and published before it. Everything here works
on one drive; which one owns a path is found out before.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from ddrive.drive.content import APPEND_BYTES, BLOCK_BYTES, Block, Spare, cut, writing
from ddrive.drive.reader import Extent
from ddrive.drive.stat import Stat, encode_stat
from ddrive.feed import Feed
from ddrive.trie import Delete, Put, Trie

Content = Block | bytearray | Iterable[Block] | AsyncIterable[Block]


class NewEntry(NamedTuple):
    """An entry to store at `path`; where its content lies is filled in when `blocks` are appended.

    One that is `placed` has its content where `stat` says already.
    """

    path: str
    stat: Stat
    blocks: Sequence[Block] = ()
    placed: bool = False


def new_stat(mode: int, *, mtime_ms: int | None = None, **fields: Any) -> Stat:
    """Return the attributes of something made now."""
    now_ms = time.time_ns() // 1_000_000
    return Stat(mode, mtime_ms=now_ms if mtime_ms is None else mtime_ms, ctime_ms=now_ms, **fields)


def located(stat: Stat, extent: Extent) -> Stat:
    """Return `stat` of a file whose content is at `extent`."""
    return stat._replace(size=extent.size, blocks=extent.blocks, offset=extent.offset, byte_offset=extent.byte_offset)


async def store(
    trie: Trie, content: Feed, entries: Sequence[NewEntry], removed: Sequence[str] = (), *, spare: Spare | None = None
) -> None:
    """Append the content of all entries at once, then store all entries and remove `removed` as one change.

    What is there to `spare` is not appended again. Raises: NotWritable, InvalidPath, OSError of the disk.
    """
    async with writing(content, spare) as written:
        await written.write([block for entry in entries for block in entry.blocks])
        start = written.extent
        offset, byte_offset = start.offset, start.byte_offset
        puts: list[Put | Delete] = [Delete(path) for path in removed]
        for entry in entries:
            stat = entry.stat
            if not stat.is_symlink and not entry.placed:
                size = sum(map(len, entry.blocks))
                stat = located(stat, Extent(offset, len(entry.blocks), byte_offset, size))
                offset += len(entry.blocks)
                byte_offset += size
            puts.append(Put(entry.path, encode_stat(stat)))
        await trie.batch(puts)


async def store_stream(
    trie: Trie,
    content: Feed,
    path: str,
    stat: Stat,
    groups: AsyncGenerator[Sequence[Block], None],
    *,
    spare: Spare | None = None,
    store_entry: Callable[[Stat], Awaitable[Stat]] | None = None,
) -> Stat:
    """Append a file of any size, group of blocks by group, then store its entry; return its attributes.

    `groups` is closed at the end. When it fails nothing is stored. What is there to `spare` is not appended again.
    Who has to look first at what is at `path` gives `store_entry`, which stores the attributes and returns them.
    Raises: as `store`, and what `groups` raises.
    """
    async with aclosing(groups), writing(content, spare) as written:
        async for group in groups:
            await written.write(group)
        stat = located(stat, written.extent)
        if store_entry is not None:
            return await store_entry(stat)
        await trie.put(path, encode_stat(stat))
    return stat


async def grouped(blocks: AsyncGenerator[Block, None]) -> AsyncGenerator[Sequence[Block], None]:
    """Yield blocks in groups of about `APPEND_BYTES`."""
    group: list[Block] = []
    size = 0
    async with aclosing(blocks):
        async for block in blocks:
            group.append(block)
            size += len(block)
            if size >= APPEND_BYTES:
                yield group
                group, size = [], 0
    if group:
        yield group


async def blocks_of(content: Content) -> AsyncGenerator[Block, None]:
    """Yield the bytes of `content` in blocks of `BLOCK_BYTES`, the last one smaller."""
    if isinstance(content, bytes | bytearray | memoryview):
        for block in cut(memoryview(content)):
            yield block
        return
    rest = bytearray()
    async with aclosing(_each(content)) as chunks:
        async for chunk in chunks:
            rest += chunk
            if len(rest) >= BLOCK_BYTES:
                whole = len(rest) - len(rest) % BLOCK_BYTES
                for block in cut(bytes(rest[:whole])):
                    yield block
                del rest[:whole]
    if rest:
        yield bytes(rest)


async def _each(chunks: Iterable[Block] | AsyncIterable[Block]) -> AsyncGenerator[Block, None]:
    """Yield from either kind of iterable."""
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk
