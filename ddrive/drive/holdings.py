"""Which bytes of a drive are held here; fetching them to keep, and dropping them.

A path that is a file means that file, a directory means every file below it, nested drives included. Plain feeds
that are mounted as files below it are left out.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby
from typing import NamedTuple

from ddrive.drive.paths import DrivePath, drive_path
from ddrive.drive.reaching import Reach
from ddrive.drive.reader import FileReader
from ddrive.drive.stat import Stat
from ddrive.drive.view import DriveView
from ddrive.drive.walks import Inside
from ddrive.errors import CorruptStorage
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from ddrive.store.runs import joined


class Usage(NamedTuple):
    """How much of a file is held: `held_blocks` of its `blocks`, and how many bytes these are, whatever it claims."""

    size: int
    blocks: int
    held_blocks: int
    held_bytes: int = 0


EMPTY = Usage(0, 0, 0)
Done = Callable[[DrivePath, Usage], None]
Extents = dict[PublicKey, list[tuple[int, int]]]


async def usage(drive: DriveView, path: str = "/", *, reach: Reach | None = None) -> dict[DrivePath, Usage]:
    """Return how much is held of each file at or below `path`, empty ones too. Raises: NotFound.

    With `reach` what cannot be had of nested drives, or cannot be, is left out and listed there; so below.
    """
    files = await _files(drive, path, reach)
    held = {content.path: content.usage() for content in await _contents(drive, files, reach)}
    return {where: held.get(where, EMPTY) for where in files}


async def extents(drive: DriveView, path: str = "/", *, reach: Reach | None = None) -> Extents:
    """Return for each feed in which blocks everything at or below `path` lies, as half-open runs in order.

    Raises: NotFound.
    """
    return _extents(await _contents(drive, await _files(drive, path, reach), reach))


async def droppable(drive: DriveView, path: str = "/", *, reach: Reach | None = None) -> tuple[Extents, int]:
    """Return where what `clear` drops at and below `path` lies, as `extents` does, and how many bytes are held of it.

    Raises: NotFound.
    """
    contents = await _droppable(drive, path, reach)
    return _extents(contents), sum(content.usage().held_bytes for content in contents)


async def download(drive: DriveView, path: str = "/", *, done: Done | None = None, reach: Reach | None = None) -> None:
    """Fetch and keep everything at or below `path`; `done` is called for each file that is complete.

    Raises: NotFound, what the feeds raise.
    """
    contents = await _contents(drive, await _files(drive, path, reach), reach)
    with wanting(content.reader for content in contents):
        for content in contents:
            fetched = partial(content.feed.download, content.start, content.end)
            if reach is None:
                await fetched()
            else:
                await reach.attempt(content.inside, content.path, fetched, held=content.is_held)
            if done is not None and content.is_held:
                done(content.path, content.usage())


async def clear(drive: DriveView, path: str = "/", *, reach: Reach | None = None) -> int:
    """Drop the held bytes of everything at or below `path` and return the number of blocks that went.

    They can be fetched again as long as a peer has them; so nothing is dropped of a drive of our own. Nested drives of
    which nothing is held are passed over.
    Raises: NotFound, NotWritable when the files belong to another process.
    """
    dropped = 0
    for content in await _droppable(drive, path, reach):
        dropped += content.usage().held_blocks
        content.feed.clear(content.start, content.end)
    return dropped


@contextmanager
def wanting(readers: Iterable[FileReader]) -> Iterator[None]:
    """Wish for all blocks of these files while the context lasts; files that lie side by side make one wish."""
    with ExitStack() as wishes:
        located = sorted((reader.feed.key, reader.extent, id(reader), reader) for reader in readers if reader.size)
        for _, group in groupby(located, key=lambda entry: entry[0]):
            extents = [(reader.feed, extent.offset, extent.offset + extent.blocks) for _, extent, _, reader in group]
            feed, start, end = extents[0]
            for _, next_start, next_end in extents[1:]:
                if next_start > end:
                    wishes.enter_context(feed.want(start, end))
                    start = next_start
                end = max(end, next_end)
            wishes.enter_context(feed.want(start, end))
        yield


class _File(NamedTuple):
    """A file, and the nested drive that it is in."""

    stat: Stat
    inside: Inside | None


class _Content(NamedTuple):
    """An open file with content."""

    path: DrivePath
    reader: FileReader
    inside: Inside | None

    @property
    def feed(self) -> Feed:
        """The feed that holds it."""
        return self.reader.feed

    @property
    def start(self) -> int:
        """Its first block."""
        return self.reader.extent.offset

    @property
    def end(self) -> int:
        """The block behind its last one."""
        return self.start + self.reader.extent.blocks

    @property
    def is_held(self) -> bool:
        """Whether all of it is here."""
        return self.feed.held(self.start, self.end) == self.end - self.start

    def usage(self) -> Usage:
        """How much of it is held."""
        held = self.feed.held(self.start, self.end)
        return Usage(self.reader.size, self.end - self.start, held, self._held_bytes() if held else 0)

    def _held_bytes(self) -> int:
        """Return how many of its bytes are held, by the sizes that the feed proves: a `Stat` can claim any."""
        feed, size, held = self.feed, self.reader.size, 0
        for start, end in feed.runs(self.start, self.end):
            first, last = feed.byte_offset(start), feed.byte_offset(end)
            if first is not None and last is not None:  # unless nodes were lost
                held += last - first
        return min(size, held)


async def _files(
    drive: DriveView, path: str, reach: Reach | None = None, *, held_only: bool = False
) -> dict[DrivePath, _File]:
    """Return the files at or below `path`."""
    start = drive_path(path)
    stat = await drive.stat(start)
    if not stat.is_dir:
        return {start: _File(stat, None)}
    walk = drive.walk(start, reach=reach, held_only=held_only)
    return {where: _File(stat, walk.inside) async for where, stat in walk if stat.is_file and not stat.mount}


async def _contents(drive: DriveView, files: dict[DrivePath, _File], reach: Reach | None = None) -> list[_Content]:
    """Return those of `files` that have content, opened; what cannot be true is taken out of them for `reach`."""
    contents = []
    for where, file in list(files.items()):
        try:
            reader = await drive.open(where) if file.stat.blocks or file.stat.mount else None
        except CorruptStorage as error:
            if reach is None:
                raise
            reach.refuse(where, str(error))
            del files[where]
            continue
        if reader is not None and reader.size:
            contents.append(_Content(where, reader, file.inside))
    return contents


async def _droppable(drive: DriveView, path: str, reach: Reach | None) -> list[_Content]:
    """Return the files of drives of others; nested drives of which nothing is held are passed over."""
    found = await _contents(drive, await _files(drive, path, reach, held_only=True), reach)
    return [content for content in found if not content.feed.writable]


def _extents(contents: Iterable[_Content]) -> Extents:
    found: Extents = {}
    for content in contents:
        found.setdefault(content.feed.key, []).append((content.start, content.end))
    return {key: joined(runs) for key, runs in found.items()}
