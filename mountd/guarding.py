"""The guard of a worker: a process that ends the mount when the worker was killed and cannot go; see `guard`."""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mountd.connections import way_to_abort

log = logging.getLogger(__name__)

GUARD = Path(__file__).with_name("guard.py")  # it is run by its path: that takes a third of the time
END_S = 1.0  # for the guard to end, which takes milliseconds


class Guard:
    """What the worker has of its guard; nothing (None) when it could not be started."""

    def __init__(self, line: socket.socket | None) -> None:
        self._line = line

    def watch(self, mountpoint: str) -> None:
        """Let the guard end what is mounted at `mountpoint` now, if it ever has to, and we may."""
        abort = way_to_abort(mountpoint)
        if abort is None:
            return
        try:
            if self._line is not None:
                with suppress(OSError):
                    socket.send_fds(self._line, [b"a"], [abort])
        finally:
            os.close(abort)


@contextmanager
def guarded() -> Iterator[Guard]:
    """Give the guard of this process, which has to be called in its first thread, for the length of the block.

    A program that is small and quick to start, not a fork: that would keep the memory which this process had.
    """
    ours, its = socket.socketpair()
    with ours:
        try:
            with its:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(GUARD), str(os.getpid())],
                    stdin=its.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as problem:
            log.warning("mount without a guard: why=%s", problem)
            yield Guard(None)
            return
        try:
            yield Guard(ours)
        finally:
            ours.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
