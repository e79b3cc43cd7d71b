"""Blocks that lie in a file: read by who appends them, and only then."""

from io import FileIO
from pathlib import Path

import pytest

from ddrive.errors import SourceChanged
from ddrive.feed import Feed, FileDirectory
from ddrive.feed.file_blocks import FileBlocks, Place, loaded, sizes_of
from tests.feed.samples import writer

TEXT = bytes(range(256)) * 8
PLACES = [Place(10, 5), Place(15, 20), Place(0, 4), Place(3, 2), Place(2000, 48)]
BLOCKS = [TEXT[offset : offset + size] for offset, size in PLACES]


def made(path: Path) -> FileBlocks:
    path.write_bytes(TEXT)
    return FileBlocks(FileIO(path), PLACES)


async def test_they_are_what_lies_at_their_places(tmp_path: Path) -> None:
    blocks = made(tmp_path / "file")
    assert [bytes(block) for block in blocks.load()] == list(blocks) == BLOCKS
    assert await loaded(blocks) == BLOCKS
    assert list(blocks[1:4]) == BLOCKS[1:4]
    assert (blocks[-1], len(blocks), sizes_of(blocks)) == (BLOCKS[-1], 5, sizes_of(BLOCKS))
    assert FileBlocks(blocks.file, []).load() == []
    assert await loaded(BLOCKS) is BLOCKS
    blocks.file.close()


async def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    blocks = made(tmp_path / "file")
    (tmp_path / "file").write_bytes(TEXT[:-1])
    with pytest.raises(SourceChanged):
        await loaded(blocks)
    with pytest.raises(SourceChanged):
        blocks[4]
    assert bytes(blocks[3]) == BLOCKS[3]
    blocks.file.close()


@pytest.mark.parametrize("durable", [True, False])
async def test_a_feed_reads_them_itself(tmp_path: Path, durable: bool) -> None:
    blocks = made(tmp_path / "file")
    feed = Feed(writer([b"before"], FileDirectory(tmp_path / "feed")))
    assert await feed.append(blocks, durable=durable) == 1
    assert [feed.get_held(index + 1) for index in range(len(PLACES))] == BLOCKS
    await feed.aclose()
    blocks.file.close()
