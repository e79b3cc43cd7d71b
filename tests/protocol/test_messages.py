"""Messages against recorded bodies, and bounds on what a peer can claim."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.errors import RemoteProtocolError
from ddrive.ids import BlockIndex, DiscoveryKey, Node, NodeIndex
from ddrive.protocol import schema_pb2 as schema
from ddrive.protocol.codec import LARGE_BYTES, MAX_EXTENSIONS, MAX_PROOF_NODES, decode, encode, encode_pieces
from ddrive.protocol.framing import PING, FrameReader, encode_frame
from ddrive.protocol.messages import (
    Cancel,
    Close,
    Data,
    Extension,
    Have,
    Message,
    Open,
    Options,
    Request,
    Status,
    Unhave,
    Unwant,
    Want,
)
from tests.support.vectors import vector

RECORDED = vector("messages.json")
CLASSES = {
    cls.__name__: cls for cls in (Open, Options, Status, Have, Unhave, Want, Unwant, Request, Cancel, Data, Close)
}
INDEXES = st.integers(0, (1 << 52) - 1).map(BlockIndex)
LENGTHS = st.integers(0, 1 << 52)
HASHES = st.binary(min_size=32, max_size=32)
NODES = st.builds(Node, st.integers(0, (1 << 53) - 1).map(NodeIndex), HASHES, st.integers(0, (1 << 53) - 1))
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Open, HASHES.map(DiscoveryKey), st.none() | HASHES),
    st.builds(Options, st.lists(st.text(max_size=20), max_size=5).map(tuple), st.booleans()),
    st.builds(Status, st.booleans(), st.booleans()),
    st.builds(Have, INDEXES, LENGTHS, st.none() | st.binary(max_size=30), st.booleans()),
    st.builds(Unhave, INDEXES, LENGTHS),
    st.builds(Want, INDEXES, LENGTHS),
    st.builds(Unwant, INDEXES, LENGTHS),
    st.builds(Request, INDEXES, st.integers(0, (1 << 53) - 1), st.booleans(), st.integers(0, (1 << 64) - 1)),
    st.builds(Cancel, INDEXES, st.integers(0, (1 << 53) - 1), st.booleans()),
    st.builds(
        Data,
        INDEXES,
        st.none() | st.binary(max_size=100),
        st.lists(NODES, max_size=4).map(tuple),
        st.none() | st.binary(min_size=64, max_size=64),
    ),
    st.builds(Close, st.none() | HASHES.map(DiscoveryKey)),
    st.builds(Extension, st.integers(0, (1 << 56) - 1), st.binary(max_size=50)),
)


def expected_of(name: str, decoded: dict[str, Any]) -> Message:
    """Return the message that the recorded, decoded form describes."""

    def raw(field: str) -> bytes | None:
        return None if decoded.get(field) is None else bytes.fromhex(decoded[field])

    if name == "Open":
        return Open(DiscoveryKey(raw("discoveryKey") or b""), raw("capability"))
    if name == "Close":
        key = raw("discoveryKey")
        return Close(None if key is None else DiscoveryKey(key))
    if name == "Options":
        return Options(tuple(decoded["extensions"]), decoded["ack"])
    if name == "Have":
        return Have(BlockIndex(decoded["start"]), decoded["length"], raw("bitfield"), decoded["ack"])
    if name == "Data":
        nodes = tuple(Node(NodeIndex(n["index"]), bytes.fromhex(n["hash"]), n["size"]) for n in decoded["nodes"])
        return Data(BlockIndex(decoded["index"]), raw("value"), nodes, raw("signature"))
    if name == "Extension":
        return Extension(decoded["id"], raw("payload") or b"")
    return CLASSES[name](**decoded)


@pytest.mark.parametrize(
    "recorded", RECORDED["vectors"], ids=lambda recorded: f"{recorded['name']}-{recorded['body'][:12]}"
)
def test_recorded_message(recorded: dict[str, Any]) -> None:
    body = bytes.fromhex(recorded["body"])
    message = decode(recorded["type"], body)
    assert message == expected_of(recorded["name"], recorded.get("decoded") or recorded["message"])
    kind, own_body = encode(message)
    assert (kind, decode(kind, own_body)) == (recorded["type"], message)
    assert encode_frame(recorded["channel"], kind, body).hex() == recorded["frame"]
    (frame,) = FrameReader().feed(bytes.fromhex(recorded["frame"]))
    assert (frame.channel, frame.kind, bytes(frame.body)) == (recorded["channel"], kind, body)


def test_recorded_sign_of_life_and_payload() -> None:
    assert RECORDED["ping"] == PING.hex()
    recorded = RECORDED["noisePayload"]
    nonce = bytes.fromhex(recorded["nonce"])
    assert schema.NoisePayload(nonce=nonce).SerializeToString().hex() == recorded["body"]


@given(MESSAGES)
def test_round_trip(message: Message) -> None:
    kind, body = encode(message)
    assert decode(kind, body) == decode(kind, memoryview(body)) == message


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (Request(BlockIndex(5), nodes=1), "0805100018002001"),
        (Have(BlockIndex(3)), "0803"),
        (Have(BlockIndex(3), 2), "08031002"),
        (Have(BlockIndex(3), 1, None, True), "080310012001"),
        (Status(True, False), "08011000"),
        (Options((), False), "1000"),
        (Close(), ""),
        (Data(BlockIndex(1), b""), "08011200"),
        (Data(BlockIndex(1)), "0801"),
    ],
)
def test_fields_are_written_as_peers_write_them(message: Message, body: str) -> None:
    assert encode(message)[1].hex() == body


def test_defaults_of_absent_fields() -> None:
    assert decode(2, b"") == Status(False, False)
    assert decode(3, b"\x08\x07") == Have(BlockIndex(7), 1)
    assert decode(4, b"\x08\x07") == Unhave(BlockIndex(7), 1)
    assert decode(5, b"\x08\x07") == Want(BlockIndex(7), 0)
    assert decode(9, b"\x08\x07") == Data(BlockIndex(7), None)


def test_unknown_fields_are_skipped() -> None:
    assert decode(3, b"\x08\x07\x7a\x02ab\x78\x05") == Have(BlockIndex(7))


@pytest.mark.parametrize("kind", [11, 12, 13, 14])
def test_types_that_nobody_uses_are_ignored(kind: int) -> None:
    assert decode(kind, b"\xff") is None


def node(number: int = 1, digest: bytes = bytes(32), size: int = 1) -> schema.Node:
    """Return a node as sent."""
    return schema.Node(index=number, hash=digest, size=size)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        *((kind, b"\xff") for kind in range(11)),
        *((kind, b"") for kind in (0, 3, 4, 5, 6, 7, 8, 9)),  # a required field is missing
        (0, schema.Open(discovery_key=bytes(31)).SerializeToString()),
        (1, schema.Options(extensions=["x" * 256]).SerializeToString()),
        (1, schema.Options(extensions=["x"] * (MAX_EXTENSIONS + 1)).SerializeToString()),
        (1, b"\x0a\x02\xff\xfe"),
        (1, bytes.fromhex("0a00") * 70_000),
        (3, schema.Have(start=1 << 52).SerializeToString()),
        (5, schema.Range(start=0, length=(1 << 52) + 1).SerializeToString()),
        (7, schema.Request(index=1 << 52).SerializeToString()),
        (7, schema.Request(index=0, bytes=1 << 53).SerializeToString()),
        (9, schema.Data(index=1 << 52).SerializeToString()),
        (9, schema.Data(index=0, signature=bytes(63)).SerializeToString()),
        (9, schema.Data(index=0, nodes=[node()] * (MAX_PROOF_NODES + 1)).SerializeToString()),
        (9, schema.Data(index=0, nodes=[node(digest=bytes(33))]).SerializeToString()),
        (9, schema.Data(index=0, nodes=[node(number=1 << 53)]).SerializeToString()),
        (9, schema.Data(index=0, nodes=[node(size=1 << 53)]).SerializeToString()),
        (9, b"\x08\x01" + bytes.fromhex("1a00") * (8 * 1024 * 1024 // 2 - 1)),  # 4 million empty nodes
        (9, b"\x08\x01\x13" + bytes(LARGE_BYTES)),  # a group
        (10, schema.Close(discovery_key=bytes(31)).SerializeToString()),
        (15, b""),
        (15, b"\x80"),
    ],
    ids=lambda value: value[:8].hex() if isinstance(value, bytes) else None,
)
def test_what_cannot_be_is_refused(kind: int, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(kind, body)


def test_large_block_with_a_full_proof_is_accepted() -> None:
    nodes = tuple(Node(NodeIndex(number), bytes(32), 1) for number in range(MAX_PROOF_NODES))
    message = Data(BlockIndex(1), bytes(1 << 20), nodes, bytes(64))
    assert decode(*encode(message)) == message


@given(st.integers(0, 15), st.binary(max_size=100))
def test_junk_gives_a_message_or_the_one_error(kind: int, body: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(kind, memoryview(body))


@given(st.integers(0, 2000), st.booleans())
def test_a_large_block_in_pieces_is_the_same_message(extra: int, signed: bool) -> None:
    signature = bytes(64) if signed else None
    data = Data(BlockIndex(300), bytes(LARGE_BYTES + 1 + extra), (Node(NodeIndex(1), bytes(32), 7),), signature)
    kind, pieces = encode_pieces(data)
    assert (kind, b"".join(pieces)) == encode(data)
    assert decode(kind, b"".join(pieces)) == data


def test_the_last_of_several_large_values_counts() -> None:
    one = schema.Data(index=1, value=bytes(5000)).SerializeToString()
    other = schema.Data(index=1, value=b"x" * 5000).SerializeToString()
    assert decode(9, one + other) == Data(BlockIndex(1), b"x" * 5000)


def test_a_value_longer_than_its_body_is_refused() -> None:
    body = schema.Data(index=1, value=bytes(5000)).SerializeToString()
    with pytest.raises(RemoteProtocolError):
        decode(9, body[:-1])
