"""Ends what a test run leaves behind when it is killed itself: `python guardian.py MARK`, until stdin ends.

Everything that a run starts has the line MARK in its environment, however far it has gone from its parents.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

END_S = 8.0  # for engines that take their mounts down


def started_by(mark: str) -> list[int]:
    """Return the processes with the line `mark` in their environment, but for this one."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            try:
                if os.fsencode(mark) in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
            except OSError:
                continue  # it is gone, or not ours
    return found


def mountpoint_of(pid: int) -> str | None:
    """Return where a mount worker has mounted its drive."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return os.fsdecode(words[words.index(b"--mountpoint") + 1]) if b"--mountpoint" in words else None


def end(pids: list[int], number: int) -> None:
    """Send a signal to all of them."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def main(mark: str) -> None:
    """Wait for the end of the run, then end everything it left."""
    sys.stdin.buffer.read()
    mountpoints = {mountpoint_of(pid) for pid in started_by(mark)} - {None}
    limit = time.monotonic() + END_S
    while (left := started_by(mark)) and time.monotonic() < limit:
        end(left, signal.SIGTERM)
        time.sleep(0.2)
    end(left, signal.SIGKILL)
    for place in mountpoints:
        subprocess.run(["fusermount3", "-u", "-z", "--", str(place)], capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1])
