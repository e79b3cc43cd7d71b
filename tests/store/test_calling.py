"""Calls over a real Unix socket: answers, errors, cancelling, events, and an engine that dies and comes back."""

import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from ddrive.errors import DiskFull, DriveError, EngineError, NotFound
from ddrive.store import answering
from ddrive.store.answering import Answering, Outbox
from ddrive.store.calling import Calling, open_calling
from ddrive.store.rpc import NOTICE, Call, Event, Failure, MessageReader, encode
from ddrive.store.sockets import caller, connect, listen, send_file
from tests.support.until import until


class Echo:
    """A service with one method of each kind."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.notices: list[tuple[str, dict[str, Any]]] = []
        self.expected: list[str] = []
        self.ended: list[str] = []
        self.closed = trio.Event()
        self.started = trio.Event()

    def expect(self, method: str, params: dict[str, Any]) -> None:
        self.expected.append(method)
        if method == "unhashable":
            raise TypeError("unhashable type: 'list'")

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        match method:
            case "echo":
                return params
            case "fail":
                raise NotFound("nothing here")
            case "full":
                raise OSError(28, "No space left on device")
            case "full within":
                async with trio.open_nursery():
                    raise OSError(28, "No space left on device")
            case "bug":
                raise KeyError("oops")
            case "unsendable":
                return object()
            case "event":
                self.outbox.send(Event("news", params))
                return None
            case "wait":
                self.started.set()
                try:
                    await trio.sleep_forever()
                finally:
                    self.ended.append("wait")
        raise AssertionError(method)

    def notice(self, method: str, params: dict[str, Any]) -> None:
        if method == "bad":
            raise DriveError("bad notice")
        self.notices.append((method, params))

    async def aclose(self) -> None:
        self.closed.set()


class Server:
    """Accepts connections at a path, one `Echo` each; `stop` ends it and all connections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.services: list[Echo] = []
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listener = listen(self.path)
        with self.scope:
            await trio.serve_listeners(self._serve, [listener], task_status=_Status(task_status))
        self.path.unlink()
        self.ended.set()

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = Answering(stream)
        self.services.append(Echo(connection.outbox))
        await connection.run(self.services[-1])

    async def stop(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


class _Status:
    def __init__(self, outer: trio.TaskStatus[None]) -> None:
        self.outer = outer

    def started(self, value: object = None) -> None:
        self.outer.started()


@asynccontextmanager
async def served(path: Path, *, reconnect: bool = False) -> AsyncIterator[tuple[Server, Calling, trio.Nursery]]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = Server(path)
            await nursery.start(server.run)
            async with open_calling(path, reconnect=reconnect) as calling:
                yield server, calling, nursery
            nursery.cancel_scope.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


async def test_calls_are_answered_in_any_order(path: Path) -> None:
    async with served(path) as (server, calling, nursery):
        nursery.start_soon(_expect_engine_error, calling)
        assert await calling.call("echo", {"a": [1, b"2", None]}) == {"a": [1, b"2", None]}
        await server.services[0].started.wait()


async def _expect_engine_error(calling: Calling) -> None:
    with pytest.raises(EngineError):
        await calling.call("wait")


async def test_the_kernel_tells_who_calls(path: Path) -> None:
    async with served(path), await connect(path) as stream:
        assert caller(stream) == (os.getpid(), os.getuid(), os.getgid())


async def test_errors_cross_the_socket(path: Path) -> None:
    async with served(path) as (_, calling, _nursery):
        with pytest.raises(NotFound, match="nothing here"):
            await calling.call("fail")
        with pytest.raises(DiskFull, match="No space"):
            await calling.call("full")
        with pytest.raises(DiskFull, match="No space"):
            await calling.call("full within")
        with pytest.raises(DriveError, match="KeyError"):
            await calling.call("bug")
        with pytest.raises(DriveError, match="cannot be sent"):
            await calling.call("unsendable")
        with pytest.raises(DriveError, match="cannot be sent"):
            await calling.call("echo", {"a": object()})
        assert await calling.call("echo") == {}


async def test_a_cancelled_call_ends_at_the_other_side(path: Path) -> None:
    async with served(path) as (server, calling, nursery):
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when, server, scope)
            await calling.call("wait")
        await until(lambda: server.services[0].ended)
        assert await calling.call("echo") == {}


async def _cancel_when(server: Server, scope: trio.CancelScope) -> None:
    await server.services[0].started.wait()
    scope.cancel()


async def test_a_client_that_goes_takes_its_calls_along(path: Path) -> None:
    async with served(path) as (server, _, _nursery):
        stream = await connect(path)
        await stream.send_all(encode(Call(1, "wait", {})))
        await until(lambda: len(server.services) == 2)
        await server.services[1].started.wait()
        await stream.aclose()
        await server.services[1].closed.wait()
        assert server.services[1].ended == ["wait"]


async def test_notices_and_events_pass(path: Path) -> None:
    async with served(path) as (server, calling, _), calling.events("news") as news:
        calling.notice("bad", {})
        calling.notice("note", {"a": 1})
        await calling.call("event", {"n": 1})
        assert await news.receive() == {"n": 1}
        assert server.services[0].notices == [("note", {"a": 1})]


async def test_a_reply_can_be_seen_before_later_events(path: Path) -> None:
    async with served(path) as (_, calling, _nursery), calling.events("news") as news:
        seen: list[object] = []
        await calling.call(
            "event", {"n": 1}, on_answer=lambda answer: seen.append(news.statistics().current_buffer_used)
        )
        assert seen == [1]


async def test_without_reconnect_calls_fail_when_the_engine_goes(path: Path) -> None:
    async with served(path) as (server, calling, nursery):
        nursery.start_soon(_stop_when_started, server)
        with pytest.raises(EngineError):
            await calling.call("wait")
        with pytest.raises(EngineError):
            await calling.call("echo")
        with pytest.raises(EngineError):
            await calling.call("echo", lasting=True)


async def _stop_when_started(server: Server) -> None:
    await server.services[0].started.wait()
    await server.stop()


async def test_lasting_calls_wait_for_the_next_engine(path: Path) -> None:
    async with served(path, reconnect=True) as (server, calling, nursery):
        results: list[object] = []

        async def ask() -> None:
            with pytest.raises(EngineError):
                results.append(await calling.call("wait", lasting=True))

        nursery.start_soon(ask)
        await server.services[0].started.wait()
        await server.stop()
        await until(lambda: not calling.connected)
        with pytest.raises(EngineError):
            await calling.call("echo")
        second = Server(path)
        await nursery.start(second.run)
        assert await calling.call("echo", {"a": 1}, lasting=True) == {"a": 1}
        await second.services[0].started.wait()
        assert not results


class Memory:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def connected(self) -> None:
        self.heard.append("connected")

    def disconnected(self) -> None:
        self.heard.append("disconnected")

    def event(self, topic: str, params: dict[str, Any]) -> None:
        self.heard.append(topic)


async def test_restorers_hear_of_each_connection(path: Path) -> None:
    async with served(path, reconnect=True) as (server, calling, nursery):
        memory = Memory()
        remove = calling.add(memory)
        await server.stop()
        second = Server(path)
        await nursery.start(second.run)
        await calling.wait_connected()
        await calling.call("event", {})
        assert memory.heard == ["connected", "disconnected", "connected", "news"]
        remove()
        await calling.call("event", {})
        assert len(memory.heard) == 4


async def test_no_engine_is_an_error(path: Path) -> None:
    with pytest.raises(EngineError, match=r"control\.sock"):
        async with open_calling(path):
            raise AssertionError


async def test_what_the_body_raises_comes_out_as_it_is(path: Path) -> None:
    async with served(path) as (_, _calling, _nursery):
        with pytest.raises(ZeroDivisionError):
            async with open_calling(path):
                _ = 1 // 0


@pytest.mark.parametrize(
    "noise", [b"\xff" * 10, struct.pack(">I", 3) + b"abc", encode(Event("a", {})), encode(Call(1, "wait", {})) * 2]
)
async def test_noise_ends_that_connection_only(path: Path, noise: bytes) -> None:
    async with served(path) as (_, calling, _nursery):
        async with await connect(path) as stream:
            await stream.send_all(noise)
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
        assert await calling.call("echo", {"a": 1}) == {"a": 1}


async def test_a_client_that_does_not_read_is_held_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MAX_QUEUED_BYTES", 1 << 16)
    async with served(path) as (server, calling, nursery), await connect(path) as stream:
        big = {"a": bytes(1 << 16)}
        count = 200
        nursery.start_soon(stream.send_all, b"".join(encode(Call(number, "echo", big)) for number in range(1, count)))
        assert await calling.call("echo", {"a": 1}) == {"a": 1}
        for _ in range(50):
            await trio.sleep(0.001)
            assert server.services[1].outbox.queued_bytes < 3 << 20
        reader, answers = MessageReader(), 0
        while answers < count - 1:
            answers += len(reader.receive(bytes(await stream.receive_some())))
        assert server.services[1].outbox.queued_bytes == 0


async def test_long_paths_are_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with served(deep / "control.sock") as (_, calling, _nursery):
        assert await calling.call("echo", {"a": 1}) == {"a": 1}
        assert (deep / "control.sock").stat().st_mode & 0o777 == 0o600


class _Descriptor(NamedTuple):
    """What looks like an open file to a sender, whatever it is."""

    number: int

    def fileno(self) -> int:
        return self.number


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[_Descriptor]:
    number = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield _Descriptor(number)
    os.close(number)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_directory_beside_a_call_is_as_good_as_any_file(tmp_path: Path, directory: _Descriptor) -> None:
    async with served(tmp_path / "socket") as (_, calling, _nursery):
        before = _open_files()
        stream = await connect(tmp_path / "socket")
        async with stream:
            for _ in range(3):
                await send_file(stream, encode(Call(1, "fail", {"file": True})), directory)
                reader = MessageReader()
                [answer] = reader.receive(bytes(await stream.receive_some(1 << 16)))
                assert isinstance(answer, Failure)
        assert await calling.call("echo", {"a": 1}) == {"a": 1}
        await until(lambda: _open_files() <= before)


async def test_a_client_has_only_so_many_calls_with_files_at_once(tmp_path: Path, directory: _Descriptor) -> None:
    async with served(tmp_path / "socket") as (server, _, nursery):
        before = _open_files()
        stream = await connect(tmp_path / "socket")
        await until(lambda: len(server.services) == 2)
        scope = trio.CancelScope()

        async def send() -> None:
            with scope:
                for number in range(1, 200):
                    await send_file(stream, encode(Call(number, "wait", {"file": True})), directory)

        nursery.start_soon(send)
        await until(lambda: len(server.services[1].expected) == answering.MAX_FILES)
        await trio.sleep(0.1)
        assert len(server.services[1].expected) == answering.MAX_FILES
        scope.cancel()
        await stream.aclose()
        await server.services[1].closed.wait()  # though nothing is read of it
        await until(lambda: _open_files() <= before)


async def test_files_without_a_call_go_with_their_client(tmp_path: Path, directory: _Descriptor) -> None:
    async with served(tmp_path / "socket") as (server, _, _nursery):
        before = _open_files()
        for frame in (encode(Call(NOTICE, "n", {"file": True})), encode(Call(7, "unhashable", {"file": True}))):
            async with await connect(tmp_path / "socket") as stream:
                with suppress(trio.BrokenResourceError):
                    for _ in range(answering.MAX_FILES + 2):
                        await send_file(stream, frame, directory)
                await until(lambda: server.services[-1].closed.is_set())
        await until(lambda: _open_files() <= before)
