"""Runs the `ddrive` command as people do: in its own process, with a state directory of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.hosts import Host

COMMAND = [sys.executable, "-m", "mountd.cli"]
RUN_S = 120.0  # no verb of the tests takes longer than a few seconds; this only ends what hangs


class Result:
    """What one run of the command gave back."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr.decode(errors="replace")

    def json(self) -> Any:
        """Return the one JSON value on stdout."""
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\nstdout: {self.out[:2000]!r}\nstderr: {self.err[-4000:]}"


class Program:
    """The `ddrive` command with one state directory."""

    def __init__(self, state: Path, host: Host | None = None, **settings: str) -> None:
        self.state = state
        self.host = host
        self.command = [*(host.prefix if host else []), *COMMAND]
        self.settings: dict[str, str] = {}  # of every run, as environment variables
        self.mountpoints: list[Path] = []
        self.settings = {f"DDRIVE_{name.upper()}": value for name, value in settings.items()}

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a run: nothing of the caller's own settings of ddrive, and one state directory."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DDRIVE_", "XDG_"))}
        kept |= {"DDRIVE_STATE": str(self.state), "XDG_CONFIG_HOME": str(self.state.parent / "home")}
        if self.host is None:  # what runs on this machine itself keeps to itself
            kept |= {"DDRIVE_LISTEN": "127.0.0.1:0", "DDRIVE_NO_DISCOVERY": "1"}
        return kept | self.settings | more

    def run(self, *arguments: str | Path, timeout_s: float = RUN_S, **environment: str) -> Result:
        """Run one verb to its end, whatever it answers."""
        return Result(
            subprocess.run(
                [*self.command, *map(str, arguments)],
                capture_output=True,
                timeout=timeout_s,
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
            )
        )

    def ask(self, *arguments: str | Path) -> Any:
        """Run one verb with --json; return its value. It must succeed."""
        result = self.run(*arguments, "--json")
        assert result.code == 0, f"ddrive {' '.join(map(str, arguments))}: {result}"
        return result.json()

    @contextmanager
    def running(self, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """Start one verb and leave it running; it is killed when the block ends before it does."""
        process = subprocess.Popen(
            [*self.command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(),
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def mount(self, key: str, mountpoint: Path, *options: str | Path) -> dict[str, Any]:
        """Mount a drive at a directory, which is made when it is missing; return what the command told."""
        mountpoint.mkdir(parents=True, exist_ok=True)
        self.mountpoints.append(mountpoint)
        made: dict[str, Any] = self.ask("mount", key, mountpoint, *options)
        return made

    @property
    def address(self) -> str:
        """Where the engine listens."""
        listen: list[str] = self.ask("status")["listen"]
        return listen[0]

    @property
    def pid(self) -> int:
        """The engine's process."""
        number: int = self.ask("status")["pid"]
        return number

    def close(self) -> None:
        """Stop the engine and leave no mount behind."""
        with suppress(subprocess.TimeoutExpired):
            self.run("stop", timeout_s=30)
        for mountpoint in self.mountpoints:
            if mounted(mountpoint):
                subprocess.run(["fusermount3", "-u", "-z", str(mountpoint)], capture_output=True)


@contextmanager
def program(state: Path, host: Host | None = None, **settings: str) -> Iterator[Program]:
    """Give the command with the state directory `state`, on `host` if given; end its engine and mounts afterwards.

    `settings` are options of the engine, by their names with underscores.
    """
    made = Program(state, host, **settings)
    try:
        yield made
    finally:
        made.close()


def mounted(place: Path) -> bool:
    """Tell whether something is mounted at `place`, without asking it."""
    name = str(place).replace(" ", "\\040")
    return any(line.split(" ")[4] == name for line in Path("/proc/self/mountinfo").read_text().splitlines())


def kill(pid: int) -> None:
    """End a process without a chance to tidy up."""
    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Tell whether the process exists and is not a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
