"""Runs the npm peers of `tests/interop/peer.js` as child processes that speak JSON lines.

They must have been installed by `scripts/test` (`npm ci` in `tests/interop/<dialect>`); a test that finds none fails.
"""

import hashlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.hosts import Host
from tests.support.tree import Step, write_steps

PEER = Path(__file__).resolve().parent.parent / "interop" / "peer.js"
DIALECTS = ("dweb", "hypercore")
SWARM = "swarm"  # as an address
ANSWER_S = 120.0  # a whole tree read by npm takes about 2 s here; a slow machine gets its time

Manifest = dict[str, dict[str, Any]]


class PeerFailed(AssertionError):
    """The npm peer ended or answered with an error."""


def _command(dialect: str, *arguments: str | Path, host: Host | None = None) -> list[str]:
    modules = PEER.parent / dialect / "node_modules"
    if not modules.is_dir():
        raise PeerFailed(f"{modules} is missing: run scripts/test once, or npm ci in {modules.parent}")
    return [*(host.prefix if host else []), "node", str(PEER), dialect, *map(str, arguments)]


def _answer(line: str, dialect: str) -> dict[str, Any]:
    if not line:
        raise PeerFailed(f"the npm peer ({dialect}) ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise PeerFailed(answer["error"])
    return answer


def _run(dialect: str, *arguments: str | Path, host: Host | None = None) -> dict[str, Any]:
    done = subprocess.run(_command(dialect, *arguments, host=host), stdout=subprocess.PIPE, text=True, timeout=ANSWER_S)
    return _answer(done.stdout, dialect)


def sha256(data: bytes) -> str:
    """Return the hash of a file as manifests tell it."""
    return hashlib.sha256(data).hexdigest()


def make(dialect: str, store: Path, steps: list[Step]) -> dict[str, dict[str, Any]]:
    """Make the drives of `steps` in the directory `store`; return drive name -> {key, version, content}."""
    store.mkdir(parents=True, exist_ok=True)
    drives: dict[str, dict[str, Any]] = _run(
        dialect, "make", store, write_steps(store.with_name(store.name + "-steps.json"), steps)
    )["drives"]
    return drives


def read(dialect: str, key: str, address: str, store: Path, host: Host | None = None) -> Manifest:
    """Read the whole drive `key` from the peer at `address` into the new directory `store`; return what npm saw.

    `address` SWARM stands for whoever is found.
    """
    manifest: Manifest = _run(dialect, "read", key, address, store, host=host)["manifest"]
    return manifest


def dump(dialect: str, store: Path, key: str) -> dict[str, Any]:
    """Open the directory `store` with npm; return {manifest, version, writable}."""
    return _run(dialect, "dump", store, key)


class NpmPeer:
    """One serving npm process."""

    def __init__(self, dialect: str, store: Path, key: str, port: int | str = 0, host: Host | None = None) -> None:
        self.dialect = dialect
        self._process = subprocess.Popen(
            _command(dialect, "serve", store, key, str(port), host=host),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        hello = self._receive()
        self.key: str = hello["key"]
        self.content_key: str = hello["content"]
        self.port: int = hello["port"]
        self.pid: int = self._process.pid

    @property
    def address(self) -> str:
        """Where it listens, as `--peer` takes it."""
        return f"127.0.0.1:{self.port}"

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
        if not ready:
            raise PeerFailed(f"the npm peer ({self.dialect}) did not answer in {ANSWER_S:.0f} s")
        return _answer(self._process.stdout.readline(), self.dialect)

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command (see `serve` in peer.js) and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def play(self, step: Step) -> int:
        """Play one step of a tree on the drive that is served; return its new version."""
        version: int = self.ask(**step)["version"]
        return version

    def stats(self) -> dict[str, Any]:
        """Return {uploads: {feed key: {blocks, bytes, indexes}}, connections, sent, received}; sizes in bytes."""
        return self.ask(do="stats")

    def content_blocks(self) -> list[int]:
        """Return the indexes of the blocks of the root drive's content feed that were uploaded, in that order."""
        uploads = self.stats()["uploads"]
        indexes: list[int] = uploads.get(self.content_key, {}).get("indexes", [])
        return indexes

    def sent_bytes(self) -> int:
        """Return the bytes written to sockets once they have stopped growing; keep-alives are single bytes."""
        last = -1
        while (now := self.stats()["sent"]) != last:
            last = now
            time.sleep(0.3)
        return last

    def pause(self) -> None:
        """Stop the process without closing its sockets: a peer that went silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def end(self) -> None:
        """Kill the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def serving(dialect: str, store: Path, key: str, port: int | str = 0, host: Host | None = None) -> Iterator[NpmPeer]:
    """Serve the directory `store` with npm while the block runs; `port` SWARM lets others find it."""
    peer = NpmPeer(dialect, store, key, port, host)
    try:
        yield peer
    finally:
        peer.end()
