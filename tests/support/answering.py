"""A store behind a socket, for tests of several processes that share it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ddrive.dialect import DWEB
from ddrive.store.answering import Answering
from ddrive.store.serve import FeedService
from ddrive.store.sockets import listen
from ddrive.store.store import OwnedStore


@asynccontextmanager
async def answered(store: OwnedStore, socket: Path) -> AsyncIterator[None]:
    """Answer whoever connects to `socket` from `store` for the length of the block."""

    async def answer(stream: trio.SocketStream) -> None:
        connection = Answering(stream)
        await connection.run(FeedService({DWEB.name: store}, connection.outbox))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listen(socket)])
        yield
        nursery.cancel_scope.cancel()
