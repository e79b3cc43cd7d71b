"""Every recorded connection between npm peers, replayed byte for byte on either side."""

from typing import Any

import pytest

from ddrive.crypto import KeyPair
from ddrive.dialect import DIALECTS, Dialect
from ddrive.ids import ChannelId, PublicKey
from ddrive.protocol import (
    ChannelClosed,
    ChannelOpened,
    ChannelRequested,
    Close,
    Connection,
    Established,
    Event,
    Open,
    Received,
)
from ddrive.protocol.codec import decode
from ddrive.protocol.framing import FrameReader
from ddrive.protocol.messages import Message
from tests.support.vectors import VECTORS, vector

NAMES = sorted(path.stem for path in (VECTORS / "transcripts").glob("*.json"))
SIDES = ("initiator", "responder")


def connection_of(transcript: dict[str, Any], side: str) -> Connection:
    """Return a connection with the recorded secrets of `side`."""
    noise = transcript["noise"]
    return Connection(
        initiator=side == "initiator",
        static_secret=bytes.fromhex(noise[side]["secretKey"]),
        nonce=bytes.fromhex(noise[side]["nonce"]),
        ephemeral_secret=bytes.fromhex(noise["ephemeralsInOrderOfCreation"][SIDES.index(side)]["secretKey"]),
    )


def message_of(recorded: dict[str, Any]) -> Message:
    """Return the message of a recorded frame."""
    (frame,) = FrameReader().feed(bytes.fromhex(recorded["plain"]))
    message = decode(frame.kind, frame.body)
    assert message is not None
    return message


def feed_key(transcript: dict[str, Any], side: str) -> PublicKey:
    """Return the feed that `side` replicates; in `unknown-feed` the responder has another one."""
    if "responder opens feed B" in transcript["about"] and side == "responder":
        return KeyPair.from_seed(b"\x09" * 32).public_key
    return PublicKey(bytes.fromhex(transcript["feedPublicKey"]))


def act(connection: Connection, key: PublicKey, dialect: Dialect, recorded: dict[str, Any]) -> None:
    """Make `connection` do what the recorded peer did when it sent this frame."""
    message = message_of(recorded)
    if isinstance(message, Open):
        connection.open_channel(key, dialect)
    elif isinstance(message, Close):
        connection.close_channel(ChannelId(1))
    else:
        connection.send(ChannelId(1), message)


def replay(transcript: dict[str, Any], side: str) -> list[Event]:
    """Return the events of `side`, having compared each byte that it sends."""
    connection = connection_of(transcript, side)
    key, dialect = feed_key(transcript, side), DIALECTS[transcript["dialect"]]
    events: list[Event] = []
    for recorded in transcript["events"]:
        if recorded["kind"] not in ("handshake", "frame"):
            continue
        raw = bytes.fromhex(recorded["raw"])
        if recorded["from"] != side:
            events += connection.receive_data(raw)
        else:
            if recorded["kind"] == "frame" and not connection.pending_bytes:
                act(connection, key, dialect, recorded)
            assert connection.data_to_send() == raw, recorded.get("name", "handshake")
            events += connection.take_events()
    other = SIDES[1 - SIDES.index(side)]
    assert connection.remote_public_key.hex() == transcript["noise"][other]["publicKey"]
    assert connection.handshake_hash.hex() == transcript["handshakeHash"]
    assert connection.data_to_send() == b""
    return events


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", NAMES)
def test_recorded_connection_replays_byte_for_byte(name: str, side: str) -> None:
    transcript = vector(f"transcripts/{name}.json")
    events = replay(transcript, side)
    messages = [
        message_of(recorded)
        for recorded in transcript["events"]
        if recorded["kind"] == "frame" and recorded["from"] != side
    ]
    expected = [message for message in messages if not isinstance(message, Open | Close)]
    assert [event.message for event in events if isinstance(event, Received)] == expected
    assert isinstance(events[0], Established)
    unknown = name.endswith("unknown-feed")
    assert [type(event) for event in events].count(ChannelRequested) == (1 if unknown or side == "responder" else 0)
    assert [event for event in events if isinstance(event, ChannelOpened)] == (
        [] if unknown else [ChannelOpened(ChannelId(1))]
    )
    closed_by_peer = name.endswith("whole") and side == "initiator"
    assert [event for event in events if isinstance(event, ChannelClosed)] == (
        [ChannelClosed(ChannelId(1))] if closed_by_peer else []
    )
