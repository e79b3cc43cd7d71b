"""A drive read from a peer: what crosses the link, what is answered without one, and following its author."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from ddrive.dialect import DIALECTS
from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.exporter import export_tree
from ddrive.drive.holdings import clear, download, usage
from ddrive.drive.reaching import Reach
from ddrive.drive.reader import FileReader
from ddrive.drive.stat import Stat
from ddrive.drive.writer import NewEntry
from ddrive.errors import NoPeers, NotFound
from ddrive.protocol.running import run_link
from ddrive.store.linked import Replicator
from ddrive.store.store import OwnedStore, open_store

BLOCK = 65536


class World:
    """The author's store and the reader's, linked or not."""

    def __init__(self, far: OwnedStore, near: OwnedStore) -> None:
        self.far = far
        self.near = near

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[None]:
        """Link the two while the context lasts."""
        ends = memory_stream_pair()
        handlers = [Replicator([self.near]), Replicator([self.far])]

        async def run(number: int) -> None:
            secret = os.urandom(32)
            await run_link(ends[number], initiator=not number, handler=handlers[number], static_secret=secret)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, 0)
            nursery.start_soon(run, 1)
            yield
            nursery.cancel_scope.cancel()
        for handler in handlers:
            handler.close()


@pytest.fixture(params=["dweb", "hypercore"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Two stores of one dialect."""
    dialect = DIALECTS[request.param]
    async with open_store(tmp_path / "far", dialect) as far, open_store(tmp_path / "near", dialect) as near:
        yield World(far, near)


async def author(world: World) -> Drive:
    """Return a drive with a directory of many files and a large file."""
    drive = await open_drive(world.far, create=True)
    await drive.batch(
        [NewEntry(f"many/{number:03}", Stat(0o100644, mtime_ms=number + 1), (b"%d" % number,)) for number in range(300)]
    )
    await drive.write_file("/big", b"".join(bytes([number]) * BLOCK for number in range(100)))
    await drive.symlink("/link", "many/007")
    return drive


async def test_listing_and_attributes_fetch_no_content(world: World) -> None:
    drive = await author(world)
    async with world.linked():
        with trio.fail_after(20):
            seen = await open_drive(world.near, key=drive.key)
            assert [entry async for entry in seen.walk()] == [entry async for entry in drive.walk()]
            assert await seen.stat("/link") == await drive.lstat("/many/007")
            with pytest.raises(NotFound):
                await seen.lstat("/many/missing")
            content = await seen.content()
    assert content.held(0, 1000) == 0


async def test_a_read_in_the_middle_fetches_its_block_only(world: World) -> None:
    drive = await author(world)
    async with world.linked():
        with trio.fail_after(20):
            seen = await open_drive(world.near, key=drive.key)
            reader = await seen.open("/big")
            assert await reader.read(50 * BLOCK + 10, 4096) == bytes([50]) * 4096
            await reader.aclose()
            await trio.sleep(0.2)
            assert (await usage(seen, "/big"))["big"].held_blocks == 1
            assert await seen.read_file("/many/123") == b"123"
            assert (await seen.content()).held(0, 1000) == 2


async def test_the_whole_file_arrives_with_read_ahead(world: World) -> None:
    drive = await author(world)
    async with world.linked():
        with trio.fail_after(30):
            seen = await open_drive(world.near, key=drive.key)
            reader = await seen.open("/big")
            data = b""
            while piece := await reader.read(len(data), 128 * 1024):
                data += piece
            await reader.aclose()
    assert data == await drive.read_file("/big")


async def test_what_was_read_stays_readable_and_the_rest_waits(world: World) -> None:
    drive = await author(world)
    async with world.linked():
        with trio.fail_after(20):
            seen = await open_drive(world.near, key=drive.key)
            assert await seen.read_file("/many/001") == b"1"
            await seen.list("/many")
    again = await open_drive(world.near, key=drive.key)
    assert await again.read_file("/many/001") == b"1"
    assert len(await again.list("/many")) == 300
    with trio.move_on_after(0.1) as scope:
        await again.read_file("/many/002")
    assert scope.cancelled_caught
    async with world.linked():
        with trio.fail_after(20):
            assert await again.read_file("/many/002") == b"2"


async def test_a_drive_nobody_knows_shows_its_root_and_waits(world: World) -> None:
    drive = await author(world)
    seen = await open_drive(world.near, key=drive.key)
    assert await seen.lstat("/") == Stat(0o040755)
    for wait in (seen.list("/"), seen.lstat("/many"), seen.open("/big")):
        with trio.move_on_after(0.05) as scope:
            await wait
        assert scope.cancelled_caught
    async with world.linked():
        with trio.fail_after(20):
            assert [name for name, _ in await seen.list("/")] == ["big", "link", "many"]


async def test_the_author_is_followed(world: World) -> None:
    drive = await author(world)
    async with world.linked():
        with trio.fail_after(20):
            seen = await open_drive(world.near, key=drive.key)
            await seen.list("/")
            known = seen.version
            assert known == drive.version
            reader = await seen.open("/many/001")
            await drive.write_file("/many/001", b"changed")
            await drive.write_file("/fresh", b"new")
            async for version in seen.follow():
                if version == drive.version:
                    break
            assert sorted(await seen.changed(known)) == ["fresh", "many/001"]
            assert await seen.read_file("/many/001") == b"changed"
            assert await reader.read(0, 10) == b"1"
            old = seen.checkout(known)
            assert await old.read_file("/many/001") == b"1"


async def test_nested_drives_are_found_through_the_link(world: World) -> None:
    inner = await open_drive(world.far, name="inner", create=True)
    middle = await open_drive(world.far, name="middle", create=True)
    outer = await open_drive(world.far, name="outer", create=True)
    await inner.write_file("/f", b"innermost")
    await middle.mount("/inner", inner.key)
    await outer.mount("/middle", middle.key)
    async with world.linked():
        with trio.fail_after(20):
            seen = await open_drive(world.near, key=outer.key)
            assert await seen.read_file("/middle/inner/f") == b"innermost"
            assert [path async for path, _ in seen.walk()] == ["middle", "middle/inner", "middle/inner/f"]


async def test_downloading_and_clearing(world: World) -> None:
    drive = await author(world)
    async with world.linked():
        with trio.fail_after(30):
            seen = await open_drive(world.near, key=drive.key)
            await download(seen, "/many")
            assert all(numbers.held_blocks == numbers.blocks for numbers in (await usage(seen, "/many")).values())
            assert (await usage(seen, "/big"))["big"].held_blocks == 0
            assert await clear(seen, "/many") == 300
            assert (await seen.content()).held(0, 1000) == 0
            assert await seen.read_file("/many/299") == b"299"


async def test_nested_drives_that_were_looked_into_are_followed(world: World) -> None:
    inner = await open_drive(world.far, name="inner", create=True)
    other = await open_drive(world.far, name="other", create=True)
    outer = await open_drive(world.far, name="outer", create=True)
    await inner.write_file("/dir/f", b"old")
    await outer.mount("/inner", inner.key)
    await inner.mount("/deeper", other.key)
    await outer.mount("/pinned", inner.key, version=inner.version)
    await outer.mount("/untouched", other.key)
    async with world.linked():
        with trio.fail_after(20):
            seen = await open_drive(world.near, key=outer.key)
            nested = await seen.nested()
            assert nested.drives() == []
            assert await seen.read_file("/inner/dir/f") == b"old"
            await seen.list("/pinned")
            (found,) = nested.drives()
            assert (found.path, found.seen) == ("inner", inner.version)
            await seen.list("/inner/deeper")
            assert sorted(drive.path for drive in nested.drives()) == ["inner", "inner/deeper"]
            await inner.write_file("/dir/f", b"new")
            assert await found.wait_version(found.seen + 1) == inner.version
            assert await found.changed(found.seen) == ["inner/dir/f"]
            assert await seen.read_file("/inner/dir/f") == b"new"


async def test_what_is_dropped_while_an_export_reads_it_is_not_called_damaged(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (await author(world)).key
    near = await open_drive(world.near, key=key)
    async with world.linked():
        await download(near)
        held = FileReader.held

        def dropped(reader: FileReader, offset: int, size: int) -> bool:
            was_held = held(reader, offset, size)
            reader.feed.clear(0, reader.feed.length)
            return was_held

        monkeypatch.setattr(FileReader, "held", dropped)
        report = await export_tree(near, "/", tmp_path / "again")
        assert (report.refused, report.unverified) == ([], 0)
    await trio.sleep(0.01)

    @asynccontextmanager
    async def in_vain(_: object) -> AsyncIterator[None]:
        with trio.move_on_after(0.2):
            yield
            return
        raise NoPeers("nobody has it")

    monkeypatch.undo()
    async with world.linked():
        await download(near)
    monkeypatch.setattr(FileReader, "held", dropped)
    report = await export_tree(near, "/", tmp_path / "alone", reach=Reach(in_vain))
    assert (len(report.refused) > 0, report.unverified) == (True, 0)
