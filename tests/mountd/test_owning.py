"""Waiting for the end of the engine that has the lock of a state directory."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from trio.testing import MockClock

from mountd.owning import ended

ENGINE, NEXT = 4711, 4712


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Give a state directory whose lock `ENGINE` has."""
    lock = tmp_path / "engine.lock"
    lock.write_text(f"{ENGINE}\n")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield tmp_path


async def test_an_engine_that_stays_is_not_waited_for_without_end(autojump_clock: MockClock, state: Path) -> None:
    assert not await ended(state, ENGINE)


async def test_the_next_engine_is_not_taken_for_the_one_that_ended(autojump_clock: MockClock, state: Path) -> None:
    (state / "engine.lock").write_text(f"{NEXT}\n")
    assert await ended(state, ENGINE)


async def test_a_state_that_was_removed_meanwhile_has_no_engine(tmp_path: Path) -> None:
    assert await ended(tmp_path / "gone", ENGINE)
    assert await ended(tmp_path, None)
    assert not os.listdir(tmp_path)
