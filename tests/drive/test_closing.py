"""After `close` a drive does nothing any more, whoever else has its feeds open, and what waits for peers ends."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import ddrive
from ddrive.drive import Drive, open_drive
from ddrive.errors import Closed
from ddrive.ids import PublicKey
from ddrive.store.store import OwnedStore

Call = Callable[[Drive], Awaitable[object]]


async def steps(iterator: object) -> object:
    """Return the first thing that an iterator gives."""
    return await anext(iterator)  # type: ignore[call-overload]


CALLS: dict[str, Call] = {
    "trie": lambda drive: drive.trie(),
    "content": lambda drive: drive.content(),
    "lstat": lambda drive: drive.lstat("file"),
    "root": lambda drive: drive.stat("/"),
    "names": lambda drive: drive.names(),
    "list": lambda drive: drive.list(),
    "entries": lambda drive: steps(drive.entries()),
    "walk": lambda drive: steps(drive.walk()),
    "read_file": lambda drive: drive.read_file("file"),
    "read_stream": lambda drive: drive.read_stream("file").receive_some(1),
    "open_file": lambda drive: drive.open_file("file", "a"),
    "write_file": lambda drive: drive.write_file("other", b"x"),
    "batch": lambda drive: drive.batch([], ["file"]),
    "refresh": lambda drive: drive.refresh(),
    "follow": lambda drive: steps(drive.follow()),
    "watch": lambda drive: steps(drive.watch()),
    "log": lambda drive: steps(drive.log()),
    "diff": lambda drive: steps(drive.diff()),
    "checkout": lambda drive: drive.checkout(1).names(),
    "tags": lambda drive: drive.tags.all(),
    "mounts": lambda drive: drive.mounts(),
    "nested": lambda drive: drive.nested(),
    "feeds": lambda drive: drive.feeds(),
    "download": lambda drive: drive.download(),
    "mirror": lambda drive: drive.mirror(),
    "destroy": lambda drive: drive.destroy(),
}


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_is_refused(name: str, own: Drive, own_store: OwnedStore) -> None:
    await own.write_file("file", b"1")
    async with await open_drive(own_store, key=own.key) as drive:  # `own` keeps the feeds open
        assert await drive.read_file("file") == b"1"
    with trio.fail_after(5), pytest.raises(Closed):
        await CALLS[name](drive)
    with pytest.raises(Closed):
        drive.events()
    await drive.close()
    assert await own.names() == ["file"]


async def test_open_files_end(own: Drive, own_store: OwnedStore) -> None:
    await own.write_file("file", b"1")
    async with await open_drive(own_store, key=own.key) as drive:
        reader, file = await drive.open("file"), await drive.open_file("file", "w")
        await file.write(b"2")
    with pytest.raises(Closed):
        await reader.read(0, 1)
    with pytest.raises(Closed):
        await file.aclose()
    assert await own.read_file("file") == b"1"


@pytest.mark.parametrize("name", ["names", "read_file", "write_file", "follow", "watch", "log", "download", "mirror"])
async def test_a_wait_for_the_first_block_ends(name: str, own_store: OwnedStore) -> None:
    drive = await open_drive(own_store, key=PublicKey(b"\x07" * 32))
    await ends_with_it(drive, CALLS[name], own_store)
    assert own_store.users(drive.key) == 0


@pytest.mark.parametrize("name", ["read_file", "lstat", "list", "walk", "download", "mirror", "follow", "watch"])
async def test_a_wait_for_more_ends(name: str, own: Drive, tmp_path: Path, own_store: OwnedStore) -> None:
    await own.write_file("file", b"1")
    for number in range(20):
        await own.mkdir(f"{number}")
    ours, theirs = memory_stream_pair()
    async with ddrive.open_store(tmp_path / "copy") as copy, await open_drive(copy, key=own.key) as drive:
        async with trio.open_nursery() as links:
            links.start_soon(partial(ddrive.replicate, own_store, ours, initiator=True))
            links.start_soon(partial(ddrive.replicate, copy, theirs, initiator=False))
            await drive.trie()
            if name in ("read_file", "watch"):
                await drive.lstat("file")
            links.cancel_scope.cancel()
        await ends_with_it(drive, CALLS[name], copy)


async def ends_with_it(drive: Drive, call: Call, store: OwnedStore) -> None:
    """Check that `call` waits, and ends when the drive is closed though somebody else has it open."""
    other = await store.open_feed(key=drive.key)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def refused() -> None:
                with pytest.raises(Closed):
                    await call(drive)
                done.set()

            done = trio.Event()
            nursery.start_soon(refused)
            await wait_all_tasks_blocked(0.05)
            assert not done.is_set()
            await drive.close()
    await store.release(other)
