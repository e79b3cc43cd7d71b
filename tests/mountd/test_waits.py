"""Operations that wait while there is no engine: nobody knows then whether a peer is there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from ddrive.errors import NoPeers, TimedOut
from mountd.inodes import InodeTable
from mountd.waits import Wait, Waits
from tests.support.memory_drive import FakeCallers

LIMIT_S = 30.0
UNCONNECTED_S = 5.0


@dataclass
class Mount:
    """What a mount of a drive without peers waits for."""

    waits: Waits = field(default_factory=lambda: Waits(FakeCallers(), connected=lambda: False, stranded=lambda: True))
    has_engine: bool = False
    arrived: trio.Event = field(default_factory=trio.Event)

    async def wait(self) -> float:
        """Wait for what arrives; return how long that took."""
        wait = Wait(4711, InodeTable().root, shared=False)
        began = trio.current_time()
        await self.waits.bounded(self.arrived.wait(), wait, limit_s=LIMIT_S, unconnected_limit_s=UNCONNECTED_S)
        return trio.current_time() - began

    async def fails(self, kind: type[Exception]) -> float:
        """Wait for what does not arrive; return how long."""
        began = trio.current_time()
        with pytest.raises(kind):
            await self.wait()
        return trio.current_time() - began


@asynccontextmanager
async def mounted() -> AsyncIterator[Mount]:
    mount = Mount()
    mount.waits.awaited = lambda: not mount.has_engine
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.waits.watch)
        yield mount
        nursery.cancel_scope.cancel()


async def test_who_needs_the_engine_waits_for_the_next_one(autojump_clock: MockClock) -> None:
    async with mounted() as mount, trio.open_nursery() as nursery:

        async def engine() -> None:
            await trio.sleep(20)
            mount.has_engine = True
            await trio.sleep(1)  # it opens its feeds
            mount.arrived.set()

        nursery.start_soon(engine)
        assert 20 < await mount.wait() < 22


async def test_peers_have_their_time_once_an_engine_is_there(autojump_clock: MockClock) -> None:
    async with mounted() as mount, trio.open_nursery() as nursery:

        async def engine() -> None:
            await trio.sleep(20)
            mount.has_engine = True

        nursery.start_soon(engine)
        assert 24 < await mount.fails(NoPeers) < 27


async def test_an_engine_that_does_not_come_is_waited_for_once(autojump_clock: MockClock) -> None:
    async with mounted() as mount:
        assert LIMIT_S - 1 < await mount.fails(TimedOut) < LIMIT_S + 1
        assert await mount.fails(TimedOut) < 2
        mount.has_engine = True
        assert UNCONNECTED_S - 1 < await mount.fails(NoPeers) < UNCONNECTED_S + 1
        mount.has_engine = False
        assert LIMIT_S - 1 < await mount.fails(TimedOut) < LIMIT_S + 1
