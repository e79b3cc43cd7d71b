"""A real mount of a drive in memory, served by a process of its own that a test steers."""

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mountd.mountinfo import mounted_at

ROOT = Path(__file__).resolve().parents[2]
END_S = 20.0  # a server that takes longer to end hangs


class MemoryMount:
    """The mount and its server. `log` is complete once the server has ended."""

    def __init__(self, process: subprocess.Popen[str], mountpoint: Path, log: Path) -> None:
        self.process = process
        self.path = mountpoint
        self.children: list[subprocess.Popen[str]] = []
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def do(self, *statements: str) -> None:
        """Let the server execute Python statements over `drive`, `fault`, `errors` and `ready`."""
        assert self.process.stdin is not None
        for statement in statements:
            self.process.stdin.write(statement + "\n")
        self.process.stdin.flush()
        for _ in statements:
            self.expect("ok")

    def ask(self, expression: str) -> Any:
        """Return the value of an expression in the server."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"?{expression}\n")
        self.process.stdin.flush()
        return ast.literal_eval(self.process.stdout.readline())

    def reads(self, path: str) -> int:
        """Return how many reads of a file have reached the drive."""
        count: int = self.ask(f"drive.calls.count('read {path}')")
        return count

    def expect(self, line: str) -> None:
        """Wait for a line of the server."""
        assert self.process.stdout is not None
        told = self.process.stdout.readline().strip()
        assert told == line, f"{told!r} instead of {line!r}\n{self.log}"

    def child(self, code: str) -> subprocess.Popen[str]:
        """Start a Python program with the mountpoint in `mnt`; it ends with the mount at the latest."""
        program = f"import os, signal, sys, threading\nmnt = sys.argv[1]\n{code}"
        child = subprocess.Popen(
            [sys.executable, "-c", program, self.path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.children.append(child)
        return child

    def is_alive(self) -> bool:
        """Tell whether the mount answers; another process asks."""
        return subprocess.run(["stat", "--", self.path], capture_output=True, timeout=END_S).returncode == 0


def until(condition: Callable[[], object]) -> None:
    """Return when `condition()` is true; fails after a while, which is a safety net only."""
    latest = time.monotonic() + END_S
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.01)


@contextmanager
def memory_mount(place: Path, *statements: str, **options: Any) -> Iterator[MemoryMount]:
    """Mount at `place`/mnt a drive that `statements` fill, and leave nothing behind."""
    mountpoint = place / "mnt"
    mountpoint.mkdir()
    settings = {"state": str(place), "key": bytes(range(32)).hex(), "mountpoint": str(mountpoint)} | options
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuse.serve_memory", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
        )
    mount = MemoryMount(process, mountpoint, place / "log")
    try:
        mount.expect("ready")
        mount.do(*statements)
        yield mount
    finally:
        for child in mount.children:
            child.kill()
        process.terminate()
        for child in mount.children:
            child.communicate(timeout=END_S)
        try:
            process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if mounted_at(os.path.realpath(mountpoint)) is not None:
            subprocess.run(["umount", "-l", mountpoint], check=True)
