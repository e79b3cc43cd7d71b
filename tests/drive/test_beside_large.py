"""Small files beside a large one, each stored by a process of its own: who waits for whom, and what is repeated."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from ddrive.dialect import DWEB
from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.writer import APPEND_BYTES
from ddrive.store import reserving
from ddrive.store.attached import open_attached
from ddrive.store.attached_feed import AttachedFeed
from ddrive.store.store import OwnedStore
from tests.support.answering import answered

PIECES = 3  # of the large file
Client = Callable[[], AbstractAsyncContextManager[Drive]]


@pytest.fixture
async def client(own: Drive, own_store: OwnedStore, tmp_path: Path) -> AsyncIterator[Client]:
    """Give a function that gives the drive as one more process sees it."""
    socket = tmp_path / "socket"

    @asynccontextmanager
    async def connected() -> AsyncIterator[Drive]:
        async with open_attached(socket) as attached:
            yield await open_drive(attached.store(DWEB), key=own.key)

    async with answered(own_store, socket):
        yield connected


class Large:
    """The content of a large file, of which the last piece comes when it may."""

    def __init__(self) -> None:
        self.begun, self.may_end = trio.Event(), trio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(PIECES):
            if number == PIECES - 1:
                self.begun.set()
                await self.may_end.wait()
            yield bytes([number]) * APPEND_BYTES

    @staticmethod
    def whole() -> bytes:
        return b"".join(bytes([number]) * APPEND_BYTES for number in range(PIECES))


async def test_small_files_wait_for_the_end_of_a_large_one(own: Drive, client: Client) -> None:
    content, large = await own.content(), Large()
    async with client() as one, client() as other:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.write_file, "large", large)
                await large.begun.wait()
                for number in range(3):
                    nursery.start_soon(other.write_file, f"small{number}", b"%d" % number)
                await trio.testing.wait_all_tasks_blocked(0.2)
                assert sorted(await own.names()) == []
                large.may_end.set()
        assert sorted(await own.names()) == ["large", "small0", "small1", "small2"]
        assert await own.read_file("large") == large.whole()
        assert content.byte_length == PIECES * APPEND_BYTES + 3  # nothing was appended twice
        assert (await own.stat("large")).offset == 0


async def test_they_wait_for_some_time_only(own: Drive, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserving, "WAIT_S", 0.05)
    content, large = await own.content(), Large()
    async with client() as one, client() as other:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.write_file, "large", large)
                await large.begun.wait()
                await other.write_file("small", b"small")
                large.may_end.set()
        assert await own.read_file("large") == large.whole()
        assert await own.read_file("small") == b"small"
        assert content.byte_length == (2 * PIECES - 1) * APPEND_BYTES + 5  # repeated once


@pytest.mark.parametrize("end", ["fails", "dies"])
async def test_nobody_waits_for_one_that_has_gone(
    own: Drive, client: Client, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "WAIT_S", 1000.0)
    if end == "dies":
        monkeypatch.setattr(AttachedFeed, "unreserve", lambda feed: None)  # nothing is told
    large = Large()
    async with client() as other, AsyncExitStack() as stack:
        one = await stack.enter_async_context(client())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.write_file, "large", large)
            await large.begun.wait()
            nursery.cancel_scope.cancel()
        if end == "dies":
            await stack.aclose()
        with trio.fail_after(60):
            await other.write_file("small", b"small")
    assert await own.names() == ["small"]
