"""Requests that follow each other are taken without a turn of the event loop, for a while, and then it sleeps."""

import ctypes
import errno
import os
import signal
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from mountd import awake
from mountd.awake import AWAKE_S, Awake, Turn, interrupting
from mountd.fuse import Loop

STEPS = 4  # looks at the descriptor that fit into the time


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the times of all looks in vain; each takes its share of the time."""
    found: list[float] = []
    monkeypatch.setattr(awake, "perf_counter", lambda: len(found) * AWAKE_S / STEPS)
    monkeypatch.setattr(awake, "sched_yield", lambda: found.append(awake.perf_counter()))
    return found


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_what_is_there_is_taken_without_a_turn(pipe: tuple[int, int], looks: list[float]) -> None:
    kept, (reading, writing) = Awake(), pipe
    os.write(writing, b"request")
    await kept.wait_readable(reading)  # others may have had no turn for long
    with trio.testing.assert_no_checkpoints():
        await kept.wait_readable(reading)
    assert not looks


async def test_it_looks_for_a_while_after_each_request_and_then_sleeps(
    nursery: trio.Nursery, pipe: tuple[int, int], looks: list[float]
) -> None:
    kept, (reading, writing) = Awake(), pipe
    nursery.start_soon(kept.wait_readable, reading)
    await trio.testing.wait_all_tasks_blocked()
    assert not looks
    os.write(writing, b"1")
    await trio.testing.wait_all_tasks_blocked()
    os.read(reading, 1)

    kept.note()
    nursery.start_soon(kept.wait_readable, reading)
    await trio.testing.wait_all_tasks_blocked()
    assert len(looks) == STEPS
    os.write(writing, b"2")
    await trio.testing.wait_all_tasks_blocked()
    os.read(reading, 1)

    kept.note()
    kept.note()
    nursery.start_soon(kept.wait_readable, reading)
    await trio.testing.wait_all_tasks_blocked()
    assert len(looks) == 2 * STEPS
    nursery.cancel_scope.cancel()


async def test_what_comes_meanwhile_is_taken_without_a_turn(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, looks: list[float]
) -> None:
    kept, (reading, writing) = Awake(), pipe
    monkeypatch.setattr(awake, "sched_yield", lambda: looks.append(0.0) or os.write(writing, b"request"))
    kept._turn = awake.perf_counter()
    kept.note()
    with trio.testing.assert_no_checkpoints():
        await kept.wait_readable(reading)
    assert len(looks) == 1


async def test_other_tasks_have_their_turn_in_the_end(pipe: tuple[int, int]) -> None:
    kept, (reading, writing) = Awake(), pipe
    os.write(writing, b"more and more")
    done = trio.Event()

    async def other() -> None:
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        with trio.fail_after(10):
            while not done.is_set():
                await kept.wait_readable(reading)


async def test_a_request_that_is_taken_back_while_others_have_their_turn_is_not_there(
    nursery: trio.Nursery, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, (reading, writing) = Awake(), pipe
    returned = trio.Event()

    async def others() -> None:
        os.read(reading, 100)

    async def reader() -> None:
        await kept.wait_readable(reading)
        returned.set()

    os.write(writing, b"taken back")
    monkeypatch.setattr(trio.lowlevel, "checkpoint", others)
    nursery.start_soon(reader)
    await trio.testing.wait_all_tasks_blocked()
    assert not returned.is_set()
    os.write(writing, b"another")
    await trio.testing.wait_all_tasks_blocked()
    assert returned.is_set()


async def test_reading_a_request_that_was_taken_back_blocks_for_a_moment_only(pipe: tuple[int, int]) -> None:
    kept, (reading, writing) = Awake(), pipe
    system, buffer = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(100)
    os.write(writing, b"request")
    with interrupting():
        await kept.wait_readable(reading)
        os.read(reading, 100)
        for _ in range(2):
            assert (system.read(reading, buffer, 100), ctypes.get_errno()) == (-1, errno.EINTR)


async def test_who_sleeps_is_not_interrupted(nursery: trio.Nursery, pipe: tuple[int, int]) -> None:
    kept, (reading, writing) = Awake(), pipe
    with interrupting():
        nursery.start_soon(kept.wait_readable, reading)
        await trio.testing.wait_all_tasks_blocked()
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        os.write(writing, b"request")
        await trio.testing.wait_all_tasks_blocked()
        assert signal.getitimer(signal.ITIMER_REAL) > (0.0, 0.0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


async def test_who_gives_a_turn_back_may_take_it_again_before_others() -> None:
    turn, order = Turn(), []

    async def reader(name: str, requests: list[int]) -> None:
        for number in requests:
            async with turn:
                order.append((name, number))
            if number == 2:
                await trio.testing.wait_all_tasks_blocked()  # an answer that has to be waited for

    async with trio.open_nursery() as nursery, turn:
        for name in "abc":
            nursery.start_soon(reader, name, [1, 2, 3])
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(order) == [(name, number) for name in "abc" for number in (1, 2, 3)]
    first = order[0][0]
    assert order[:2] == [(first, 1), (first, 2)]
    assert order[2][0] != first


async def test_a_turn_is_not_lost_with_a_task_that_is_cancelled() -> None:
    turn = Turn()
    scopes: dict[int, trio.CancelScope] = {}
    came: list[int] = []

    async def reader(number: int) -> None:
        with trio.CancelScope() as scope:
            scopes[number] = scope
            async with turn:
                came.append(number)

    async with trio.open_nursery() as nursery:
        async with turn:
            for number in range(4):
                nursery.start_soon(reader, number)
            await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            scopes[number].cancel()  # one of the four has been called already
        with trio.fail_after(10):
            await trio.testing.wait_all_tasks_blocked()
        assert 3 in came


def test_all_but_the_waiting_for_requests_is_trio() -> None:
    kept = Awake()
    loop = Loop(kept)
    assert (loop.Lock, loop.lowlevel.wait_readable) == (Turn, kept.wait_readable)
    assert (loop.open_nursery, loop.lowlevel.current_task) == (trio.open_nursery, trio.lowlevel.current_task)
