"""Making and removing drives where the disk has no room for some of it: it can be done again when there is some."""

import errno
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from ddrive.dialect import DWEB
from ddrive.drive import open_drive
from ddrive.errors import AlreadyExists, DiskFull, NotFound
from ddrive.feed import Feed
from ddrive.store.store import OwnedStore, open_store
from tests.mountd.engines import Engine, engine

DISK_BYTES = 16 * 1024 * 1024
ROOM_BYTES = range(0, 160 * 1024, 4096)  # from none to what a drive takes


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine whose state directory is on a small disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", disk], check=True)  # noqa: ASYNC221
    try:
        async with engine(disk / "state") as made:
            yield made
    finally:
        subprocess.run(["umount", "-l", disk], check=True)  # noqa: ASYNC221


def fill(path: Path, *, keep: int) -> None:
    """Take all room of a disk but `keep` bytes."""
    with path.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        with suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(max(0, file.tell() - keep))


async def test_a_drive_is_made_and_removed_after_it_found_no_room(running: Engine) -> None:
    filler, made = running.state / "filler", set[bool]()
    for room in ROOM_BYTES:
        name = f"of{room}"
        fill(filler, keep=room)
        with suppress(DiskFull):
            await running.call("create", name=name)
        listed = {drive["name"]: drive["key"] for drive in await running.call("list")}
        filler.unlink()
        made.add(name in listed)
        if name not in listed:
            listed[name] = (await running.call("create", name=name))["key"]
        with pytest.raises(AlreadyExists):
            await running.call("create", name=name)
        await running.call("rm", key=listed[name], own=True)
    assert made == {True, False}


async def test_who_waits_for_peers_is_told_of_a_full_disk(running: Engine) -> None:
    made = await running.call("create")
    fill(running.state / "filler", keep=0)
    assert "the disk is full" in (await running.call("drive.why", key=made["key"]))["why"]
    (running.state / "filler").unlink()
    assert "the disk is full" not in (await running.call("drive.why", key=made["key"]))["why"]


async def test_a_drive_that_cannot_be_made_or_is_not_there_is_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(tmp_path, DWEB) as store:
        with pytest.raises(NotFound):
            await open_drive(store, name="x")
        assert users(store) == 0

        async def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(Feed, "append", full)
            with pytest.raises(OSError, match="No space"):
                await open_drive(store, name="x", create=True)
        assert users(store) == 0
        drive = await open_drive(store, name="x", create=True)
        await drive.write_file("/a", b"a")
        await drive.close()
        with pytest.raises(NotFound):
            await open_drive(store, name="x", version=99)
        assert users(store) == 0


def users(store: OwnedStore) -> int:
    return sum(store.users(feed.key) for feed in store.feeds())
