"""Which bytes of a drive are held here; fetching them to keep, and dropping them.

A path that is a file means that file, a directory means every file below it, nested drives included. Files without
content and plain feeds that are mounted as files are left out.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

from ddrive.drive.paths import DrivePath, drive_path
from ddrive.drive.view import DriveView
from ddrive.feed import Feed


class Usage(NamedTuple):
    """How much of a file is held: `held_blocks` of its `blocks`."""

    size: int
    blocks: int
    held_blocks: int


async def usage(drive: DriveView, path: str = "/") -> dict[DrivePath, Usage]:
    """Return how much is held of each file at or below `path`. Raises: NotFound."""
    return {
        where: Usage(size, end - start, feed.held(start, end))
        async for where, feed, start, end, size in _contents(drive, path)
    }


async def download(drive: DriveView, path: str = "/") -> AsyncIterator[tuple[DrivePath, Usage]]:
    """Fetch and keep everything at or below `path`; yields each file when it is complete. Raises: NotFound."""
    async for where, feed, start, end, size in _contents(drive, path):
        await feed.download(start, end)
        yield where, Usage(size, end - start, feed.held(start, end))


async def clear(drive: DriveView, path: str = "/") -> int:
    """Drop the held bytes of everything at or below `path` and return the number of blocks that went.

    They can be fetched again as long as a peer has them; so nothing is dropped of a drive of our own.
    Raises: NotFound, NotWritable when the files belong to another process.
    """
    dropped = 0
    async for _, feed, start, end, _ in _contents(drive, path):
        if not feed.writable:
            dropped += feed.held(start, end)
            feed.clear(start, end)
    return dropped


async def _contents(drive: DriveView, path: str) -> AsyncIterator[tuple[DrivePath, Feed, int, int, int]]:
    """Yield path, feed, first block, end and size of the files with content at or below `path`."""
    start = drive_path(path)
    if not (await drive.stat(start)).is_dir:
        files = [start]
    else:
        files = [where async for where, stat in drive.walk(start) if stat.is_file and stat.blocks and not stat.mount]
    for where in files:
        reader = await drive.open(where)
        extent = reader.extent
        if extent.size:
            yield where, reader.feed, extent.offset, extent.offset + extent.blocks, extent.size
