"""Listings are held back while the kernel is slow to forget, but not for long."""

import pytest
import trio
from trio.testing import MockClock

from ddrive.drive.stat import FILE_MODE, Stat
from mountd.crowding import PATIENCE_S, Crowding
from mountd.inodes import MAX_ASKED, Inode, InodeTable

FILES = MAX_ASKED * 2 + 10


@pytest.fixture
def asked() -> list[Inode]:
    return []


@pytest.fixture
def table(asked: list[Inode]) -> InodeTable:
    """Return a table with more files than there should be, which the kernel knows."""
    table = InodeTable(max_inodes=1)
    table.on_crowded = asked.append
    for number in range(FILES):
        table.bind(table.root, str(number), Stat(FILE_MODE, offset=number)).lookups += 1
    return table


async def test_a_listing_begins_at_once_while_there_is_room(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    await Crowding(InodeTable()).room()
    assert trio.current_time() == started


async def test_a_listing_waits_until_the_kernel_has_forgotten(
    table: InodeTable, asked: list[Inode], autojump_clock: MockClock
) -> None:
    crowding = Crowding(table)
    began: list[int] = []

    async def list_it() -> None:
        await crowding.room()
        began.append(len(table))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(list_it)
        await trio.sleep(PATIENCE_S / 2)
        assert not began
        while table.is_crowded:
            table.forget(asked.pop(0).number, 1)
    assert began == [len(table)]
    assert len(table) < FILES


async def test_what_is_never_forgotten_holds_one_listing_back_only(
    table: InodeTable, asked: list[Inode], autojump_clock: MockClock
) -> None:
    crowding = Crowding(table)
    started = trio.current_time()
    for _ in range(3):
        await crowding.room()
    assert trio.current_time() - started == pytest.approx(PATIENCE_S)
    while table.is_crowded:
        table.forget(asked.pop(0).number, 1)
    await crowding.room()
    for number in range(FILES):  # and from then on again
        table.bind(table.root, f"more{number}", Stat(FILE_MODE, offset=number)).lookups += 1
    await crowding.room()
    assert trio.current_time() - started == pytest.approx(2 * PATIENCE_S)
