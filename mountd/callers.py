"""Who waits for the mount, and has a signal that should end the wait: read from /proc.

The kernel tells a file system about interrupted calls, but pyfuse3 does not pass that on. A process that waits in an
uninterruptible call shows its pending signals in /proc. Links below /proc/*/fd are read, never followed: following one
could be a call to the very mount that this process serves.
"""

import os
import select
from collections.abc import Iterator, Mapping
from signal import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM
from typing import NamedTuple

import trio

ENDING_SIGNALS = sum(1 << (number - 1) for number in (SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM))
STATUS_BYTES = 16 * 1024  # more than any /proc/*/status has; one read is one consistent answer
DELETED = b" (deleted)"  # what the kernel puts behind the name of a file that its path does not reach any more


class Signals(NamedTuple):
    """Signal state of one thread, as bit masks; bit 0 is signal 1."""

    zombie: bool
    threads: int
    pending: int
    process_pending: int
    blocked: int
    ignored: int

    @property
    def ending(self) -> bool:
        """Tell whether a signal waits here that the thread will act on once its call returns."""
        waiting = (self.pending | self.process_pending) & ENDING_SIGNALS
        return bool(waiting & ~self.blocked & ~self.ignored)


def parse_status(text: bytes) -> Signals:
    """Return the signal state in the text of a /proc/*/status file; fields that are absent count as empty."""
    fields: dict[bytes, bytes] = {}
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        fields[name] = value.strip()
    masks = (int(fields.get(name, b"0") or b"0", 16) for name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn"))
    return Signals(fields.get(b"State", b"")[:1] == b"Z", int(fields.get(b"Threads", b"1") or b"1"), *masks)


def signals_of(thread: str) -> Signals | None:
    """Return the signal state of a thread, given as a path below /proc; None when it is gone."""
    try:
        descriptor = os.open(f"/proc/{thread}/status", os.O_RDONLY)
    except OSError:
        return None
    try:
        return parse_status(os.read(descriptor, STATUS_BYTES))
    except OSError:
        return None
    finally:
        os.close(descriptor)


class ProcessTable:
    """The questions of `waits.Waits`, answered from /proc."""

    def __init__(self, *, sees_all: bool) -> None:
        """`sees_all`: the open files of every process that may use the mount can be read (root, or our own only)."""
        self._sees_all = sees_all
        self._end = select.poll()

    def set_mount(self, descriptor: int) -> None:
        """Take our end of the mount, once there is one."""
        self._end.register(descriptor, 0)  # errors are always told, and mean that the mount is gone

    def is_ending(self, thread: int) -> bool:
        """Tell whether that thread (as named by FUSE) has a signal pending that should end its call."""
        signals = signals_of(str(thread)) if thread > 0 else None
        return signals is not None and signals.ending

    def is_gone(self, thread: int) -> bool:
        """Tell whether that thread has ended; False when it was never known."""
        if thread <= 0:
            return False
        signals = signals_of(str(thread))
        return signals is None or signals.zombie

    def mount_is_gone(self) -> bool:
        """Tell whether the mount was ended by somebody else, so that nobody waits for answers any more."""
        return bool(self._end.poll(0))

    async def ending_files(self, files: Mapping[int, bytes], orphans: frozenset[int]) -> set[int]:
        """Return those of `files` (inode number to last path component) whose reads should end; see `ending_files`."""
        return await trio.to_thread.run_sync(ending_files, files, orphans if self._sees_all else frozenset())


def ending_files(files: Mapping[int, bytes], orphans: frozenset[int]) -> set[int]:
    """Return those of `files` (inode number to last path component) whose wait should end.

    That is so when a process with the file open has an ending signal pending, or, for a file in `orphans`, when
    no process has it open any more. Reads all of /proc, about 30 us for each
    process: call it in a thread.
    """
    ending: set[int] = set()
    in_use: set[int] = set()
    for process in os.listdir("/proc"):
        if not process.isdigit():
            continue
        for thread, signals in _threads_to_look_at(process, every=bool(orphans)):
            found = set(_open_files(thread, files))
            in_use |= found
            if signals.ending:
                ending |= found
    return ending | (orphans - in_use)


def _threads_to_look_at(process: str, *, every: bool) -> Iterator[tuple[str, Signals]]:
    """Yield the threads of `process` whose open files matter, with their signals; all share one set of open files."""
    signals = signals_of(process)
    if signals is None:
        return
    if signals.threads > 1 and (signals.ending or signals.zombie):
        try:
            threads = os.listdir(f"/proc/{process}/task")
        except OSError:
            return
        for thread in threads:
            state = signals_of(f"{process}/task/{thread}")
            if state is not None and (state.ending or every) and not state.zombie:
                yield f"{process}/task/{thread}", state
    elif signals.ending or every:
        yield process, signals


def _open_files(thread: str, files: Mapping[int, bytes]) -> Iterator[int]:
    """Yield the inode numbers in `files` that the thread has open: same last path component, same inode number."""
    names = set(files.values())
    folder = f"/proc/{thread}/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{folder}/{descriptor}".encode())
        except OSError:
            continue
        if target.removesuffix(DELETED).rpartition(b"/")[2] in names:
            number = _inode_number(f"/proc/{thread}/fdinfo/{descriptor}")
            if number in files:
                yield number


def _inode_number(path: str) -> int:
    """Return the `ino:` of a /proc/*/fdinfo file, 0 when it has none: reading it does not call the file system."""
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.startswith(b"ino:"):
                    return int(line[4:])
    except (OSError, ValueError):
        return 0
    return 0
