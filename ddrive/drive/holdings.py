"""Which bytes of a drive are held here; fetching them to keep, and dropping them.

A path that is a file means that file, a directory means every file below it, nested drives included. Files without
content and plain feeds that are mounted as files are left out.
"""

from collections.abc import Callable
from typing import NamedTuple

from ddrive.drive.paths import DrivePath, drive_path
from ddrive.drive.view import DriveView
from ddrive.feed import Feed


class Usage(NamedTuple):
    """How much of a file is held: `held_blocks` of its `blocks`."""

    size: int
    blocks: int
    held_blocks: int


Done = Callable[[DrivePath, Usage], None]


async def usage(drive: DriveView, path: str = "/") -> dict[DrivePath, Usage]:
    """Return how much is held of each file at or below `path`. Raises: NotFound."""
    return {content.path: content.usage() for content in await _contents(drive, path)}


async def download(drive: DriveView, path: str = "/", *, done: Done | None = None) -> None:
    """Fetch and keep everything at or below `path`; `done` is called for each file that is complete.

    Raises: NotFound, what the feeds raise.
    """
    for content in await _contents(drive, path):
        await content.feed.download(content.start, content.end)
        if done is not None:
            done(content.path, content.usage())


async def clear(drive: DriveView, path: str = "/") -> int:
    """Drop the held bytes of everything at or below `path` and return the number of blocks that went.

    They can be fetched again as long as a peer has them; so nothing is dropped of a drive of our own.
    Raises: NotFound, NotWritable when the files belong to another process.
    """
    dropped = 0
    for content in await _contents(drive, path):
        if not content.feed.writable:
            dropped += content.usage().held_blocks
            content.feed.clear(content.start, content.end)
    return dropped


class _Content(NamedTuple):
    """The blocks `start` up to `end` of a feed, which are the `size` bytes of a file."""

    path: DrivePath
    feed: Feed
    start: int
    end: int
    size: int

    def usage(self) -> Usage:
        return Usage(self.size, self.end - self.start, self.feed.held(self.start, self.end))


async def _contents(drive: DriveView, path: str) -> list[_Content]:
    """Return where the content of the files at or below `path` is."""
    start = drive_path(path)
    if not (await drive.stat(start)).is_dir:
        files = [start]
    else:
        files = [where async for where, stat in drive.walk(start) if stat.is_file and stat.blocks and not stat.mount]
    found = []
    for where in files:
        reader = await drive.open(where)
        if reader.size:
            extent = reader.extent
            found.append(_Content(where, reader.feed, extent.offset, extent.offset + extent.blocks, extent.size))
    return found
