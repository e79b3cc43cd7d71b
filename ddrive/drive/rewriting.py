"""New contents of a file that follow from those it has, and storing them while others store that file too."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing

from ddrive.drive.content import BLOCK_BYTES, Block
from ddrive.drive.mounts import OwnDrive
from ddrive.drive.present import Present
from ddrive.drive.reader import Extent, FileReader, extent_of
from ddrive.drive.stat import FILE_MODE, Stat
from ddrive.drive.writer import blocks_of, located, new_stat
from ddrive.errors import AlreadyExists, LengthChanged, NotFound

Rewritten = Callable[[FileReader | None], AsyncGenerator[Block, None]]  # is given the file, None when there is none

_READ_BYTES = 4 * 1024 * 1024  # at a time


class Outdated(LengthChanged):
    """Somebody else stored the file since its content was read."""


class Rewrite:
    """One attempt at storing a file whose content is what `content` makes of the present one.

    `new`: there should be none; `follows`: the new content follows from the old one, which must be the present one.
    """

    def __init__(self, own: OwnDrive, made: Stat, content: Rewritten, *, new: bool, follows: bool) -> None:
        self._own = own
        self._made = made
        self._content = content
        self._new = new
        self._follows = follows
        self._seen: Extent | None = None

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """Yield the new content. Nobody else in this process stores a file between the first step and `final`."""
        there = await Present(self._own.trie.snapshot()).stat(self._own.path) if self._follows else None
        self._seen = _extent(there)
        reader = None if self._seen is None else FileReader(self._own.content, self._seen, self._own.path)
        try:
            async with aclosing(blocks_of(self._content(reader))) as blocks:
                async for block in blocks:
                    yield block
        finally:
            if reader is not None:
                await reader.aclose()

    def final(self, there: Stat | None, stored: Stat) -> Stat:
        """Return the attributes to store: those of the file by now, or of `made`, with the content of `stored`.

        Raises: AlreadyExists, Outdated.
        """
        if self._new and there is not None:
            raise AlreadyExists(f"'/{self._own.path}' was made by somebody else meanwhile")
        if self._follows and _extent(there) != self._seen:
            raise Outdated(f"'/{self._own.path}' was stored by somebody else meanwhile")
        now = new_stat(FILE_MODE)
        kept = there if there is not None and _extent(there) is not None else self._made
        return located(kept._replace(mtime_ms=now.mtime_ms, ctime_ms=now.ctime_ms), extent_of(stored))


async def longer(old: FileReader | None, more: AsyncIterable[Block]) -> AsyncGenerator[Block, None]:
    """Yield the content of `old`, then `more`."""
    if old is not None:
        async for chunk in _first(old, old.size):
            yield chunk
    async for added in more:
        yield added


async def resized(old: FileReader | None, size: int) -> AsyncGenerator[Block, None]:
    """Yield the first `size` bytes of `old`, with zeros where it has none. Raises: NotFound when it is gone."""
    if old is None:
        raise NotFound("somebody else has removed the file meanwhile")
    async for chunk in _first(old, min(size, old.size)):
        yield chunk
    for position in range(old.size, size, BLOCK_BYTES):
        yield bytes(min(BLOCK_BYTES, size - position))


async def _first(old: FileReader, size: int) -> AsyncGenerator[Block, None]:
    for position in range(0, size, _READ_BYTES):
        yield await old.read(position, min(_READ_BYTES, size - position))


def _extent(stat: Stat | None) -> Extent | None:
    """Return where the content of a file of the drive itself is, None when it is something else."""
    return extent_of(stat) if stat is not None and stat.is_file and stat.mount is None else None
