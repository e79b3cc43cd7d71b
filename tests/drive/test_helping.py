"""Help between peers on real links: how many round trips a cold read costs, and which feeds answer."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DIALECTS
from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.helping import help_peers
from ddrive.drive.stat import Stat
from ddrive.drive.writer import NewEntry
from ddrive.store.store import OwnedStore, open_store
from tests.support.rounds import counted_link


@pytest.fixture(params=["dweb", "hypercore"])
async def far(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OwnedStore]:
    """The author's store."""
    async with open_store(tmp_path / "far", DIALECTS[request.param]) as store:
        yield store


async def author(store: OwnedStore) -> Drive:
    """Return a drive with many files in one directory, others in many, and nested drives."""
    inner = await open_drive(store, name="inner", create=True)
    await inner.write_file("/f", b"nested")
    drive = await open_drive(store, create=True)
    paths = [f"many/{number:04}" for number in range(1000)]
    paths += [f"d{number % 37}/e{number % 11}/f{number}" for number in range(500)]
    await drive.batch([NewEntry(path, Stat(0o100644, mtime_ms=1), (path.encode(),)) for path in paths])
    for number in range(5):
        await drive.mount(f"/sub{number}", inner.key)
    await drive.write_file("/last", b"x")
    return drive


@pytest.mark.parametrize(
    ("verb", "path", "most"),
    [("cat", "/many/0017", 5), ("cat", "/d5/e5/f5", 5), ("cat", "/sub1/f", 10), ("ls", "/many", 12), ("walk", "/", 30)],
)
async def test_a_cold_read_costs_few_round_trips(
    far: OwnedStore, tmp_path: Path, verb: str, path: str, most: int
) -> None:
    drive = await author(far)
    async with open_store(tmp_path / "near", far.dialect) as near, counted_link(near, far) as rounds:
        with trio.fail_after(30):
            seen = await open_drive(near, key=drive.key)
            await seen.metadata.get(0)
            await seen.metadata.refresh()
            rounds.reset()
            if verb == "cat":
                assert await seen.read_file(path) == await drive.read_file(path)
            elif verb == "ls":
                assert await seen.list(path) == await drive.list(path)
            else:
                assert [entry async for entry in seen.walk(path)] == [entry async for entry in drive.walk(path)]
    assert rounds.trips <= most


async def test_every_trie_of_a_store_answers_and_nothing_else(far: OwnedStore, tmp_path: Path) -> None:
    drive = await author(far)
    content = await drive.content()
    async with open_store(tmp_path / "near", far.dialect) as near:
        help_peers(near)
        async with counted_link(near, far):
            with trio.fail_after(30):
                metadata = await near.open_feed(key=drive.key)
                assert near.session(metadata).extensions.names == ()
                await metadata.get(0)
                copy = await near.open_feed(key=content.key)
                await copy.get(0)
                assert near.session(metadata).extensions.names == (far.dialect.trie_type,)
                assert near.session(copy).extensions.names == ()
    async with open_store(tmp_path / "near", far.dialect) as near:
        help_peers(near)
        metadata = await near.open_feed(key=drive.key)
        assert near.session(metadata).extensions.names == (far.dialect.trie_type,)
