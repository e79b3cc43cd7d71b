"""What was closed first does not replace what others stored later, however late it gets its turn."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ddrive.drive.stat import FILE_MODE
from ddrive.errors import StorageError
from mountd import moments
from mountd.journal import Journal
from tests.mountd.committed import Mounted, mounted

LONG_AGO_MS = 1_000_000_000_000  # what an import keeps of the file that it reads


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Mounted]:
    async with mounted(tmp_path) as made:
        await made.drive.write_file("/a", b"first")
        yield made


async def others_store(it: Mounted, path: str = "/a", data: bytes = b"theirs") -> None:
    """Store a file as an import does, which keeps its times; from no other mount of ours."""
    await it.drive.write_file(path, data)
    await it.drive.set_stat(path, mtime_ms=LONG_AGO_MS, ctime_ms=LONG_AGO_MS)


@contextmanager
def no_room(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nothing of ours be stored in the drive meanwhile."""

    async def full(*_: object, **__: object) -> None:
        raise StorageError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(type(it.committer), "_update", full)
        yield


async def fails_to_store(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one commit find no room."""
    with no_room(it, monkeypatch):
        with pytest.raises(StorageError):
            await it.committer.commit()
        it.staged.note_late()


async def test_what_could_not_be_stored_gives_way_to_what_others_stored_since(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.write("/a", b"ours")
    await fails_to_store(it, monkeypatch)
    await others_store(it)
    stale: list[str] = []
    it.staged.on_stale = stale.append
    assert await it.read("/a") == b"ours"
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"theirs"
    assert (await it.drive.lstat("/a")).mtime_ms == LONG_AGO_MS
    assert await it.drive.checkout(it.drive.version - 1).read_file("/a") == b"ours"  # both are in the history
    assert stale == ["/a"]
    assert await it.read("/a") == b"theirs"
    assert it.staged.is_clean
    assert len(it.spool.slots) == 0
    await it.write("/a", b"again")
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"again"


async def test_what_found_no_room_at_its_close_gives_way_too(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(journal: Journal, data: bytes) -> None:
        raise OSError(28, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_write", full)
        with pytest.raises(OSError, match="no room"):
            await it.write("/a", b"ours")
    await others_store(it)
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"theirs"
    assert await it.read("/a") == b"theirs"


async def test_what_a_dead_worker_left_long_ago_gives_way(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(moments.time, "clock_gettime_ns", lambda _: 1_700_000_000 * 10**9)
        await it.write("/a", b"ours")
        await it.write("/b", b"ours")
        it.staged.remove("/a")
        await it.write("/a", b"ours again")
    await others_store(it)
    await it.die()
    await it.committer.finish(5)
    assert await it.drive.read_file("/a") == b"theirs"
    assert await it.drive.read_file("/b") == b"ours"


async def test_a_file_that_others_wrote_after_our_close_stays_without_any_failure(it: Mounted) -> None:
    await it.write("/a", b"ours")
    await it.drive.write_file("/a", b"theirs")
    later = (await it.drive.lstat("/a")).ctime_ms + 1000
    await it.drive.set_stat("/a", ctime_ms=later)
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"theirs"


async def test_the_later_close_wins(it: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await it.write("/a", b"ours", close=False)
    await others_store(it)
    it.staged.released(node)
    await fails_to_store(it, monkeypatch)
    await it.drive.set_stat("/a", mode=0o600)  # an attribute is no content
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"ours"
    assert (await it.drive.lstat("/a")).mode & 0o777 == 0o600


async def test_what_was_removed_or_moved_here_before_others_stored_it_stays(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/b", "/c"):
        await it.drive.write_file(path, b"first")
    it.staged.remove("/a")
    it.staged.move("/b", "/c", await it.drive.lstat("/b"))
    await fails_to_store(it, monkeypatch)
    await others_store(it, "/a")
    await others_store(it, "/c")
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"theirs"
    assert await it.drive.read_file("/c") == b"theirs"
    assert not await it.drive.exists("/b")
    assert (await it.read("/a"), await it.read("/c")) == (b"theirs", b"theirs")


async def test_an_attribute_that_we_gave_is_kept_with_the_newer_content(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await it.write("/a", b"ours")
    it.staged.set_node(node, mode=FILE_MODE & ~0o777 | 0o600)
    await fails_to_store(it, monkeypatch)
    await others_store(it)
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"theirs"
    assert (await it.drive.lstat("/a")).mode & 0o777 == 0o600


async def test_a_file_that_is_open_to_write_goes_on_from_what_was_written_here(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await it.write("/a", b"ours" * 50_000)
    node.writers += 1
    await fails_to_store(it, monkeypatch)
    await others_store(it)
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"theirs"
    assert await it.read("/a") == b"ours" * 50_000
    await node.edit("/a").write(0, b"OURS")
    node.stat = node.stat._replace(mtime_ms=node.stat.mtime_ms + 1)
    it.staged.released(node)
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"OURS" + b"ours" * 49_999


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"])
@pytest.mark.parametrize("removed_before", [[], ["/never", "/neither"]], ids=["", "after less than it might be"])
async def test_what_a_dead_worker_left_long_ago_replaces_what_it_had_stored_before(
    it: Mounted, monkeypatch: pytest.MonkeyPatch, is_told: bool, removed_before: list[str]
) -> None:
    await it.write("/before", b"x")
    for path in removed_before:  # the drive does not have them: that commit makes fewer versions than it has changes
        it.staged.remove(path)
    it.staged.seal(await it.write("/open", b"x", close=False), due=False)  # so that the journal goes on
    await it.committer.commit()
    with monkeypatch.context() as patched:
        patched.setattr(moments.time, "clock_gettime_ns", lambda _: 1_700_000_000 * 10**9)
        if not is_told:
            patched.setattr(Journal, "done", lambda *_: None)  # it was killed before
        for path in ("/a", "/b", "/c"):
            await it.write(path, b"older")
        await it.committer._append_waiting()
        for path in ("/a", "/b"):  # closed while the older ones are being stored
            await it.write(path, b"newer")
        it.staged.remove("/c")
        await it.write("/c", b"newer")
        await it.committer._store_ready()
    await others_store(it, "/b")
    assert await it.drive.read_file("/a") == b"older"
    for _ in range(2):
        await it.die()
    await it.committer.finish(5)
    assert [await it.drive.read_file(path) for path in ("/a", "/b", "/c")] == [b"newer", b"theirs", b"newer"]


async def test_what_nobody_confirmed_for_long_does_not_replace_what_was_closed_here_later(it: Mounted) -> None:
    await it.write("/a", b"older")
    await it.committer._append_waiting()
    it.staged.remove("/a")
    await it.write("/a", b"newer")
    it.staged.note_late()
    await it.committer._store_ready()
    it.staged.own.forget(it.drive.version)  # as whoever follows the drive does
    await it.committer.commit()
    assert await it.drive.read_file("/a") == b"newer"


async def test_what_came_along_with_a_directory_does_not_replace_what_was_closed_here_later(
    it: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.drive.mkdir("/d")
    await it.drive.write_file("/d/f", b"older")
    with monkeypatch.context() as patched:
        patched.setattr(moments.time, "clock_gettime_ns", lambda _: 1_700_000_000 * 10**9)
        it.staged.remove("/d/f")
        it.staged.add("/d/f", await it.drive.lstat("/a"), sealed=False)
        await it.write("/d/f", b"newer")
        async with it.committer._turn:
            await it.committer.move("/d", "/e")
    assert await it.drive.read_file("/e/f") == b"older"
    await it.die()
    await it.committer.finish(5)
    assert await it.drive.read_file("/e/f") == b"newer"
