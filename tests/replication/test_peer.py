"""How many requests may be in flight to a peer."""

from ddrive.ids import PeerId
from ddrive.replication.peer import (
    FEW_REQUESTS,
    MAX_REQUESTS,
    PROMPT_S,
    SLOW_S,
    START_REQUESTS,
    URGENT_REQUESTS,
    USUAL_BYTES,
    Asked,
    PeerState,
)

SIZE = 1000


def busy(waited_s: float, answers: int, peer: PeerState | None = None, size: int = SIZE) -> PeerState:
    """Return a peer that was kept busy and took so long for each of its answers."""
    peer, now = peer or PeerState(PeerId(1)), 100.0
    for _ in range(answers):
        peer.asked = {index: Asked(index, now, index, False) for index in range(peer.limit)}
        peer.heard(peer.take(0), size, now + waited_s, busy=True)
        now += waited_s
    return peer


def test_who_answers_at_once_is_asked_for_more() -> None:
    assert busy(0.01, 10).limit == START_REQUESTS + 10
    assert busy(0.01, 1000).limit == MAX_REQUESTS


def test_who_is_new_is_asked_for_few_large_blocks() -> None:
    peer = PeerState(PeerId(1))
    peer.start_with(USUAL_BYTES)
    assert peer.limit == FEW_REQUESTS
    assert busy(0.01, 10, peer, size=USUAL_BYTES).limit == FEW_REQUESTS + 10
    assert busy(0.01, 1, size=USUAL_BYTES).limit == FEW_REQUESTS, "it is noticed with the first answer"


def test_who_is_slow_is_asked_for_less_so_that_nobody_waits_behind_a_long_queue() -> None:
    assert busy(SLOW_S * 1.001, 5, busy(0.01, 60)).limit == START_REQUESTS + 60 - 5
    assert busy(SLOW_S * 4, 1, busy(0.01, 60)).limit == (START_REQUESTS + 60) // 4
    assert busy(SLOW_S * 1.1, 1000).limit == FEW_REQUESTS


def test_in_between_nothing_changes() -> None:
    assert busy((PROMPT_S + SLOW_S) / 2, 50, busy(0.01, 60)).limit == START_REQUESTS + 60


def test_under_a_limit_no_more_is_asked_than_comes_in_a_moment() -> None:
    limited = PeerState(PeerId(1), most_bytes=5 * USUAL_BYTES // 2)
    assert (limited.limit, limited.urgent_limit) == (2, 4), "before the size of blocks is known"
    busy(0.01, 100, limited, size=USUAL_BYTES)
    assert (limited.limit, limited.urgent_limit) == (2, 4)
    small = busy(0.01, 1000, PeerState(PeerId(1), most_bytes=5 * USUAL_BYTES // 2))
    assert (small.limit, small.urgent_limit) == (163, 163 + URGENT_REQUESTS)
