"""The event loop of a mount stays awake after a request, and no longer."""

import pytest
import trio
import trio.testing

from mountd import awake
from mountd.awake import AWAKE_S, Awake

STEPS = 4  # turns of the loop that fit into the time


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the times of all turns without work; each takes its share of the time."""
    found: list[float] = []
    monkeypatch.setattr(awake, "perf_counter", lambda: len(found) * AWAKE_S / STEPS)
    monkeypatch.setattr(awake, "sched_yield", lambda: found.append(awake.perf_counter()))
    return found


async def test_it_goes_round_for_a_while_after_each_request_and_then_sleeps(
    nursery: trio.Nursery, turns: list[float]
) -> None:
    kept = Awake()
    nursery.start_soon(kept.run)
    await trio.testing.wait_all_tasks_blocked()
    assert not turns

    kept.note()
    await trio.testing.wait_all_tasks_blocked()
    assert len(turns) == STEPS

    kept.note()
    kept.note()
    await trio.testing.wait_all_tasks_blocked()
    assert len(turns) == 2 * STEPS
