"""What a drive holds already of something that is to be stored in it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from ddrive.drive.content import Block, Spare
from ddrive.drive.mounts import OwnDrive
from ddrive.drive.reader import FileReader, extent_of
from ddrive.drive.stat import KIND_BITS, NO_METADATA, USER_ATTRIBUTES, Stat, user_attributes
from ddrive.drive.walks import stat_or_none
from ddrive.feed import Feed
from ddrive.ids import BlockIndex
from ddrive.trie import Trie

_NEWEST_LOOKED_AT = 4096  # nodes, for the end of what entries name: an import stores at most a quarter of that at once


def same_content(old: Stat, new: Stat) -> bool:
    """Tell by size and time whether something is what it was; owner and permissions do not touch content."""
    return _kept(old) == _kept(new)


def same_attributes(old: Stat, new: Stat) -> bool:
    """Tell whether owner, permissions, times and extended attributes are what they were."""
    return _attributes(old) == _attributes(new)


def renewed(old: Stat | None, new: Stat) -> Stat:
    """Return `new` with the metadata of `old` that is no extended attribute."""
    given = old.metadata if old else NO_METADATA
    others = {name: value for name, value in given.items() if not name.startswith(USER_ATTRIBUTES)}
    return new._replace(metadata={**others, **new.metadata}) if others else new


def placed(old: Stat, new: Stat) -> Stat:
    """Return the attributes `new` with the content of `old`."""
    return renewed(old, new)._replace(size=old.size, blocks=old.blocks, offset=old.offset, byte_offset=old.byte_offset)


async def holds(content: Feed, old: Stat, chunks: AsyncGenerator[Block, None]) -> bool:
    """Tell whether the file `old` of a drive has just the bytes of `chunks`, which is closed at the end.

    What is not held here counts as other.
    """
    if content.held(BlockIndex(old.offset), BlockIndex(old.offset + old.blocks)) != old.blocks:
        return False
    reader = FileReader(content, extent_of(old))
    position = 0
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                if await reader.read(position, len(chunk)) != chunk:
                    return False
                position += len(chunk)
    finally:
        await reader.aclose()
    return position == old.size


async def values_in(trie: Trie, directory: str) -> dict[str, bytes | None]:
    """Return what is stored for each name in a directory; None where there is something below that is newer."""
    found: dict[str, bytes | None] = {}
    level = directory.count("/") + 1 if directory else 0
    async for node in trie.snapshot().iterate(directory, recursive=False, gt=True):
        if len(node.parts) > level:
            found[node.parts[level]] = node.value if len(node.parts) == level + 1 else None
    return found


async def find_spare(own: OwnDrive) -> Spare | None:
    """Return what an interrupted import has left at the end of the content, None when there is nothing.

    Blocks that are named after all do no harm: two entries may name the same ones.
    """
    end = byte_end = 0
    newest = own.trie.version - 1
    for seq in range(newest, max(0, newest - _NEWEST_LOOKED_AT), -1):
        node = await own.trie.nodes.node(seq)
        stat = None if node.hidden else stat_or_none(node)
        if stat is not None and stat.is_file and stat.mount is None and stat.offset + stat.blocks > end:
            end, byte_end = stat.offset + stat.blocks, stat.byte_offset + stat.size
        if end >= own.content.length:
            return None
    return Spare(own.content, end, byte_end) if own.content.length > end else None


def _kept(stat: Stat) -> tuple[object, ...]:
    return stat.mode & KIND_BITS, stat.size, stat.mtime_ms, stat.linkname


def _attributes(stat: Stat) -> tuple[object, ...]:
    return stat.mode, stat.uid, stat.gid, stat.mtime_ms, dict(user_attributes(stat.metadata))
