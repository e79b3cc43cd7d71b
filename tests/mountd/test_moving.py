"""A directory that moves takes along what is not committed, whoever is killed meanwhile."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ddrive.drive import open_drive
from ddrive.errors import EngineError, LengthChanged, NotEmpty
from mountd.committing import Committer
from mountd.journal import Move
from mountd.pending import GROUP_S
from mountd.spool import open_spools
from mountd.writing import Writing, serve_writing
from tests.mountd.committed import OWNER, Mounted, mounted
from tests.support.until import until


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Mounted]:
    async with mounted(tmp_path) as made:
        yield made


class Killed(BaseException):
    """The end of a worker."""


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
@pytest.mark.parametrize("dies", ["before", "after", "later"])
async def test_a_worker_dies_while_a_directory_moves(
    it: Mounted, monkeypatch: pytest.MonkeyPatch, dies: str, lost: int
) -> None:
    """`lost`: of the records that were to follow the move, so many are missing at the end."""
    await it.drive.mkdir("/d")
    await it.drive.write_file("/d/old", b"old")
    await it.drive.mkdir("/new")
    await it.write("/d/big", b"big" * 50_000)
    rename = it.drive.rename

    async def killed(old: str, new: str) -> None:
        if dies != "before":
            await rename(old, new)
        if dies != "later":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(it.drive, "rename", killed)
        ends: list[int] = []
        add = it.spool.journal._add

        def noted(record: list[object]) -> None:
            add(record)
            ends.append(it.spool.journal.size)

        patch.setattr(it.spool.journal, "_add", noted)
        with contextlib.suppress(Killed):
            async with it.committer.alone():
                await it.committer.move("/d", "/new/e")
        if dies == "later":
            assert len(ends) == 4  # MOVING, CHANGED, DONE, MOVED
            os.truncate(it.spool.directory / "journal", ends[-1 - lost])
    await it.die()
    here, gone = ("/d", "/new/e") if dies == "before" else ("/new/e", "/d")
    assert await it.read(f"{here}/big") == b"big" * 50_000
    await it.die()  # that it has been looked at is recorded
    if dies != "before":
        await it.write("/d/another", b"another")
        await it.die()
        assert await it.read("/d/another") == b"another"
        another = it.staged.node("/d/another")
        assert another is not None
        it.staged.remove("/d/another")
        another.discard()
    await it.committer.commit()
    assert await it.drive.read_file(f"{here}/big") == b"big" * 50_000
    assert await it.drive.read_file(f"{here}/old") == b"old"
    assert not await it.drive.exists(gone)
    assert it.staged.is_clean
    assert len(it.spool.slots) == 0


async def test_a_move_that_is_refused_leaves_nothing_to_be_looked_at(it: Mounted) -> None:
    await it.drive.mkdir("/d")
    await it.drive.write_file("/full/file", b"")
    await it.write("/d/waits", b"text")
    async with it.committer.alone():
        await it.write("/d/more", b"text")
        with pytest.raises(NotEmpty):
            await it.committer.move("/d", "/full")
    await it.drive.write_file("/full/another", b"")
    await it.die()
    assert await it.read("/d/more") == b"text"


async def test_a_move_goes_on_although_who_wanted_it_gives_up(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.drive.mkdir("/d")
    await it.drive.write_file("/d/file", b"text")
    rename, may_move = it.drive.rename, trio.Event()

    async def late(old: str, new: str) -> None:
        scope.cancel()
        await may_move.wait()
        await rename(old, new)

    async def move(begin: Callable[[], None]) -> None:
        async with it.committer.alone():
            begin()
            await it.committer.move("/d", "/e")

    monkeypatch.setattr(it.drive, "rename", late)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.committer.run)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            await it.committer.lasting.see_through(move)
        assert scope.cancelled_caught
        await it.write("/d/more", b"more")
        await trio.sleep(2 * GROUP_S)  # in which it would be committed
        assert await it.drive.names("/d") == ["file"]
        may_move.set()
        await until(lambda: it.staged.is_clean)
        nursery.cancel_scope.cancel()
    assert await it.drive.names("/") == ["e"]
    assert await it.drive.read_file("/e/more") == b"more"
    assert await it.drive.read_file("/e/file") == b"text"


async def test_a_move_that_has_not_begun_is_given_up(it: Mounted) -> None:
    async def move(begin: Callable[[], None]) -> None:
        raise AssertionError

    async def waits(begin: Callable[[], None]) -> None:
        async with it.committer.alone():
            await move(begin)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.committer.run)
        await wait_all_tasks_blocked()
        async with it.committer.alone():
            with trio.move_on_after(0.1) as scope:
                await it.committer.lasting.see_through(waits)
        assert scope.cancelled_caught
        with pytest.raises(AssertionError):
            await it.committer.lasting.see_through(move)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("when", ["before the commit", "in the commit", "never"])
async def test_a_move_of_a_dead_worker_is_made_late(it: Mounted, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    await it.drive.write_file("/d/old", b"old")
    await it.write("/d/waits", b"text")
    it.spool.journal.moving(Move("/d", "/e", it.drive.version))
    await it.die()
    assert it.spool.move is not None  # not made yet
    if when != "never":
        await it.drive.rename("/d", "/e")
    if when == "in the commit":
        with monkeypatch.context() as patch:
            patch.setattr(it.committer, "_resolve_move", trio.lowlevel.checkpoint)  # was too early
            with pytest.raises(LengthChanged):
                await it.committer.commit()
    await it.committer.commit()
    assert it.spool.move is None
    assert await it.drive.names("/") == ["d" if when == "never" else "e"]
    assert await it.drive.read_file("/d/waits" if when == "never" else "/e/waits") == b"text"
    await it.die()
    assert it.spool.move is None


async def test_nothing_is_stored_before_it_is_known_whether_a_directory_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mounted(tmp_path) as it:
        await it.drive.mkdir("/d")
        await it.write("/d/waits", b"text")
        it.spool.journal.moving(Move("/d", "/e", it.drive.version))
        await it.drive.rename("/d", "/e")
        it.spool.close(remove=False)
        monkeypatch.setattr("mountd.writing.open_spools", lambda *_: open_spools(tmp_path / "spool", OWNER, "/mnt"))

        async def unknown(committer: Committer) -> None:
            raise EngineError("it has gone")

        async with trio.open_nursery() as nursery:
            serve = partial(nursery.start, serve_writing, it.drive, tmp_path, "/mnt", ())
            with monkeypatch.context() as patch:
                patch.setattr(Committer, "_resolve_move", unknown)
                with pytest.raises(EngineError):
                    await serve()
            made: Writing = await serve()  # no lock was left
            await made.committer.commit()
            nursery.cancel_scope.cancel()
        assert await it.drive.read_file("/e/waits") == b"text"
        assert not await it.drive.exists("/d")
        it.spool = open_spools(tmp_path / "spool", OWNER, "/mnt")[0]


async def test_a_directory_of_a_nested_drive_has_moved_here_before_it_is_news(it: Mounted) -> None:
    inner = await open_drive(it.store, name="inner", create=True)
    await it.drive.mount("/nest", inner.key)
    await it.drive.mkdir("/nest/a")
    await it.write("/nest/mine", b"mine")
    await it.committer.commit()
    nested = (await it.staged.nested()).drives()[0]
    assert nested == (await it.staged.nested()).drives()[0]
    old, news = nested.version, []

    async def follow() -> None:
        await nested.wait_version(old + 1)
        news.append(await nested.changed(old))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        async with it.committer.alone(), it.staged.batching:
            await it.committer.move("/nest/a", "/nest/b")
            await wait_all_tasks_blocked()
            assert nested.version > old
            assert news == []
    assert {*news[0]} == {"nest/a", "nest/b"}
    await inner.close()
