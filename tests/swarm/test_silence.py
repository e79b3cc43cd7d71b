"""Connections on which nothing arrives any more are told from those that are idle or slow."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from ddrive.swarm.silence import INFO_BYTES, LOOK_S, LOST_S, Silence, Told


def lost_at(silence: Silence, *, sent_s: float, confirmed_s: float, until_s: float = 100.0) -> float | None:
    """Look at a connection on which something is under way from `sent_s` on; return when it counts as lost."""
    now = 0.0
    while now < until_s:
        told = Told(int(now >= sent_s), now - confirmed_s, 0.1)
        if silence.is_lost(told, now):
            return now
        now += LOOK_S
    return None


def test_what_the_system_tells_is_read() -> None:
    fields = {24: 7, 56: 1500, 68: 2500}
    numbers = (fields.get(offset, 0xFFFF).to_bytes(4, sys.byteorder) for offset in range(0, INFO_BYTES, 4))
    assert Told.parse(b"".join(numbers)) == Told(7, 1.5, 0.0025)


def test_an_idle_connection_is_not_lost_however_long_it_has_been_silent() -> None:
    assert lost_at(Silence(), sent_s=200.0, confirmed_s=0.0) is None


@given(st.floats(0, 50))
def test_what_is_not_confirmed_counts_from_when_it_was_sent(sent_s: float) -> None:
    found = lost_at(Silence(), sent_s=sent_s, confirmed_s=0.0)
    assert found is not None
    assert LOST_S <= found - sent_s <= LOST_S + LOOK_S


def test_whoever_confirms_slowly_is_not_lost() -> None:
    silence = Silence()
    for now in range(100):
        assert not silence.is_lost(Told(9, now % (LOST_S - LOOK_S), 3.0), float(now))


def test_time_in_which_nobody_looked_does_not_count() -> None:
    silence = Silence()
    assert not silence.is_lost(Told(1, 0.1, 0.1), 10.0)
    assert not silence.is_lost(Told(1, 0.1, 0.1), 70.0), "we were stopped, the connection was alive"
