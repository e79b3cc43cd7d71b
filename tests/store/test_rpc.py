"""Messages survive the way over the socket; anything else is refused in an orderly manner."""

import errno
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive import errors
from ddrive.errors import DriveError, NotWritable, RemoteProtocolError, TooLarge
from ddrive.store import rpc
from ddrive.store.rpc import Call, Cancel, Event, Failure, Message, MessageReader, Reply, encode

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
PARAMS = st.dictionaries(st.text(), PLAIN, max_size=4)
IDS = st.integers(0, 2**64 - 1)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Call, IDS, st.text(), PARAMS),
    st.builds(Cancel, IDS),
    st.builds(Reply, IDS, PLAIN),
    st.builds(Failure, IDS, st.text(), st.text()),
    st.builds(Event, st.text(), PARAMS),
)


def frame(body: object) -> bytes:
    packed = msgpack.packb(body)
    return struct.pack(">I", len(packed)) + packed


@given(st.lists(MESSAGES, max_size=5), st.data())
def test_messages_come_out_of_any_split(messages: list[Message], data: st.DataObject) -> None:
    stream = b"".join(encode(message) for message in messages)
    reader, found = MessageReader(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += reader.receive(stream[:cut])
        stream = stream[cut:]
    assert found == messages
    assert reader.pending_bytes == 0


def test_messages_come_out_byte_by_byte_with_a_piece_of_the_next() -> None:
    stream = encode(Call(1, "status", {})) + encode(Reply(1, [1, None])) + b"\0\0"
    reader = MessageReader()
    found = [message for at in range(len(stream)) for message in reader.receive(stream[at : at + 1])]
    assert found == [Call(1, "status", {}), Reply(1, [1, None])]
    assert reader.pending_bytes == 2


@given(st.binary(max_size=200))
def test_random_bytes_are_messages_or_refused(noise: bytes) -> None:
    for stream in (noise, struct.pack(">I", len(noise)) + noise):
        try:
            found = MessageReader().receive(stream)
        except RemoteProtocolError:
            continue
        assert all(MessageReader().receive(encode(message)) == [message] for message in found)


@given(PLAIN)
def test_any_value_is_a_message_or_refused(value: object) -> None:
    try:
        MessageReader().receive(frame(value))
    except RemoteProtocolError:
        pass
    else:
        assert isinstance(value, list)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        [9, 1],
        [0, 1, "method"],
        [0, -1, "method", {}],
        [0, 1, "method", {b"raw": 1}],
        [0, "1", "method", {}],
        [1, 1, 1],
        [3, 1, {"code": "NotFound"}],
        [4, 1, {}],
    ],
)
def test_wrong_shapes_are_refused(body: object) -> None:
    with pytest.raises(RemoteProtocolError):
        MessageReader().receive(frame(body))


def test_a_long_frame_is_refused_before_it_is_read() -> None:
    with pytest.raises(RemoteProtocolError):
        MessageReader().receive(struct.pack(">I", rpc.MAX_FRAME_BYTES + 1))


def test_deep_nesting_is_refused() -> None:
    body = b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(RemoteProtocolError):
        MessageReader().receive(struct.pack(">I", len(body)) + body)


def test_too_much_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_FRAME_BYTES", 100)
    with pytest.raises(TooLarge):
        encode(Reply(1, bytes(200)))


def test_a_value_without_a_form_is_not_sent() -> None:
    with pytest.raises(DriveError):
        encode(Reply(1, object()))
    with pytest.raises(DriveError):
        encode(Reply(1, 2**70))


def test_undecodable_file_names_survive() -> None:
    message = Call(1, "mount", {"mountpoint": "/mnt/\udcff"})
    assert MessageReader().receive(encode(message)) == [message]


def test_every_error_keeps_its_class_and_text() -> None:
    kinds = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, DriveError)]
    assert NotWritable in kinds
    for kind in kinds:
        back = rpc.exception(rpc.failure(7, kind("why")))
        assert type(back) is kind
        assert str(back) == "why"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "DiskFull", "No space left on device"),
        (OSError(errno.EDQUOT, "Quota exceeded", "/state/x"), "DiskFull", "Quota exceeded (/state/x)"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "StorageError", "Permission denied (/x)"),
        (OSError("no number"), "StorageError", "no number"),
        (ExceptionGroup("of a nursery", [ExceptionGroup("", [NotWritable("why")])]), "NotWritable", "why"),
        (KeyError("x"), "DriveError", "internal error: KeyError: 'x'"),
    ],
    ids=repr,
)
def test_other_errors_cross_as_what_they_mean(error: Exception, code: str, message: str) -> None:
    assert rpc.failure(7, error) == Failure(7, code, message)


def test_a_class_of_our_own_crosses_as_the_nearest_known_one() -> None:
    class Odd(NotWritable):
        pass

    assert rpc.failure(7, Odd("why")) == Failure(7, "NotWritable", "why")


def test_an_unknown_code_is_a_plain_error() -> None:
    back = rpc.exception(Failure(7, "SystemExit", "why"))
    assert type(back) is DriveError
    assert str(back) == "SystemExit: why"
