"""Appending what files of a mount hold to the content feed of their drive."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from ddrive.drive.content import APPEND_BYTES, BLOCK_BYTES, writing
from ddrive.drive.reader import Extent
from ddrive.feed import Feed
from mountd.draft import Content

PIECE_BYTES = 16 * 1024 * 1024  # of a large content appended at once


async def append_contents(feed: Feed, contents: Sequence[Content], calm: Callable[[], Awaitable[None]]) -> None:
    """Append contents that are not in the drive yet, small ones together, and note where they are.

    `calm` is awaited before each piece of a large one.

    Raises: what appending and reading the spool raises; those that are appended are noted.
    """
    group: list[Content] = []
    room = APPEND_BYTES
    for content in contents:
        if content.size > APPEND_BYTES:
            await _append_large(feed, content, calm)
            continue
        if content.size > room:
            await _append_group(feed, group)
            group, room = [], APPEND_BYTES
        group.append(content)
        room -= content.size
    await _append_group(feed, group)


async def _append_group(feed: Feed, contents: Sequence[Content]) -> None:
    if not contents:
        return
    blocks: list[bytes] = []
    for content in contents:
        blocks += await _blocks(content, 0, content.size)
    async with writing(feed) as written:
        await written.write(blocks)
        extent = written.extent
    offset, byte_offset = extent.offset, extent.byte_offset
    for content in contents:
        count = -(-content.size // BLOCK_BYTES)
        content.extent, content.appended_to = Extent(offset, count, byte_offset, content.size), feed.key
        offset += count
        byte_offset += content.size


async def _append_large(feed: Feed, content: Content, calm: Callable[[], Awaitable[None]]) -> None:
    async with writing(feed) as written:
        for start in range(0, content.size, PIECE_BYTES):
            await calm()
            end = min(start + PIECE_BYTES, content.size)
            await written.write(content.blocks(start, end) or await _blocks(content, start, end))
        content.extent, content.appended_to = written.extent, feed.key


async def _blocks(content: Content, start: int, end: int) -> list[bytes]:
    """Return the bytes from `start` up to `end` in blocks."""
    found: list[bytes] = []
    for at in range(start, end, BLOCK_BYTES):
        found.append(await content.read(at, min(BLOCK_BYTES, end - at)))
        await trio.lowlevel.checkpoint()
    return found
