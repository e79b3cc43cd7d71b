"""Whose turn it is while something large is appended: in order, and never without bound."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ddrive.errors import LengthChanged
from ddrive.store.reserving import WAIT_S, Reservations


def admitted(queue: Reservations, *owners: str) -> list[str]:
    """Return who may append now."""
    found = []
    for owner in owners:
        try:
            queue.check(owner)
        except LengthChanged:
            continue
        found.append(owner)
    return found


async def test_everybody_may_append_until_one_reserves_the_end() -> None:
    queue = Reservations()
    assert admitted(queue, "a", "b") == ["a", "b"]
    await queue.reserve("a", 0.0)
    await queue.reserve("a", 0.0)  # has it
    assert admitted(queue, "a", "b") == ["a"]
    queue.end("a")
    assert admitted(queue, "a", "b") == ["a", "b"]


async def test_they_come_in_order(autojump_clock: MockClock) -> None:
    queue, came = Reservations(), []

    async def come(name: str) -> None:
        await queue.reserve(name, 0.0)
        came.append(name)
        await trio.sleep(1)
        queue.end(name)

    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(come, name)
            await wait_all_tasks_blocked()
    assert came == ["a", "b", "c", "d"]


async def test_who_gives_up_or_goes_lets_the_next_one_come(autojump_clock: MockClock) -> None:
    queue = Reservations()
    await queue.reserve("a", 0.0)
    with trio.move_on_after(1):
        await queue.reserve("b", 0.0)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await queue.reserve("never", 0.0)
        nursery.start_soon(queue.reserve, "c", 0.0)
        await wait_all_tasks_blocked()
        queue.end("a")
    assert admitted(queue, "a", "b", "c", "never") == ["c"]


@pytest.mark.parametrize(
    ("took", "works", "waits"),
    [(0.0, 0.0, WAIT_S), (0.0, 5.0, WAIT_S), (0.0, 100.0, 100.0), (100.0, 10.0, 110.0)],
)
async def test_they_wait_as_long_as_the_file_has_taken(
    autojump_clock: MockClock, took: float, works: float, waits: float
) -> None:
    queue = Reservations()
    await queue.reserve("large", took)
    await trio.sleep(works)
    queue.check("large")
    await trio.sleep(1000.0)  # that it stands still does not count
    began = trio.current_time()
    await queue.reserve("small", 0.0)
    assert trio.current_time() - began == pytest.approx(waits)
    assert admitted(queue, "large", "small") == ["small"]


async def test_a_file_is_repeated_in_twice_the_time_only(autojump_clock: MockClock) -> None:
    queue = Reservations()
    needs_s, repeated, longest = 3600.0, 0, 0.0

    async def store(sleep: Callable[[float], Awaitable[None]]) -> None:
        nonlocal repeated
        began, done = trio.current_time(), 0.0
        await queue.reserve("large", 0.0)
        while done < needs_s:
            await sleep(1.0)
            try:
                queue.check("large")
                done += 1.0
            except LengthChanged:
                repeated, done = repeated + 1, 0.0  # nothing of it is quicker the second time
                await queue.reserve("large", trio.current_time() - began)

    async def others() -> None:
        nonlocal longest
        while True:
            began = trio.current_time()
            await queue.reserve("small", 0.0)
            longest = max(longest, trio.current_time() - began)
            queue.end("small")
            await trio.sleep(1.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await store(trio.sleep)
        nursery.cancel_scope.cancel()
    assert repeated <= 9
    assert longest <= 2 * needs_s
