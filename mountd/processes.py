"""What /proc tells of a process."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot: with the pid it names one process only."""
    try:
        return int(_status(pid)[19])
    except (OSError, ValueError, IndexError):
        return None


def is_defunct(pid: int) -> bool:
    """Tell whether the first thread of a process has ended, and nobody has asked for its exit status yet."""
    try:
        return _status(pid)[0] == b"Z"
    except (OSError, IndexError):
        return False


def is_worker(pid: int, mountpoint: str) -> bool:
    """Tell whether a process serves a mount at `mountpoint`, or has ended so far that nothing is known of it."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    words = line.split(b"\0")
    return not line or (os.fsencode(mountpoint) in words and any(word.endswith(b"mountd.worker") for word in words))


def writers_of(log: Path) -> Iterator[int]:
    """Yield the processes that have `log` as their standard error, as far as we may know."""
    name = str(log.resolve())
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(directory / "fd" / "2") == name:
                yield int(directory.name)


def _status(pid: int) -> list[bytes]:
    """Return the fields that follow the name of the program. Source: proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
