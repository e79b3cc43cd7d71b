"""Channels and their rules on two connections joined without a stream, and what a bad peer can try."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.crypto import KeyPair, discovery_key
from ddrive.dialect import DIALECTS, DWEB, HYPERCORE, Dialect
from ddrive.errors import LocalProtocolError, RemoteProtocolError
from ddrive.ids import BlockIndex, ChannelId, DiscoveryKey, Node, NodeIndex, PublicKey
from ddrive.protocol import (
    ChannelClosed,
    ChannelOpened,
    ChannelRequested,
    Close,
    Connection,
    Data,
    Established,
    Extension,
    Have,
    Message,
    Open,
    Received,
    Request,
    Status,
    Want,
)
from ddrive.protocol.channels import MAX_CHANNELS, MAX_STRANGERS
from ddrive.protocol.codec import decode, encode
from ddrive.protocol.connection import END_BYTES, MAX_EARLY_BYTES
from ddrive.protocol.framing import PING, FrameReader, encode_frame
from tests.protocol.pairs import FIRST_SECRET, SECOND_SECRET, Pair, Side, new_pair, public_of

FEED = KeyPair.from_seed(b"\x07" * 32).public_key
OTHER = KeyPair.from_seed(b"\x08" * 32).public_key
FALSE_DWEB = replace(DWEB, capability_ns=b"something else")  # same discovery keys, other capabilities


def name_of(key: PublicKey, dialect: Dialect = DWEB) -> DiscoveryKey:
    return discovery_key(key, dialect.discovery_ns)


def frame(channel: int, message: Message) -> bytes:
    return encode_frame(channel, *encode(message))


def output(side: Side) -> list[tuple[int, Message | None]]:
    """Return the messages that `side` has queued, which are then lost."""
    frames = FrameReader().feed(b"".join(side.connection._output))
    side.connection._output.clear()
    side.connection.pending_bytes = 0
    return [(channel, decode(kind, body)) for channel, kind, body in frames]


def opened_pair(*, dialect: Dialect = DWEB, chunk_bytes: int = 1 << 20) -> tuple[Pair, ChannelId, ChannelId]:
    """Return a pair that has the feed open, and its channel on either side."""
    pair = new_pair(chunk_bytes=chunk_bytes)
    here = pair.first.connection.open_channel(FEED, dialect)
    there = pair.second.connection.open_channel(FEED, dialect)
    pair.settle()
    pair.first.take(), pair.second.take()
    return pair, here, there


def strangers(connection: Connection) -> tuple[int, int]:
    """Return the counters that hold what a peer made us remember."""
    assert connection._channels is not None
    return connection._channels._strangers, connection._early_bytes


# --- handshake


def test_both_sides_are_told_who_the_other_is() -> None:
    pair = new_pair(settled=False)
    assert not pair.first.connection.established
    assert pair.first.connection.remote_public_key == pair.first.connection.handshake_hash == b""
    pair.settle()
    assert pair.first.take() == [Established(public_of(SECOND_SECRET))]
    assert pair.second.take() == [Established(public_of(FIRST_SECRET))]
    assert pair.first.connection.handshake_hash == pair.second.connection.handshake_hash
    assert len(pair.first.connection.handshake_hash) == 64


def test_nothing_can_be_opened_before_the_handshake_is_done() -> None:
    connection = new_pair(settled=False).first.connection
    for call in (
        lambda: connection.open_channel(FEED, DWEB),
        connection.ping,
        lambda: connection.refuse(name_of(FEED)),
    ):
        with pytest.raises(LocalProtocolError):
            call()
    with pytest.raises(LocalProtocolError):
        connection.send(ChannelId(1), Have(BlockIndex(0)))


def test_what_the_peer_asks_for_can_be_looked_up_until_it_is_decided() -> None:
    pair, _, _ = opened_pair()
    pair.first.connection.open_channel(OTHER, DWEB)
    pair.settle()
    asked = pair.second.connection
    assert asked.requested() == [name_of(OTHER)]
    assert pair.first.connection.requested() == []
    asked.refuse(name_of(OTHER))
    assert asked.requested() == []


def test_frames_in_the_same_packet_as_the_last_handshake_message() -> None:
    pair = new_pair(settled=False)
    first, second = pair.first.connection, pair.second.connection
    second.receive_data(first.data_to_send())
    first.receive_data(second.data_to_send())
    first.open_channel(FEED, DWEB)
    events = second.receive_data(first.data_to_send())
    assert events == [Established(public_of(FIRST_SECRET)), ChannelRequested(name_of(FEED))]


def test_bytes_are_counted_as_encrypted() -> None:
    pair = new_pair()
    first, second = pair.first.connection, pair.second.connection
    assert (first.bytes_sent, first.bytes_received) == (59 + 91, 123)
    first.ping()
    assert first.pending_bytes == 1
    pair.settle()
    assert (first.bytes_sent, second.bytes_received, first.pending_bytes) == (151, 151, 0)


# --- opening


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("first_opens_first", [True, False])
def test_feed_opens_in_either_order(dialect: Dialect, first_opens_first: bool) -> None:
    pair = new_pair()
    early, late = (pair.first, pair.second) if first_opens_first else (pair.second, pair.first)
    channel = early.connection.open_channel(FEED, dialect)
    pair.settle()
    assert early.take() == []
    assert late.take() == [ChannelRequested(name_of(FEED, dialect))]
    answer = late.connection.open_channel(FEED, dialect)
    assert late.take() == [ChannelOpened(answer)]
    pair.settle()
    assert early.take() == [ChannelOpened(channel)]
    late.connection.send(answer, Want(BlockIndex(0), 1 << 20))
    early.connection.send(channel, Status(True, False))
    pair.settle()
    assert early.take() == [Received(channel, Want(BlockIndex(0), 1 << 20))]
    assert late.take() == [Received(answer, Status(True, False))]


def test_feed_opened_by_both_at_once() -> None:
    pair = new_pair()
    here = pair.first.connection.open_channel(FEED, DWEB)
    there = pair.second.connection.open_channel(FEED, DWEB)
    pair.settle()
    assert pair.first.take() == [ChannelOpened(here)]
    assert pair.second.take() == [ChannelOpened(there)]


def test_both_dialects_on_one_connection() -> None:
    pair = new_pair()
    channels = [
        (side.connection.open_channel(FEED, dialect))
        for dialect in (DWEB, HYPERCORE)
        for side in (pair.first, pair.second)
    ]
    pair.settle()
    assert pair.first.take() == [ChannelOpened(channels[0]), ChannelOpened(channels[2])]
    assert pair.second.take() == [ChannelOpened(channels[1]), ChannelOpened(channels[3])]


def test_opening_twice_sends_one_open() -> None:
    pair = new_pair()
    connection = pair.first.connection
    assert connection.open_channel(FEED, DWEB) == connection.open_channel(FEED, DWEB)
    assert [message for _, message in output(pair.first)] == [
        Open(name_of(FEED), connection._table().capability(FEED, DWEB))
    ]


def test_numbers_of_both_sides_need_not_be_equal() -> None:
    pair = new_pair()
    first, second = pair.first.connection, pair.second.connection
    a, b = first.open_channel(FEED, DWEB), first.open_channel(OTHER, DWEB)
    y, x = second.open_channel(OTHER, DWEB), second.open_channel(FEED, DWEB)
    pair.settle()
    pair.first.take(), pair.second.take()
    first.send(a, Have(BlockIndex(1)))
    first.send(b, Have(BlockIndex(2)))
    second.send(x, Have(BlockIndex(3)))
    second.send(y, Have(BlockIndex(4)))
    pair.settle()
    assert pair.second.take() == [Received(x, Have(BlockIndex(1))), Received(y, Have(BlockIndex(2)))]
    assert pair.first.take() == [Received(a, Have(BlockIndex(3))), Received(b, Have(BlockIndex(4)))]


def test_nothing_but_open_is_sent_before_the_peer_has_proven_itself() -> None:
    pair = new_pair()
    channel = pair.first.connection.open_channel(FEED, DWEB)
    with pytest.raises(LocalProtocolError):
        pair.first.connection.send(channel, Have(BlockIndex(0)))
    assert not pair.first.connection.is_open(channel)
    assert not pair.first.connection.was_closed(channel)


def test_channels_cannot_be_opened_or_closed_by_messages() -> None:
    pair, here, _ = opened_pair()
    for message in (Open(name_of(OTHER)), Close()):
        with pytest.raises(LocalProtocolError):
            pair.first.connection.send(here, message)


# --- capabilities


@pytest.mark.parametrize("capability", [None, b"", bytes(32), b"short"])
def test_false_proof_of_a_feed_that_we_opened_first_ends_the_connection(capability: bytes | None) -> None:
    pair = new_pair()
    pair.first.connection.open_channel(FEED, DWEB)
    pair.second.inject(frame(1, Open(name_of(FEED), capability)))
    with pytest.raises(RemoteProtocolError, match="does not know the key"):
        pair.settle()
    with pytest.raises(RemoteProtocolError):
        pair.first.connection.receive_data(b"")


def test_capability_of_the_other_side_is_no_proof() -> None:
    pair = new_pair()
    pair.first.connection.open_channel(FEED, DWEB)
    ((_, sent),) = output(pair.first)
    assert sent is not None
    pair.second.inject(frame(1, sent))
    with pytest.raises(RemoteProtocolError):
        pair.settle()


def test_capability_of_another_connection_is_no_proof() -> None:
    pair = new_pair()
    other = Side(Connection(initiator=True, static_secret=FIRST_SECRET, nonce=bytes(24)))
    third = Side(Connection(initiator=False, static_secret=SECOND_SECRET, nonce=bytes(24)))
    Pair(other, third).settle()
    third.connection.open_channel(FEED, DWEB)
    ((_, sent),) = output(third)
    assert sent is not None
    pair.first.connection.open_channel(FEED, DWEB)
    pair.second.inject(frame(1, sent))
    with pytest.raises(RemoteProtocolError):
        pair.settle()


def test_false_proof_of_a_feed_that_the_peer_opened_first_is_refused_and_the_connection_stays() -> None:
    pair = new_pair()
    asked = pair.second.connection.open_channel(FEED, FALSE_DWEB)
    pair.settle()
    assert pair.first.take() == [ChannelRequested(name_of(FEED))]
    channel = pair.first.connection.open_channel(FEED, DWEB)
    assert pair.first.take() == [ChannelClosed(channel)]
    assert pair.first.connection.was_closed(channel)
    pair.settle()
    assert pair.second.take() == [ChannelClosed(asked)]
    here, there = pair.first.connection.open_channel(OTHER, DWEB), pair.second.connection.open_channel(OTHER, DWEB)
    pair.settle()
    assert pair.first.take() == [ChannelOpened(here)]
    assert pair.second.take() == [ChannelOpened(there)]


def test_wrong_key_and_unknown_feed_look_the_same_to_the_peer() -> None:
    answers = []
    for knows_the_feed in (True, False):
        pair = new_pair()
        pair.second.connection.open_channel(FEED, FALSE_DWEB)
        pair.settle()
        if knows_the_feed:
            pair.first.connection.open_channel(FEED, DWEB)
        else:
            pair.first.connection.refuse(name_of(FEED))
        answers.append(pair.first.connection.data_to_send())
    assert answers[0] == answers[1] != b""


def test_refused_feed_can_be_opened_later_on_the_same_connection() -> None:
    pair = new_pair()
    asked = pair.second.connection.open_channel(FEED, DWEB)
    pair.settle()
    pair.first.connection.refuse(name_of(FEED))
    pair.settle()
    assert pair.second.take() == [ChannelClosed(asked)]
    pair.first.take()
    here = pair.first.connection.open_channel(FEED, DWEB)
    pair.settle()
    assert pair.second.take() == [ChannelRequested(name_of(FEED))]
    there = pair.second.connection.open_channel(FEED, DWEB)
    assert there != asked
    pair.settle()
    assert pair.first.take() == [ChannelOpened(here)]


def test_refusing_what_nobody_asked_for_sends_nothing() -> None:
    pair, _, _ = opened_pair()
    pair.first.connection.refuse(name_of(OTHER))
    pair.first.connection.refuse(name_of(FEED))
    assert pair.first.connection.pending_bytes == 0


def test_unanswered_feed_stays_until_it_is_opened() -> None:
    pair = new_pair()
    here, there = pair.first.connection.open_channel(FEED, DWEB), pair.second.connection.open_channel(OTHER, DWEB)
    pair.settle()
    assert pair.first.take() == [ChannelRequested(name_of(OTHER))]
    assert pair.second.take() == [ChannelRequested(name_of(FEED))]
    assert (pair.first.connection.pending_bytes, pair.second.connection.pending_bytes) == (0, 0)
    assert pair.first.connection.open_channel(OTHER, DWEB) != here
    pair.settle()
    assert pair.second.take() == [ChannelOpened(there)]


# --- messages that come before we have opened


def test_messages_right_behind_the_open_are_kept_until_we_open_too() -> None:
    pair = new_pair()
    proof = pair.second.connection._table().capability(FEED, DWEB)
    for message in (Open(name_of(FEED), proof), Want(BlockIndex(0), 8192), Have(BlockIndex(5))):
        pair.second.inject(frame(1, message))
    pair.settle()
    assert pair.first.take() == [ChannelRequested(name_of(FEED))]
    channel = pair.first.connection.open_channel(FEED, DWEB)
    assert pair.first.take() == [
        ChannelOpened(channel),
        Received(channel, Want(BlockIndex(0), 8192)),
        Received(channel, Have(BlockIndex(5))),
    ]
    assert strangers(pair.first.connection) == (0, 0)


@pytest.mark.parametrize("ending", ["refuse", "false proof", "close"])
def test_early_messages_are_bounded_and_forgotten(ending: str) -> None:
    pair = new_pair()
    pair.second.inject(frame(1, Open(name_of(FEED), b"false")))
    for _ in range(1000):
        pair.second.inject(frame(1, Extension(0, bytes(200))))
    pair.settle()
    assert 0 < strangers(pair.first.connection)[1] <= MAX_EARLY_BYTES
    if ending == "refuse":
        pair.first.connection.refuse(name_of(FEED))
    elif ending == "false proof":
        pair.first.connection.open_channel(FEED, DWEB)
    else:
        pair.second.inject(frame(1, Close()))
        pair.settle()
    assert strangers(pair.first.connection) == (0, 0)


# --- closing


def test_close_is_answered_and_reported_to_the_other_side_only() -> None:
    pair, here, there = opened_pair()
    pair.first.connection.close_channel(here)
    pair.settle()
    assert pair.first.take() == []
    assert pair.second.take() == [ChannelClosed(there)]
    for side, channel in ((pair.first, here), (pair.second, there)):
        assert side.connection.was_closed(channel)
        with pytest.raises(LocalProtocolError):
            side.connection.send(channel, Have(BlockIndex(0)))


def test_answer_to_a_close_is_an_empty_close_on_the_own_number() -> None:
    pair, _, _ = opened_pair()
    pair.first.inject(frame(1, Close()))
    pair.second.connection.receive_data(pair.first.connection.data_to_send())
    assert output(pair.second) == [(1, Close())]


def test_closing_by_both_at_once_is_quiet() -> None:
    pair, here, there = opened_pair()
    pair.first.connection.close_channel(here)
    pair.second.connection.close_channel(there)
    pair.first.connection.close_channel(here)
    pair.settle()
    assert pair.first.take() == pair.second.take() == []


def test_feed_is_opened_again_right_after_its_close() -> None:
    pair, here, there = opened_pair()
    pair.first.connection.close_channel(here)
    again = pair.first.connection.open_channel(FEED, DWEB)
    assert again != here
    pair.settle()
    assert pair.second.take() == [ChannelClosed(there), ChannelRequested(name_of(FEED))]
    assert pair.first.take() == []
    back = pair.second.connection.open_channel(FEED, DWEB)
    pair.settle()
    assert pair.first.take() == [ChannelOpened(again)]
    pair.second.connection.send(back, Have(BlockIndex(1)))
    pair.settle()
    assert pair.first.take() == [Received(again, Have(BlockIndex(1)))]


def test_lowest_free_number_is_used_again() -> None:
    pair = new_pair()
    keys = [KeyPair.from_seed(bytes((number,)) * 32).public_key for number in range(1, 6)]
    channels = [pair.first.connection.open_channel(key, DWEB) for key in keys[:4]]
    pair.first.connection.close_channel(channels[2])
    pair.first.connection.close_channel(channels[1])
    output(pair.first)
    assert pair.first.connection.open_channel(keys[4], DWEB) == ChannelId(5)
    assert [number for number, _ in output(pair.first)] == [2]


def test_refusal_of_our_open_is_answered_with_a_close() -> None:
    pair = new_pair()
    channel = pair.first.connection.open_channel(FEED, DWEB)
    output(pair.first)
    pair.second.inject(frame(7, Close(name_of(FEED))))
    pair.settle()
    assert pair.first.take() == [ChannelClosed(channel)]
    # the answer went to a peer that knows no such channel, and was ignored there
    assert pair.second.take() == []


def test_close_of_what_is_not_open_is_ignored() -> None:
    pair, here, there = opened_pair()
    for message in (Close(), Close(name_of(OTHER)), Close(name_of(FEED))):
        pair.second.inject(frame(9, message))
    pair.settle()
    assert pair.first.take() == []
    assert pair.first.connection.is_open(here)
    assert pair.second.connection.is_open(there)


def test_peer_that_gives_up_before_we_have_answered_is_forgotten() -> None:
    pair = new_pair()
    asked = pair.second.connection.open_channel(FEED, DWEB)
    pair.second.connection.close_channel(asked)
    pair.settle()
    assert pair.first.take() == [ChannelRequested(name_of(FEED))]
    assert strangers(pair.first.connection) == (0, 0)


def test_messages_on_a_channel_that_we_left_are_ignored() -> None:
    pair, here, _ = opened_pair()
    pair.first.connection.close_channel(here)
    pair.second.inject(frame(1, Have(BlockIndex(1))))
    pair.settle()
    assert pair.first.take() == []


# --- what a peer can do wrong


def test_messages_on_unknown_channels_are_ignored_even_when_broken() -> None:
    pair, here, _ = opened_pair()
    pair.second.inject(encode_frame(5, 9, b"\xff") + frame(0, Have(BlockIndex(1))) + PING)
    pair.second.inject(b"".join(encode_frame(1, kind, b"\xff") for kind in (11, 12, 13, 14)))
    pair.second.inject(frame(1, Have(BlockIndex(1))))
    pair.settle()
    assert pair.first.take() == [Received(here, Have(BlockIndex(1)))]


@pytest.mark.parametrize("number", [0, MAX_CHANNELS + 1, 1 << 40])
def test_open_on_a_number_that_cannot_be_is_refused(number: int) -> None:
    pair = new_pair()
    pair.second.inject(frame(number, Open(name_of(FEED))))
    with pytest.raises(RemoteProtocolError):
        pair.settle()


@pytest.mark.parametrize("second", [frame(1, Open(name_of(OTHER))), frame(2, Open(name_of(FEED)))])
def test_opening_a_number_or_a_feed_twice_is_refused(second: bytes) -> None:
    pair = new_pair()
    pair.second.inject(frame(1, Open(name_of(FEED))) + second)
    with pytest.raises(RemoteProtocolError, match="opened twice"):
        pair.settle()


def test_feeds_that_nobody_knows_are_bounded() -> None:
    pair = new_pair()
    for number in range(MAX_STRANGERS + 50):
        pair.second.inject(frame(number + 1, Open(DiscoveryKey(number.to_bytes(32, "big")))))
    pair.first.events += pair.first.connection.receive_data(pair.second.connection.data_to_send())
    assert len(pair.first.take()) == MAX_STRANGERS
    refused = [message for _, message in output(pair.first)]
    assert refused == [Close(DiscoveryKey(number.to_bytes(32, "big"))) for number in range(128, 178)]


def test_feeds_that_both_know_may_be_more() -> None:
    pair = new_pair()
    keys = [KeyPair.from_seed(number.to_bytes(32, "big")).public_key for number in range(MAX_STRANGERS + 50)]
    for side in (pair.first, pair.second):
        for key in keys:
            side.connection.open_channel(key, DWEB)
    pair.settle()
    assert len(pair.first.take()) == len(pair.second.take()) == len(keys)


def test_own_channels_are_bounded() -> None:
    connection = new_pair().first.connection
    keys = [PublicKey(number.to_bytes(32, "big")) for number in range(MAX_CHANNELS + 1)]
    for key in keys[:-1]:
        connection.open_channel(key, DWEB)
    with pytest.raises(LocalProtocolError):
        connection.open_channel(keys[-1], DWEB)


def test_broken_message_on_an_open_channel_ends_the_connection() -> None:
    pair, _, _ = opened_pair()
    pair.second.inject(encode_frame(1, 9, b"\xff"))
    with pytest.raises(RemoteProtocolError):
        pair.settle()


def test_message_that_is_too_large_is_not_sent() -> None:
    pair, here, _ = opened_pair()
    with pytest.raises(LocalProtocolError):
        pair.first.connection.send(here, Data(BlockIndex(0), bytes(8 * 1024 * 1024)))
    assert pair.first.connection.pending_bytes == 0


# --- output


def test_output_is_taken_in_parts() -> None:
    pair, here, there = opened_pair()
    messages = [Data(BlockIndex(number), bytes(1000)) for number in range(50)]
    for message in messages:
        pair.first.connection.send(here, message)
    pending = pair.first.connection.pending_bytes
    part = pair.first.connection.data_to_send(10_000)
    assert 10_000 <= len(part) <= 11_100 + END_BYTES
    assert pair.first.connection.pending_bytes == pending - len(part)
    received = pair.second.connection.receive_data(part + pair.first.connection.data_to_send())
    assert received == [Received(there, message) for message in messages]
    assert pair.first.connection.pending_bytes == 0


def test_the_small_end_of_a_large_block_goes_with_it() -> None:
    pair, here, there = opened_pair()
    node = Node(NodeIndex(1), bytes(32), 1 << 17)
    messages = [Data(BlockIndex(number), bytes(1 << 16), (node,)) for number in range(3)]
    for message in messages:
        pair.first.connection.send(here, message)
    part = pair.first.connection.data_to_send(1 << 16)
    assert pair.second.connection.receive_data(part) == [Received(there, messages[0])]
    assert len(part) < (1 << 16) + 200  # and the beginning of the next one


# --- any split, any junk


@given(st.integers(1, 200), st.lists(st.integers(0, 3), max_size=10))
def test_any_split_gives_the_same_events(chunk_bytes: int, choices: list[int]) -> None:
    pair, here, there = opened_pair(chunk_bytes=chunk_bytes)
    kinds: list[Message] = [
        Request(BlockIndex(9), nodes=3),
        Data(BlockIndex(9), bytes(500)),
        Have(BlockIndex(0), 1 << 20, b"\x07\x80"),
        Extension(3, b"hello"),
    ]
    for choice in choices:
        pair.first.connection.send(here, kinds[choice])
        pair.first.connection.ping()
    pair.settle()
    assert pair.second.take() == [Received(there, kinds[choice]) for choice in choices]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_junk_after_the_handshake_raises_the_one_error(junk: bytes, chunk_bytes: int) -> None:
    pair, _, _ = opened_pair(chunk_bytes=chunk_bytes)
    pair.second.inject(junk)
    try:
        pair.settle()
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            pair.first.connection.receive_data(b"\0")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15), st.binary(max_size=40)), max_size=12))
def test_well_formed_frames_with_junk_raise_the_one_error(frames: list[tuple[int, int, bytes]]) -> None:
    pair, _, _ = opened_pair()
    for channel, kind, body in frames:
        pair.second.inject(encode_frame(channel, kind, body))
    with contextlib.suppress(RemoteProtocolError):
        pair.first.connection.receive_data(pair.second.connection.data_to_send())


@given(st.binary(min_size=1, max_size=300))
def test_junk_before_the_handshake_raises_the_one_error(junk: bytes) -> None:
    for initiator in (True, False):
        connection = Connection(initiator=initiator, static_secret=FIRST_SECRET, nonce=bytes(24))
        with contextlib.suppress(RemoteProtocolError):
            connection.receive_data(junk)
