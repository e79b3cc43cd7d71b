"""Engines for tests: real processes with a state directory each, on loopback; what they leave is cleaned up."""
# ruff: noqa: ASYNC220 - engines are other processes, and nothing else runs in this one

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from ddrive.errors import EngineError
from ddrive.store.attached import Attached, open_attached
from mountd.config import package_environment
from mountd.mountinfo import MOUNTINFO, parse
from tests.support.until import until

COMMAND = [sys.executable, "-P", "-m", "mountd.engine_start", "--state"]


def environment() -> dict[str, str]:
    """Return an environment without settings of whoever runs the tests; engines listen on loopback."""
    kept = {name: value for name, value in package_environment().items() if not name.startswith(("DDRIVE_", "XDG_"))}
    return kept | {"DDRIVE_LISTEN": "127.0.0.1:0", "DDRIVE_NO_DISCOVERY": "1", "XDG_CONFIG_HOME": "/nonexistent"}


class Engine:
    """One engine process at a time, for one state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.state / "control.sock"

    async def start(self, **more: str) -> None:
        """Start it and wait until it answers."""
        with (self.state.parent / f"{self.state.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, str(self.state)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment() | more
            )
        with trio.fail_after(20):
            while self.process.poll() is None:
                try:
                    await self.call("status")
                    return
                except EngineError:
                    await trio.sleep(0.02)
        raise AssertionError(f"the engine ended: {self.log()}")

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[Attached]:
        """Give a connection to it."""
        async with open_attached(self.socket, reconnect=False) as attached:
            yield attached

    async def call(self, method: str, **params: Any) -> Any:
        """Return the result of one verb."""
        async with self.attached() as engine:
            return await engine.call(method, params)

    async def ended(self) -> int:
        """Return the exit code when the process has ended."""
        assert self.process is not None
        process = self.process
        await until(lambda: process.poll() is not None)
        return process.wait()

    async def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return await self.ended()

    def log(self) -> str:
        """Return what it has written."""
        return (self.state.parent / f"{self.state.name}.log").read_text()


@asynccontextmanager
async def engine(state: Path, **more: str) -> AsyncIterator[Engine]:
    """Give a running engine; end it and its mounts afterwards."""
    made = Engine(state)
    failure: Exception | None = None
    try:
        await made.start(**more)
        yield made
    except Exception as error:
        failure = error
    if made.process is not None and made.process.poll() is None:
        made.process.terminate()
        with trio.CancelScope(shield=True), suppress(trio.TooSlowError):
            await until(lambda: made.process is None or made.process.poll() is not None, timeout_s=15)
    clean_up(state.parent)
    if failure is not None:
        raise failure


def mounts_below(directory: Path) -> list[str]:
    """Return what is mounted below `directory`, without asking it."""
    inside = f"{os.path.realpath(directory)}/"
    return [entry.mountpoint for entry in parse(MOUNTINFO.read_bytes()) if entry.mountpoint.startswith(inside)]


def clean_up(directory: Path) -> None:
    """Take every mount below `directory` off and end processes that serve one there."""
    for place in mounts_below(directory):
        subprocess.run(["fusermount3", "-u", "-z", "--", place], capture_output=True)
    for pid in workers_below(directory):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def workers_below(directory: Path) -> list[int]:
    """Return the mount workers whose mountpoint lies below `directory`."""
    inside = os.fsencode(f"{os.path.realpath(directory)}/")
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if b"mountd.worker" in words and any(word.startswith(inside) for word in words):
                    found.append(int(process.name))
    return found
