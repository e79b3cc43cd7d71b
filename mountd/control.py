"""The control socket of an engine: who may call, and one service per connection with the feeds and the verbs.

Only processes of our own user and of root are answered: the kernel tells who they are.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from ddrive.errors import LocalProtocolError
from ddrive.store.answering import Answering, Outbox
from ddrive.store.rpc import Event
from ddrive.store.serve import FeedService
from ddrive.store.sockets import caller, listen
from ddrive.store.store import OwnedStore

FLUSH_S = 1.0  # for answers that are still to be written when the engine ends
MAX_CLIENTS = 256

_log = logging.getLogger(__name__)

Params = dict[str, Any]
Tell = Callable[[str], None]  # a line for the person who waits, while a verb runs
Verb = Callable[[Params, Tell], Awaitable[Any]]


class ControlService:
    """What one connection offers: feed methods and the verbs of the engine."""

    def __init__(
        self,
        stores: Mapping[str, OwnedStore],
        verbs: Mapping[str, Verb],
        may_append: Callable[[], Awaitable[None]],
        outbox: Outbox,
    ) -> None:
        self._feeds = FeedService(stores, outbox, may_append)
        self._verbs = verbs
        self._outbox = outbox

    def expect(self, method: str, params: Params) -> None:
        """Take note of a call that is about to run."""
        self._feeds.expect(method, params)

    async def call(self, method: str, params: Params) -> Any:
        """Return the result of a method. Raises: LocalProtocolError when there is none of that name."""
        if self._feeds.owns(method):
            return await self._feeds.call(method, params)
        verb = self._verbs.get(method)
        if verb is None:
            raise LocalProtocolError(f"{method}: the engine has no such method; is it another version?")
        try:
            return await verb(params, self._tell)
        except KeyError as error:
            raise LocalProtocolError(f"{method}: the parameter {error} is missing") from error

    def notice(self, method: str, params: Params) -> None:
        """Take note of a wish."""
        self._feeds.notice(method, params)

    async def aclose(self) -> None:
        """Drop what the client held."""
        await self._feeds.aclose()

    def _tell(self, text: str) -> None:
        self._outbox.send(Event("progress", {"text": text}))


class Control:
    """The listening socket at `path` and its connections. Clients append when `may_append` returns."""

    def __init__(
        self,
        path: Path,
        stores: Mapping[str, OwnedStore],
        verbs: Mapping[str, Verb],
        may_append: Callable[[], Awaitable[None]],
    ) -> None:
        self._path = path
        self._stores = stores
        self._verbs = verbs
        self._may_append = may_append
        self._connections: set[Answering] = set()
        self._accepting = trio.CancelScope()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; a dead engine's socket is replaced."""
        self._path.unlink(missing_ok=True)
        listener = listen(self._path)
        try:
            async with trio.open_nursery() as connections:
                with self._accepting:
                    task_status.started()
                    await trio.serve_listeners(self._connected, [listener], handler_nursery=connections)
                self._path.unlink(missing_ok=True)
        finally:
            self._path.unlink(missing_ok=True)

    def close_door(self) -> None:
        """Take no new connections and remove the socket; those that are there are still answered."""
        self._accepting.cancel()

    async def flush(self) -> None:
        """Return when all answers are written, or after a moment."""
        with trio.move_on_after(FLUSH_S):
            while any(connection.outbox.queued_bytes for connection in self._connections):  # noqa: ASYNC110 - rare
                await trio.sleep(0.01)
            await trio.sleep(0.01)

    async def _connected(self, stream: trio.SocketStream) -> None:
        who = caller(stream)
        if who.uid not in (0, os.geteuid()) or len(self._connections) >= MAX_CLIENTS:
            _log.warning("caller refused pid=%d uid=%d", who.pid, who.uid)
            await stream.aclose()
            return
        connection = Answering(stream, name=f"pid {who.pid}")
        self._connections.add(connection)
        try:
            await connection.run(ControlService(self._stores, self._verbs, self._may_append, connection.outbox))
        except Exception:
            _log.exception("connection failed pid=%d", who.pid)
        finally:
            self._connections.discard(connection)
