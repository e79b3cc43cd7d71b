"""A nested drive is taken out, or another one put in its place, before what was changed in it is stored."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from ddrive.drive import Drive, open_drive
from ddrive.drive.stat import Stat
from ddrive.errors import NotFound, NotWritable, TimedOut
from ddrive.ids import PublicKey
from mountd import merging
from mountd.editing import Editor
from mountd.vfs import Vfs
from mountd.waits import Limits
from tests.mountd.committed import Mounted, mounted
from tests.mountd.test_vfs import Kernel
from tests.support.memory_drive import FakeCallers


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Mounted]:
    async with mounted(tmp_path) as made:
        yield made


async def nested(it: Mounted, name: str = "inner", **files: bytes) -> Drive:
    """Nest a drive with these files at /q."""
    inner = await open_drive(it.store, name=name, create=True)
    for path, data in files.items():
        await inner.write_file(path, data)
    with suppress(NotFound):
        await it.drive.unmount("/q")
    await it.drive.mount("/q", inner.key)
    return inner


async def chmod(it: Mounted, path: str) -> None:
    feed = await it.staged.content_of(path.rpartition("/")[0] or "/")
    it.staged.set_node(it.staged.pin(path, await it.staged.lstat(path), feed=feed), mode=0o100600)


@pytest.mark.parametrize("killed", [False, True])
async def test_attributes_of_its_files_do_not_come_into_the_drive_around_it(it: Mounted, *, killed: bool) -> None:
    await it.drive.write_file("/outer", b"other bytes")
    inner = await nested(it, f=b"inner", g=b"more")
    await chmod(it, "/q/f")
    node = it.staged.pin("/q/g", await it.staged.lstat("/q/g"), feed=(await inner.content()).key)
    it.staged.move("/q/g", "/q/h", node.stat)
    await chmod(it, "/outer")
    await it.drive.unmount("/q")
    stale: list[str] = []
    if killed:
        await it.die()
    it.staged.on_stale = stale.append
    assert await it.committer.finish(5)
    assert [entry.name for entry in await it.drive.list("/")] == ["outer"]
    assert (await it.drive.lstat("/outer")).mode == 0o100600
    assert set(stale) == {"/q/f", "/q/g", "/q/h"}
    assert it.staged.is_clean
    assert await inner.read_file("g") == b"more"
    await it.die()
    assert it.staged.is_clean
    await inner.close()


@pytest.mark.parametrize("killed", [False, True])
async def test_what_was_done_to_its_files_is_not_done_to_those_of_another_one(it: Mounted, *, killed: bool) -> None:
    first = await nested(it, f=b"inner", g=b"inner")
    await chmod(it, "/q/f")
    it.staged.remove("/q/g", (await first.content()).key)
    second = await nested(it, "second", x=b"x" * 99, f=b"second", g=b"second")
    before = [await second.lstat(name) for name in "fg"]
    if killed:
        await it.die()
    assert await it.committer.finish(5)
    assert [await second.lstat(name) for name in "fg"] == before
    for drive in (first, second):
        await drive.close()


@pytest.mark.parametrize("killed", [False, True])
async def test_a_file_of_which_a_part_was_written_keeps_its_other_bytes(it: Mounted, *, killed: bool) -> None:
    await it.drive.write_file("/outer", b"other " * 50_000)
    inner = await nested(it, f=b"inner " * 50_000)
    node = it.staged.pin("/q/f", await it.staged.lstat("/q/f"), feed=(await inner.content()).key)
    node.writers += 1
    await node.edit("/q/f").write(0, b"INNER")
    it.staged.released(node)
    await it.drive.unmount("/q")
    if killed:
        await it.die()
    assert await it.committer.finish(5)
    assert await it.drive.read_file("/q/f") == b"INNER " + b"inner " * 49_999
    await inner.close()


@pytest.mark.parametrize("version", [2, None], ids=["fixed", "unknown"])
async def test_what_has_no_place_any_more_holds_nothing_else_up(
    it: Mounted, monkeypatch: pytest.MonkeyPatch, version: int | None
) -> None:
    """What leads to a drive that cannot be changed waits, as it may go again, and to one of which nothing is here."""
    monkeypatch.setattr(merging, "OWNER_S", 0.1)
    inner = await nested(it, f=b"inner")
    await chmod(it, "/q/f")
    await it.write("/q/new", b"written")
    await it.drive.unmount("/q")
    await it.drive.mount("/q", inner.key if version else PublicKey(bytes(range(32))), version=version)
    await it.write("/mine", b"mine")
    with pytest.raises(NotWritable if version else TimedOut, match="/q"):
        await it.committer.commit()
    assert await it.drive.read_file("/mine") == b"mine"
    assert it.staged.pending == (1 if version else 2)
    await it.drive.unmount("/q")
    assert await it.committer.finish(5)
    assert await it.drive.read_file("/q/new") == b"written"
    await inner.close()


async def test_what_comes_into_it_late_does_not_tell_where_files_of_another_one_are(it: Mounted) -> None:
    """Its last commit ends after the mount has looked at what is there by then."""
    vfs = Vfs(fixed=False, mountpoint="/mnt", state="/", limits=Limits(), callers=FakeCallers())
    editor = Editor(vfs, Kernel())
    vfs.set_drive(it.staged)
    it.staged.content_key = await it.staged.content_of("/")
    editor.set_drive(it.staged, it.committer)
    root, tells = vfs.inodes.root, it.staged.on_stat
    await it.drive.write_file("/outer", b"outer")
    first = await nested(it, f=b"inner")
    found = [inode for name in ("q", "outer") if (inode := (await vfs.find(root, name, 0))[0]) is not None]
    directory, outer = found
    inner, _ = await vfs.find(directory, "f", 0)
    assert inner is not None
    for inode in (inner, outer):
        await editor.set_attributes(inode.number, None, {"mode": 0o600}, 0)
    late: list[tuple[str, Stat, PublicKey | None]] = []
    it.staged.on_stat = lambda *told: late.append(told)
    assert await it.committer.finish(5)
    second = await nested(it, "second", x=b"x" * 99, f=b"other")
    vfs.epoch += 1
    directory = vfs.bind(root, "q", await it.drive.lstat("/q"))
    other = vfs.bind(directory, "f", await it.drive.lstat("/q/f"))
    for told in late:
        tells(*told)
    assert other.stat == await second.lstat("f")
    assert outer.stat == await it.drive.lstat("/outer")
    assert outer.stat.mode == 0o100600
    for drive in (first, second):
        await drive.close()
