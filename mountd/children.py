"""Mount workers as child processes of an engine, which can start them before it has been loaded itself.

Nothing here needs trio or the library: what an engine and its workers load takes both of them as long as all else about
a start, so they do it side by side.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ddrive.errors import DriveError
from mountd.config import Config, package_environment
from mountd.mounts import MountTable, owner_of
from mountd.processes import is_defunct, start_time

COMMAND = (sys.executable, "-P", "-m", "mountd.worker")


@dataclass(eq=False)
class Child:
    """A worker that waits for one line on `tell`, and answers with one on `hear`; both descriptors are ours."""

    mountpoint: str
    process: subprocess.Popen[bytes]
    tell: int
    hear: int
    has_log: bool  # its stderr is the log already

    def drop(self) -> None:
        """End it, before it has been told anything."""
        os.close(self.tell)
        os.close(self.hear)
        self.process.kill()
        self.process.wait()


class Spares:
    """Workers that were started ahead, for mounts which seem to need one."""

    def __init__(self, children: Iterable[Child] = ()) -> None:
        self._waiting = {child.mountpoint: child for child in children}

    def take(self, mountpoint: str) -> Child | None:
        """Return the one for this place, once, if it is there and lives."""
        child = self._waiting.pop(mountpoint, None)
        if child is not None and child.process.poll() is not None:
            child.drop()
            return None
        return child

    def close(self) -> None:
        """End those that nobody has taken."""
        for child in self._waiting.values():
            child.drop()
        self._waiting.clear()


def start_worker(command: Sequence[str], mountpoint: str, log: int | None) -> Child:
    """Start a worker whose stderr is `log`. Raises: OSError."""
    its_in, tell = os.pipe()
    hear, its_out = os.pipe()
    try:
        process = subprocess.Popen(
            [*command, "--mountpoint", mountpoint],
            stdin=its_in,
            stdout=its_out,
            stderr=subprocess.DEVNULL if log is None else log,
            start_new_session=True,
            cwd="/",
            env=package_environment(),
        )
    except BaseException:
        os.close(tell)
        os.close(hear)
        raise
    finally:
        os.close(its_in)
        os.close(its_out)
    return Child(mountpoint, process, tell, hear, has_log=log is not None)


def start_spares(config: Config) -> Spares:
    """Start workers for the mounts of the last run whose own ones have gone.

    They have no log yet, by which an engine would take them for workers that serve; and they end with their engine.
    """
    children: list[Child] = []
    with suppress(DriveError, OSError):  # the engine comes across that again
        owner = owner_of(config.state)
        for mount in MountTable(config.state / "mounts.json"):
            has_gone = mount.pid is None or mount.started != start_time(mount.pid) or is_defunct(mount.pid)
            if has_gone and mount.owner == owner:
                children.append(start_worker(COMMAND, mount.mountpoint, None))
    return Spares(children)
