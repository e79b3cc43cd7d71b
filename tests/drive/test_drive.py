"""What a drive does: entries made, changed, removed, listed, linked, nested, and looked at as they were."""

from collections.abc import AsyncIterator

import pytest
import trio

from ddrive.drive.content import writing
from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.holdings import clear, download, usage
from ddrive.drive.stat import Stat, encode_stat
from ddrive.drive.writer import NewEntry
from ddrive.errors import (
    AlreadyExists,
    CorruptStorage,
    CrossesMount,
    ImpossibleEntry,
    InvalidName,
    InvalidPath,
    IsADirectory,
    LengthChanged,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotWritable,
    TooManyLinks,
    Unsupported,
)
from ddrive.store.store import OwnedStore

AWKWARD = [
    "ünïcødé",
    "文件.txt",
    "😀 🗂",
    " lead and trail ",
    "back\\slash",
    ".dot",
    "...",
    "-rf",
    "new\nline",
    "n" * 255,
]


async def names(drive: Drive, path: str = "/") -> list[str]:
    """Return the names in a directory."""
    return [name for name, _ in await drive.list(path)]


async def tree(drive: Drive, path: str = "/") -> list[str]:
    """Return all paths below a directory."""
    return [found async for found, _ in drive.walk(path)]


async def test_a_new_drive_has_one_version_and_nothing_in_it(own: Drive, own_store: OwnedStore) -> None:
    assert (own.version, own.writable, await own.list()) == (1, True, [])
    assert await own.lstat("/") == Stat(0o040755)
    again = await open_drive(own_store)
    assert again.key == own.key
    content = await own.content()
    assert content is await own_store.open_feed(name=f"{own.key.hex()}-content")


async def test_the_header_says_which_dialect_made_it(own: Drive, other_store: OwnedStore) -> None:
    other = await open_drive(other_store, name="second", create=True)
    assert (await own.metadata.get(0)).startswith(b"\x0a\x08dwebtrie\x12\x20")
    block = await other.metadata.get(0)
    assert block.startswith(b"\x0a\x09hypertrie\x12\x20")
    assert block.endswith(b"\x1a\x0ahyperdrive")


async def test_opening_a_drive_that_was_never_made_writes_nothing(own_store: OwnedStore) -> None:
    with pytest.raises(NotFound):
        await open_drive(own_store, name="missing")
    feed = await own_store.open_feed(name="missing")
    with pytest.raises(NotFound):
        await open_drive(own_store, key=feed.key)
    assert feed.length == 0


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1_000_000])
async def test_files_read_back_in_blocks_of_64_kib(own: Drive, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    stat = await own.write_file("/dir/file", data[:size], mode=0o755, uid=7, gid=8, mtime_ms=5)
    assert (stat.size, stat.blocks) == (size, -(-size // 65536))
    assert (stat.mode, stat.uid, stat.gid, stat.mtime_ms) == (0o100755, 7, 8, 5)
    assert await own.lstat("/dir/file") == stat
    assert await own.read_file("/dir/file") == data[:size]


async def test_chunks_of_any_kind_make_a_file(own: Drive) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 1999

    data = b"".join(bytes([number]) * 1999 for number in range(100))
    await own.write_file("/async", chunks())
    await own.write_file("/sync", [data[:10], b"", memoryview(data)[10:]])
    assert await own.read_file("/async") == await own.read_file("/sync") == data
    assert (await own.lstat("/async")).blocks == 4


async def test_a_failing_source_stores_no_entry(own: Drive) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await own.write_file("/file", chunks())
    assert await own.list() == []
    await own.write_file("/file", b"fine")
    assert await own.read_file("/file") == b"fine"


async def test_awkward_names_stay_as_they_are(own: Drive) -> None:
    for name in AWKWARD:
        await own.write_file(f"/in/{name}", name.encode())
    assert await names(own, "/in") == sorted(AWKWARD)
    for name in AWKWARD:
        assert await own.read_file(f"/in/{name}") == name.encode()


async def test_names_that_no_kernel_takes_are_left_out_and_counted(own: Drive) -> None:
    trie = (await own.trie()).trie
    for key in ("good", "..", "./x", "a//b", "nul\0", "n" * 256, "a/.."):
        await trie.put(key, encode_stat(Stat(0o100644)))
    await trie.put("no-stat", b"\xff\xff")
    assert await names(own) == ["a", "good"]
    assert own.hostile_names == 5
    assert await names(own, "/a") == []
    assert await tree(own) == ["a", "good"]
    with pytest.raises(CorruptStorage):
        await own.lstat("/no-stat")
    with pytest.raises(InvalidName):
        await own.lstat("/a/..")


async def test_directories_need_no_entry(own: Drive) -> None:
    await own.write_file("/a/b/c", b"1", mtime_ms=111)
    stat = await own.lstat("/a/b")
    assert stat == Stat(0o040755, mtime_ms=111, ctime_ms=111)
    await own.write_file("/z", b"2", mtime_ms=222)
    assert (await own.lstat("/a")).mtime_ms == 222  # of the newest entry of the drive
    assert (await own.list("/"))[0] == ("a", await own.lstat("/a"))
    with pytest.raises(AlreadyExists):
        await own.mkdir("/a/b")
    with pytest.raises(NotFound):
        await own.lstat("/a/x")


async def test_a_directory_with_entry_shows_it_in_listings_too(own: Drive) -> None:
    await own.mkdir("/d", mode=0o700, mtime_ms=5)
    await own.write_file("/d/newer", b"1")
    await own.write_file("/d/e/f", b"1")
    ((name, stat),) = await own.list("/")
    assert (name, stat.mode, stat.mtime_ms) == ("d", 0o040700, 5)
    assert stat == await own.lstat("/d")


async def test_a_file_with_entries_below_is_shown_as_a_file(own: Drive) -> None:
    await own.batch([NewEntry("f", Stat(0o100644), (b"x",)), NewEntry("f/below", Stat(0o100644), (b"y",))])
    assert (await own.list("/"))[0].stat.is_file
    assert (await own.lstat("/f")).is_file
    assert await names(own, "/f") == ["below"]
    assert await own.read_file("/f") == b"x"


async def test_writing_where_nothing_can_be(own: Drive) -> None:
    await own.write_file("/file", b"1")
    await own.mkdir("/dir")
    for call in (own.write_file("/file/x"), own.mkdir("/file/x/y"), own.symlink("/file/x", "y")):
        with pytest.raises(NotADirectory):
            await call
    for path in ("/dir", "/"):
        with pytest.raises(IsADirectory):
            await own.write_file(path, b"")
    for call in (own.mkdir("/dir"), own.mkdir("/file"), own.symlink("/file", "x"), own.mkdir("/")):
        with pytest.raises(AlreadyExists):
            await call
    for call in (own.list("/file"), own.rmdir("/file")):
        with pytest.raises(NotADirectory):
            await call
    with pytest.raises(IsADirectory):
        await own.open("/dir")
    with pytest.raises(InvalidPath):
        await own.symlink("/empty", "")


async def test_removing(own: Drive) -> None:
    await own.write_file("/a/only", b"1")
    with pytest.raises(NotEmpty):
        await own.rmdir("/a")
    with pytest.raises(IsADirectory):
        await own.unlink("/a")
    await own.unlink("/a/only")
    assert await names(own) == ["a"]  # it does not vanish with its last entry
    await own.rmdir("/a")
    assert await own.list() == []
    for call in (own.unlink("/a"), own.rmdir("/a"), own.list("/a"), own.open("/a"), own.read_link("/a")):
        with pytest.raises(NotFound):
            await call


async def test_overwriting_keeps_old_content_for_open_readers(own: Drive) -> None:
    await own.write_file("/f", b"old" * 50_000)
    reader = await own.open("/f")
    await own.write_file("/f", b"new")
    assert await reader.read(149_990, 100) == (b"old" * 50_000)[149_990:]
    assert await own.read_file("/f") == b"new"


async def test_attributes_change_without_touching_content(own: Drive) -> None:
    await own.write_file("/d/f", b"data", mtime_ms=5)
    stat = await own.set_stat("/d/f", mode=0o600, uid=3, metadata={"user.x": b"1"})
    assert (stat.mode, stat.uid, stat.mtime_ms, stat.metadata) == (0o100600, 3, 5, {"user.x": b"1"})
    assert await own.lstat("/d/f") == stat
    assert await own.read_file("/d/f") == b"data"
    await own.set_stat("/d", mode=0o711)
    assert (await own.lstat("/d")).mode == 0o040711
    with pytest.raises(TypeError):
        await own.set_stat("/d/f", size=5)
    with pytest.raises(NotFound):
        await own.set_stat("/none", uid=1)
    with pytest.raises(InvalidPath):
        await own.set_stat("/", uid=1)


async def test_renaming(own: Drive) -> None:
    await own.write_file("/a/b/f", b"1")
    await own.mkdir("/a/b/empty", mode=0o700)
    await own.write_file("/g", b"2")
    version = own.version
    await own.rename("/a/b", "/c")
    assert await tree(own) == ["a", "c", "g", "c/empty", "c/f"]
    assert await own.read_file("/c/f") == b"1"
    assert own.checkout(version).version == version
    await own.rename("/g", "/c/f")
    assert await own.read_file("/c/f") == b"2"
    with pytest.raises(IsADirectory):
        await own.rename("/c/f", "/a")
    with pytest.raises(NotADirectory):
        await own.rename("/c", "/c/f/x")
    with pytest.raises(InvalidPath):
        await own.rename("/c", "/c/empty/x")
    with pytest.raises(NotFound):
        await own.rename("/none", "/x")
    await own.rename("/c/f", "/c/f")


async def test_links_are_followed(own: Drive) -> None:
    await own.write_file("/docs/file", b"1")
    for link, target in {
        "/up": "docs/file",
        "/docs/self": "./file",
        "/docs/root": "/docs",
        "/dir": "docs",
        "/chain": "dir/self",
        "/dangling": "/nowhere",
        "/out": "../../../../docs/file",
    }.items():
        await own.symlink(link, target)
        assert await own.read_link(link) == target
        assert (await own.lstat(link)).is_symlink
    for path in ("/up", "/docs/self", "/docs/root/file", "/dir/file", "/chain", "/out", "/docs/root/root/root/self"):
        assert await own.read_file(path) == b"1", path
    assert await own.resolve("/dir/self") == "docs/file"
    assert await names(own, "/dir") == await names(own, "/docs")
    with pytest.raises(NotFound):
        await own.stat("/dangling")
    with pytest.raises(InvalidPath):
        await own.read_link("/docs/file")
    await own.unlink("/dir")
    assert await own.exists("/docs/file")


async def test_links_in_a_circle_end(own: Drive) -> None:
    await own.symlink("/a", "b")
    await own.symlink("/b", "a")
    await own.symlink("/deeper", "deeper/x")
    for path in ("/a", "/deeper", "/a/x"):
        with pytest.raises((TooManyLinks, InvalidPath)):
            await own.stat(path)
        with pytest.raises((TooManyLinks, InvalidPath)):
            await own.list(path)


async def test_special_kinds_cannot_be_opened(own: Drive) -> None:
    await own.batch([NewEntry("device", Stat(0o060644), (b"x",))])
    with pytest.raises(Unsupported):
        await own.open("/device")


# -- versions


async def test_versions_tags_and_differences(own: Drive) -> None:
    await own.write_file("/same", b"1")
    await own.write_file("/changed", b"1")
    await own.write_file("/gone", b"1")
    before = own.version
    assert await own.tags.add("v1") == before
    await own.write_file("/changed", b"2")
    await own.unlink("/gone")
    await own.mkdir("/new")
    old = own.checkout(await own.tags.get("v1"))
    assert (await old.read_file("/changed"), await names(old)) == (b"1", ["changed", "gone", "same"])
    changes = {change.path: change.kind async for change in own.diff(before)}
    assert changes == {"changed": "put", "gone": "del", "new": "put"}
    assert sorted(await own.changed(before)) == ["changed", "gone", "new"]
    back = {change.path: change.kind async for change in old.diff(own.version)}
    assert back == {"changed": "put", "gone": "put", "new": "del"}
    assert await own.tags.all() == {"v1": before}
    with pytest.raises(AlreadyExists):
        await own.tags.add("v1")
    await own.tags.remove("v1")
    for call in (own.tags.get("v1"), own.tags.remove("v1"), own.tags.add("v9", 99)):
        with pytest.raises(NotFound):
            await call


async def test_what_peers_stored_as_a_tag_is_a_version_or_left_out(own: Drive) -> None:
    await own.write_file("f", b"x")
    trie = (await own.trie()).trie
    for name, value in {"none": b"\0", "bad": b"\xff" * 12, "empty": b"", "first": b"\2"}.items():
        await trie.put(f"ddrive-tags/{name}", value, hidden=True)
    assert await own.tags.all() == {"first": 2, "none": 1}  # version 0 is the empty drive, which is 1
    assert [name async for name, _ in own.checkout(await own.tags.get("none")).walk()] == []
    for name in ("bad", "empty"):
        with pytest.raises(ImpossibleEntry):
            await own.tags.get(name)


async def test_entries_stored_again_as_they_were_are_no_change(own: Drive) -> None:
    await own.batch([NewEntry(f"f{number}", Stat(0o100644)) for number in range(20)])
    before = own.version
    for number in range(10):
        await own.unlink(f"/f{number}")  # the trie stores a neighbour again for each
    assert sorted(await own.changed(before)) == [f"f{number}" for number in range(10)]


async def test_a_fixed_version_cannot_change(own: Drive, own_store: OwnedStore) -> None:
    await own.write_file("/f", b"1")
    old = await open_drive(own_store, key=own.key, version=1)
    assert (old.writable, await old.list()) == (False, [])
    for call in (
        old.write_file("/g"),
        old.mkdir("/g"),
        old.unlink("/g"),
        old.tags.add("x"),
        old.batch([]),
        old.mount("/m", own.key),
    ):
        with pytest.raises((NotWritable, NotFound)):
            await call
    for version in (0, 99):
        with pytest.raises(NotFound):
            own.checkout(version)


async def test_followers_see_new_versions(own: Drive) -> None:
    seen: list[int] = []

    async def watch() -> None:
        async for version in own.follow():
            seen.append(version)
            if version >= 4:
                return

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(3):
                await own.write_file(f"/{number}", b"x")
    assert seen[-1] == 4
    assert seen == sorted(seen)


# -- nested drives


async def three(store: OwnedStore) -> tuple[Drive, Drive, Drive]:
    """Return a drive in a drive in a drive."""
    inner = await open_drive(store, name="inner", create=True)
    middle = await open_drive(store, name="middle", create=True)
    outer = await open_drive(store, name="outer", create=True)
    await inner.write_file("/deep/file", b"innermost")
    await middle.write_file("/own", b"middle")
    await middle.mount("/inner", inner.key)
    await outer.mount("/nested/middle", middle.key)
    await outer.mount("/pinned", inner.key, version=inner.version)
    return outer, middle, inner


async def test_drives_in_drives(own_store: OwnedStore) -> None:
    outer, middle, inner = await three(own_store)
    assert await outer.read_file("/nested/middle/inner/deep/file") == b"innermost"
    await outer.write_file("/nested/middle/inner/deep/file", b"written from outside")
    assert await inner.read_file("/deep/file") == b"written from outside"
    assert await outer.read_file("/pinned/deep/file") == b"innermost"
    assert await tree(outer) == [
        *["nested", "pinned", "nested/middle", "nested/middle/inner", "nested/middle/own"],
        *["nested/middle/inner/deep", "nested/middle/inner/deep/file", "pinned/deep", "pinned/deep/file"],
    ]
    assert [(mount.path, mount.key) for mount in sorted(await outer.mounts())] == [
        ("nested/middle", middle.key),
        ("nested/middle/inner", inner.key),
        ("pinned", inner.key),
    ]
    with pytest.raises(NotWritable):
        await outer.write_file("/pinned/new", b"")
    with pytest.raises(CrossesMount):
        await outer.rmdir("/pinned")
    with pytest.raises(CrossesMount):
        await outer.rename("/nested/middle/own", "/own")
    with pytest.raises(AlreadyExists):
        await outer.mount("/pinned", inner.key)
    await outer.unmount("/pinned")
    assert not await outer.exists("/pinned")
    with pytest.raises(NotFound):
        await outer.unmount("/nested")


async def test_a_drive_that_contains_itself_is_walked_once(own: Drive) -> None:
    await own.write_file("/f", b"1")
    await own.mount("/loop", own.key)
    assert await tree(own) == ["f", "loop"]
    assert await own.read_file("/loop/loop/loop/f") == b"1"
    with pytest.raises(TooManyLinks):
        await own.read_file("/loop" * 70 + "/f")


async def test_a_plain_feed_is_a_file(own: Drive, own_store: OwnedStore) -> None:
    feed = await own_store.open_feed(name="log")
    await feed.append([b"line 1\n", b"", b"line 2\n"])
    await own.mount("/raw.log", feed.key, feed=True)
    assert (await own.lstat("/raw.log")).size == 14
    assert await own.read_file("/raw.log") == b"line 1\nline 2\n"
    await feed.append([b"line 3\n"])
    assert await own.read_file("/raw.log") == b"line 1\nline 2\nline 3\n"
    await own.unmount("/raw.log")
    assert await own.list() == []


async def test_attributes_of_a_mount_point_change_without_unmounting(own_store: OwnedStore) -> None:
    outer, _, _ = await three(own_store)
    await outer.set_stat("/pinned", mode=0o700)
    assert (await outer.lstat("/pinned")).mode == 0o040700
    assert await outer.read_file("/pinned/deep/file") == b"innermost"


# -- writing with others


async def test_files_written_at_the_same_time_stay_whole(own: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    async def chunks(letter: bytes) -> AsyncIterator[bytes]:
        for _ in range(20):
            yield letter * 10_000
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr("ddrive.drive.writer.APPEND_BYTES", 50_000)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for letter in (b"a", b"b", b"c"):
                nursery.start_soon(own.write_file, f"/{letter.decode()}", chunks(letter))
    for letter in (b"a", b"b", b"c"):
        assert await own.read_file(f"/{letter.decode()}") == letter * 200_000
    assert (await own.content()).byte_length == 600_000  # they took turns: nothing was appended twice


async def test_a_stranger_who_appends_in_between_only_costs_repetition(own: Drive) -> None:
    content = await own.content()
    async with writing(content) as writer:
        await writer.write([b"first", b"second"])
        await content.append([b"stranger"])
        await writer.write([b"third"])
    extent = writer.extent
    assert (extent.offset, extent.blocks, extent.byte_offset, extent.size) == (3, 3, 19, 16)
    assert [content.get_held(index) for index in range(6)] == [
        *[b"first", b"second", b"stranger"],
        *[b"first", b"second", b"third"],
    ]


async def test_a_length_that_changes_under_the_append_is_noticed(own: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    content = await own.content()
    plain = content.append

    async def late(blocks, *, expected_length=None, atomic=True):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(content, "append", plain)
        await plain([b"stranger"])
        raise LengthChanged("somebody was first")

    monkeypatch.setattr(content, "append", late)
    stat = await own.write_file("/f", b"data")
    assert (stat.offset, stat.byte_offset) == (1, 8)
    assert await own.read_file("/f") == b"data"


async def test_many_entries_in_one_append_each(own: Drive) -> None:
    content = await own.content()
    entries = [NewEntry(f"/f{number}", Stat(0o100644), (bytes([number]) * number,) * 2) for number in range(1, 50)]
    await own.batch([*entries, NewEntry("d", Stat(0o040700)), NewEntry("l", Stat(0o120777, linkname="f1"))])
    assert (own.version, content.length) == (52, 98)
    for number in range(1, 50):
        assert await own.read_file(f"/f{number}") == bytes([number]) * number * 2
    assert (await own.lstat("/d")).offset == 98
    assert await own.stat("/l") == await own.lstat("/f1")
    await own.batch([NewEntry("/x", Stat(0o100644))], removed=["/f1", "/missing"])
    assert not await own.exists("/f1")


async def test_what_is_held_and_clearing_it(own: Drive) -> None:
    await own.write_file("/d/a", b"x" * 100_000)
    await own.write_file("/d/empty", b"")
    found = await usage(own, "/")
    assert {path: tuple(numbers) for path, numbers in found.items()} == {
        "d/a": (100_000, 2, 2, 100_000),
        "d/empty": (0,) * 4,
    }
    complete: list[str] = []
    await download(own, "/d/a", done=lambda path, _: complete.append(path))
    assert complete == ["d/a"]
    assert await clear(own, "/") == 0  # nobody else may have it
    assert await own.read_file("/d/a") == b"x" * 100_000
