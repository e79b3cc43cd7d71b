"""Ends the mount of a killed worker that cannot go; a program of its own, of as little as can be: one runs per mount.

A thread that tells the kernel to forget a name waits until a program has done with that directory, even if the worker
is killed; the program may wait for an answer of the worker; and the kernel ends the mount with the last thread. Engines
end such mounts, but when the engine was killed too, whoever uses the mount would hang until there is another one.

Standard input comes from the worker, which writes to it what descriptor it has of what aborts the mount. It ends with
the last thread of the worker, and a signal comes when the first one has ended, after which nobody serves the mount.
"""

import os
import select
import signal
import sys

GO_S = 1.0  # a worker that can go is gone a moment after it was killed


def main(worker: int) -> None:
    """Wait for the end of the process `worker`, our parent, and abort its mount if it does not come whole."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    abort = -1
    timeout_s: float | None = GO_S  # it may have ended before
    while True:
        ready = select.select([0, told], [], [], timeout_s)[0]
        if 0 in ready:
            descriptor = os.read(0, 32)
            if not descriptor:
                return
            abort = os.open(f"/proc/{worker}/fd/{int(descriptor)}", os.O_WRONLY)
        elif ready:
            os.read(told, 64)
            timeout_s = GO_S
        elif _has_ended(worker):
            if abort >= 0:
                os.write(abort, b"1")
            return
        else:  # somebody else has signalled us: that is no reason to leave
            timeout_s = None


def _has_ended(worker: int) -> bool:
    """Tell whether the first thread of the worker has; another one that cannot go is our parent then."""
    try:
        with open(f"/proc/{worker}/stat", "rb") as file:  # pathlib takes half a MiB
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return fields[0] == b"Z" or os.getppid() != worker


if __name__ == "__main__":
    main(int(sys.argv[1]))
