"""What concerns a drive as a whole, and several at once: copies, metadata, places, watching, mirrors, events."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from ddrive.dialect import DWEB
from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.exporter import export_tree
from ddrive.drive.mirroring import mirror
from ddrive.drive.reaching import Reach
from ddrive.drive.stat import Stat
from ddrive.drive.walks import Inside
from ddrive.drive.writer import NewEntry
from ddrive.errors import (
    AlreadyExists,
    Closed,
    CrossesMount,
    InvalidPath,
    NotADirectory,
    NotFound,
    NotWritable,
    TimedOut,
)
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from ddrive.store.events import Downloaded, FeedOpened, Grown, PeerOpened, Uploaded
from ddrive.store.linked import replicate
from ddrive.store.namespace import namespace
from ddrive.store.store import OwnedStore, open_store
from tests.support.until import until


async def link(nursery: trio.Nursery, left: OwnedStore, right: OwnedStore) -> None:
    """Connect two stores."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def run(store: OwnedStore, stream: trio.abc.Stream, initiator: bool) -> None:
        await replicate(store, stream, initiator=initiator)

    nursery.start_soon(run, left, ours, True)
    nursery.start_soon(run, right, theirs, False)


async def complete(feed: Feed, length: int) -> None:
    """Return when all blocks are held, without asking for them."""
    await feed.wait_length(length)
    await until(lambda: feed.held(0, length) == length)


async def files(drive: Drive, path: str = "/") -> dict[str, bytes]:
    """Return the content of all files, nested drives not entered."""
    return {where: await drive.read_file(where) async for where, stat in drive.walk(path, mounts=False) if stat.is_file}


@pytest.fixture
async def nested(own: Drive, own_store: OwnedStore) -> Drive:
    """A second drive of ours, nested in the first one at `in/side`."""
    second = await open_drive(own_store, name="second", create=True)
    await own.mount("in/side", second.key)
    await second.write_file("deep/file", b"nested")
    return second


async def test_a_copy_names_the_same_blocks(own: Drive, nested: Drive) -> None:
    first = await own.write_file("a/one", b"content", mode=0o755)
    await own.symlink("a/link", "one")
    length = (await own.content()).length
    assert await own.copy("a/one", "b/two") == 1
    assert await own.stat("b/two") == first
    version = own.version
    assert await own.copy("a", "c") == 2
    assert own.version == version + 2
    assert await own.names("c") == ["link", "one"]
    assert await own.copy("in", "out") == 1
    assert await own.read_file("out/side/deep/file") == b"nested"
    assert (await own.content()).length == length
    await own.write_file("a/one", b"changed")
    assert await own.read_file("b/two") == b"content"
    for source, target, error in (
        ("missing", "x", NotFound),
        ("a/one", "c", AlreadyExists),
        ("a", "b/two", NotADirectory),
        ("a", "a/b", InvalidPath),
        ("a/one", "in/side/x", CrossesMount),
    ):
        with pytest.raises(error):
            await own.copy(source, target)


async def test_metadata(own: Drive) -> None:
    await own.write_file("f", b"content")
    await own.set_metadata("f", "user.one", b"1")
    await own.set_metadata("f", "user.two", b"2")
    await own.remove_metadata("f", "user.one")
    assert dict((await own.stat("f")).metadata) == {"user.two": b"2"}
    assert await own.read_file("f") == b"content"
    with pytest.raises(NotFound):
        await own.remove_metadata("f", "user.one")


async def test_no_change_of_attributes_is_lost(own: Drive) -> None:
    await own.write_file("f")
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(own.set_metadata, "f", f"user.{number}", b"")
    assert len((await own.stat("f")).metadata) == 12


async def test_access_and_info(own: Drive, nested: Drive) -> None:
    await own.access("in/side/deep/file", os.R_OK | os.W_OK)
    with pytest.raises(NotFound):
        await own.access("missing")
    with pytest.raises(NotWritable):
        await own.snapshot().access("in", os.W_OK)
    here, inside = await own.info("in/x"), await own.info("in/side/deep")
    assert (here.feed, here.mounted_at, here.inner, here.version, here.writable) == (
        own.metadata,
        "",
        "in/x",
        None,
        True,
    )
    assert (inside.feed, inside.mounted_at, inside.inner) == (nested.metadata, "in/side", "deep")
    found = await own.feeds()
    assert {path: feeds.metadata for path, feeds in found.items()} == {"": own.metadata, "in/side": nested.metadata}
    assert found["in/side"].content is await nested.content()


async def test_entries_are_those_of_the_list(own: Drive, nested: Drive) -> None:
    await own.batch([NewEntry(f"many/{number}", Stat(0o100644)) for number in range(600)])
    await own.symlink("link", "many")
    assert sorted([entry async for entry in own.entries("many")]) == await own.list("many")
    assert len([entry async for entry in own.entries("link")]) == 600
    assert sorted([entry.name async for entry in own.entries()]) == await own.names()
    assert [entry.name async for entry in own.entries("in/side")] == ["deep"]
    with pytest.raises(NotFound):
        await anext(own.entries("missing"))


async def test_a_walk_can_leave_out_nested_drives(own: Drive, nested: Drive) -> None:
    assert [path async for path, _ in own.walk(mounts=False)] == ["in", "in/side"]
    assert [path async for path, _ in own.walk()] == ["in", "in/side", "in/side/deep", "in/side/deep/file"]


async def test_watching(own: Drive, nested: Drive) -> None:
    send, receive = trio.open_memory_channel[list[str]](10)

    async def watch(path: str) -> None:
        async for changes in own.watch(path):
            await send.send([change.path for change in changes])

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, "docs")
            nursery.start_soon(watch, "in/side/deep")
            await trio.testing.wait_all_tasks_blocked()
            await own.write_file("other", b"")
            await nested.write_file("other", b"")
            await own.write_file("docs/a", b"")
            assert await receive.receive() == ["docs/a"]
            await own.unlink("docs/a")
            assert "docs/a" in await receive.receive()
            await own.mkdir("last")
            await nested.write_file("deep/more", b"")
            while "in/side/deep/more" not in await receive.receive():
                pass
            nursery.cancel_scope.cancel()
    with pytest.raises(StopAsyncIteration):
        await anext(own.snapshot().watch())


async def test_watching_enters_drives_that_are_looked_into_later(own: Drive, nested: Drive) -> None:
    found: list[str] = []

    async def watch() -> None:
        found.extend(change.path for change in await anext(own.watch()))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            await own.list("in/side")
            await trio.testing.wait_all_tasks_blocked()
            await nested.unlink("deep/file")
    assert "in/side/deep/file" in found


async def test_a_watch_ends_with_its_feed(own: Drive, own_store: OwnedStore) -> None:
    async def watch() -> None:
        with pytest.raises(Closed):
            await anext(own.watch())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        await own_store.forget(own.key)


async def test_what_is_mounted_in_a_mirrored_drive_is_mirrored_once(own: Drive, own_store: OwnedStore) -> None:
    plain = await own_store.open_feed(name="plain")
    await plain.append([b"plain"])
    await own.mount("file", plain.key, feed=True)  # shown as a file, with the time at which it was mounted
    copy = await open_drive(own_store, name="copy", create=True)
    assert (await mirror(own, copy)).stored == 1
    await trio.sleep(0.002)  # the times are kept to the millisecond
    assert (await mirror(own, copy))[:3] == (0, 0, 1)
    assert await copy.read_file("file") == b"plain"
    await own.unmount("file")
    await own.mount("file", plain.key, version=1, feed=True)
    assert (await mirror(own, copy))[:2] == (1, 1)


async def test_making_one_drive_like_another(own: Drive, nested: Drive, own_store: OwnedStore) -> None:
    await own.write_file("a/small", b"small", mode=0o700, metadata={"x": b"y"})
    await own.write_file("a/large", os.urandom(3_000_000))
    await own.symlink("a/link", "small")
    await own.mkdir("empty")
    copy = await open_drive(own_store, name="copy", create=True)
    await copy.write_file("old/file", b"")
    await copy.write_file("empty/not", b"")
    await copy.mkdir("a/small/dir")
    report = await mirror(own, copy)
    assert (report.stored, report.bytes) == (5, 3_000_005)
    assert await files(copy) == await files(own)
    assert [entry async for entry in copy.walk()] == [(path, (await copy.lstat(path))) async for path, _ in own.walk()]
    assert (await copy.stat("a/small")).metadata == {"x": b"y"}
    assert await copy.read_link("a/link") == "small"
    assert await copy.read_file("in/side/deep/file") == b"nested"
    version = copy.version
    assert (await mirror(own, copy))[:2] == (0, 0)
    assert copy.version == version
    await own.unlink("a/small")
    await own.write_file("empty/file", b"")
    assert (await mirror(own, copy, "empty", delete=False)).removed == 0
    assert await copy.exists("a/small")
    assert (await mirror(own, copy)).removed == 1
    with pytest.raises(InvalidPath):
        await mirror(own, copy, "a/large")


async def test_holding_what_others_have(own: Drive, nested: Drive, own_store: OwnedStore, tmp_path: Path) -> None:
    await own.write_file("a/one", os.urandom(200_000))
    await own.write_file("two", b"2")
    async with open_store(tmp_path / "reader", DWEB) as theirs, trio.open_nursery() as nursery:
        reader = await open_drive(theirs, key=own.key)
        with reader.events(Grown, Downloaded, PeerOpened) as events, own.events(Uploaded) as uploads:
            await link(nursery, own_store, theirs)
            assert isinstance(await anext(events), PeerOpened)
            await reader.download("a")
            assert {path: usage.held_blocks for path, usage in (await reader.stats()).items()} == {
                "a/one": 4,
                "in/side/deep/file": 0,
                "two": 0,
            }
            assert isinstance(await anext(events), Grown | Downloaded)
            assert isinstance(await anext(uploads), Uploaded)
        assert await reader.clear("a/one") == 4
        assert reader.peer_count == 1
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as keeping:
                keeping.start_soon(reader.mirror)
                for feeds in (await reader.feeds()).values():
                    for feed in feeds:
                        await complete(feed, max(1, feed.length))
                await own.write_file("later", b"3")
                await complete(await reader.content(), (await own.content()).length)
                scope.cancel()
        await reader.destroy()
        assert theirs.known(reader.discovery_key) is None
        nursery.cancel_scope.cancel()


async def test_mirroring_is_not_held_up_by_a_drive_that_nobody_has(
    own: Drive, nested: Drive, own_store: OwnedStore, tmp_path: Path
) -> None:
    await own.mount("a/lost", PublicKey(bytes([7]) * 32))
    await own.mount("self", own.key)
    async with open_store(tmp_path / "reader", DWEB) as theirs, trio.open_nursery() as nursery:
        await link(nursery, own_store, theirs)
        reader = await open_drive(theirs, key=own.key)
        await reader.metadata.wait_length(own.version)
        nursery.start_soon(reader.checkout(own.version).mirror)
        feed = await theirs.open_feed(key=(await nested.content()).key)
        await complete(feed, (await nested.content()).length)
        nursery.cancel_scope.cancel()


async def test_what_is_held_of_a_nested_drive_is_exported_when_nobody_has_the_rest(
    own: Drive, own_store: OwnedStore, tmp_path: Path
) -> None:
    large = 3_000_000
    for name, size in (("a", 10), ("b", 20), ("big", large), ("c", 30), ("d/e", 40)):
        await own.write_file(name, b"x" * size)

    @asynccontextmanager
    async def impatient(inside: Inside) -> AsyncIterator[None]:
        with trio.move_on_after(0.2) as scope:
            yield
        if scope.cancelled_caught:
            raise TimedOut(f"nothing of {inside.path}")

    async with open_store(tmp_path / "reader", DWEB) as theirs:
        outer = await open_drive(theirs, create=True)
        await outer.mount("n", own.key)
        await outer.write_file("f", b"own")
        async with trio.open_nursery() as nursery:
            await link(nursery, own_store, theirs)
            await outer.download()
            nursery.cancel_scope.cancel()
        for name in ("n/b", "n/big"):
            await outer.clear(name)
        reach = Reach(impatient)
        report = await export_tree(outer, "/", tmp_path / "copy", reach=reach)
        assert sorted(refused.path for refused in report.refused) == ["n/b", "n/big"]
        assert not reach.complete
        found = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
        assert found == {"f", "n/a", "n/c", "n/d/e"}
        reach = Reach(impatient)
        await outer.download(reach=reach)
        assert sorted(refused.path for refused in reach.refused) == ["n/b", "n/big"]
        assert (await outer.stats(reach=Reach(impatient)))["n/big"].held_blocks == 0
        await outer.mount("lost", PublicKey(bytes([7]) * 32))
        assert await outer.clear() == 3


async def test_an_export_counts_what_is_damaged_and_given_by_nobody(
    own: Drive, own_store: OwnedStore, tmp_path: Path
) -> None:
    for name, content in (("f", b"damaged" * 100), ("g", b"x")):
        await own.write_file(name, content)

    @asynccontextmanager
    async def impatient(inside: Inside) -> AsyncIterator[None]:
        with trio.move_on_after(0.2) as scope:
            yield
        if scope.cancelled_caught:
            raise TimedOut(f"nothing of {inside.path}")

    async with open_store(tmp_path / "reader", DWEB) as theirs, trio.open_nursery() as nursery:
        outer = await open_drive(theirs, name="outer", create=True)
        await outer.mount("n", own.key)
        await link(nursery, own_store, theirs)
        await outer.download()
        nursery.cancel_scope.cancel()
    for path in (tmp_path / "reader").rglob("data"):
        path.write_bytes(path.read_bytes().replace(b"damaged", b"DAMAGED"))
    async with open_store(tmp_path / "reader", DWEB) as theirs:
        outer = await open_drive(theirs, name="outer")
        report = await export_tree(outer, "/", tmp_path / "copy", reach=Reach(impatient))
    assert ([refused.path for refused in report.refused], report.unverified) == (["n/f"], 1)
    assert (tmp_path / "copy" / "n" / "g").read_bytes() == b"x"


async def test_a_version_that_an_own_nested_drive_does_not_have_is_not_waited_for(
    own: Drive, own_store: OwnedStore
) -> None:
    await own.write_file("f", b"x")
    outer = await open_drive(own_store, name="outer", create=True)
    await outer.mount("n", own.key, version=own.version + 1)
    with trio.fail_after(10):
        with pytest.raises(NotFound, match="its newest is"):
            await outer.list("n")
        assert [mount.path for mount in await outer.mounts()] == ["n"]
        reach = Reach()
        assert [path async for path, _ in outer.walk(reach=reach)] == ["n"]
        assert ([path for path, _ in reach.refused], reach.complete) == (["n"], True)
        await own.write_file("g", b"y")
        assert [entry.name for entry in await outer.list("n")] == ["f", "g"]


async def test_a_drive_that_was_waited_for_in_vain_is_waited_for_nowhere_else(
    own: Drive, own_store: OwnedStore, tmp_path: Path
) -> None:
    for number in range(20):
        await own.write_file(f"there/{number}", b"y")
    await own.write_file("here/f", b"x")
    waited: list[str] = []

    @asynccontextmanager
    async def impatient(inside: Inside) -> AsyncIterator[None]:
        with trio.move_on_after(0.2) as scope:
            yield
        if scope.cancelled_caught:
            waited.append(inside.path)
            raise TimedOut(f"nothing of {inside.path}")

    async with open_store(tmp_path / "reader", DWEB) as theirs:
        outer = await open_drive(theirs, create=True)
        for name in ("a", "b"):
            await outer.mount(name, own.key)
            await outer.mount(f"lost-{name}", PublicKey(bytes([7]) * 32))
        async with trio.open_nursery() as nursery:
            await link(nursery, own_store, theirs)
            for path in ("a", "a/here"):
                await outer.list(path)
            nursery.cancel_scope.cancel()
        reach = Reach(impatient)
        found = [path async for path, _ in outer.walk(reach=reach)]
        assert waited == ["a", "lost-a"]
        assert sorted(path for path, _ in reach.refused) == ["a/there", "b/there", "lost-a", "lost-b"]
        assert {"a/here/f", "b/here/f"} <= set(found)  # what is held is found, though the drive was lost before


async def test_namespaces_have_drives_of_their_own(own: Drive, own_store: OwnedStore) -> None:
    space = namespace(own_store, "photos")
    with own_store.events(FeedOpened) as opened:
        drive = await open_drive(space, create=True)
        assert (await anext(opened)).feed is drive.metadata
    assert drive.key != own.key
    assert drive.key == (await open_drive(own_store, name="photos")).key
    assert (await space.namespace("old").open_feed()).key == (await own_store.open_feed(name="photos:old")).key
    assert set(space.feeds()) == {drive.metadata, await drive.content()}
    before = own_store.users(drive.key)
    async with drive:
        await drive.write_file("f", b"x")
    assert own_store.users(drive.key) == before - 1
    await space.close()
    assert space.feeds() == []
    found = await own_store.open_feed(discovery_key=own.discovery_key)
    assert found is own.metadata
    with pytest.raises(NotFound):
        await own_store.open_feed(discovery_key=own_store.discovery_key(bytes(32)))
