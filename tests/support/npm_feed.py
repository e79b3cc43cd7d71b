"""One npm feed in a child process (`tests/interop/feed_peer.js`), for tests that exchange a feed with it."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import trio

from tests.support.npm import DIALECTS, PEER, PeerFailed

SCRIPT = PEER.with_name("feed_peer.js")
ANSWER_S = 30.0  # npm answers within milliseconds; a slow machine gets its time

__all__ = ["DIALECTS", "NpmFeed", "npm_feed"]


class NpmFeed:
    """The feed of a child process. `ask` runs a command of the script; several may be under way."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._ids = count()
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = trio.Event()
        self._failure: str | None = None
        self.key = b""

    async def read(self) -> None:
        """Take in the answers until the process ends."""
        assert self._process.stdout is not None
        held = b""
        async for chunk in self._process.stdout:
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                if "error" in answer:
                    self._failure = answer["error"]
                else:
                    self._answers[answer["id"]] = answer
            self._arrived.set()
            self._arrived = trio.Event()
        self._failure = self._failure or "the npm feed ended"
        self._arrived.set()

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a command; one that failed has the key `failed`."""
        number = next(self._ids)
        assert self._process.stdin is not None
        line = json.dumps({"id": number, "do": do, **arguments}) + "\n"
        await self._process.stdin.send_all(line.encode())
        with trio.fail_after(ANSWER_S):
            while number not in self._answers:
                if self._failure is not None:
                    raise PeerFailed(self._failure)
                await self._arrived.wait()
        return self._answers.pop(number)

    async def open(self, key: bytes | None = None, **options: Any) -> bytes:
        """Open the feed: a new one, or a copy of `key`; return its key."""
        answer = await self.ask("open", key=key.hex() if key is not None else None, options=options)
        self.key = bytes.fromhex(answer["key"])
        return self.key

    async def append(self, *blocks: bytes) -> int:
        """Append blocks; return the length."""
        length: int = (await self.ask("append", values=[block.hex() for block in blocks]))["length"]
        return length

    async def get(self, index: int, **options: Any) -> bytes | str:
        """Return a block, or the message of the error."""
        answer = await self.ask("get", index=index, options=options)
        return bytes.fromhex(answer["value"]) if "value" in answer else answer["failed"]

    async def stream(self, **options: Any) -> trio.SocketStream:
        """Return a stream whose other end the npm feed replicates, as the side that was dialled."""
        port = (await self.ask("listen", options=options))["port"]
        return await trio.open_tcp_stream("127.0.0.1", port)

    async def dial(self, **options: Any) -> trio.SocketStream:
        """Return a stream whose other end the npm feed replicates, as the side that dialled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listeners[0] as listener:
            port = listener.socket.getsockname()[1]
            await self.ask("connect", port=port, options=options)
            return await listener.accept()


@asynccontextmanager
async def npm_feed(dialect: str, directory: Path) -> AsyncIterator[NpmFeed]:
    """Run an npm feed that keeps its files in `directory` while the context lasts."""
    modules = SCRIPT.parent / dialect / "node_modules"
    if not modules.is_dir():
        raise PeerFailed(f"{modules} is missing: run scripts/test once, or npm ci in {modules.parent}")
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            ["node", str(SCRIPT), dialect, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        feed = NpmFeed(process)
        nursery.start_soon(feed.read)
        try:
            yield feed
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
            nursery.cancel_scope.cancel()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await trio.aclose_forcefully(pipe)
