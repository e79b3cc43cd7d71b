"""The guard of a worker: a process that ends the mount when the worker was killed and cannot go; see `guard`."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mountd.connections import way_to_abort

log = logging.getLogger(__name__)

GUARD = Path(__file__).with_name("guard.py")  # it is run by its path: that takes a third of the time
END_S = 1.0  # for the guard to end, which takes milliseconds
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class Guard:
    """What the worker has of its guard; nothing (None) when it could not be started."""

    def __init__(self, line: int | None) -> None:
        self._line = line
        self._aborts: list[int] = []  # open for as long as the guard may want to have them

    def watch(self, mountpoint: str) -> None:
        """Let the guard end what is mounted at `mountpoint` now, if it ever has to, and we may."""
        abort = way_to_abort(mountpoint)
        if abort is None:
            return
        self._aborts.append(abort)
        if self._line is not None:
            with suppress(OSError):
                os.write(self._line, b"%d" % abort)

    def close(self) -> None:
        """Give back what `watch` has opened."""
        while self._aborts:
            os.close(self._aborts.pop())


@contextmanager
def guarded() -> Iterator[Guard]:
    """Give the guard of this process, which has to be called in its first and only thread, for the length of the block.

    A program that is small and quick to start, not a fork: that would keep the memory which this process had.
    """
    its, ours = os.pipe()
    guard = Guard(None)
    process: subprocess.Popen[bytes] | None = None
    try:
        try:
            process = _start(its)
            guard = Guard(ours)
        except (OSError, subprocess.SubprocessError) as problem:
            log.warning("mount without a guard: why=%s", problem)
        finally:
            os.close(its)
        yield guard
    finally:
        guard.close()
        os.close(ours)
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)


def _start(line: int) -> subprocess.Popen[bytes]:
    """Start the guard. The kernel signals to it when this thread has ended."""
    prctl = ctypes.CDLL(None).prctl
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), str(os.getpid())],
        stdin=line,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
    )
