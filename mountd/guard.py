"""Ends the mount of a killed worker that cannot go; a program of its own, of nothing but the standard library.

A thread that tells the kernel to forget a name waits until a program has done with that directory, even if the worker
is killed; the program may wait for an answer of the worker; and the kernel ends the mount with the last thread. Engines
end such mounts, but when the engine was killed too, whoever uses the mount would hang until there is another one.

Standard input is a socket to the worker, over which comes the descriptor of what aborts the mount. It ends with the
last thread of the worker, and a signal comes when the first one has ended, after which nobody serves the mount.
"""

import ctypes
import os
import select
import signal
import socket
import sys
from pathlib import Path

GO_S = 1.0  # a worker that can go is gone a moment after it was killed
PR_SET_PDEATHSIG = 1


def main(worker: int) -> None:
    """Wait for the end of the process `worker`, our parent, and abort its mount if it does not come whole."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    aborts: list[int] = []
    timeout_s: float | None = GO_S  # it may have ended before
    with socket.socket(fileno=0) as line:
        while True:
            ready = select.select([line.fileno(), told], [], [], timeout_s)[0]
            if line.fileno() in ready:
                data, found, _, _ = socket.recv_fds(line, 1, 1)
                if not data:
                    return
                aborts += found
            elif ready:
                os.read(told, 64)
                timeout_s = GO_S
            elif _has_ended(worker):
                if aborts:
                    os.write(aborts[-1], b"1")
                return
            else:  # somebody else has signalled us: that is no reason to leave
                timeout_s = None


def _has_ended(worker: int) -> bool:
    """Tell whether the first thread of the worker has; another one that cannot go is our parent then."""
    try:
        fields = Path(f"/proc/{worker}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return True
    return fields[0] == b"Z" or os.getppid() != worker


if __name__ == "__main__":
    main(int(sys.argv[1]))
