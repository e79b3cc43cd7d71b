"""When a topic is looked for again."""

import math
from dataclasses import dataclass

from ddrive.swarm.repeating import silence_s, wait_s, whose_turn

USUAL = (300.0, 480.0)


@dataclass
class Turn:
    due_s: float
    began_s: float = -math.inf


def test_who_finds_nobody_asks_more_and_more_rarely() -> None:
    assert [wait_s(USUAL, vain, 0.5) for vain in range(7)] == [390.0, 30.0, 60.0, 120.0, 240.0, 390.0, 390.0]
    assert (wait_s(USUAL, 0, 0.0), wait_s(USUAL, 1000, 1.0)) == USUAL
    assert [silence_s(vain) for vain in (0, 1, 2, 3, 1000)] == [5.0, 5.0, 10.0, 20.0, 80.0]


def test_new_topics_go_first_and_the_newest_of_them() -> None:
    topics = {"old": Turn(1.0, 0.0), "later": Turn(5.0, 0.0), "new": Turn(2.0), "newest": Turn(2.0)}
    assert whose_turn(topics, 3.0) == "newest"
    del topics["newest"], topics["new"]
    assert whose_turn(topics, 9.0) == "old"
    assert whose_turn(topics, 0.5) is None
