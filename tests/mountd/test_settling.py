"""A worker that takes over while the engine still stores what the dead one has asked for."""

import threading
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from ddrive.feed.log import FeedLog
from mountd.journal import Journal
from mountd.writing import Writing, serve_writing
from tests.mountd import committed
from tests.mountd.committed import Mounted, mounted


async def test_what_comes_into_the_drive_late_is_not_made_a_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, secure = threading.Event(), threading.Event(), FeedLog.secure

    def slow(*arguments: object) -> None:
        begun.set()
        go_on.wait(20)
        secure(*arguments)  # type: ignore[arg-type]

    async with mounted(tmp_path) as it, trio.open_nursery() as nursery:
        it.spool.close(remove=True)
        monkeypatch.setattr(committed, "OWNER", {"key": it.drive.key.hex(), "dialect": "dweb"})
        it._start()
        await it.drive.write_file("/f", b"first")
        await it.drive.write_file("/new", b"second")
        it.staged.move("/f", "/backup", await it.drive.lstat("/f"))
        it.staged.move("/new", "/f", await it.drive.lstat("/new"))
        monkeypatch.setattr(FeedLog, "secure", slow)
        nursery.start_soon(commit_of_the_dying, it)
        await trio.to_thread.run_sync(begun.wait)
        monkeypatch.setattr(Journal, "done", lambda *_: None)  # it is killed before
        monkeypatch.setattr("mountd.writing.SETTLE_S", 0.1, raising=False)  # there was a limit, of eight seconds
        it.spool.close(remove=False)
        nursery.start_soon(after_a_moment, go_on)
        writing: Writing = await nursery.start(serve_writing, it.drive, tmp_path, "/mnt", [])
        assert writing.staged.is_clean
        await writing.committer.finish(5)
        assert (await it.drive.read_file("/f"), await it.drive.read_file("/backup")) == (b"second", b"first")
        nursery.cancel_scope.cancel()


async def commit_of_the_dying(it: Mounted) -> None:
    with suppress(OSError):  # its spool is closed by then
        await it.committer.commit()


async def after_a_moment(event: threading.Event) -> None:
    await trio.sleep(0.3)  # a worker that does not wait has looked by then
    event.set()
