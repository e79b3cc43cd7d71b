"""Entries that cannot be shown: left out of listings, never exported, counted; everything else stays readable."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ddrive.dialect import DWEB
from ddrive.drive import NewEntry
from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.exporter import export_tree
from ddrive.drive.hostile import HostileNames
from ddrive.drive.stat import Stat, encode_stat
from ddrive.drive.view import DriveView
from ddrive.errors import InvalidName, NotFound
from ddrive.store.store import OwnedStore, open_store
from ddrive.trie import InvalidNode

NAMES = [f"dir{number % 3}/file{number:02}" for number in range(30)]
CHANGES = {b"file07": b"\xff\xfe\xfd\xfc07", b"file11": b"fi\0e11", b"dir2/file20": b"dir2/../e20"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[OwnedStore]:
    """A store for both drives."""
    async with open_store(tmp_path / "store", DWEB) as made:
        yield made


async def patched(store: OwnedStore, *, batched: bool = False) -> Drive:
    """Return a drive whose author changed bytes in keys after their places were computed."""
    drive = await open_drive(store, name="good", create=True)
    if batched:
        await drive.batch([NewEntry(name, Stat(0o100644), [name.encode()]) for name in NAMES])
    for name in [] if batched else NAMES:
        await drive.write_file(name, name.encode())
    await drive.unlink(NAMES[0])
    await drive.mkdir("/empty")
    blocks = [await drive.metadata.get(index) for index in range(drive.version)]
    for old, new in CHANGES.items():
        blocks = [block.replace(old, new) for block in blocks]
    feed = await store.open_feed(name="hostile")
    await feed.append(blocks)
    return await open_drive(store, key=feed.key)


async def test_what_cannot_be_shown_is_left_out_and_the_rest_is_there(store: OwnedStore, tmp_path: Path) -> None:
    drive = await patched(store)
    expected = sorted(name for name in NAMES[1:] if name[5:] not in ("file07", "file11", "file20"))
    assert sorted([path async for path, stat in drive.walk() if stat.is_file]) == expected
    assert [entry.name for entry in await drive.list("/")] == ["dir0", "dir1", "dir2", "empty"]
    for name in expected:
        assert (await drive.lstat(name)).size == len(name)
    with pytest.raises(NotFound):
        await drive.lstat("dir1/file07")
    with pytest.raises(InvalidName):
        await drive.lstat("dir1/\udcff\udcfe\udcfd\udcfc07")
    assert drive.hostile_names >= 2
    done = await export_tree(drive, "/", tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("file*")) == expected
    assert done.files == len(expected)


async def test_they_are_counted_once(store: OwnedStore) -> None:
    drive = await patched(store)
    hostile = HostileNames()
    assert await hostile.look(drive.metadata, 10) == len(CHANGES)
    assert await hostile.look(drive.metadata, 10) == len(CHANGES)
    good = await open_drive(store, name="good")
    assert await HostileNames().look(good.metadata, 10) == 0
    await drive.metadata.append([b"no node at all"])
    assert await hostile.look(drive.metadata, 10) == len(CHANGES) + 1


async def test_a_directory_that_only_a_hostile_name_tells_of_ends_no_walk(store: OwnedStore, tmp_path: Path) -> None:
    drive = await open_drive(store, name="good", create=True)
    for name in ("a/inside", "b/evilAA", "b/inside", "c"):
        await drive.write_file(name, b"whole")
    blocks = [await drive.metadata.get(index) for index in range(drive.version)]
    feed = await store.open_feed(name="hostile")
    await feed.append([block.replace(b"evilAA", b"ev/../") for block in blocks])
    hostile = await open_drive(store, key=feed.key)
    assert [path async for path, stat in hostile.walk() if stat.is_file] == ["c", "a/inside", "b/inside"]
    assert (await export_tree(hostile, "/", tmp_path / "out")).files == 3
    with pytest.raises(NotFound):
        _ = [path async for path, _ in hostile.walk("/b/ev")]


async def entries(drive: DriveView) -> dict[str, Stat] | None:
    """Return all that a walk shows and that has an entry of its own; None where the newest entry leads astray."""
    try:
        return {path: stat async for path, stat in drive.walk() if stat.is_file or path == "empty"}
    except InvalidNode:
        return None


@pytest.mark.parametrize("batched", [False, True])
async def test_changes_beside_them_are_told(store: OwnedStore, batched: bool) -> None:
    drive = await patched(store, batched=batched)
    shown = [await entries(drive.at(version)) for version in range(1, drive.version + 1)]
    told = [(version, found) for version, found in enumerate(shown, 1) if found is not None]
    assert len(told) > 20
    for place, (old, before) in enumerate(told):
        for new, now in told[place + 1 :]:
            changes = {change.path: change async for change in drive.at(new).diff(old)}
            assert changes.keys() == {name for name in {**before, **now} if before.get(name) != now.get(name)}
            kinds = {name: "put" if name in now else "del" for name in changes}
            assert {name: change.kind for name, change in changes.items()} == kinds
    assert await drive.changed(1)
    assert [event.path async for event in drive.log()]


async def test_claimed_sizes_are_not_taken_for_what_is_held_or_written(store: OwnedStore, tmp_path: Path) -> None:
    plain = await store.open_feed(name="plain")
    await plain.append([b"12345", b"678"])
    drive = await open_drive(store, name="good", create=True)
    await drive.write_file("real", b"12345")
    claims = [
        NewEntry("much", Stat(0o100644, size=1 << 40, blocks=1), placed=True),  # the block is there
        NewEntry("more", Stat(0o100644, size=1 << 40, blocks=100), placed=True),
    ]
    await drive.batch(claims)
    await drive.mount("feed", plain.key, feed=True)
    trie = (await drive.trie()).trie
    node = await trie.get("feed")
    assert node is not None
    await trie.put("feed", encode_stat((await drive.lstat("feed"))._replace(size=1 << 40)), flags=node.flags)
    held = {path: usage.held_bytes for path, usage in (await drive.stats()).items()}
    assert held == {"real": 5, "much": 5, "more": 5}
    done = await export_tree(await open_drive(store, name="good"), "/", tmp_path / "out")
    assert (done.files, done.bytes) == (2, 5 + 8)
    assert {refused.path for refused in done.refused} == {"much", "more"}
