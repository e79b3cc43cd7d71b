"""Locks that a process has as long as it holds a file open; nothing that a killed one leaves behind counts."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUNNING = "engine.lock"  # below the state directory: of the engine there, whose pid is in it
STARTING = "start.lock"  # of whoever starts one


def lock(descriptor: int) -> bool:
    """Tell whether the file could be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def try_lock(path: Path) -> Iterator[int | None]:
    """Give a descriptor that holds the lock at `path` within the block, and in whoever inherits it; None if taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor if lock(descriptor) else None
    finally:
        os.close(descriptor)


def holder(state: Path) -> int | None:
    """Return the process id of the engine that took the lock of `state` last, None when that is not known."""
    try:
        descriptor = os.open(state / RUNNING, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return written_pid(descriptor)
    finally:
        os.close(descriptor)


def written_pid(descriptor: int) -> int | None:
    """Return the process id in an open lock file."""
    text = os.pread(descriptor, 20, 0).strip()
    return int(text) if text.isdigit() else None
