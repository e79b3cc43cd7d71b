"""The Noise exchange: recorded bytes, any split, and what a bad peer can try."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from ddrive.errors import RemoteProtocolError
from ddrive.protocol import schema_pb2
from ddrive.protocol.handshake import MAX_MESSAGE_BYTES, Handshake
from ddrive.protocol.varint import encode_varint
from tests.protocol.pairs import FIRST_SECRET, SECOND_SECRET, public_of
from tests.support.vectors import vector

FIRST_NONCE, SECOND_NONCE = b"\xa0" * 24, b"\xa1" * 24


def first(*, ephemeral: bytes | None = b"\x03" * 32) -> Handshake:
    return Handshake(initiator=True, static_secret=FIRST_SECRET, nonce=FIRST_NONCE, ephemeral_secret=ephemeral)


def second(*, ephemeral: bytes | None = b"\x04" * 32) -> Handshake:
    return Handshake(initiator=False, static_secret=SECOND_SECRET, nonce=SECOND_NONCE, ephemeral_secret=ephemeral)


def test_both_sides_agree() -> None:
    here, there = first(ephemeral=None), second(ephemeral=None)
    one = here.start()
    two = there.receive(one)
    three = here.receive(two)
    assert there.receive(three) == there.start() == b""
    assert (len(one), len(two), len(three)) == (59, 123, 91)
    assert here.keys is not None
    assert there.keys is not None
    assert (here.keys.tx_key, here.keys.rx_key) == (there.keys.rx_key, there.keys.tx_key)
    assert (here.keys.tx_nonce, here.keys.rx_nonce) == (FIRST_NONCE, SECOND_NONCE)
    assert (there.keys.tx_nonce, there.keys.rx_nonce) == (SECOND_NONCE, FIRST_NONCE)
    assert here.keys.handshake_hash == there.keys.handshake_hash
    assert here.keys.remote_public_key == public_of(SECOND_SECRET)
    assert there.keys.remote_public_key == public_of(FIRST_SECRET)


def test_recorded_static_keys() -> None:
    transcript = vector("transcripts/dweb-whole.json")
    for side in ("initiator", "responder"):
        recorded = transcript["noise"][side]
        assert public_of(bytes.fromhex(recorded["secretKey"])).hex() == recorded["publicKey"]


def test_recorded_split_keys() -> None:
    transcript = vector("transcripts/hypercore-whole.json")
    ephemerals = transcript["noise"]["ephemeralsInOrderOfCreation"]
    for place, side in enumerate(("initiator", "responder")):
        own = transcript["noise"][side]
        handshake = Handshake(
            initiator=side == "initiator",
            static_secret=bytes.fromhex(own["secretKey"]),
            nonce=bytes.fromhex(own["nonce"]),
            ephemeral_secret=bytes.fromhex(ephemerals[place]["secretKey"]),
        )
        handshake.start()
        for event in transcript["events"]:
            if event["kind"] == "handshake" and event["from"] != side:
                handshake.receive(bytes.fromhex(event["raw"]))
        assert handshake.keys is not None
        assert handshake.keys.tx_key.hex() == transcript["split"][side]["tx"]
        assert handshake.keys.rx_key.hex() == transcript["split"][side]["rx"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_any_split_is_fine(size: int) -> None:
    here, there = first(), second()
    assert feed(there, feed(here, feed(there, here.start(), size), size), size) == b""
    assert here.keys is not None
    assert there.keys is not None


def test_bytes_behind_the_last_message_are_left() -> None:
    here, there = first(), second()
    here.receive(there.receive(here.start()) + b"encrypted")
    assert here.rest == b"encrypted"


def feed(handshake: Handshake, data: bytes, size: int) -> bytes:
    """Return what the handshake answers to `data` in pieces of `size` bytes, up to its end."""
    answer = b""
    for start in range(0, len(data), size):
        if handshake.keys is None:
            answer += handshake.receive(data[start : start + size])
    return answer


def test_length_over_the_limit_is_refused_at_once() -> None:
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        second().receive(encode_varint(MAX_MESSAGE_BYTES + 1))


def test_longest_message_is_waited_for() -> None:
    there = second()
    assert there.receive(encode_varint(MAX_MESSAGE_BYTES) + bytes(MAX_MESSAGE_BYTES - 1)) == b""
    with pytest.raises(RemoteProtocolError):
        there.receive(b"\0")


@pytest.mark.parametrize("payload", [b"", b"\x0a\x17" + bytes(23), b"\x0a\x19" + bytes(25), b"\x0a", b"junk"])
def test_message_without_a_nonce_is_refused(payload: bytes) -> None:
    other = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_BLAKE2b")
    other.set_as_initiator()
    other.set_keypair_from_private_bytes(Keypair.STATIC, FIRST_SECRET)
    other.start_handshake()
    message = bytes(other.write_message(payload))
    with pytest.raises(RemoteProtocolError):
        second().receive(encode_varint(len(message)) + message)


def test_last_payload_may_be_empty() -> None:
    other = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_BLAKE2b")
    other.set_as_initiator()
    other.set_keypair_from_private_bytes(Keypair.STATIC, FIRST_SECRET)
    other.start_handshake()
    there = second()
    message = bytes(other.write_message(schema_pb2.NoisePayload(nonce=FIRST_NONCE).SerializeToString()))
    other.read_message(there.receive(encode_varint(len(message)) + message)[1:])
    message = bytes(other.write_message(b""))
    there.receive(encode_varint(len(message)) + message)
    assert there.keys is not None
    assert there.keys.rx_nonce == FIRST_NONCE


def test_key_without_a_usable_product_is_refused() -> None:
    message = bytes(32) + schema_pb2.NoisePayload(nonce=FIRST_NONCE).SerializeToString()
    with pytest.raises(RemoteProtocolError):
        second().receive(encode_varint(len(message)) + message)


@given(place=st.integers(0, 121), bit=st.integers(0, 7))
def test_flipped_bit_is_noticed(place: int, bit: int) -> None:
    here, there = first(), second()
    answer = bytearray(there.receive(here.start()))
    answer[1 + place] ^= 1 << bit
    with pytest.raises(RemoteProtocolError):
        here.receive(bytes(answer))


@given(st.booleans(), st.binary(max_size=200))
def test_junk_raises_the_one_error(initiator: bool, junk: bytes) -> None:
    handshake = first() if initiator else second()
    handshake.start()
    with contextlib.suppress(RemoteProtocolError):
        handshake.receive(junk)


def test_nonce_of_the_wrong_length_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="24 bytes"):
        Handshake(initiator=True, static_secret=FIRST_SECRET, nonce=bytes(23), ephemeral_secret=None)
