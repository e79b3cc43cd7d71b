"""The answering end of one control connection: reads calls, runs them, writes replies and events.

Calls run at the same time, one task each; notices are plain calls within the reader. A client that does not read is
held back, not the engine: replies are limited by the number of calls in flight, and what happens meanwhile is kept
by `Pending` items that are turned into one message when they are written.
"""

import logging
from collections import deque
from typing import Any, Protocol

import trio

from ddrive.errors import Closed, DriveError, RemoteProtocolError, first_cause
from ddrive.store.rpc import NOTICE, Call, Cancel, Event, Failure, Message, MessageReader, Reply, encode, failure
from ddrive.store.sockets import ReceivedFile, has_gone, receive

MAX_CALLS = 1024  # running at once for one client; it waits with further ones
MAX_QUEUED_BYTES = 16 * 1024 * 1024  # of replies not yet taken by the client; then its calls wait
MAX_FILES = 64  # received and not yet called for; also of calls running at once, as each has megabytes in memory
_CHUNK_BYTES = 256 * 1024  # one receive
_LOOK_S = 1.0  # between two looks whether a client that has to wait is still there: nothing is read of it meanwhile
_WRITE_BYTES = 1024 * 1024  # gathered for one send

_log = logging.getLogger(__name__)


class Pending(Protocol):
    """Something to tell that may still grow until it is written."""

    def render(self) -> Event | None:
        """Return what to write now, or None when there is nothing left to say."""


class Service(Protocol):
    """What a connection offers: one object per connection."""

    def expect(self, method: str, params: dict[str, Any]) -> None:
        """Take note that `call` comes next with these: whatever else the client sent after it is handled later."""

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        """Return the result of `method`. Raises: DriveError, which crosses the socket.

        A `file` among the parameters is an open one, closed when the call has ended.
        """

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """Take note of something that needs no answer."""

    async def aclose(self) -> None:
        """Drop all that the client held; called once, when it has gone."""


class Outbox:
    """What is to be written to one client, in order. Adding never waits."""

    def __init__(self) -> None:
        self._items: deque[bytes | Pending] = deque()
        self._wake = trio.Event()
        self.queued_bytes = 0

    def send(self, message: Message) -> None:
        """Queue `message`; one that is too large is replaced by its failure, or left out."""
        try:
            frame = encode(message)
        except DriveError as error:
            _log.error("message not sent error=%s", error)
            if not isinstance(message, Reply):
                return
            frame = encode(failure(message.id, error))
        self.queued_bytes += len(frame)
        self._items.append(frame)
        self._wake.set()

    def defer(self, pending: Pending) -> None:
        """Queue `pending`, which is rendered when its turn comes."""
        self._items.append(pending)
        self._wake.set()

    async def take(self) -> bytes:
        """Return the bytes to write next: all that is queued, cut after about 1 MiB; maybe none."""
        while not self._items:
            self._wake = trio.Event()
            await self._wake.wait()
        parts: list[bytes] = []
        size = 0
        while self._items and size < _WRITE_BYTES:
            item = self._items.popleft()
            if isinstance(item, bytes):
                self.queued_bytes -= len(item)
                frame = item
            else:
                event = item.render()
                frame = encode(event) if event else b""
            parts.append(frame)
            size += len(frame)
        return b"".join(parts)


class Answering:
    """Serves one connection until it ends; `outbox` is where the service puts its events."""

    def __init__(self, stream: trio.SocketStream, *, name: str = "client") -> None:
        self.outbox = Outbox()
        self._stream = stream
        self._name = name
        self._running: dict[int, trio.CancelScope] = {}
        self._files: deque[ReceivedFile] = deque()  # for calls of which not all was received
        self._file_calls = 0  # of those that are running
        self._room = trio.Event()

    async def run(self, service: Service) -> None:
        """Answer until the client goes away or breaks the protocol; never raises but `Cancelled`."""
        try:
            async with self._stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                await self._read(service, nursery)
                nursery.cancel_scope.cancel()
        finally:
            for file in self._files:
                file.close()
            with trio.CancelScope(shield=True):
                await service.aclose()

    async def _read(self, service: Service, nursery: trio.Nursery) -> None:
        reader = MessageReader()
        try:
            while True:
                chunk, file = await receive(self._stream, _CHUNK_BYTES)
                if file is not None:
                    self._files.append(file)
                if not chunk:
                    return
                for message in reader.receive(chunk):
                    self._take(message, service, nursery)
                if len(self._files) > MAX_FILES:
                    raise RemoteProtocolError(f"more than {MAX_FILES} files without a call")
                await self._until_room()
        except RemoteProtocolError as error:
            _log.warning("client broke the protocol client=%s error=%s", self._name, error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _until_room(self) -> None:
        """Return when more may be taken from the client. Raises: BrokenResourceError when that has gone meanwhile."""
        while self._is_busy():
            self._room = trio.Event()
            with trio.move_on_after(_LOOK_S) as scope:
                await self._room.wait()
            if scope.cancelled_caught and has_gone(self._stream):
                raise trio.BrokenResourceError

    def _is_busy(self) -> bool:
        """Tell whether the client has to wait before more is taken from it."""
        if len(self._running) >= MAX_CALLS or self._file_calls >= MAX_FILES:
            return True
        return self.outbox.queued_bytes > MAX_QUEUED_BYTES

    def _take(self, message: Message, service: Service, nursery: trio.Nursery) -> None:
        match message:
            case Call(id=call_id, method=method, params=params) if call_id == NOTICE:
                try:
                    service.notice(method, params)
                except DriveError as error:
                    _log.warning("notice refused client=%s method=%s error=%s", self._name, method, error)
                except Exception:
                    _log.exception("notice failed client=%s method=%s", self._name, method)
            case Call():
                if message.id in self._running:
                    raise RemoteProtocolError(f"call {message.id} is running already")
                has_file = "file" in message.params
                if has_file:
                    if not self._files:
                        raise RemoteProtocolError(f"{message.method}: no file came beside the call")
                    message.params["file"] = self._files[0]
                try:
                    service.expect(message.method, message.params)
                except TypeError as error:
                    raise RemoteProtocolError(f"{message.method}: {error}") from error
                if has_file:  # until here it is closed with those that nobody called for
                    self._files.popleft()
                    self._file_calls += 1
                self._running[message.id] = trio.CancelScope()
                nursery.start_soon(self._answer, message, service)
            case Cancel(call_id):
                if scope := self._running.get(call_id):
                    scope.cancel()
            case _:
                raise RemoteProtocolError(f"a client does not send {type(message).__name__}")

    async def _answer(self, call: Call, service: Service) -> None:
        answer: Reply | Failure = failure(call.id, Closed(f"{call.method}: cancelled"))
        try:
            with self._running[call.id]:
                answer = await self._outcome(call, service)
        finally:
            if "file" in call.params:
                call.params["file"].close()
                self._file_calls -= 1
        del self._running[call.id]
        self.outbox.send(answer)
        self._room.set()

    async def _outcome(self, call: Call, service: Service) -> Reply | Failure:
        try:
            return Reply(call.id, await service.call(call.method, call.params))
        except Exception as error:
            cause = first_cause(error)
            if isinstance(cause, OSError):
                _log.warning("call failed client=%s method=%s error=%s", self._name, call.method, cause)
            elif not isinstance(cause, DriveError):
                _log.exception("call failed client=%s method=%s", self._name, call.method)
            return failure(call.id, cause)

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                if data := await self.outbox.take():
                    await self._stream.send_all(data)
                self._room.set()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()
