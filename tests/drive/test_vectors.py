"""The drives that the npm peers wrote: everything read from their directories is what they say themselves."""

import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ddrive.dialect import DIALECTS
from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.holdings import usage
from ddrive.drive.paths import DrivePath
from ddrive.drive.stat import Stat
from ddrive.errors import AlreadyExists, DriveError, NotEmpty, NotFound
from ddrive.store.store import OwnedStore, open_store
from tests.drive.test_stat import stat_of
from tests.support.vectors import VECTORS, vector

KINDS: dict[str, type[DriveError]] = {"ENOENT": NotFound, "EEXIST": AlreadyExists, "ENOTEMPTY": NotEmpty}


@pytest.fixture(params=["dweb", "hypercore"])
def expected(request: pytest.FixtureRequest) -> Any:
    """What the peer printed about its drive."""
    return vector(f"drive-{request.param}.json")


@pytest.fixture
async def store(expected: Any, tmp_path: Path) -> AsyncIterator[OwnedStore]:
    """The peer's directory, opened by us on a copy."""
    folder = tmp_path / "store"
    shutil.copytree(VECTORS / f"drive-{expected['dialect']}", folder, copy_function=shutil.copyfile)
    async with open_store(folder, DIALECTS[expected["dialect"]]) as opened:
        yield opened


@pytest.fixture
async def drive(expected: Any, store: OwnedStore) -> Drive:
    """The root drive of the peer's directory."""
    return await open_drive(store, key=bytes.fromhex(expected["feeds"]["root"]["metadataKey"]))


def below(expected: Any) -> dict[str, Any]:
    """Return the entries that are real (the peers also list paths behind linked directories)."""
    return {path: entry for path, entry in expected["entries"].items() if "error" not in entry}


async def test_the_drive_is_found_by_name_too(expected: Any, store: OwnedStore) -> None:
    drive = await open_drive(store)
    root = expected["feeds"]["root"]
    assert drive.key.hex() == root["metadataKey"]
    assert drive.version == expected["version"]
    assert drive.writable
    assert (await drive.content()).key.hex() == root["contentKey"]
    assert (await drive.content()).writable


async def test_attributes_of_every_entry(expected: Any, drive: Drive) -> None:
    for path, entry in below(expected).items():
        assert await drive.lstat(path) == stat_of(entry["stat"]), path


async def test_paths_behind_linked_directories_are_no_entries(expected: Any, drive: Drive) -> None:
    for path, entry in expected["entries"].items():
        if "error" in entry:
            with pytest.raises(KINDS[entry["error"]]):
                await drive.lstat(path)
            assert (await drive.stat(path)).mode  # but they lead somewhere


async def test_directories_without_entry_leak_nothing(expected: Any, drive: Drive) -> None:
    for path in expected["implicitDirectories"]:
        stat = await drive.lstat(path)
        assert stat == Stat(0o040755, mtime_ms=stat.mtime_ms, ctime_ms=stat.ctime_ms)
        assert stat.mtime_ms > 1600000000000


async def test_content_of_every_file(expected: Any, drive: Drive) -> None:
    for path, entry in below(expected).items():
        if "sha256" in entry:
            data = await drive.read_file(path)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["length"], entry["sha256"]), path


async def test_listings_have_the_same_names(expected: Any, drive: Drive) -> None:
    for path, listing in expected["readdir"].items():
        if path == "/nothing-here":
            with pytest.raises(NotFound):
                await drive.list(path)
            continue
        entries = await drive.list(path)
        names = [name for name, _ in entries]
        assert sorted(names) == names
        assert set(names) == set(listing["plain"]), path
        directory = await drive.resolve(path)
        for name, stat in entries:
            assert stat == await drive.lstat(f"{directory}/{name}")
    assert drive.hostile_names == 0


async def test_a_walk_meets_every_entry_once(expected: Any, drive: Drive) -> None:
    found = [(f"/{path}", stat) async for path, stat in drive.walk("/")]
    paths = [path for path, _ in found]
    assert len(set(paths)) == len(paths)
    stored = {path: stat_of(entry["stat"]) for path, entry in below(expected).items()}
    assert {path: stat for path, stat in found if path in stored} == stored
    others = {path for path in paths if path not in stored}
    assert others == {"/dangling", "/docs", "/docs/deep", "/docs/deep/er", "/emoji", "/mnt", "/ünïcødé"} | {
        "/mnt/pinned/sub",
        "/mnt/second/sub",
    }


async def test_links(expected: Any, drive: Drive) -> None:
    for path, link in expected["links"].items():
        assert await drive.read_link(path) == link["readlink"]
        if "error" in link["stat"]:
            with pytest.raises(KINDS[link["stat"]["error"]]):
                await drive.stat(path)
        else:
            stat = await drive.stat(path)
            if stat.is_file:
                assert stat == stat_of(link["stat"])
            else:
                assert stat.mode == link["stat"]["mode"]


async def test_ranges(expected: Any, drive: Drive) -> None:
    for case in expected["ranges"]:
        reader = await drive.open(case["path"])
        start = case["opts"].get("start", 0)
        length = case["opts"]["end"] + 1 - start if "end" in case["opts"] else case["opts"].get("length", 1 << 30)
        data = await reader.read(start, length)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (case["length"], case["sha256"])
        assert reader.held(start, length)
        await reader.aclose()


async def test_reads_of_open_files(expected: Any, drive: Drive) -> None:
    for case in expected["fdReads"]:
        reader = await drive.open(case["path"])
        data = await reader.read(case["pos"], case["len"])
        assert (len(data), data.hex()) == (case["read"], case["hex"])
        await reader.aclose()


async def test_tags_and_the_version_they_name(expected: Any, drive: Drive) -> None:
    assert await drive.tags.all() == expected["tags"]
    then = expected["taggedCheckout"]
    old = drive.checkout(then["version"])
    assert await drive.tags.get("v1") == then["version"] - 1
    assert {path async for path, stat in old.walk() if not stat.is_dir} == set(then["list"])
    assert (await old.read_file("/over.txt")).decode() == then["over"]
    assert (await old.read_file("/gone.txt")).decode() == then["gone"]
    assert not old.writable


async def test_differences_between_versions(expected: Any, drive: Drive) -> None:
    for case in expected["diffs"]:
        view = drive.checkout(case["to"])
        changes = {change.path: change async for change in view.diff(case["from"], case.get("prefix", "/"))}
        entries = {entry["name"]: entry for entry in case["entries"]}
        assert set(changes) <= set(entries)
        for path, entry in entries.items():
            if path not in changes:  # stored again as it was, by the peers' way to delete
                assert await view.lstat(path) == await drive.checkout(case["from"]).lstat(path)
                continue
            change = changes[path]
            assert change.kind == entry["type"]
            if entry["type"] in ("put", "del"):
                assert (change.seq, change.previous_seq) == (entry["seq"], entry["previous"])
            assert (change.stat is None) == (entry["type"] in ("del", "unmount"))


async def test_nested_drives(expected: Any, drive: Drive) -> None:
    mounts = {f"/{mount.path}": mount.key.hex() for mount in await drive.mounts()}
    assert mounts == {mount["path"]: mount["metadata"] for mount in expected["mounts"] if mount["path"] != "/"}
    pinned = next(mount for mount in await drive.mounts() if mount.path == "mnt/pinned")
    assert pinned.version == 3


async def test_what_is_held(expected: Any, drive: Drive) -> None:
    found_usage = await usage(drive, "/docs")
    for path, numbers in expected["stats"].items():
        if path != "/docs/up" and numbers["blocks"]:  # the peers follow links here
            found = found_usage[DrivePath(path[1:])]
            assert (found.blocks, found.size, found.held_blocks) == (
                numbers["blocks"],
                numbers["size"],
                numbers["downloadedBlocks"],
            )


async def test_errors(expected: Any, drive: Drive) -> None:
    calls = {
        "readFile /nothing": lambda: drive.read_file("/nothing"),
        "unlink /nothing": lambda: drive.unlink("/nothing"),
        "rmdir /docs": lambda: drive.rmdir("/docs"),
        "mkdir /hello.txt": lambda: drive.mkdir("/hello.txt"),
        "symlink over /hello.txt": lambda: drive.symlink("/hello.txt", "x"),
        "open /nothing r": lambda: drive.open("/nothing"),
        "readlink /nothing": lambda: drive.read_link("/nothing"),
    }
    for name, error in expected["errors"].items():
        if name in calls:
            with pytest.raises(KINDS[error["code"]]):
                await calls[name]()
    assert drive.version == expected["version"]
