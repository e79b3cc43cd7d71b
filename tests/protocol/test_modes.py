"""What a program may choose for a connection: who is let in, what is hidden, and messages about no feed."""

from functools import partial

import pytest
import trio
from nacl import bindings
from trio.testing import memory_stream_pair

from ddrive.crypto import KeyPair
from ddrive.dialect import DWEB
from ddrive.errors import LocalProtocolError, RemoteProtocolError
from ddrive.ids import BlockIndex
from ddrive.protocol import (
    ChannelOpened,
    Connection,
    Established,
    Extension,
    Have,
    NoiseKeyPair,
    Options,
    Received,
    StreamReceived,
    run_link,
)
from ddrive.protocol.connection import STREAM_NUMBER
from tests.protocol.pairs import FIRST_SECRET, SECOND_SECRET, Pair, Side, new_pair, public_of
from tests.protocol.recorder import Recorder

FEED = KeyPair.from_seed(b"\x07" * 32).public_key


def pair_of(first: dict[str, object], second: dict[str, object]) -> Pair:
    """Return two sides with the given choices, nothing sent yet."""
    sides = [
        Connection(initiator=number == 0, static_secret=secret, nonce=bytes([number]) * 24, **chosen)  # type: ignore[arg-type]
        for number, (secret, chosen) in enumerate(((FIRST_SECRET, first), (SECOND_SECRET, second)))
    ]
    return Pair(Side(sides[0]), Side(sides[1]))


# --- who is let in


@pytest.mark.parametrize("side", [0, 1])
def test_a_peer_is_judged_by_its_key(side: int) -> None:
    seen: list[bytes] = []
    chosen: list[dict[str, object]] = [{}, {}]
    chosen[side] = {"authenticate": seen.append}
    pair_of(*chosen).settle()
    assert seen == [public_of((SECOND_SECRET, FIRST_SECRET)[side])]


@pytest.mark.parametrize("side", [0, 1])
def test_a_refused_peer_ends_the_connection(side: int) -> None:
    chosen: list[dict[str, object]] = [{}, {}]
    chosen[side] = {"authenticate": lambda key: False}
    with pytest.raises(RemoteProtocolError, match="refused"):
        pair_of(*chosen).settle()


def test_an_exception_refuses_a_peer_and_says_why() -> None:
    def refuse(key: bytes) -> None:
        raise PermissionError("not on the list")

    with pytest.raises(RemoteProtocolError, match="not on the list"):
        pair_of({"authenticate": refuse}, {}).settle()


def test_an_initiator_that_refuses_keeps_its_own_key_to_itself() -> None:
    pair = pair_of({"authenticate": lambda key: False}, {})
    pair.second.connection.receive_data(pair.first.connection.data_to_send())
    with pytest.raises(RemoteProtocolError):
        pair.first.connection.receive_data(pair.second.connection.data_to_send())
    assert pair.first.connection.data_to_send() == b""


def test_a_key_pair_follows_from_its_seed() -> None:
    pair = NoiseKeyPair.from_seed(b"\x05" * 32)
    assert (pair.public_key, pair.secret_key) == bindings.crypto_kx_seed_keypair(b"\x05" * 32)


def test_a_short_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        NoiseKeyPair.from_seed(b"short")


def test_random_key_pairs_differ() -> None:
    assert NoiseKeyPair.generate() != NoiseKeyPair.generate()


# --- what is hidden


@pytest.mark.parametrize("chosen", [{"encrypted": False}, {"encrypted": False, "noise": False}])
def test_without_encryption_messages_arrive_all_the_same(chosen: dict[str, object]) -> None:
    pair = pair_of(chosen, chosen)
    pair.settle()
    channel = pair.first.connection.open_channel(FEED, DWEB)
    pair.second.connection.open_channel(FEED, DWEB)
    pair.settle()
    pair.second.connection.send(channel, Have(BlockIndex(3)))
    pair.settle()
    events = [event for event in pair.first.take() if not isinstance(event, Established)]
    assert events == [ChannelOpened(channel), Received(channel, Have(BlockIndex(3)))]


def test_without_encryption_names_of_extensions_can_be_read() -> None:
    pair = pair_of({"encrypted": False}, {"encrypted": False})
    pair.settle()
    pair.first.connection.send_stream(Options(("plain-to-see",)))
    assert b"plain-to-see" in pair.first.connection.data_to_send()


def test_without_a_handshake_the_connection_is_up_at_once() -> None:
    connection = pair_of({"encrypted": False, "noise": False}, {}).first.connection
    assert connection.take_events() == [Established(b"")]


def test_encryption_needs_the_handshake() -> None:
    with pytest.raises(LocalProtocolError):
        pair_of({"noise": False}, {})


# --- the proof that a peer knows a feed


def test_a_feed_is_verified_once_the_peer_has_opened_it() -> None:
    pair = new_pair()
    before = pair.second.connection.is_verified(FEED, DWEB)
    pair.first.connection.open_channel(FEED, DWEB)
    pair.settle()
    assert (before, pair.second.connection.is_verified(FEED, DWEB)) == (False, True)


# --- messages about no feed


def test_messages_of_the_connection_itself_arrive() -> None:
    pair = new_pair()
    pair.first.connection.send_stream(Options(("a", "b")))
    pair.first.connection.send_stream(Extension(1, b"x"))
    pair.settle()
    assert pair.second.take() == [StreamReceived(Options(("a", "b"))), StreamReceived(Extension(1, b"x"))]


def test_they_have_to_wait_for_the_handshake() -> None:
    with pytest.raises(LocalProtocolError):
        new_pair(settled=False).first.connection.send_stream(Options())


def test_a_broken_message_of_the_connection_ends_it() -> None:
    pair = new_pair()
    pair.second.connection._send(STREAM_NUMBER, Options(("n" * 300,)))
    with pytest.raises(RemoteProtocolError):
        pair.settle()


# --- signs of life


async def silent_for(seconds: float, **chosen: float) -> int:
    """Return how many bytes a link sends to a peer within some seconds after the handshake."""
    near, far = memory_stream_pair()
    received = 0
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(run_link, near, initiator=True, handler=Recorder(), static_secret=FIRST_SECRET, **chosen)
            )
            connection = Connection(initiator=False, static_secret=SECOND_SECRET, nonce=bytes(24))
            while True:
                chunk = bytes(await far.receive_some())
                received += len(chunk) if connection.established else 0
                connection.receive_data(chunk)
                await far.send_all(connection.data_to_send() or b"")
    return received


async def test_the_time_between_signs_of_life_can_be_chosen(autojump_clock) -> None:
    assert await silent_for(10.5, keep_alive_s=2.0) == 5


async def test_without_a_timeout_a_silent_peer_is_kept(autojump_clock) -> None:
    assert await silent_for(10_000, timeout_s=float("inf")) == 0
