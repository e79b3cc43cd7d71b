"""The calling end of a control connection: calls by number, events by topic, and a new connection when it breaks.

An engine may die and come back at any time. Then calls marked `lasting` wait for the next engine and are sent again;
others fail. What a new engine has to know first (open feeds, standing wishes) is told by the `Restorer`s, before any
call.
"""

import itertools
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import trio

from ddrive.errors import EngineError, RemoteProtocolError
from ddrive.feed.file_blocks import OpenFile
from ddrive.store.rpc import NOTICE, Call, Cancel, Event, Failure, Message, MessageReader, Reply, encode, exception
from ddrive.store.sockets import connect, send_file

_CHUNK_BYTES = 256 * 1024  # one receive
_EVENTS_KEPT = 1000  # per listener of a topic; the oldest go first
_FLUSH_S = 0.5  # for notices, when the connection is about to end
_RETRY_S = 0.2  # between two attempts to reach the engine, at first
_RETRY_MAX_S = 1.0

_log = logging.getLogger(__name__)

OnAnswer: TypeAlias = Callable[[Reply | Failure], None]


class Restorer(Protocol):
    """What depends on the engine remembering it. Plain calls."""

    def connected(self) -> None:
        """Tell the new engine what it has to know: nothing else was sent to it yet."""

    def disconnected(self) -> None:
        """The engine is gone, for now."""

    def event(self, topic: str, params: dict[str, Any]) -> None:
        """Take note of an event."""


@dataclass(eq=False)
class UnderWay:
    """A call that was sent, or is about to be."""

    call: Call
    lasting: bool
    on_answer: OnAnswer | None
    done: trio.Event = field(default_factory=trio.Event)
    answer: Reply | Failure | None = None


class _WithFile(NamedTuple):
    """A frame and what goes along with it: an open file of our own."""

    frame: bytes
    file: FileIO


class Calling:
    """One client of the engine at `path`. Made by `open_calling`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connected = False
        self.began = trio.Event()  # the first connection is in use
        self._ids = itertools.count(NOTICE + 1)
        self._waiting: dict[int, UnderWay] = {}
        self._queue: deque[bytes | _WithFile] = deque()
        self._wake = trio.Event()
        self._up = trio.Event()
        self.ended = trio.Event()  # there will be no connection any more
        self._restorers: list[Restorer] = []
        self._listeners: dict[str, list[trio.MemorySendChannel[dict[str, Any]]]] = {}

    async def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        lasting: bool = False,
        on_answer: OnAnswer | None = None,
    ) -> Any:
        """Return the engine's result of `method`.

        A lasting call waits for the engine as long as the caller does, and is sent again to the next one. `on_answer`
        runs in the reader, before any later event is handed out.
        Raises: EngineError when the engine is gone and the call is not lasting; what the engine raised.
        """
        return await self.result(self._start(Call(next(self._ids), method, params or {}), lasting, on_answer))

    def begin(self, method: str, params: dict[str, Any], file: OpenFile | None = None) -> UnderWay:
        """Send a call without waiting; hand what this returns to `result` or `abandon`. Calls go out in this order.

        An open `file` goes along as the parameter of that name; it may be closed here at any time.
        Raises: EngineError when the engine is gone.
        """
        if file is not None:
            params = params | {"file": True}
        return self._start(Call(next(self._ids), method, params), False, None, file)

    async def result(self, waiting: UnderWay) -> Any:
        """Return what the engine answers to a call, and abandon the call when that is cancelled.

        Raises: EngineError when the engine goes away; what the engine raised.
        """
        try:
            await waiting.done.wait()
        finally:
            self.abandon(waiting)
        if isinstance(waiting.answer, Reply):
            return waiting.answer.result
        assert waiting.answer is not None
        raise exception(waiting.answer)

    def abandon(self, waiting: UnderWay) -> None:
        """Tell the engine that nobody waits for a call any more, if it has not answered."""
        if waiting.answer is None:
            self._waiting.pop(waiting.call.id, None)
            if self.connected:
                self._send(Cancel(waiting.call.id))

    def post(self, method: str, params: dict[str, Any], on_answer: OnAnswer) -> None:
        """Call `method` without waiting; `on_answer` gets the answer, in the reader."""
        if self.connected:
            self._start(Call(next(self._ids), method, params), False, on_answer)

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """Tell the engine something that needs no answer; lost when there is no engine."""
        if self.connected:
            self._send(Call(NOTICE, method, params))

    async def flush(self) -> None:
        """Return when everything that was told is on its way, or after a moment."""
        with trio.move_on_after(_FLUSH_S):
            while self.connected and self._queue:
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

    def add(self, restorer: Restorer) -> Callable[[], None]:
        """Tell `restorer` about connections and events from now on; the result ends that."""
        self._restorers.append(restorer)
        if self.connected:
            restorer.connected()
        return lambda: self._restorers.remove(restorer)

    @asynccontextmanager
    async def events(self, topic: str) -> AsyncIterator[trio.MemoryReceiveChannel[dict[str, Any]]]:
        """Give the parameters of the events of `topic` from now on; a slow reader loses some."""
        send, receive = trio.open_memory_channel[dict[str, Any]](_EVENTS_KEPT)
        listeners = self._listeners.setdefault(topic, [])
        listeners.append(send)
        async with send, receive:
            try:
                yield receive
            finally:
                listeners.remove(send)

    async def wait_connected(self) -> None:
        """Return when there is an engine. Raises: EngineError when there will be none."""
        while not self.connected:
            self._check_open()
            await self._up.wait()

    def _start(self, call: Call, lasting: bool, on_answer: OnAnswer | None, file: OpenFile | None = None) -> UnderWay:
        self._check_open()
        if not (self.connected or lasting):
            raise EngineError(f"no engine answers at {self.path}: start it with `ddrive daemon`")
        frame = encode(call)
        item = frame if file is None else _WithFile(frame, FileIO(os.dup(file.fileno())))
        waiting = self._waiting[call.id] = UnderWay(call, lasting, on_answer)
        if self.connected:
            self._push(item)
        return waiting

    def _send(self, message: Message) -> None:
        self._push(encode(message))

    def _push(self, item: "bytes | _WithFile") -> None:
        self._queue.append(item)
        self._wake.set()

    def _check_open(self) -> None:
        if self.ended.is_set():
            raise EngineError(f"the connection to the engine at {self.path} has ended")

    async def run(self, first: trio.SocketStream | None, *, reconnect: bool) -> None:
        """Keep a connection until cancelled; without `reconnect`, until the first one has ended."""
        stream = first
        try:
            while True:
                stream = stream or await self._connect()
                await self._talk(stream)
                stream = None
                if not reconnect:
                    return
                await trio.sleep(_RETRY_S)  # an engine that throws us out is not asked without a pause
        finally:
            self.ended.set()
            self._up.set()
            for waiting in list(self._waiting.values()):
                self._settle(waiting, Failure(waiting.call.id, "EngineError", "the connection to the engine has ended"))

    async def _connect(self) -> trio.SocketStream:
        pause_s = _RETRY_S
        while True:
            try:
                return await connect(self.path)
            except OSError:
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 1.3, _RETRY_MAX_S)

    async def _talk(self, stream: trio.SocketStream) -> None:
        self.connected = True
        lasting = list(self._waiting.values())
        for restorer in list(self._restorers):
            restorer.connected()
        for waiting in lasting:
            self._send(waiting.call)
        self.began.set()
        self._up.set()
        try:
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._write, stream, nursery.cancel_scope)
                await self._read(stream)
                nursery.cancel_scope.cancel()
        finally:
            self._lost()

    def _lost(self) -> None:
        self.connected = False
        self._up = trio.Event()
        while self._queue:
            if isinstance(item := self._queue.popleft(), _WithFile):
                item.file.close()
        for restorer in list(self._restorers):
            restorer.disconnected()
        for waiting in list(self._waiting.values()):
            if not waiting.lasting:
                text = f"the engine at {self.path} went away during `{waiting.call.method}`"
                self._settle(waiting, Failure(waiting.call.id, "EngineError", text))

    async def _read(self, stream: trio.SocketStream) -> None:
        reader = MessageReader()
        try:
            while chunk := await stream.receive_some(_CHUNK_BYTES):
                for message in reader.receive(bytes(chunk)):
                    self._take(message)
        except RemoteProtocolError as error:
            _log.error("engine broke the protocol error=%s", error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def _take(self, message: Message) -> None:
        match message:
            case Reply() | Failure():
                if waiting := self._waiting.get(message.id):
                    self._settle(waiting, message)
            case Event(topic, params):
                for restorer in list(self._restorers):
                    restorer.event(topic, params)
                for listener in self._listeners.get(topic, ()):
                    try:
                        listener.send_nowait(params)
                    except trio.WouldBlock:
                        _log.warning("event lost topic=%s", topic)
            case _:
                raise RemoteProtocolError(f"an engine does not send {type(message).__name__}")

    def _settle(self, waiting: UnderWay, answer: Reply | Failure) -> None:
        del self._waiting[waiting.call.id]
        waiting.answer = answer
        waiting.done.set()
        if waiting.on_answer:
            waiting.on_answer(answer)

    async def _write(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            while True:
                while not self._queue:
                    self._wake = trio.Event()
                    await self._wake.wait()
                if isinstance(item := self._queue[0], _WithFile):
                    self._queue.popleft()
                    with item.file:
                        await send_file(stream, item.frame, item.file)
                    continue
                frames: list[bytes] = []
                while self._queue and isinstance(item := self._queue[0], bytes):
                    frames.append(item)
                    self._queue.popleft()
                await stream.send_all(b"".join(frames))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()


@asynccontextmanager
async def open_calling(path: Path, *, reconnect: bool = True) -> AsyncIterator[Calling]:
    """Give a client of the engine whose socket is at `path`.

    Raises: EngineError when nobody answers there now.
    """
    try:
        first = await connect(path)
    except OSError as error:
        raise EngineError(f"no engine answers at {path}: {error.strerror or error}") from error
    calling = Calling(path)
    failure: Exception | None = None  # raised below, as it is: not in a group of the nursery
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: calling.run(first, reconnect=reconnect))
        await calling.began.wait()
        try:
            yield calling
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure:
        raise failure
