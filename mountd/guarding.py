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

import trio

from mountd.connections import way_to_abort

log = logging.getLogger(__name__)

GUARD = Path(__file__).with_name("guard.py")  # it is run by its path: that takes a third of the time
END_S = 1.0  # for the guard to end, which takes milliseconds
PAUSE_S = 1.0  # before one that was killed is replaced
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
_BEHIND = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGTERM)})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""  # it keeps what the kernel was asked for


class Guard:
    """What the worker has of its guard; nothing when it could not be started."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._line: int | None = None
        self._aborts: list[int] = []  # open for as long as the guard may want to have them

    def start(self, *, beside_threads: bool = False) -> None:
        """Start the guard, and tell it what it has to know. The kernel signals to it when this thread has ended."""
        its, ours = os.pipe()
        try:
            self._process = _start(its, beside_threads=beside_threads)
        except (OSError, subprocess.SubprocessError) as problem:
            log.warning("mount without a guard: why=%s", problem)
            os.close(ours)
            return
        finally:
            os.close(its)
        self._line = ours
        for abort in self._aborts:
            self._tell(abort)

    def watch(self, mountpoint: str) -> None:
        """Let the guard end what is mounted at `mountpoint` now, if it ever has to, and we may."""
        abort = way_to_abort(mountpoint)
        if abort is not None:
            self._aborts.append(abort)
            self._tell(abort)

    async def keep(self) -> None:
        """Start another guard whenever this one has been killed. To be called in the thread that has started it."""
        try:
            while self._process is not None:
                await _end_of(self._process)
                log.warning("guard has ended, another one is started: status=%s", self._process.returncode)
                await trio.sleep(PAUSE_S)
                self._let_go()
                self.start(beside_threads=True)
        except OSError as problem:  # no descriptors left, maybe: the mount goes on
            log.warning("guard is not watched any more: why=%s", problem)

    def close(self) -> None:
        """Let the guard end, and give back what `watch` has opened."""
        while self._aborts:
            os.close(self._aborts.pop())
        self._let_go()

    def _tell(self, abort: int) -> None:
        if self._line is not None:
            with suppress(OSError):
                os.write(self._line, b"%d" % abort)

    def _let_go(self) -> None:
        """Wait for the end of the guard, which comes with that of its line."""
        if self._line is not None:
            os.close(self._line)
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        self._line = self._process = None


@contextmanager
def guarded() -> Iterator[Guard]:
    """Give the guard of this process, which has to be called in its first and only thread, for the length of the block.

    A program that is small and quick to start, not a fork: that would keep the memory which this process had.
    """
    guard = Guard()
    try:
        guard.start()
        yield guard
    finally:
        guard.close()


def _start(line: int, *, beside_threads: bool) -> subprocess.Popen[bytes]:
    """Start the program. Where there are other threads, nothing may be called between the fork and that."""
    prctl = ctypes.CDLL(None).prctl
    program = ["-I", "-S", str(GUARD), str(os.getpid())]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BEHIND, *program] if beside_threads else [sys.executable, *program],
        stdin=line,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        preexec_fn=None if beside_threads else lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
    )


async def _end_of(process: subprocess.Popen[bytes]) -> None:
    """Return when a process of ours has ended."""
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        trio.lowlevel.notify_closing(descriptor)
        os.close(descriptor)
    process.wait()
