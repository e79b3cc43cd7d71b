"""A drive of our own, mounted to write to, for tests of what programs do in it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.program import Program, program


class WritableMount:
    """The drive `key` of the engine `program`, mounted at `path`."""

    def __init__(self, made: Program, key: str, path: Path) -> None:
        self.program = made
        self.key = key
        self.path = path

    def heal(self) -> None:
        """Return when it answers again; its worker or engine was killed."""
        self.program.ask("mount", self.key, self.path)

    def remount(self) -> None:
        """Unmount and mount again: what is there then came through the drive."""
        self.program.ask("unmount", self.path)
        self.program.mount(self.key, self.path)

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
