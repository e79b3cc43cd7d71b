"""What is asked and answered on the LAN, and when; packets from npm and from whoever."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.ids import DiscoveryKey
from ddrive.swarm import mdns
from ddrive.swarm.lan_plan import ANSWER_PAUSE_S, LONGEST_PAUSE_S, SHORTEST_PAUSE_S, LanPlan
from ddrive.swarm.mdns import DOMAINS, Name, Offer, decode, encode_offers, encode_questions

KEY = DiscoveryKey(bytes(range(32)))
OTHER = DiscoveryKey(bytes(range(100, 132)))
HYPER = "hyperswarm.local"
# What npm hyperswarm@2.15.3 sends: its question for KEY, and its answer with port 4000 and a made-up id.
NAME = b"\x28" + KEY[:20].hex().encode() + b"\x0ahyperswarm\x05local\0"
NPM_QUESTION = bytes.fromhex("0000 0000 0001 0000 0000 0000") + NAME + bytes.fromhex("0021 0001")
NPM_ANSWER = (
    bytes.fromhex("0000 8400 0000 0003 0000 0000")
    + NAME
    + bytes.fromhex("0021 0001 00000000 000f 0000 0000 0fa0 0130 0130 0130 0130 00")
    + NAME
    + bytes.fromhex("0010 0001 00000000 0024 23")
    + b"id="
    + b"i" * 32
    + b"\x08referrer\x0ahyperswarm\x05local\0"
    + bytes.fromhex("0001 0001 00000000 0004 0a000001")
)


def plan(number: int = 7) -> LanPlan:
    """Return a plan whose random bytes and dice are known."""
    return LanPlan(4000, number, lambda count: bytes([number]) * count, lambda: 0.5)


def asked(packets: list[bytes]) -> set[Name]:
    """Return what packets ask for."""
    return {name for packet in packets for name in (decode(packet) or mdns.Packet(0)).asked}


def offered(packets: list[bytes]) -> set[Offer]:
    """Return what packets offer."""
    return {offer for packet in packets for offer in (decode(packet) or mdns.Packet(0)).offers}


def names(key: DiscoveryKey) -> set[Name]:
    """Return both names of a topic."""
    return {Name(key[:20], domain) for domain in DOMAINS}


def test_a_question_of_npm_is_answered_in_its_domain() -> None:
    lan = plan()
    lan.join(KEY, announce=True)
    lan.packets(0.0)
    assert lan.received(NPM_QUESTION, "10.0.0.2", from_here=False) == []
    assert lan.next_s() == ANSWER_PAUSE_S
    assert offered(lan.packets(0.5)) == {Offer(Name(KEY[:20], HYPER), 4000, bytes([7]) * 32)}


def test_an_answer_of_npm_is_found() -> None:
    lan = plan()
    lan.join(KEY, announce=False)
    assert lan.received(NPM_ANSWER, "10.0.0.2", from_here=False) == [(KEY, 4000)]
    assert (lan.tally.total.answered, lan.tally.total.found) == (1, 1)
    assert lan.received(NPM_ANSWER, "10.0.0.2", from_here=False) == [(KEY, 4000)]
    assert (lan.tally.total.answered, lan.tally.total.found) == (2, 1)


def test_questions_come_often_at_first_and_then_rarely() -> None:
    lan, times = plan(), []
    lan.join(KEY, announce=False)
    for _ in range(5):
        now = max(0.0, lan.next_s())
        times.append(now)
        assert asked(lan.packets(now)) == names(KEY)
    assert times[:3] == [0.0, 1.0, 3.0]
    pauses = [later - earlier for earlier, later in pairwise(times[2:])]
    assert all(SHORTEST_PAUSE_S <= pause <= LONGEST_PAUSE_S for pause in pauses)


def test_a_topic_is_offered_unasked_at_first_and_only_if_announced() -> None:
    lan = plan()
    lan.join(KEY, announce=True)
    lan.join(OTHER, announce=False)
    assert {offer.name for offer in offered(lan.packets(0.0))} == names(KEY)
    assert {offer.name for offer in offered(lan.packets(1.0))} == names(KEY)
    assert offered(lan.packets(3.0)) == set()
    lan.received(b"".join(encode_questions(names(OTHER), 1)), "10.0.0.2", from_here=False)
    assert offered(lan.packets(4.0)) == set()


def test_floods_of_questions_are_answered_in_one() -> None:
    lan = plan()
    lan.join(KEY, announce=True)
    lan.packets(0.0)
    for _ in range(1000):
        lan.received(NPM_QUESTION, "10.0.0.2", from_here=False)
    assert offered(lan.packets(0.1)) == set()
    assert len(offered(lan.packets(0.3))) == 1
    assert lan.tally.total.announced == 2


def test_our_own_packets_are_passed_over_but_not_those_of_others_here() -> None:
    ours, other = plan(7), plan(8)
    for lan in (ours, other):
        lan.join(KEY, announce=True)
    for packet in ours.packets(0.0):
        assert ours.received(packet, "10.0.0.1", from_here=True) == []
    assert offered(ours.packets(0.5)) == set()
    (question, answer) = other.packets(0.0)
    assert ours.received(question, "10.0.0.1", from_here=True) == []
    assert ours.received(answer, "10.0.0.1", from_here=True) == [(KEY, 4000)]
    assert offered(ours.packets(0.6)) != set()


def test_nobody_is_believed_about_others() -> None:
    lan = plan()
    lan.join(KEY, announce=False)
    packet = NPM_ANSWER.replace(b"\x010\x010\x010\x010", b"\x019\x019\x019\x019")
    assert packet != NPM_ANSWER
    assert lan.received(packet, "10.0.0.2", from_here=False) == []
    assert lan.received(packet, "9.9.9.9", from_here=False) == [(KEY, 4000)]


def test_what_is_left_is_forgotten() -> None:
    lan = plan()
    lan.join(KEY, announce=True)
    lan.leave(KEY)
    assert (lan.next_s(), lan.packets(0.0), lan.tally.topics) == (math.inf, [], {})
    assert lan.received(NPM_ANSWER, "10.0.0.2", from_here=False) == []


def test_a_change_of_network_begins_anew() -> None:
    lan = plan()
    lan.join(KEY, announce=True)
    for now in (0.0, 1.0, 3.0):
        lan.packets(now)
    lan.refresh()
    packets = lan.packets(5.0)
    assert asked(packets) == names(KEY)
    assert {offer.name for offer in offered(packets)} == names(KEY)


def test_a_hundred_topics_share_packets() -> None:
    lan = plan()
    keys = [DiscoveryKey(bytes([number]) * 32) for number in range(100)]
    for key in keys:
        lan.join(key, announce=False)
    packets = lan.packets(0.0)
    assert asked(packets) == {name for key in keys for name in names(key)}
    assert max(map(len, packets)) <= 1500
    assert len(packets) <= 8


@pytest.mark.parametrize("data", [NPM_QUESTION, NPM_ANSWER])
def test_parts_of_packets_do_no_harm(data: bytes) -> None:
    whole = decode(data)
    assert decode(data + b"trailing") == whole
    for end in range(len(data)):
        part = decode(data[:end])
        assert part is None or len(part.offers) + len(part.asked) <= 1


@given(st.binary(max_size=200), st.booleans())
def test_anything_can_be_received(data: bytes, as_answer: bool) -> None:
    lan = plan()
    lan.join(KEY, announce=True)
    head = (NPM_ANSWER if as_answer else NPM_QUESTION)[:12]
    for packet in (data, head + data):
        assert lan.received(packet, "10.0.0.2", from_here=False) == []


def test_offers_without_a_port_are_none() -> None:
    (packet,) = encode_offers([Offer(Name(KEY[:20], HYPER), 0, None)], 1)
    assert offered([packet]) == set()
