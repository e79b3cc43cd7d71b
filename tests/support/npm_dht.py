"""Runs the npm nodes and swarms of `tests/interop/dht_peer.js` in a child process, for tests with an event loop."""

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.support.npm import PeerFailed

SCRIPT = Path(__file__).resolve().parent.parent / "interop" / "dht_peer.js"
ANSWER_S = 60.0  # a safety net; nothing takes longer than a few seconds


class NpmDht:
    """One npm process with any number of nodes."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._received = b""

    async def ask(self, do: str, **command: Any) -> dict[str, Any]:
        """Send one command of the script and return its answer. Raises: PeerFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with trio.fail_after(ANSWER_S):
            await self._process.stdin.send_all(json.dumps({"do": do} | command).encode() + b"\n")
            while b"\n" not in self._received:
                chunk = await self._process.stdout.receive_some()
                if not chunk:
                    raise PeerFailed(f"the npm process ended during {do}")
                self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer

    async def nodes(self, count: int, *bootstrap: str, ephemeral: bool = False) -> list[str]:
        """Start nodes of the DHT; return their addresses. Commands name them by their number, from 0."""
        answer = await self.ask("nodes", count=count, bootstrap=bootstrap, ephemeral=ephemeral)
        return [f"127.0.0.1:{port}" for port in answer["ports"]]

    async def lookup(self, node: int, topic: bytes, **options: Any) -> list[str]:
        """Return the peers of a topic that a node finds."""
        peers: list[str] = (await self.ask("lookup", node=node, topic=topic.hex(), options=options))["peers"]
        return peers

    async def announce(self, node: int, topic: bytes, **options: Any) -> None:
        """Have a node announce a topic."""
        await self.ask("announce", node=node, topic=topic.hex(), options=options)


def npm_dht(dialect: str = "hypercore") -> AbstractAsyncContextManager[NpmDht]:
    """Give an npm process with nodes of the npm peers' DHT while the block runs."""
    return _running(dialect, SCRIPT, dialect)


def npm_mainline() -> AbstractAsyncContextManager[NpmDht]:
    """Give an npm process with nodes of the Mainline DHT while the block runs."""
    return _running("mainline", SCRIPT.parent / "mainline" / "peer.mjs")


@asynccontextmanager
async def _running(packages: str, script: Path, *arguments: str) -> AsyncIterator[NpmDht]:
    if not (SCRIPT.parent / packages / "node_modules").is_dir():
        raise PeerFailed(f"the npm packages of {packages} are missing: run scripts/test once")
    process = await trio.lowlevel.open_process(
        ["node", str(script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield NpmDht(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()
