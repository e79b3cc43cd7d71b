"""When a topic is looked for: new ones at once, often while nobody is connected, then rarely. The dice are given."""

import math
from collections.abc import Mapping
from typing import Protocol, TypeVar

QUIET_S = 30.0  # after the first time that nobody was reached, doubled each time
SILENT_S = 5.0  # after the first time that nobody answered, doubled each time
LONGEST_SILENCE_S = 80.0


def wait_s(usual_s: tuple[float, float], vain: int, roll: float) -> float:
    """Return how long to wait after `vain` attempts in a row after which nobody is connected.

    When somebody is it is a time between the two of `usual_s`, as `roll` (0 to 1) says, and never longer.
    """
    shortest, longest = usual_s
    usual = shortest + roll * (longest - shortest)
    return usual if not vain else min(usual, QUIET_S * (1 << min(vain - 1, 16)))


def silence_s(vain: int) -> float:
    """Return how long to wait after `vain` attempts in a row, the last of which got no answer."""
    return min(LONGEST_SILENCE_S, SILENT_S * (1 << min(max(vain - 1, 0), 16)))


class Turn(Protocol):
    """When a topic was looked for last (minus infinity: never), and when it is due."""

    @property
    def began_s(self) -> float: ...

    @property
    def due_s(self) -> float: ...


Key = TypeVar("Key")


def whose_turn(topics: Mapping[Key, Turn], now: float) -> Key | None:
    """Return the topic to look for now: the one joined last of those that are new, else the one due for longest.

    At the start of an engine many are new, and somebody may wait for the one that comes after them.
    """
    due = {key: turn.due_s for key, turn in topics.items() if turn.due_s <= now}
    new = [key for key in due if topics[key].began_s == -math.inf]
    return new[-1] if new else min(due, key=due.__getitem__, default=None)
