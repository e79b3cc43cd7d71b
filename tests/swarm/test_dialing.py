"""Whom to dial when: back-off, peers known by several addresses, liars."""

import math

from hypothesis import given
from hypothesis import strategies as st

from ddrive.ids import DiscoveryKey
from ddrive.swarm.dialing import (
    GIVEN_UP,
    LIAR_DELAY_S,
    MAX_DIALS_OF_HOST,
    MAX_FAR_DIALS,
    MAX_FOUND,
    MAX_FOUND_OF_HOST,
    MAX_LIARS,
    MAX_PEERS_PER_TOPIC,
    RECENT_DELAY_S,
    RECENT_S,
    STEADY_S,
    DialPlan,
    delay_s,
)
from ddrive.swarm.static import Address

HERE, THERE = Address("127.0.0.1", 4000), Address("::1", 4000)
KEY, OTHER = b"k" * 32, b"o" * 32
TOPIC, SECOND = DiscoveryKey(b"t" * 32), DiscoveryKey(b"s" * 32)


def dialled(plan: DialPlan, address: Address = HERE, key: bytes = KEY) -> None:
    """Play a dial that leads to a link."""
    plan.began(address)
    plan.answered(address, key)
    plan.linked(key)


def end(
    plan: DialPlan, now: float, *, lived_s: float = 0.0, lied: bool = False, address: Address | None = HERE
) -> None:
    """Play the end of a link to KEY."""
    plan.ended(KEY, now, 0.0, "gone", lived_s=lived_s, lied=lied, address=address)


def test_delays_double_up_to_five_minutes() -> None:
    assert [delay_s(failures, 0.0) for failures in (1, 2, 3, 9, 10, 1000)] == [1, 2, 4, 256, 300, 300]


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_jitter_shortens_by_half_at_most(failures: int, jitter: float) -> None:
    assert max(1.0, delay_s(failures, 0.0) / 2) <= delay_s(failures, jitter) <= delay_s(failures, 0.0) <= 300


def test_given_address_is_due_at_once() -> None:
    plan = DialPlan()
    assert (plan.due(5.0), plan.next_s()) == ([], math.inf)
    plan.add(HERE, 5.0)
    assert (plan.due(5.0), plan.next_s()) == ([HERE], 5.0)


def test_address_being_dialled_is_not_due() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    plan.began(HERE)
    assert (plan.due(100.0), plan.next_s()) == ([], math.inf)


def test_failures_are_repeated_ever_later() -> None:
    plan, now, waits = DialPlan(), 0.0, []
    plan.add(HERE, now)
    for _ in range(11):
        plan.began(HERE)
        plan.failed(HERE, now, 0.0, "refused")
        waits.append(plan.next_s() - now)
        assert plan.due(plan.next_s() - 0.001) == []
        now = plan.next_s()
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert plan.targets[HERE].last_error == "refused"


def test_asking_again_resets_the_delay() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    for _ in range(5):
        plan.failed(HERE, 0.0, 0.0, "refused")
    plan.add(HERE, 1.0)
    assert plan.due(1.0) == [HERE]
    plan.failed(HERE, 1.0, 0.0, "refused")
    assert plan.next_s() == 2.0


def test_those_that_waited_longest_come_first() -> None:
    plan = DialPlan()
    plan.add(HERE, 3.0)
    plan.add(THERE, 2.0)
    assert plan.due(10.0) == [THERE, HERE]


def test_connected_peer_is_not_dialled_at_any_address() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    plan.add(THERE, 0.0)
    dialled(plan, HERE)
    plan.began(THERE)
    plan.answered(THERE, KEY)
    plan.failed(THERE, 0.0, 0.0, "a link to this peer is up already")
    assert plan.next_s() == math.inf
    assert plan.targets[THERE].last_error is None
    end(plan, 1.0)
    assert sorted(plan.due(2.0)) == sorted([HERE, THERE])


def test_peer_that_came_by_itself_is_not_dialled_where_it_is_known() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    dialled(plan)
    end(plan, 1.0)
    plan.linked(KEY)
    assert plan.next_s() == math.inf
    end(plan, 9.0, address=None)
    assert plan.next_s() < math.inf


def test_second_link_keeps_the_address_quiet() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    dialled(plan)
    plan.linked(KEY)
    end(plan, 1.0)
    assert plan.next_s() == math.inf
    assert plan.targets[HERE].failures == 0


def test_link_that_lasted_resets_the_delay() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    for _ in range(6):
        plan.failed(HERE, 0.0, 0.0, "refused")
    dialled(plan)
    end(plan, 100.0, lived_s=STEADY_S)
    assert plan.next_s() == 101.0


DIAL_S = 5.0  # that a dial takes while nobody answers


@given(st.floats(0.0, RECENT_S - DIAL_S), st.floats(0, 1), st.booleans())
def test_after_an_outage_the_next_dial_is_soon_and_the_address_is_not_forgotten(
    outage_s: float, jitter: float, is_given: bool
) -> None:
    plan, now = DialPlan(), 1000.0
    if is_given:
        plan.add(HERE, 0.0)
    else:
        plan.found(HERE, TOPIC, "dht", 0.0)
    dialled(plan)
    plan.ended(KEY, now, jitter, "lost", lived_s=STEADY_S, lied=False, address=HERE)
    while plan.next_s() <= 1000.0 + outage_s:
        now = plan.next_s()
        assert plan.due(now) == [HERE]
        plan.began(HERE)
        now += DIAL_S
        plan.failed(HERE, now, jitter, "no answer")
    assert plan.next_s() - (1000.0 + outage_s) <= RECENT_DELAY_S + DIAL_S


def test_after_a_long_time_it_is_left_alone_as_others_are() -> None:
    plan, now, waits = DialPlan(), 0.0, []
    plan.found(HERE, TOPIC, "dht", now)
    dialled(plan)
    end(plan, now, lived_s=STEADY_S)
    while HERE in plan.targets:
        waits.append(plan.next_s() - now)
        now = plan.next_s()
        plan.began(HERE)
        plan.failed(HERE, now, 0.0, "no answer")
    assert waits[:4] == [1, 2, RECENT_DELAY_S, RECENT_DELAY_S]
    assert now >= RECENT_S
    plan.add(HERE, now)
    for _ in range(12):
        plan.failed(HERE, now, 0.0, "no answer")
    assert plan.next_s() == now + 300


def test_whoever_turns_us_away_is_asked_ever_more_rarely() -> None:
    plan, now, waits = DialPlan(), 0.0, []
    plan.add(HERE, now)
    dialled(plan)
    end(plan, now, lived_s=STEADY_S)
    for _ in range(9):
        plan.failed(HERE, now, 0.0, "no answer")
    for _ in range(5):
        plan.failed(HERE, now, 0.0, "the peer closed the connection", turned_away=True)
        waits.append(plan.next_s() - now)
        now = plan.next_s()
    assert waits == [1, 2, 4, 8, 16]


def test_addresses_of_lately_are_not_pushed_out_by_new_ones() -> None:
    plan = DialPlan()
    for number in range(MAX_FOUND):
        plan.found(near(number), TOPIC, "dht", 0.0)
    dialled(plan, near(5))
    plan.ended(KEY, 50.0, 0.0, "lost", lived_s=STEADY_S, lied=False, address=near(5))
    for _ in range(20):
        plan.failed(near(5), 60.0, 0.0, "no answer")
    assert not plan.found(HERE, TOPIC, "dht", 60.0)
    assert plan.found(HERE, TOPIC, "dht", 51.0 + RECENT_S)
    assert near(5) not in plan.targets


def test_link_that_did_not_last_is_a_failure() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    for now in (1.0, 2.0, 3.0):
        dialled(plan)
        end(plan, now, lived_s=0.5)
    assert plan.next_s() == 3.0 + 4.0


def test_liar_is_refused_for_ten_minutes_wherever_it_is() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    dialled(plan)
    end(plan, 1.0, lied=True)
    assert plan.next_s() == 1.0 + LIAR_DELAY_S
    assert plan.refuses(KEY, LIAR_DELAY_S)
    assert not plan.refuses(KEY, 1.0 + LIAR_DELAY_S)
    assert not plan.refuses(OTHER, 1.0)
    plan.add(THERE, 2.0)
    plan.began(THERE)
    plan.answered(THERE, KEY)
    plan.failed(THERE, 2.0, 0.0, "lied lately")
    assert plan.next_s() == 1.0 + LIAR_DELAY_S


def test_asking_for_a_liar_forgives_it() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    dialled(plan)
    end(plan, 1.0, lied=True)
    plan.add(HERE, 2.0)
    assert not plan.refuses(KEY, 2.0)
    assert plan.due(2.0) == [HERE]


def test_address_where_nobody_speaks_the_protocol_is_left_alone() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    plan.failed(HERE, 0.0, 0.0, "no handshake", lied=True)
    assert plan.next_s() == LIAR_DELAY_S


def test_memory_of_liars_is_bounded() -> None:
    plan = DialPlan()
    for number in range(MAX_LIARS + 10):
        key = number.to_bytes(32, "big")
        plan.linked(key)
        plan.ended(key, 0.0, 0.0, "lied", lived_s=0.0, lied=True, address=None)
    assert not plan.refuses((9).to_bytes(32, "big"), 1.0)
    assert plan.refuses((10).to_bytes(32, "big"), 1.0)


def test_own_address_is_never_dialled_again_unless_asked_for() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    plan.began(HERE)
    plan.found_ourselves(HERE)
    plan.failed(HERE, 0.0, 0.0, "this is our own address")
    assert plan.next_s() == math.inf
    plan.add(HERE, 5.0)
    assert plan.due(5.0) == [HERE]


def test_removed_address_is_forgotten_whatever_comes_later() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    plan.began(HERE)
    plan.remove(HERE)
    plan.remove(HERE)
    plan.answered(HERE, KEY)
    plan.found_ourselves(HERE)
    plan.failed(HERE, 0.0, 0.0, "refused")
    plan.linked(KEY)
    end(plan, 1.0)
    assert plan.targets == {}


def near(number: int) -> Address:
    """Return one of many addresses."""
    return Address(f"10.0.{number // 256}.{number % 256}", 4000)


def test_given_addresses_come_first_then_remembered_ones_then_the_lan() -> None:
    plan = DialPlan()
    plan.found(near(4), TOPIC, "mainline", 0.0)
    plan.found(near(3), TOPIC, "lan", 1.0)
    plan.found(near(2), TOPIC, "remembered", 2.0)
    plan.add(near(1), 3.0)
    assert plan.due(5.0) == [near(1), near(2), near(3), near(4)]


def test_at_most_eight_are_dialled_at_once_and_the_far_ones_leave_room() -> None:
    plan = DialPlan()
    for number in range(20):
        plan.found(near(number), DiscoveryKey(bytes([number]) * 32), "dht", 0.0)
    assert len(plan.due(0.0)) == MAX_FAR_DIALS
    for number in range(20, 40):
        plan.found(near(number), TOPIC, "lan", 0.0)
    for address in plan.due(0.0):
        plan.began(address)
    assert len(plan.targets) == 40
    assert [address for address in plan.due(0.0) if plan.targets[address].source != "given"] == []
    plan.add(HERE, 0.0)
    assert plan.due(0.0) == [HERE]  # somebody asked for it
    plan.answered(near(20), KEY)
    plan.answered(near(21), OTHER)
    assert len(plan.due(0.0)) == 2  # these are no dials any more: another one may begin


def test_at_most_24_peers_are_linked_for_one_topic() -> None:
    plan = DialPlan()
    for number in range(60):
        plan.found(near(number), TOPIC, "lan", 0.0)
    linked = 0
    while due := plan.due(0.0):
        for address in due:
            dialled(plan, address, bytes([linked]) * 32)
            linked += 1
    assert linked == MAX_PEERS_PER_TOPIC
    plan.found(near(59), SECOND, "lan", 0.0)
    assert plan.due(0.0) == [near(59)]


def test_found_addresses_are_bounded_and_those_that_fail_make_room() -> None:
    plan = DialPlan()
    for number in range(MAX_FOUND):
        assert plan.found(near(number), TOPIC, "dht", 0.0)
    assert not plan.found(near(MAX_FOUND), TOPIC, "dht", 0.0)
    plan.began(near(9))
    plan.failed(near(9), 0.0, 0.0, "refused")
    assert plan.found(near(MAX_FOUND), TOPIC, "dht", 0.0)
    assert near(9) not in plan.targets
    plan.add(HERE, 0.0)
    assert plan.due(0.0)[0] == HERE


def test_a_host_that_tells_of_all_its_ports_does_not_keep_us_from_others() -> None:
    plan = DialPlan()
    ports = [Address("10.0.0.66", 1024 + number) for number in range(1000)]
    for address in ports:
        plan.found(address, TOPIC, "lan", 0.0)
    assert list(plan.targets) == ports[:MAX_FOUND_OF_HOST]
    assert plan.found(near(1), TOPIC, "lan", 1.0)
    due = plan.due(1.0)
    assert len(due) == MAX_DIALS_OF_HOST + 1
    assert near(1) in due
    for address in due:
        plan.began(address)
    assert plan.due(1.0) == []
    plan.failed(ports[0], 1.0, 0.0, "no answer")
    assert plan.found(ports[-1], TOPIC, "lan", 1.0)
    assert ports[0] not in plan.targets
    assert len(plan.due(1.0)) == 1


def test_a_found_address_that_only_fails_is_forgotten_and_a_given_one_is_not() -> None:
    plan = DialPlan()
    plan.found(HERE, TOPIC, "dht", 0.0)
    plan.add(THERE, 0.0)
    for _ in range(GIVEN_UP):
        for address in (HERE, THERE):
            plan.began(address)
            plan.failed(address, 0.0, 0.0, "refused")
    assert list(plan.targets) == [THERE]


def test_what_was_found_for_a_topic_goes_with_it() -> None:
    plan = DialPlan()
    plan.found(HERE, TOPIC, "lan", 0.0)
    plan.found(HERE, SECOND, "dht", 0.0)
    plan.found(THERE, TOPIC, "lan", 0.0)
    plan.forget_topic(TOPIC)
    assert list(plan.targets) == [HERE]
    plan.forget_topic(SECOND)
    assert plan.targets == {}


def test_a_change_of_network_ends_the_waiting_but_not_that_for_liars() -> None:
    plan = DialPlan()
    plan.add(HERE, 0.0)
    plan.add(THERE, 0.0)
    for _ in range(9):
        plan.failed(HERE, 0.0, 0.0, "no route")
    plan.failed(THERE, 0.0, 0.0, "lied", lied=True)
    plan.retry(10.0)
    assert plan.due(10.0) == [HERE]
    plan.failed(HERE, 10.0, 0.0, "no route")
    assert plan.targets[HERE].next_s == 11.0


def test_who_speaks_on_the_lan_is_tried_sooner_but_for_liars() -> None:
    plan = DialPlan()
    for number, lied in ((1, False), (2, True)):
        plan.found(near(number), TOPIC, "lan", 0.0)
        plan.began(near(number))
        for _ in range(5):
            plan.failed(near(number), 0.0, 0.0, "gone", lied=lied)
        plan.found(near(number), TOPIC, "lan", 2.0)
    assert plan.targets[near(1)].next_s == 3.0
    assert plan.targets[near(2)].next_s == LIAR_DELAY_S
