"""What is staged stays as it was when a change finds no room for its record: without FUSE, with a real drive."""

import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ddrive.drive.stat import FILE_MODE, Stat
from mountd.journal import Journal
from mountd.staged import StagedDrive
from tests.mountd.committed import Mounted, mounted


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Mounted]:
    async with mounted(tmp_path) as made:
        yield made


def full(journal: Journal, data: bytes) -> None:
    raise OSError(errno.ENOSPC, "full")


CHANGES: dict[str, Callable[[StagedDrive, Stat, Stat], object]] = {
    "move": lambda staged, a, b: staged.move("/a", "/other", a),
    "swap": lambda staged, a, b: staged.swap("/a", "/b", [b, a]),
    "replace": lambda staged, a, b: staged.move("/b", "/a", b),
    "remove": lambda staged, a, b: staged.remove("/a"),
    "set": lambda staged, a, b: staged.set("/a", a, mode=FILE_MODE),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_found_no_room_when_it_was_closed_outlives_a_change_that_finds_none(
    it: Mounted, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    for path in ("/a", "/b"):
        await it.write(path, b"stored")
    await it.committer.commit()
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_write", full)
        for path in ("/a", "/b"):
            with pytest.raises(OSError, match="full"):
                await it.write(path, b"late in " + path.encode())
        stats = await it.staged.lstat("/a"), await it.staged.lstat("/b")
        with pytest.raises(OSError, match="full"):
            CHANGES[change](it.staged, *stats)
    for path in ("/a", "/b"):
        assert await it.read(path) == b"late in " + path.encode()
    await it.committer.finish(5)
    for path in ("/a", "/b"):
        assert await it.drive.read_file(path) == b"late in " + path.encode()
    assert len(it.spool.slots) == 0
