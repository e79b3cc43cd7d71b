"""A drive of our own, mounted to write to, for tests of what programs do in it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from ddrive.errors import EngineError
from ddrive.store.attached import open_attached
from tests.support.memory_mount import until
from tests.support.program import Program, program


class WritableMount:
    """The drive `key` of the engine `program`, mounted at `path`."""

    def __init__(self, made: Program, key: str, path: Path) -> None:
        self.program = made
        self.key = key
        self.path = path

    def ask(self, verb: str, **params: Any) -> Any:
        """Return the answer of the running engine, without the time that starting the command takes."""

        async def ask() -> Any:
            async with open_attached(self.program.state / "control.sock", reconnect=False) as engine:
                return await engine.call(verb, params)

        return trio.run(ask)

    def heal(self) -> None:
        """Return when it answers again; its worker or engine was killed."""

        def answers() -> bool:
            try:
                self.ask("mount", key=self.key, mountpoint=str(self.path))
            except EngineError:
                self.program.ask("mount", self.key, self.path)
            try:
                return os.path.ismount(self.path) and os.listdir(self.path) is not None
            except OSError:  # the engine has not noticed yet that its worker is gone
                return False

        until(answers)

    def pids(self) -> dict[str, int]:
        """Return the processes behind the mount."""
        status = self.ask("status")
        worker = next(told["pid"] for told in status["mounts"] if told["mountpoint"] == str(self.path))
        return {"worker": worker, "engine": status["pid"]}

    def remount(self) -> None:
        """Unmount and mount again: what is there then came through the drive."""
        self.ask("unmount", mountpoint=str(self.path))
        self.heal()

    @property
    def version(self) -> int:
        """The version of the drive."""
        number: int = self.program.ask("info", self.key)["version"]
        return number

    def spools(self) -> list[Path]:
        """Return the spool directories that are there."""
        return sorted((self.program.state / "spool").glob("*"))

    def logged(self) -> str:
        """Return what the workers have logged."""
        return "".join(path.read_text() for path in (self.program.state / "log").glob("mount-*.log"))

    def second(self, name: str = "second") -> "WritableMount":
        """Mount the drive once more, at another place."""
        path = self.path.parent / name
        self.program.mount(self.key, path)
        return WritableMount(self.program, self.key, path)


@contextmanager
def writable_mount(place: Path, *, dialect: str = "dweb") -> Iterator[WritableMount]:
    """Give a new drive, mounted to write to at `place`/mnt; end its engine afterwards."""
    with program(place / "state") as made:
        key = made.ask("create", "--name", "written", "--dialect", dialect)["key"]
        made.mount(key, place / "mnt")
        mount = WritableMount(made, key, place / "mnt")
        yield mount
        faults = [line for line in mount.logged().splitlines() if "fault of ours" in line]
        assert not faults, mount.logged()


def sh(script: str, directory: Path, *, timeout_s: float = 120.0) -> str:
    """Run a shell script in a directory; return its output. It must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
    )
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"exit {done.returncode}\n{output[-4000:]}"
    return output
