"""Blocks for which there is no room reach all who wait for them, however many come at once."""

import threading
from pathlib import Path

import trio

from ddrive.dialect import DWEB
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.passing import PASSING_BYTES
from ddrive.ids import PublicKey
from ddrive.store.attached import open_attached
from ddrive.store.store import open_store
from tests.store.test_attached import link, world
from tests.support.until import until

BLOCKS = [number.to_bytes(2, "big") * 32768 for number in range(2 * PASSING_BYTES // 65536)]
WAIT_S = 20


class Reader:
    """A process with a view that stands still after it has asked, until all has come (in a thread here)."""

    def __init__(self, socket: Path, key: PublicKey) -> None:
        self.heard, self.came = threading.Event(), threading.Event()
        self._socket, self._key = socket, key

    def read_all(self) -> list[bytes]:
        return trio.run(self._read_all)

    async def _read_all(self) -> list[bytes]:
        found: dict[int, bytes] = {}

        async def read(view: Feed, number: int) -> None:
            found[number] = await view.get(number)

        with trio.fail_after(WAIT_S):
            async with open_attached(self._socket) as attached, trio.open_nursery() as nursery:
                view = await attached.store(DWEB).open_feed(key=self._key)
                for number in range(len(BLOCKS)):
                    nursery.start_soon(read, view, number)
                await until(self.heard.is_set)
                self.came.wait(WAIT_S)
        return [found[number] for number in range(len(BLOCKS))]


async def test_a_reader_that_is_slower_than_its_blocks_come_gets_them_all(tmp_path: Path) -> None:
    async with world(tmp_path) as at, open_store(tmp_path / "peer", DWEB) as store, trio.open_nursery() as nursery:
        theirs = await store.open_feed(name="theirs")
        await theirs.append(BLOCKS)
        reader, results = Reader(at.engine.socket, theirs.key), list[list[bytes]]()

        async def run() -> None:
            results.append(await trio.to_thread.run_sync(reader.read_all))

        nursery.start_soon(run)
        await until(lambda: at.engine.heard.count("feed.want") == len(BLOCKS))
        [copy] = at.store.feeds()
        assert isinstance(copy.log, FeedLog)
        copy.log.room = lambda index, size: False
        stats, scope = at.store.session(copy).stats, trio.CancelScope()
        reader.heard.set()
        at.nursery.start_soon(link, store, at.store, scope)
        try:
            await until(lambda: stats.downloaded_blocks >= len(BLOCKS))
        finally:
            reader.came.set()
        await until(lambda: bool(results))
        scope.cancel()
        assert results == [BLOCKS]
        assert not copy.held(0, len(BLOCKS))
