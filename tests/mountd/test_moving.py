"""A directory that moves takes along what is not committed, whoever is killed meanwhile."""

import contextlib
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from ddrive.errors import EngineError, NotEmpty
from mountd.committing import Committer
from mountd.journal import Move
from mountd.spool import open_spools
from mountd.writing import Writing, serve_writing
from tests.mountd.committed import OWNER, Mounted, mounted


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
        append = it.spool.journal._append

        def noted(record: list[object]) -> None:
            append(record)
            ends.append(it.spool.journal.size)

        patch.setattr(it.spool.journal, "_append", noted)
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


async def test_a_move_ends_although_who_wanted_it_is_killed(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.drive.mkdir("/d")
    await it.drive.write_file("/d/file", b"text")
    rename = it.drive.rename
    with trio.CancelScope() as scope:

        async def killed(old: str, new: str) -> None:
            scope.cancel()
            await rename(old, new)

        monkeypatch.setattr(it.drive, "rename", killed)
        async with it.committer.alone():
            await it.write("/d/more", b"more")
            await it.committer.move("/d", "/e")
    assert await it.read("/e/more") == b"more"
    assert await it.drive.read_file("/e/file") == b"text"


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

        async def unknown(committer: Committer, move: Move) -> bool:
            raise EngineError("it has gone")

        async with trio.open_nursery() as nursery:
            serve = partial(nursery.start, serve_writing, it.drive, tmp_path, "/mnt", ())
            with monkeypatch.context() as patch:
                patch.setattr(Committer, "_is_moved", unknown)
                with pytest.raises(EngineError):
                    await serve()
            made: Writing = await serve()  # no lock was left
            await made.committer.commit()
            nursery.cancel_scope.cancel()
        assert await it.drive.read_file("/e/waits") == b"text"
        assert not await it.drive.exists("/d")
        it.spool = open_spools(tmp_path / "spool", OWNER, "/mnt")[0]
