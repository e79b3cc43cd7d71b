"""A link that counts round trips: what either side sends is handed over only when nothing else can happen any more.

So the count does not depend on the speed of the machine: it is the number of times that one side had to hear of the
other before anything could go on.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, wait_all_tasks_blocked

from ddrive.protocol.running import run_link
from ddrive.store.linked import Replicator
from ddrive.store.store import OwnedStore

_QUIET_S = 0.005  # nothing happens for so long: then everybody waits for the other side


class Rounds:
    """Counts; `there` and `back` are the halves of round trips."""

    def __init__(self) -> None:
        self.there = 0
        self.back = 0
        self._ways: list[tuple[MemorySendStream, MemoryReceiveStream]] = []

    @property
    def trips(self) -> int:
        """Round trips so far."""
        return self.back

    def reset(self) -> None:
        """Count from zero."""
        self.there = self.back = 0

    def stream(self) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        """Return the two ends of a link; the first is the one that asks."""
        self._ways = [(MemorySendStream(), MemoryReceiveStream()) for _ in range(2)]
        (near_out, far_in), (far_out, near_in) = self._ways
        return trio.StapledStream(near_out, near_in), trio.StapledStream(far_out, far_in)

    async def run(self) -> None:
        """Hand over, one direction at a time, until cancelled."""
        while True:
            for number, (sent, received) in enumerate(self._ways):
                await wait_all_tasks_blocked(_QUIET_S)
                with suppress(trio.WouldBlock):
                    received.put_data(sent.get_data_nowait())
                    if number == 0:
                        self.there += 1
                    else:
                        self.back += 1


@asynccontextmanager
async def counted_link(near: OwnedStore, far: OwnedStore) -> AsyncIterator[Rounds]:
    """Link two stores while the context lasts; `near` is the side that asks."""
    rounds = Rounds()
    ends = rounds.stream()
    handlers = [Replicator([near]), Replicator([far])]

    async def run(number: int) -> None:
        await run_link(ends[number], initiator=not number, handler=handlers[number], static_secret=os.urandom(32))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, 0)
        nursery.start_soon(run, 1)
        nursery.start_soon(rounds.run)
        yield rounds
        nursery.cancel_scope.cancel()
    for handler in handlers:
        handler.close()
