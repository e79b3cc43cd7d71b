"""Views over a real socket: held blocks without a message, everything else through the engine, also when it dies."""

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import memory_stream_pair

from ddrive.dialect import DWEB, HYPERCORE
from ddrive.errors import (
    BadHandle,
    DriveError,
    EngineError,
    LengthChanged,
    LocalProtocolError,
    NotFound,
    NotHeld,
    NotWritable,
    SourceChanged,
    TooLarge,
)
from ddrive.feed import FeedLog
from ddrive.feed.feed import Feed
from ddrive.feed.file_blocks import FileBlocks, Place
from ddrive.ids import BlockIndex, PublicKey
from ddrive.replication.session import FeedSession
from ddrive.store import attached_feed
from ddrive.store import serve as serve_module
from ddrive.store.answering import Answering
from ddrive.store.attached import Attached, open_attached
from ddrive.store.attached_feed import AttachedFeed
from ddrive.store.calling import open_calling
from ddrive.store.derive import feed_folder
from ddrive.store.linked import replicate
from ddrive.store.serve import FeedService
from ddrive.store.sockets import listen
from ddrive.store.store import OwnedStore, open_store
from ddrive.trie.fixed import check_version
from tests.support.until import until

BLOCKS = [b"block %d" % number for number in range(20)]


class CountingService(FeedService):
    """Remembers what it was asked."""

    heard: list[str]

    async def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.heard.append(method)
        return await super().call(method, params)

    def notice(self, method: str, params: dict[str, Any]) -> None:
        self.heard.append(method)
        super().notice(method, params)


class Engine:
    """The part of an engine that matters here: a store behind a socket. `kill` and `start` as often as wanted."""

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        self.socket = directory / "control.sock"
        self.directory = directory
        self.heard: list[str] = []
        self.services: list[CountingService] = []
        self.may_append: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self._gone = trio.Event()

    async def start(self) -> None:
        self.store: OwnedStore = await self._nursery.start(self._run)

    async def kill(self) -> None:
        self._scope.cancel()
        await self._gone.wait()

    async def _run(self, *, task_status: trio.TaskStatus[OwnedStore]) -> None:
        self._scope, self._gone = trio.CancelScope(), trio.Event()
        listener = listen(self.socket)
        with self._scope:
            async with open_store(self.directory / "dweb", DWEB) as store, trio.open_nursery() as nursery:
                await nursery.start(lambda task_status: self._accept(store, listener, task_status))
                task_status.started(store)
        self.socket.unlink()
        self._gone.set()

    async def _accept(
        self, store: OwnedStore, listener: trio.SocketListener, task_status: trio.TaskStatus[None]
    ) -> None:
        async def serve(stream: trio.SocketStream) -> None:
            connection = Answering(stream)
            service = CountingService({"dweb": store}, connection.outbox, lambda: self.may_append())
            service.heard = self.heard
            self.services.append(service)
            await connection.run(service)

        task_status.started()
        await trio.serve_listeners(serve, [listener])


class World:
    """An engine with a writable feed of `BLOCKS`, and a view of it."""

    def __init__(self, engine: Engine, view: Attached, nursery: trio.Nursery) -> None:
        self.engine, self.view, self.nursery = engine, view, nursery

    @property
    def store(self) -> OwnedStore:
        return self.engine.store

    async def feed(self, **which: Any) -> Feed:
        return await self.view.store(DWEB).open_feed(**which)

    async def restart(self) -> None:
        await self.engine.kill()
        await until(lambda: not self.view.is_connected)
        await self.engine.start()
        await self.view.calling.wait_connected()


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            engine = Engine(directory, nursery)
            await engine.start()
            async with open_attached(engine.socket) as view:
                yield World(engine, view, nursery)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def remote(directory: Path, world: World) -> AsyncIterator[tuple[Feed, trio.CancelScope]]:
    """A peer that has a feed of `BLOCKS`, linked to the engine of `world` until the scope is cancelled."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(directory, DWEB))
        feed = await store.open_feed(name="theirs")
        await feed.append(BLOCKS)
        scope = trio.CancelScope()
        world.nursery.start_soon(link, store, world.store, scope)
        yield feed, scope
        scope.cancel()


async def link(theirs: OwnedStore, ours: OwnedStore, scope: trio.CancelScope) -> None:
    left, right = memory_stream_pair()
    with scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: replicate(theirs, left, initiator=True))
            nursery.start_soon(lambda: replicate(ours, right, initiator=False))


async def test_held_blocks_are_read_without_a_message(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        own = await at.store.open_feed(name="mine")
        await own.append(BLOCKS)
        view = await at.feed(key=own.key)
        assert (view.length, view.byte_length, view.writable) == (20, own.byte_length, True)
        at.engine.heard.clear()
        assert [await view.get(number) for number in range(20)] == BLOCKS
        assert await view.seek(8) == (BlockIndex(1), 1)
        await view.download(0, 20)
        assert at.engine.heard == []


async def test_what_tells_of_cleared_blocks_may_be_missing(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        own = await at.store.open_feed(name="mine")
        await own.append([bytes(65536)])
        (at.store.path / "cleared").unlink()
        view = await at.feed(key=own.key)
        assert await view.get(0) == bytes(65536)
        assert view.get_held_part(0, 10, 0) is None  # nothing tells whether it is still there
        await at.restart()  # which makes it anew
        await until(lambda: (at.store.path / "cleared").exists())
        await view.refresh()
        assert await view.get(0) == bytes(65536)
        await until(lambda: view.get_held(0) is not None and view.get_held_part(0, 10, 0) == bytes(10))


def spoil(at: World, feed: Feed, nodes: Iterable[int]) -> None:
    """Change the hashes of nodes on disk, of which the engine may remember what was there."""
    place = at.store.path / feed_folder(at.store.discovery_key(feed.key)) / "tree"
    tree = bytearray(place.read_bytes())
    for node in nodes:
        tree[32 + 40 * node] ^= 1
    place.write_bytes(tree)


async def test_nodes_that_a_view_finds_damaged_are_mended(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        own = await at.store.open_feed(name="mine")
        await own.append(BLOCKS)
        assert [await own.get(number) for number in range(20)] == BLOCKS
        spoil(at, own, [15, 35, 10])  # both roots, and the leaf of block 5
        view = await at.feed(key=own.key)
        assert view.length == 20
        assert [await view.get(number) for number in range(20)] == BLOCKS


async def test_one_object_per_feed_by_key_and_name(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        first = await at.feed(name="mine")
        second = await at.feed(key=first.key, live=True)
        third = await at.feed(name="mine")
        assert first is second is third
        assert first.key == (await at.store.open_feed(name="mine")).key
        with pytest.raises(DriveError):
            await at.view.store(HYPERCORE).open_feed(name="mine")
        with pytest.raises(DriveError):
            await at.feed()


async def test_a_view_asks_the_peers_through_the_engine(tmp_path: Path) -> None:
    heard: list[bytes] = []
    async with world(tmp_path) as at, remote(tmp_path / "far", at) as (theirs, _):
        view = await at.feed(key=theirs.key, live=True)
        await view.get(0)
        source = view.source
        assert isinstance(source, AttachedFeed)
        source.ask_peers("unknown", b"lost")
        ours = await at.store.open_feed(key=theirs.key)
        at.store.session(ours).extensions.register("help", lambda link, payload: None, asked=lambda: heard.append(b"!"))
        peer = theirs.source
        assert isinstance(peer, FeedSession)
        peer.extensions.register("help", lambda link, payload: heard.append(payload))
        source.ask_peers("help", b"which?")
        await until(lambda: b"which?" in heard)
        assert heard == [b"!", b"which?"]


async def test_a_closed_feed_can_be_opened_again(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        feed = await at.feed(name="mine")
        await feed.append(BLOCKS)
        await feed.aclose()
        again = await at.feed(key=feed.key)
        assert again is not feed
        assert await again.get(19) == BLOCKS[19]


async def test_a_feed_is_closed_with_its_last_user(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        store = at.view.store(DWEB)
        feed = await store.open_feed(name="mine")
        assert await store.open_feed(key=feed.key) is feed
        await store.release(feed)
        assert not feed.closed
        await store.release(feed)
        assert feed.closed
        await store.release(feed)
        await until(lambda: "feed.close" in at.engine.heard)
        assert await store.open_feed(key=feed.key) is not feed


async def test_growth_and_clearing_are_seen(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        own = await at.store.open_feed(name="mine")
        view = await at.feed(key=own.key)
        at.nursery.start_soon(own.append, BLOCKS)
        assert await view.wait_length(20) == 20
        await view.download(0, 20)
        own.clear(3, 5)
        await until(lambda: view.runs(0, 20) == [(0, 3), (5, 20)])
        with pytest.raises(NotHeld):
            await view.get(3, wait=False)


async def test_what_is_missing_comes_from_a_peer(tmp_path: Path) -> None:
    async with world(tmp_path) as at, remote(tmp_path / "peer", at) as (theirs, _):
        view = await at.feed(key=theirs.key, live=True)
        assert not view.writable
        assert await view.wait_length(20) == 20
        await until(lambda: view.peer_count == 1)
        assert await view.seek(8) == (BlockIndex(1), 1)
        assert await view.get(7) == BLOCKS[7]
        await view.refresh()
        assert view.held(0, 20) < 20
        with view.want(0, 20):
            await view.download(0, 20)
        assert [view.get_held(number) for number in range(20)] == BLOCKS
        await theirs.append([b"more"])
        assert await view.wait_length(21) == 21


async def test_a_withdrawn_wish_is_withdrawn_at_the_engine(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        view = await at.feed(key=PublicKey(bytes(31) + b"\1"))
        for wait in (lambda: view.get(5), lambda: view.seek(99), lambda: view.wait_length(3)):
            at.engine.heard.clear()
            with trio.CancelScope() as scope:
                at.nursery.start_soon(_cancel_when_heard, at.engine, scope)
                await wait()
            await until(lambda: at.engine.heard[-1:] == ["feed.drop"])


async def _cancel_when_heard(engine: Engine, scope: trio.CancelScope) -> None:
    await until(lambda: any(method.startswith("feed.want") for method in engine.heard))
    scope.cancel()


class Wishes:
    """A source that has nothing and counts the open wishes."""

    peer_count = giver_count = 0

    def __init__(self) -> None:
        self.open = 0

    def want_blocks(self, start: BlockIndex, end: BlockIndex, *, urgent: bool) -> Callable[[], None]:
        return self._wish()

    def want_offset(self, byte_offset: int, start: BlockIndex, end: BlockIndex) -> Callable[[], None]:
        return self._wish()

    def want_length(self, min_length: int) -> Callable[[], None]:
        return self._wish()

    async def refresh(self) -> None:
        await trio.lowlevel.checkpoint()

    def _wish(self) -> Callable[[], None]:
        self.open += 1

        def withdraw() -> None:
            self.open -= 1

        return withdraw


async def test_a_view_of_an_own_feed_that_is_behind_claims_no_end_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        own = await at.store.open_feed(name="mine")
        assert isinstance(own.log, FeedLog)
        await own.append(BLOCKS)
        view = await at.feed(key=own.key)
        assert not view.behind
        with pytest.raises(NotFound, match="has no version 22, its newest is 20"):
            await check_version(view, 22)
        own.log.floor = 22  # as after `keys restore`, while peers still give back what was in it
        own.clear(0, 1)
        await until(lambda: view.behind)
        await check_version(view, 22)  # maybe; nobody is there to tell


async def test_a_client_that_goes_leaves_nothing_behind(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        owned = await at.store.open_feed(key=PublicKey(bytes(31) + b"\1"))
        wishes = Wishes()
        owned.set_source(wishes)
        async with open_attached(at.engine.socket) as other:
            feed = await other.store(DWEB).open_feed(key=owned.key)
            with feed.want(0, 10), feed.want(3, 4):
                await until(lambda: wishes.open == 2)
        await until(lambda: wishes.open == 0)


async def test_peers_are_counted(tmp_path: Path) -> None:
    async with world(tmp_path) as at, remote(tmp_path / "peer", at) as (theirs, scope):
        view = await at.feed(key=theirs.key)
        await until(lambda: view.peer_count == 1)
        scope.cancel()
        await until(lambda: view.peer_count == 0)


async def test_a_view_is_stranded_while_blocks_are_wished_for_and_no_feed_has_a_peer(tmp_path: Path) -> None:
    async with world(tmp_path) as at, remote(tmp_path / "peer", at) as (theirs, scope):
        lost = await at.feed(key=PublicKey(bytes(31) + b"\1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lost.wait_length, 3)
            await until(lambda: bool(at.view.wishes()))
            assert not at.view.is_stranded
            with lost.want(5, 6):
                assert at.view.is_stranded
                other = await at.feed(key=theirs.key)
                await until(lambda: other.peer_count == 1)
                assert not at.view.is_stranded
                scope.cancel()
                await until(lambda: at.view.is_stranded)
            assert not at.view.is_stranded
            nursery.cancel_scope.cancel()


async def test_appends_are_compare_and_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_feed, "APPEND_BYTES", 20)
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        assert await view.append(BLOCKS, expected_length=0) == 0
        assert (view.length, view.get_held(19)) == (20, BLOCKS[19])
        with pytest.raises(LengthChanged):
            await view.append([b"late"], expected_length=19)
        assert await view.append([b"a" * 100, memoryview(b"b")]) == 20
        assert await view.append([]) == 22
        theirs = await at.feed(key=PublicKey(bytes(31) + b"\1"))
        with pytest.raises(NotWritable):
            await theirs.append([b"no"])


async def test_a_feed_has_settled_when_it_has_what_a_client_asked_for_that_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, secure = threading.Event(), threading.Event(), FeedLog.secure
    settled: list[int] = []

    def slow(*arguments: Any) -> None:
        begun.set()
        go_on.wait(20)
        secure(*arguments)

    async def settle(feed: Feed) -> None:
        await feed.settle()
        settled.append(feed.length)

    async with world(tmp_path) as at, trio.open_nursery() as nursery:
        view = await at.feed(name="mine")
        own = await at.store.open_feed(name="mine")
        monkeypatch.setattr(FeedLog, "secure", slow)
        async with open_attached(at.engine.socket) as other, trio.open_nursery() as going:
            feed = await other.store(DWEB).open_feed(key=own.key)
            going.start_soon(feed.append, BLOCKS)
            await trio.to_thread.run_sync(begun.wait)
            going.cancel_scope.cancel()
        nursery.start_soon(settle, view)
        nursery.start_soon(settle, own)
        await trio.sleep(0.2)
        assert not settled
        go_on.set()
        await until(lambda: settled == [20, 20])


async def test_pieces_of_an_append_are_on_their_way_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_feed, "PIECE_BYTES", 20)
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        own = await at.store.open_feed(name="mine")
        real, waiting, most = own.append, [0], [0]

        async def counted(blocks: Any, **options: Any) -> BlockIndex:
            waiting[0] += 1
            most[0] = max(most[0], waiting[0])
            try:
                return await real(blocks, **options)
            finally:
                waiting[0] -= 1

        monkeypatch.setattr(own, "append", counted)
        blocks = [b"%08d" % number for number in range(400)]
        assert await view.append(blocks, expected_length=0, atomic=False) == 0
        assert [await view.get(index) for index in range(400)] == blocks
        assert most[0] == attached_feed.PIECES_UNDER_WAY
        with pytest.raises(LengthChanged):
            await view.append(blocks, expected_length=399, atomic=False)
        assert view.length == 400


async def test_no_piece_is_appended_behind_a_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_feed, "PIECE_BYTES", 20)
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        own = await at.store.open_feed(name="mine")
        strange = [b"as long ", b"as ours "]

        async def refused() -> None:
            with pytest.raises(LengthChanged):
                await view.append([b"%08d" % number for number in range(6)], expected_length=0, atomic=False)

        async with trio.open_nursery() as nursery, own._turn:
            nursery.start_soon(lambda: own.append(strange))
            await until(lambda: len(own._waiting) == 1)
            nursery.start_soon(refused)
            await until(lambda: len(own._waiting) == 4)
        assert [own.get_held(BlockIndex(index)) for index in range(own.length)] == strange
        assert await view.append([b"%08d" % number for number in range(6)], expected_length=2, atomic=False) == 2


async def test_pieces_survive_the_engine_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_feed, "PIECE_BYTES", 20)
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        blocks = [b"%08d" % number for number in range(1000)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart_meanwhile, at, view)
            await view.append(blocks, expected_length=0, atomic=False)
        assert [await view.get(index) for index in range(view.length)] == blocks


async def restart_meanwhile(at: World, view: Feed) -> None:
    """Kill the engine some times while a thousand blocks are appended."""
    for length in (100, 300, 700):
        await view.wait_length(length)
        await at.restart()


async def test_blocks_in_a_file_are_read_by_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_feed, "PIECE_BYTES", 40)
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        before = len(os.listdir("/proc/self/fd"))
        with numbered(tmp_path / "file", 1000) as blocks:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(restart_meanwhile, at, view)
                await view.append(blocks, expected_length=0, atomic=False)
        assert [await view.get(index) for index in range(view.length)] == [b"%08d" % index for index in range(1000)]
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_file_that_is_too_short_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_feed, "PIECE_BYTES", 40)
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        with numbered(tmp_path / "file", 100) as blocks:
            os.truncate(tmp_path / "file", 799)
            with pytest.raises(SourceChanged):
                await view.append(blocks, expected_length=0, atomic=False)
        assert view.length == 95
        assert await view.append([b"after"]) == 95


async def test_only_a_file_may_come_where_one_is_expected(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        reading, writing = map(FileIO, os.pipe())
        with reading, writing:
            with pytest.raises(LocalProtocolError, match="regular file"):
                await view.append(FileBlocks(reading, [Place(0, 8)]))
            for places in ([[0, -1]], [["a", 1]], [[-1, 1]]):
                with pytest.raises(LocalProtocolError, match="pairs"):
                    await append_from(at, places, reading)
        with numbered(tmp_path / "file", 1) as blocks, pytest.raises(TooLarge):
            await append_from(at, [[0, 1 << 40]], blocks.file)
        with pytest.raises(EngineError):
            await at.view.call("feed.append", {"handle": 1, "places": [], "expected_length": None, "file": True})
        await at.view.calling.wait_connected()
        assert await view.append([b"still there"]) == 0


async def test_the_engine_waits_for_no_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[threading.Thread] = []
    status_of = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = status_of(descriptor)
        if status.st_ino == number:
            looked.append(threading.current_thread())
        return status

    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        with numbered(tmp_path / "file", 10) as blocks:
            number = status_of(blocks.file.fileno()).st_ino
            monkeypatch.setattr(os, "fstat", fstat)
            await view.append(blocks)
            assert looked
            assert threading.main_thread() not in looked


async def test_appends_that_fail_leave_nothing_behind(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        for handle, error in [(1, LengthChanged), (77, BadHandle)] * 3:
            params = {"handle": handle, "blocks": [], "expected_length": 9, "run": 1}
            with pytest.raises(error):
                await at.view.call("feed.append", params)
        [service] = at.engine.services
        assert list(service._turns) == [1]
        assert service._turns[1].step.before is None
        assert await view.append([b"still there"]) == 0


async def test_a_wish_for_what_no_feed_has_harms_nobody(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        await at.feed(name="mine")
        [service] = at.engine.services
        source = service._served[1].feed.source
        assert source is not None
        for start in (-3, 1 << 70):
            with pytest.raises(ValueError, match="numbered"):
                source.want_blocks(start, start + 5, urgent=False)
            with pytest.raises(ValueError, match="numbered"):
                source.want_offset(8, start, start + 5)
        at.view.calling.notice("feed.want", {"handle": 1, "wish": 1, "start": -3, "end": 4, "urgent": True})
        await at.view.call("feed.refresh", {"handle": 1})
        assert not service._served[1]._wishes


async def append_from(at: World, places: list[Any], file: FileIO) -> None:
    """Append what is at any places of a file to the first feed that was opened."""
    params = {"handle": 1, "places": places, "expected_length": None}
    await at.view.calling.result(at.view.calling.begin("feed.append", params, file))


@contextmanager
def numbered(path: Path, count: int) -> Iterator[FileBlocks]:
    """Give a file of `count` blocks of eight digits."""
    path.write_bytes(b"".join(b"%08d" % number for number in range(count)))
    with FileIO(path) as file:
        yield FileBlocks(file, [Place(8 * number, 8) for number in range(count)])


async def test_a_cancelled_append_leaves_the_feed_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_feed, "PIECE_BYTES", 20)
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        blocks = [b"%08d" % number for number in range(1000)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: view.append(blocks, atomic=False))
            await view.wait_length(50)
            nursery.cancel_scope.cancel()
        length = await view.append([b"next"]) + 1
        assert [await view.get(index) for index in range(length)] == [*blocks[: length - 1], b"next"]


async def test_an_append_that_is_taken_back_before_it_begins_holds_up_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        at.engine.may_append = trio.sleep_forever
        calling = at.view.calling
        begun = calling.begin("feed.append", {"handle": 1, "blocks": [b"never"], "expected_length": 0, "run": 1})
        await until(lambda: "feed.append" in at.engine.heard)
        calling.abandon(begun)
        at.engine.may_append = trio.lowlevel.checkpoint
        assert await view.append([b"next"]) == 0


async def test_several_views_append_in_turns(tmp_path: Path) -> None:
    async with world(tmp_path) as at, open_attached(at.engine.socket) as other:
        feeds = [await at.feed(name="mine"), await other.store(DWEB).open_feed(name="mine")]
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(feeds[number % 2].append, [b"%d" % number])
        await until(lambda: {feed.length for feed in feeds} == {40})
        assert sorted(int(feeds[0].get_held(index) or b"") for index in range(40)) == list(range(40))


async def test_held_blocks_are_served_while_the_engine_is_dead(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        await view.append(BLOCKS)
        await at.engine.kill()
        await until(lambda: not at.view.is_connected)
        assert [await view.get(number) for number in range(20)] == BLOCKS
        assert view.peer_count == 0
        await view.refresh()
        with pytest.raises(EngineError):
            await at.view.call("status")
        with trio.move_on_after(0.05) as waited:
            await at.feed(key=PublicKey(bytes(31) + b"\1"))
        assert waited.cancelled_caught


async def test_a_known_feed_is_opened_without_an_engine(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        await at.engine.kill()
        await until(lambda: not at.view.is_connected)
        with trio.move_on_after(0.05):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: at.feed(name="other"))
                await trio.testing.wait_all_tasks_blocked()
                assert await at.feed(key=view.key, live=True) is view


@pytest.mark.parametrize("wait", [lambda feed: feed.get(5), lambda feed: feed.append([b"late"])])
async def test_without_reconnect_whoever_waits_is_told(
    tmp_path: Path, wait: Callable[[Feed], Awaitable[object]]
) -> None:
    async with world(tmp_path) as at:
        with pytest.raises(EngineError, match=r"went away|has ended"):
            await _wait_while_the_engine_dies(at, wait)


async def _wait_while_the_engine_dies(at: World, wait: Callable[[Feed], Awaitable[object]]) -> None:
    async with open_attached(at.engine.socket, reconnect=False) as view:
        feed = await view.store(DWEB).open_feed(name="mine")
        at.nursery.start_soon(at.engine.kill)
        await until(lambda: not view.is_connected)
        await wait(feed)


async def test_reading_goes_on_with_the_next_engine(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        async with remote(tmp_path / "peer", at) as (theirs, _):
            view = await at.feed(key=theirs.key, live=True)
            await view.get(3)
        got: list[bytes] = []

        async def read(index: int) -> None:
            got.append(await view.get(index))

        at.nursery.start_soon(read, 7)
        await until(lambda: "feed.want" in at.engine.heard)
        await at.restart()
        assert await view.get(3) == BLOCKS[3]
        async with remote(tmp_path / "peer2", at) as (again, _):
            assert again.key != theirs.key
        async with open_store(tmp_path / "peer", DWEB) as store:
            await store.open_feed(name="theirs")
            scope = trio.CancelScope()
            at.nursery.start_soon(link, store, at.store, scope)
            await until(lambda: got == [BLOCKS[7]])
            scope.cancel()


async def test_appends_survive_the_engine(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        await view.append(BLOCKS)
        await at.engine.kill()
        await until(lambda: not at.view.is_connected)
        done: list[int] = []

        async def append() -> None:
            done.append(await view.append([b"later"], expected_length=20))

        at.nursery.start_soon(append)
        await at.engine.start()
        await until(lambda: done == [20])
        assert await view.get(20) == b"later"


async def test_an_append_whose_answer_was_lost_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path) as at:
        view = await at.feed(name="mine")
        own = await at.store.open_feed(name="mine")
        real = own.append

        async def append_and_vanish(blocks: Any, **options: Any) -> BlockIndex:
            index = await real(blocks, **options)
            at.nursery.start_soon(at.restart)
            await trio.sleep_forever()
            return index

        monkeypatch.setattr(own, "append", append_and_vanish)
        assert await view.append(BLOCKS, expected_length=0) == 0
        assert view.length == 20


async def test_a_slow_client_is_told_everything_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_module, "MAX_CHANGES", 3)
    async with world(tmp_path) as at:
        own = await at.store.open_feed(name="mine")
        await own.append(BLOCKS)
        view = await at.feed(key=own.key)
        for number in range(0, 20, 2):
            own.clear(number, number + 1)
        await until(lambda: view.runs(0, 20) == [(number, number + 1) for number in range(1, 20, 2)])


async def test_a_block_that_is_bad_on_disk_is_fetched_again(tmp_path: Path) -> None:
    async with world(tmp_path) as at, remote(tmp_path / "peer", at) as (theirs, _):
        view = await at.feed(key=theirs.key, live=True)
        assert await view.get(7) == BLOCKS[7]
        path = next((at.engine.directory / "dweb").rglob("data"))
        with path.open("r+b") as file:
            file.seek(theirs.byte_offset(7) or 0)
            file.write(b"X")
        assert await view.get(7) == BLOCKS[7]


@pytest.mark.parametrize("one_by_one", [False, True])
async def test_only_who_asks_again_after_the_answer_finds_a_block_unusable(tmp_path: Path, one_by_one: bool) -> None:
    async with world(tmp_path) as at, remote(tmp_path / "peer", at) as (theirs, scope):
        view = await at.feed(key=theirs.key, live=True)
        assert await view.get(7) == BLOCKS[7]
        scope.cancel()
        async with open_calling(at.engine.socket) as calling:
            await calling.call("feed.open", {"handle": 1, "dialect": "dweb", "key": theirs.key})
            for wish in range(5):
                calling.notice("feed.want", {"handle": 1, "wish": wish, "start": 7, "end": 8, "urgent": True})
                if one_by_one:
                    calling.notice("feed.drop", {"handle": 1, "wish": wish})
            await calling.call("feed.refresh", {"handle": 1})
            assert (await at.store.open_feed(key=theirs.key)).has(7) is not one_by_one


async def test_feed_methods_refuse_nonsense(tmp_path: Path) -> None:
    async with world(tmp_path) as at, open_calling(at.engine.socket) as calling:
        with pytest.raises(BadHandle):
            await calling.call("feed.refresh", {"handle": 9})
        with pytest.raises(DriveError):
            await calling.call("feed.open", {"handle": 1, "dialect": "none", "key": bytes(32)})
        with pytest.raises(DriveError):
            await calling.call("feed.open", {"handle": 1, "dialect": "dweb", "key": b"short"})
        await calling.call("feed.open", {"handle": 1, "dialect": "dweb", "name": "mine"})
        with pytest.raises(DriveError):
            await calling.call("feed.open", {"handle": 1, "dialect": "dweb", "name": "other"})
        with pytest.raises(DriveError):
            await calling.call("feed.nothing", {"handle": 1})
        calling.notice("feed.want", {"handle": [1]})
        for params in ({}, {"handle": 1}, {"handle": 1, "wish": "x"}, {"handle": 1, "wish": 1, "start": -1}):
            calling.notice("feed.want", params)
        assert (await calling.call("feed.refresh", {"handle": 1}))["length"] == 0


async def test_a_handle_that_is_no_number_ends_that_connection_only(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        async with open_calling(at.engine.socket, reconnect=False) as calling:
            with pytest.raises(EngineError):
                await calling.call("feed.open", {"handle": [1], "dialect": "dweb", "name": "mine"})
        assert (await at.feed(name="mine")).length == 0
