"""Small reads here and there by a process beside the owner: parts of checked blocks, and of the file's own alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ddrive.dialect import DWEB
from ddrive.drive.reader import Extent, FileReader
from ddrive.errors import ImpossibleEntry
from ddrive.feed import Feed
from ddrive.store.attached import open_attached
from ddrive.store.store import OwnedStore
from tests.support.answering import answered

BLOCK = 65536
BLOCKS = [bytes([number]) * BLOCK for number in range(1, 9)]
BYTES = b"".join(BLOCKS)


@pytest.fixture
async def view(own_store: OwnedStore, tmp_path: Path) -> AsyncIterator[Feed]:
    """A feed of `BLOCKS`, all of them read and checked once, as another process has it."""
    own = await own_store.open_feed(name="blocks")
    await own.append(BLOCKS)
    socket = tmp_path / "socket"
    async with answered(own_store, socket), open_attached(socket) as attached:
        view = await attached.store(DWEB).open_feed(key=own.key)
        assert [await view.get(number) for number in range(8)] == BLOCKS
        yield view


async def test_parts_are_read_without_the_rest_of_their_blocks(view: Feed) -> None:
    file = FileReader(view, Extent(1, 6, BLOCK, 6 * BLOCK - 100))
    await file.read(0, 10)
    for start in (5 * BLOCK + 7, 3 * BLOCK + 1, 2 * BLOCK - 5, 4 * BLOCK):
        assert file._part(start, start + 10) == BYTES[BLOCK + start : BLOCK + start + 10]
        assert await file.read(start, 10) == BYTES[BLOCK + start : BLOCK + start + 10]
    assert await file.read(6 * BLOCK - 103, 10) == BLOCKS[6][:3]


async def test_an_entry_that_claims_more_than_its_blocks_shows_nothing_of_its_neighbours(view: Feed) -> None:
    file = FileReader(view, Extent(2, 3, 2 * BLOCK, 3 * BLOCK + 5000))
    await file.read(0, 10)
    assert await file.read(BLOCK + 3, 10) == BLOCKS[3][:10]
    assert await file.read(7, 10) == BLOCKS[2][:10]
    for start in (3 * BLOCK + 10, 3 * BLOCK - 5):
        with pytest.raises(ImpossibleEntry):
            await file.read(start, 10)


async def test_a_single_block_shows_nothing_of_the_next_one(view: Feed) -> None:
    file = FileReader(view, Extent(2, 1, 2 * BLOCK, BLOCK + 5000))
    for start in (0, BLOCK - 5, BLOCK + 10):
        with pytest.raises(ImpossibleEntry):
            await file.read(start, 10)
