"""Sending on a connection without a turn of the event loop for each piece.

A send of trio ends with a turn of its loop even if the kernel took everything at once: 15 of the 55 us that 64 KiB cost
who sends them in pieces of 128 KiB.
"""

import os
from collections.abc import Awaitable, Callable

import trio

STRAIGHT_BYTES = 512 * 1024  # taken by the kernel one after the other, of all connections; then others have their turn

Send = Callable[[memoryview], Awaitable[None]]


def sender(stream: trio.abc.Stream) -> Send:
    """Return what sends all of a buffer on `stream`, like its `send_all`: over TCP not always with a checkpoint."""
    return _Direct(stream, _turn_of_this_run()).send if isinstance(stream, trio.SocketStream) else stream.send_all


class _Turn:
    """One turn of the event loop, and how many connections send in it: many that take their time would keep it long."""

    def __init__(self) -> None:
        self.number = 1
        self.senders = 0
        self._senders_before = 0

    @property
    def straight_bytes(self) -> int:
        """How much one of the connections may send."""
        return STRAIGHT_BYTES // max(self.senders, self._senders_before, 1)

    async def end(self) -> None:
        """Let other tasks run; the first to come back begins the next turn."""
        number = self.number
        await trio.lowlevel.checkpoint()
        if number == self.number:
            self.number += 1
            self._senders_before, self.senders = self.senders, 0


_turn: trio.lowlevel.RunVar[_Turn] = trio.lowlevel.RunVar("turn")


def _turn_of_this_run() -> _Turn:
    try:
        return _turn.get()
    except LookupError:
        _turn.set(_Turn())
        return _turn.get()


class _Direct:
    """Hands buffers to the kernel for as long as it takes them."""

    def __init__(self, stream: trio.SocketStream, turn: _Turn) -> None:
        self._socket = stream.socket
        self._turn = turn
        self._sent_in = 0  # the number of the last turn in which we sent
        self._straight_bytes = 0

    async def send(self, data: memoryview) -> None:
        """Return when the kernel has all of `data`. Raises: BrokenResourceError when the connection is lost."""
        if self._sent_in != self._turn.number:
            self._sent_in = self._turn.number
            self._turn.senders += 1
        while True:
            try:
                sent = os.write(self._socket.fileno(), data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise trio.BrokenResourceError(f"socket connection broken: {error}") from error
            data = data[sent:]
            self._straight_bytes += sent
            if not data:
                break
            self._straight_bytes = 0
            await trio.lowlevel.wait_writable(self._socket)
        if self._straight_bytes >= self._turn.straight_bytes:
            self._straight_bytes = 0
            await self._turn.end()
