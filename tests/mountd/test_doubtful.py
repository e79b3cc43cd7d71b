"""Appends to a drive of which nobody says whether they were made: what they are to store is stored once."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import trio

from ddrive.errors import EngineError
from tests.mountd.committed import Mounted, mounted


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Mounted]:
    async with mounted(tmp_path) as made:
        yield made


async def exchange(it: Mounted) -> None:
    """Let the drive have `/a`, and let the mount move that to `/b` and make another `/a`."""
    await it.write("/a", b"first")
    await it.committer.commit()
    node = it.staged.pin("/a", await it.drive.lstat("/a"))
    it.staged.move("/a", "/b", node.stat)
    await it.write("/a", b"second")


@pytest.mark.parametrize("is_made", [True, False], ids=["made", "not made"])
@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_an_append_that_was_given_up_is_made_once(
    it: Mounted, monkeypatch: pytest.MonkeyPatch, end: str, *, is_made: bool
) -> None:
    await exchange(it)
    version = it.drive.version
    append = it.drive.metadata.append
    scope = trio.CancelScope()

    async def unknown(*blocks: Any, **options: Any) -> None:
        if is_made:
            await append(*blocks, **options)
        scope.cancel()
        await trio.lowlevel.checkpoint()
        raise EngineError("no engine")

    fails: AbstractContextManager[Any] = pytest.raises(EngineError) if end == "failed" else scope
    with monkeypatch.context() as patched:
        patched.setattr(it.drive.metadata, "append", unknown)
        with fails:
            await it.committer.commit()
    assert it.drive.version == version + 2 * is_made
    assert it.staged.pending == 2
    assert it.staged.due.is_set()
    await it.write("/a", b"third")
    assert await it.committer.finish(5)
    assert it.drive.version == version + 3
    assert (await it.drive.read_file("/a"), await it.drive.read_file("/b")) == (b"third", b"first")
    assert it.staged.is_clean
    assert it.staged.pending == 0
    assert len(it.spool.slots) == 0


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside others"])
async def test_a_directory_moves_once_the_drive_has_what_was_given_up(
    it: Mounted, monkeypatch: pytest.MonkeyPatch, *, others: bool
) -> None:
    await it.drive.mkdir("/d")
    await it.write("/d/f", b"text")
    append = it.drive.metadata.append
    with monkeypatch.context() as patched, trio.CancelScope() as scope:

        async def unknown(*blocks: Any, **options: Any) -> None:
            await append(*blocks, **options)
            scope.cancel()
            await trio.lowlevel.checkpoint()

        patched.setattr(it.drive.metadata, "append", unknown)
        await it.committer.commit()
    if others:
        await it.drive.write_file("/x", b"others")
    async with it.committer.alone():
        assert not await it.committer.move("/d", "/e")
    assert await it.drive.read_file("/e/f") == b"text"
    assert not await it.drive.exists("/d")
    assert it.staged.is_clean


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_what_came_after_an_append_of_a_dead_worker(
    it: Mounted, monkeypatch: pytest.MonkeyPatch, *, is_replaced: bool
) -> None:
    """It was made before the worker knew that the drive has what is below it."""
    await exchange(it)

    def die(serials: list[int]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(it.spool.journal, "done", die)
    with pytest.raises(KeyboardInterrupt):
        await it.committer.commit()
    moved = it.staged.node("/b")
    assert moved is not None
    it.staged.set("/b", moved.stat, mtime_ms=77)
    if is_replaced:
        await it.write("/a", b"third")
    await it.die()
    assert await it.committer.finish(5)
    assert await it.drive.read_file("/a") == (b"third" if is_replaced else b"second")
    assert await it.drive.read_file("/b") == b"first"
    assert (await it.drive.lstat("/b")).mtime_ms == 77


async def test_no_change_has_the_number_of_one_that_was_tried(it: Mounted) -> None:
    synced = await it.write("/synced", b"1", close=False)
    it.staged.seal(synced, due=False)
    await it.write("/x", b"2")
    await it.committer.commit()
    await it.die()
    await it.write("/y", b"3")
    await it.die()
    assert await it.read("/y") == b"3"
    await it.committer.commit()
    assert await it.drive.read_file("/y") == b"3"
