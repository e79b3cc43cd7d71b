"""What is staged reaches the drive once, whole, and with what others change: without FUSE, with a real drive."""

import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from ddrive.drive.stat import DIRECTORY_MODE, FILE_MODE, Stat
from ddrive.errors import StorageError
from mountd.journal import Journal
from tests.mountd.committed import Mounted, mounted


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Mounted]:
    async with mounted(tmp_path) as made:
        yield made


async def test_a_group_is_one_append_of_content_and_one_of_entries(it: Mounted) -> None:
    content = await it.drive.content()
    appended: list[int] = []
    append = content.append

    async def counted(blocks: list[bytes], **options: int) -> int:
        appended.append(len(blocks))
        return await append(blocks, **options)

    content.append = counted  # type: ignore[method-assign,assignment]
    for number in range(100):
        await it.write(f"/f{number}", b"%d" % number * 100)
    assert await it.read("/f7") == b"7" * 100
    await it.committer.commit()
    assert appended == [100]
    assert it.drive.version == 101
    for number in range(100):
        assert await it.drive.read_file(f"/f{number}") == b"%d" % number * 100
    assert len(it.spool.slots) == 0


async def test_a_large_file_is_streamed(it: Mounted) -> None:
    data = bytes(range(256)) * 150_000
    await it.write("/big", data)
    await it.write("/small", b"x")
    await it.committer.commit()
    assert await it.drive.read_file("/big") == data
    assert await it.drive.read_file("/small") == b"x"


async def test_what_is_half_written_stays_here(it: Mounted) -> None:
    await it.write("/a", b"whole")
    await it.committer.commit()
    node = await it.write("/a", b"half", close=False)
    fresh = await it.write("/b", b"half", close=False)
    await it.committer.finish(5)
    assert await it.drive.read_file("/a") == b"whole"
    assert await it.read("/a") == b"half"
    assert not await it.drive.exists("/b")
    it.staged.seal(fresh, due=False)  # fsync
    assert it.staged.pending == 0
    await it.die()
    assert await it.read("/a") == b"whole"
    assert await it.read("/b") == b"half"
    assert node.is_dirty


async def test_a_worker_that_dies_before_it_says_what_it_has_stored(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.write("/a", b"first")
    await it.committer.commit()
    node = it.staged.pin("/a", await it.drive.lstat("/a"))
    it.staged.move("/a", "/b", node.stat)
    await it.write("/a", b"second")

    def die(serials: list[int]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(it.spool.journal, "done", die)
    with pytest.raises(KeyboardInterrupt):
        await it.committer.commit()
    version = it.drive.version
    await it.die()
    assert it.staged.is_clean
    await it.committer.commit()
    assert it.drive.version == version
    assert (await it.read("/a"), await it.read("/b")) == (b"second", b"first")


async def test_a_worker_begins_on_a_full_disk_though_the_one_before_did_not_say_what_it_has_stored(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.write("/a", b"first")

    def die(serials: list[int]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(it.spool.journal, "done", die)
    with pytest.raises(KeyboardInterrupt):
        await it.committer.commit()
    version = it.drive.version

    def full(journal: Journal, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_write", full)
        await it.die()
        assert await it.read("/a") == b"first"
        with pytest.raises(OSError, match="full"):
            it.staged.remove("/a")
    it.staged.remove("/a")
    await it.die()
    await it.committer.finish(5)
    assert it.drive.version == version + 1
    assert not await it.drive.exists("/a")


async def test_a_commit_that_was_refused_is_not_taken_for_the_next_after_a_kill(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.write("/old", b"first")
    await it.committer.commit()

    async def refuse(blocks: object, **options: object) -> int:
        raise StorageError("the disk is full")

    it.staged.add("/d", Stat(DIRECTORY_MODE, mtime_ms=1, ctime_ms=1))
    it.staged.move("/old", "/new", await it.drive.lstat("/old"))
    with monkeypatch.context() as patched:
        patched.setattr(it.drive.metadata, "append", refuse)
        with pytest.raises(StorageError):
            await it.committer.commit()
    await it.write("/new", b"second")  # the move waits for that now, the directory does not
    with monkeypatch.context() as patched:
        patched.setattr(await it.drive.content(), "append", refuse)
        with pytest.raises(StorageError):
            await it.committer.commit()
    assert [entry.name for entry in await it.drive.list("/")] == ["d", "old"]
    await it.die()
    assert [entry.name for entry in await it.staged.list("/")] == ["d", "new"]
    await it.committer.commit()
    assert [entry.name for entry in await it.drive.list("/")] == ["d", "new"]
    assert await it.drive.read_file("/new") == b"second"


async def test_what_was_stored_and_removed_leaves_what_has_its_name_alone(it: Mounted) -> None:
    node = await it.write("/a", b"removed")
    await it.committer.commit()
    it.staged.remove("/a")
    await it.write("/a", b"new")
    it.staged.set_node(node, mode=FILE_MODE & ~0o077)  # by who has it open
    await it.committer.commit()
    assert (await it.drive.lstat("/a")).mode == FILE_MODE
    assert await it.drive.read_file("/a") == b"new"


async def test_a_directory_that_changed_while_it_was_stored_shows_all_after_a_kill(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Stat(DIRECTORY_MODE, mtime_ms=1, ctime_ms=1)
    it.staged.add("/d", directory)
    await it.write("/d/old", b"old")

    def die(serials: list[int]) -> None:
        it.staged.touch("/d", directory, 5)  # programs go on meanwhile
        raise KeyboardInterrupt

    monkeypatch.setattr(it.spool.journal, "done", die)
    with pytest.raises(KeyboardInterrupt):
        await it.committer.commit()
    await it.write("/d/new", b"new")
    await it.die()
    assert [entry.name for entry in await it.staged.list("/d")] == ["new", "old"]
    await it.committer.commit()
    assert [entry.name for entry in await it.drive.list("/d")] == ["new", "old"]


async def test_a_worker_that_dies_before_it_has_stored_anything(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.write("/a", b"first")
    await it.committer.commit()
    node = it.staged.pin("/a", await it.drive.lstat("/a"))
    it.staged.move("/a", "/b", node.stat)
    await it.write("/a", b"second")
    it.staged.add("/d", Stat(DIRECTORY_MODE, mtime_ms=1, ctime_ms=1))
    await it.die()
    assert (await it.read("/a"), await it.read("/b")) == (b"second", b"first")
    await it.drive.write_file("/c", b"others")
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"second"
    assert await it.drive.read_file("/b") == b"first"
    assert (await it.drive.lstat("/d")).is_dir
    assert it.staged.is_clean
    assert it.spool.journal.size < 300


async def test_what_cannot_be_stored_stays_and_is_stored_later(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.write("/a", b"x" * 100_000)
    content = await it.drive.content()

    async def full(*_: object, **__: object) -> None:
        raise OSError(28, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(content, "append", full)
        with pytest.raises(OSError, match="no room"):
            await it.committer.commit()
    assert await it.read("/a") == b"x" * 100_000
    await it.write("/a", b"y" * 100)
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"y" * 100


async def test_changes_of_others_are_kept_where_we_have_changed_nothing(it: Mounted) -> None:
    await it.drive.write_file("/a", b"first")
    it.staged.set("/a", await it.drive.lstat("/a"), mode=FILE_MODE & ~0o7777 | 0o600)
    await it.drive.write_file("/a", b"second", mode=0o640)
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"second"
    assert (await it.drive.lstat("/a")).mode & 0o777 == 0o600
    await it.write("/a", b"third")
    await it.drive.set_stat("/a", mode=0o755)
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"third"
    assert (await it.drive.lstat("/a")).mode & 0o777 == 0o755


async def test_only_changes_of_others_are_news(it: Mounted) -> None:
    version = it.drive.version
    for number in range(5):
        await it.write(f"/f{number}", b"ours")
        await it.committer.commit()
    assert await it.staged.changed(version) == []
    version = it.drive.version
    await it.write("/ours", b"ours")
    await it.committer.commit()
    await it.drive.write_file("/theirs", b"theirs")
    await it.write("/later", b"ours")
    await it.committer.commit()
    assert await it.staged.changed(version) == ["theirs"]
    stale: list[str] = []
    it.staged.on_stale = stale.append
    node = it.staged.pin("/ours", await it.drive.lstat("/ours"))
    node.writers += 1
    version = it.drive.version
    await it.drive.write_file("/ours", b"theirs")
    assert await it.staged.changed(version) == []  # it is open
    it.staged.released(node)
    assert stale == ["/ours"]


async def test_removing_what_the_drive_never_had_is_no_version(it: Mounted) -> None:
    version = it.drive.version
    await it.write("/brief", b"")
    it.staged.remove("/brief")
    await it.committer.commit()
    assert it.drive.version == version
    await it.drive.write_file("/theirs", b"theirs")
    assert await it.staged.changed(version) == ["theirs"]


async def test_what_moves_while_it_is_committed_is_found_at_its_new_place(it: Mounted) -> None:
    await it.write("/a", b"text")
    async with trio.open_nursery() as nursery:
        batching = it.staged.batching
        await batching.acquire()
        nursery.start_soon(it.committer.commit)
        await trio.testing.wait_all_tasks_blocked(0.05)
        node = it.staged.node("/a")
        assert node is not None
        it.staged.move("/a", "/b", node.stat)
        await it.write("/a", b"another")
        batching.release()
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"another"
    assert await it.drive.read_file("/b") == b"text"
    assert len(it.spool.slots) == 0


@pytest.mark.parametrize("dies", [False, True])
async def test_a_directory_moves_while_a_content_is_appended(
    it: Mounted, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    await it.drive.mkdir("/d")
    await it.drive.write_file("/from", b"old")
    await it.write("/d/big", b"big" * 50_000)
    await it.write("/from", b"new")
    node = it.staged.node("/from")
    assert node is not None
    it.staged.move("/from", "/to", node.stat)
    content, gate = await it.drive.content(), trio.Event()
    append = content.append

    async def slow(blocks: list[bytes], **options: int) -> int:
        await gate.wait()
        return await append(blocks, **options)

    monkeypatch.setattr(content, "append", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.committer.commit)
        await trio.testing.wait_all_tasks_blocked(0.05)
        it.staged.add("/new", Stat(DIRECTORY_MODE, mtime_ms=1, ctime_ms=1))
        assert it.staged.holds_back  # `/from` is there until `/to` is
        gate.set()
        async with it.committer.alone():
            assert await it.drive.read_file("/to") == b"new"
            assert not await it.drive.exists("/from")
    gate = trio.Event()
    await it.write("/d/big", b"BIG" * 50_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.committer.commit)
        await trio.testing.wait_all_tasks_blocked(0.05)
        async with it.committer.alone():  # waits for no content
            assert await it.committer.move("/d", "/new/e")
        if dies:
            nursery.cancel_scope.cancel()
        gate.set()
    if dies:
        await it.die()
    assert await it.read("/new/e/big") == b"BIG" * 50_000
    await it.committer.commit()
    assert await it.drive.read_file("/new/e/big") == b"BIG" * 50_000
    assert not await it.drive.exists("/d")
    assert it.staged.is_clean
    assert len(it.spool.slots) == 0


async def test_what_is_removed_while_its_content_is_appended_stays_removed(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.drive.write_file("/old/f", b"old")
    await it.drive.mkdir("/new")
    content, gate = await it.drive.content(), trio.Event()
    append = content.append

    async def slow(blocks: list[bytes], **options: int) -> int:
        await gate.wait()
        return await append(blocks, **options)

    monkeypatch.setattr(content, "append", slow)
    it.staged.add("/d", Stat(DIRECTORY_MODE, mtime_ms=1, ctime_ms=1))
    removed = await it.write("/d/f", b"text")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.committer.commit)
        await trio.testing.wait_all_tasks_blocked(0.05)
        it.staged.remove("/d/f")
        removed.discard()
        it.staged.remove("/d")
        node = await it.write("/old/f", b"new")
        it.staged.move("/old/f", "/new/f", node.stat)
        it.staged.remove("/old")
        assert it.staged.holds_back  # `/old` is not empty in the drive
        assert [entry.name for entry in await it.staged.list("/")] == ["new"]
        gate.set()
    assert "d" not in [entry.name for entry in await it.drive.list("/")]
    assert [entry.name for entry in await it.staged.list("/")] == ["new"]
    await it.committer.commit()
    assert [entry.name for entry in await it.drive.list("/")] == ["new"]
    assert await it.drive.read_file("/new/f") == b"new"
    assert it.staged.is_clean
    assert len(it.spool.slots) == 0


async def test_a_file_that_is_written_faster_than_it_is_stored_is_stored(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = await it.drive.content()
    append = content.append
    number = 0

    async def overtaken(blocks: list[bytes], **options: int) -> int:
        nonlocal number
        number += 1
        await it.write("/a", b"%d" % number * 1000)
        return await append(blocks, **options)

    monkeypatch.setattr(content, "append", overtaken)
    await it.write("/a", b"0" * 1000)
    for expected in (b"0", b"1", b"2"):
        await it.committer.commit()
        assert await it.drive.read_file("/a") == expected * 1000
        assert await it.read("/a") == b"%d" % number * 1000
    monkeypatch.undo()
    assert await it.committer.finish(5)
    assert await it.drive.read_file("/a") == b"3" * 1000
    assert len(it.spool.slots) == 0


async def test_a_new_directory_where_the_drive_has_something_else_is_empty(it: Mounted) -> None:
    await it.drive.write_file("/d/f", b"")
    await it.drive.write_file("/file", b"")
    await it.drive.symlink("/link", "d")
    for path in ("/file", "/link"):
        it.staged.remove(path)
        it.staged.add(path, Stat(DIRECTORY_MODE, mtime_ms=1, ctime_ms=1))
        assert await it.staged.list(path) == []
        await it.write(path + "/new", b"")
        assert [entry.name for entry in await it.staged.list(path)] == ["new"]
    await it.committer.commit()
    assert [entry.name for entry in await it.drive.list("/link")] == ["new"]
    assert [entry.name for entry in await it.staged.list("/file")] == ["new"]


@pytest.mark.parametrize("change", [lambda it: it.staged.remove("/d/f"), lambda it: it.staged.remove("/d/g")])
async def test_listings_show_what_is_staged(it: Mounted, change: Callable[[Mounted], None]) -> None:
    await it.drive.write_file("/d/f", b"")
    await it.write("/d/g", b"")
    assert [entry.name for entry in await it.staged.list("/d")] == ["f", "g"]
    change(it)
    left = [entry.name for entry in await it.staged.list("/d")]
    assert len(left) == 1
    await it.committer.commit()
    assert [entry.name for entry in await it.staged.list("/d")] == left
    assert [entry.name for entry in await it.drive.list("/d")] == left
