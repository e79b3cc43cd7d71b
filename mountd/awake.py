"""Taking requests one after the other without a turn of the event loop, and without sleep, between them.

A program that looks at many files, or here and there in one, sends one request after the other, each when the last is
answered. A process that goes to sleep between them has to be woken each time, which on an idle (above all a virtual)
core takes longer than the answer; and two turns of the event loop for each request, one to hand over the lock of who
reads and one to wait for the descriptor, take as long as the answer itself. So for a moment after a request that needed
no waiting the next one is looked for at once. Other processes come first on this core meanwhile, and other tasks after
a millisecond at most.

Who is seen to have a request may be killed before it is read. The kernel then takes the request back, and to read the
next one blocks the whole process, all its threads, until somebody wants something of the mount. So while requests come,
a signal interrupts what blocks every 50 ms.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from os import sched_yield
from select import POLLIN, poll
from time import perf_counter
from types import TracebackType

import trio

AWAKE_S = 0.0002  # longer than a program needs between two calls; what an isolated request costs in CPU at most
ALONE_S = 0.001  # requests are answered for so long before other tasks have their turn
INTERRUPT_S = 0.05  # what blocks is interrupted so often


class Awake:
    """Keeps the process of one mount from sleeping between requests that follow each other."""

    def __init__(self) -> None:
        self._until = 0.0
        self._turn = 0.0  # when other tasks last had theirs
        self._polls: dict[int, poll] = {}

    def note(self) -> None:
        """A request of that kind has come."""
        self._until = perf_counter() + AWAKE_S

    async def wait_readable(self, fd: int) -> None:
        """Return when `fd` can be read: without a turn of the event loop if that is so now, or within a moment."""
        while True:  # after others had their turn it has to be looked again: the request may have been taken back
            ready = self._poll(fd)
            now = perf_counter()
            while not ready and now < self._until:
                sched_yield()
                ready = self._poll(fd)
                now = perf_counter()
            if not ready:
                await self._sleep(fd)
            elif now > self._turn + ALONE_S:
                await trio.lowlevel.checkpoint()
            else:
                return
            self._turn = perf_counter()

    async def _sleep(self, fd: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        await trio.lowlevel.wait_readable(fd)
        signal.setitimer(signal.ITIMER_REAL, INTERRUPT_S, INTERRUPT_S)

    def _poll(self, fd: int) -> bool:
        found = self._polls.get(fd)
        if found is None:
            found = self._polls[fd] = poll()
            found.register(fd, POLLIN)
        return bool(found.poll(0))


@contextmanager
def interrupting() -> Iterator[None]:
    """Let the signals of `Awake` interrupt what blocks, and do nothing else, for the length of the block."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)  # a handler of Python restarts no call
    signal.setitimer(signal.ITIMER_REAL, INTERRUPT_S, INTERRUPT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Turn:
    """A lock that who gave it back may take again before those that wait for it, and without a checkpoint.

    They are called when it is given back, and look when the event loop comes to them.
    """

    def __init__(self) -> None:
        self._taken = False
        self._called = False  # somebody who has not come yet
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._taken:
            try:
                await self._waiting.park()
            finally:
                self._called = False
        self._taken = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._taken = False
        if self._waiting and not self._called:
            self._called = True
            self._waiting.unpark()
