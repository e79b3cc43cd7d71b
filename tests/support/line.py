"""A line to a peer that is slow or goes dead: a TCP proxy on loopback, in threads of the test.

What goes from the peer to whoever has dialled is held up; nothing is ever altered.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIECE_BYTES = 4096


class Line:
    """Passes connections on to one address."""

    def __init__(self, target: str, rate: float | None, dead_after: int | None) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._rate = rate
        self._dead_after = dead_after
        self._streams: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed = 0  # bytes of the peer, on all connections
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                for stream in (near, far):
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._streams += [near, far]
                threading.Thread(target=self._ask, args=(near, far), daemon=True).start()
                threading.Thread(target=self._answer, args=(far, near), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(PIECE_BYTES):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    def _answer(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(PIECE_BYTES):
                if self._rate is not None:
                    time.sleep(len(data) / self._rate)
                self.passed += len(data)
                if self._dead_after is not None and self.passed > self._dead_after:
                    return  # both ends stay open, and nothing comes any more
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End all connections."""
        for stream in (self._listener, *self._streams):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
            stream.close()


@contextmanager
def line(target: str, *, rate: float | None = None, dead_after: int | None = None) -> Iterator[Line]:
    """Give a line to `target` that lets through `rate` bytes a second, and falls silent after so many bytes."""
    made = Line(target, rate, dead_after)
    try:
        yield made
    finally:
        made.close()
