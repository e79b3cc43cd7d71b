"""The event loop of a mount stays awake after a request, and no longer."""

import trio
import trio.testing
from trio.lowlevel import current_statistics

from mountd import awake
from mountd.awake import Awake


async def test_it_sleeps_until_a_request_comes_and_again_after_its_time(nursery, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(awake.time, "perf_counter", lambda: now[0])
    kept = Awake()
    nursery.start_soon(kept.run)
    await trio.testing.wait_all_tasks_blocked()

    kept.note()
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    assert current_statistics().tasks_runnable > 0  # it goes round without waiting

    now[0] = awake.AWAKE_S
    await trio.testing.wait_all_tasks_blocked()  # it has come to rest

    kept.note()
    await trio.lowlevel.checkpoint()
    assert current_statistics().tasks_runnable > 0
