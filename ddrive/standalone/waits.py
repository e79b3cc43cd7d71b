"""Waits that end by themselves, or because the program changed its mind about some blocks."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from ddrive.errors import TimedOut, Withdrawn
from ddrive.standalone.arguments import check_seconds


@dataclass(slots=True, eq=False)
class _Wait:
    start: int
    end: int
    withdrawn: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class Waits:
    """The waits of one feed for blocks."""

    def __init__(self) -> None:
        self._waits: list[_Wait] = []

    @contextmanager
    def wait(self, start: int, end: int, timeout_s: float | None, what: str) -> Iterator[None]:
        """Bound the time of the `with` block, which waits for the blocks `start` up to `end`.

        Raises: TimedOut, Withdrawn after `cancel`.
        """
        check_seconds("timeout", timeout_s)
        entry = _Wait(start, end)
        entry.scope.deadline = math.inf if timeout_s is None else trio.current_time() + timeout_s
        self._waits.append(entry)
        try:
            with entry.scope:
                yield
        finally:
            self._waits.remove(entry)
        if entry.scope.cancelled_caught:
            if entry.withdrawn:
                raise Withdrawn(f"the wait for {what} was cancelled")
            raise TimedOut(f"{what} did not arrive within {timeout_s} s")

    def cancel(self, start: int, end: int) -> None:
        """End the waits for blocks of which one lies from `start` up to `end`: they would never get all of theirs."""
        for entry in self._waits:
            if max(start, entry.start) < min(end, entry.end):
                entry.withdrawn = True
                entry.scope.cancel()
