"""What is staged stays as it was when a change finds no room for its record: without FUSE, with a real drive."""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ddrive.drive.stat import FILE_MODE, Stat
from mountd.journal import Journal
from mountd.spool import CHUNK_BYTES
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


async def test_a_write_goes_as_far_as_there_is_room_though_its_last_chunk_finds_none(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.write("/a", b"o" * (3 * CHUNK_BYTES))
    await it.committer.commit()
    node = it.staged.pin("/a", await it.drive.lstat("/a"))
    node.writers += 1
    draft, write_some = node.edit("/a"), it.spool.write_some
    await draft.write(0, b"m" * CHUNK_BYTES)

    def limited(place: int, data: memoryview | bytes) -> int:
        if place >= CHUNK_BYTES:
            raise OSError(errno.ENOSPC, "full")
        return write_some(place, data[: CHUNK_BYTES - place])

    with monkeypatch.context() as patched:
        patched.setattr(it.spool, "write_some", limited)
        assert await draft.write(0, b"n" * (CHUNK_BYTES + 100)) == CHUNK_BYTES
        with pytest.raises(OSError, match="full"):
            await draft.write(CHUNK_BYTES, b"n" * 100)
    it.staged.released(node)
    await it.committer.finish(5)
    assert await it.drive.read_file("/a") == b"n" * CHUNK_BYTES + b"o" * (2 * CHUNK_BYTES)


async def test_a_write_that_found_no_room_leaves_no_slot_behind(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.write("/a", b"o" * (3 * CHUNK_BYTES))
    await it.committer.commit()
    node = it.staged.pin("/a", await it.drive.lstat("/a"))
    node.writers += 1
    draft = node.edit("/a")

    def refused(offset: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(draft, "_write", refused)  # what it covers in part is ready then
        with pytest.raises(OSError, match="full"):
            await draft.write(100, b"n" * CHUNK_BYTES)
    assert len(it.spool.slots) == 2
    it.staged.released(node)
    assert it.staged.is_clean
    assert len(it.spool.slots) == 0
    assert await node.read(0, 4 * CHUNK_BYTES) == b"o" * (3 * CHUNK_BYTES)  # who has it open to read goes on


@pytest.mark.parametrize("killed", [False, True])
async def test_what_was_stored_is_not_stored_again_though_there_is_no_room_to_say_so(
    it: Mounted, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    """A move would take what has come to its old place since."""
    for path in ("/f", "/new"):
        await it.write(path, path.encode())
    await it.committer.commit()
    version, write = it.drive.version, Journal._write
    it.staged.move("/f", "/backup", await it.staged.lstat("/f"))
    it.staged.move("/new", "/f", await it.staged.lstat("/new"))

    def full_once_stored(journal: Journal, data: bytes) -> None:
        if it.drive.version > version:
            full(journal, data)
        write(journal, data)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_write", full_once_stored)
        with suppress(OSError):  # of what there is to record in its turn
            await it.committer.commit()
        stored = it.drive.version
        if killed:
            await it.die()
    assert await it.committer.finish(5)
    assert it.drive.version == stored
    assert (await it.drive.read_file("/f"), await it.drive.read_file("/backup")) == (b"/new", b"/f")
    assert it.staged.is_clean
