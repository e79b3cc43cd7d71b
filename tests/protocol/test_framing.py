"""Frames out of any split of a byte stream, and the limits on what a peer can declare."""

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.errors import LocalProtocolError, RemoteProtocolError
from ddrive.protocol.framing import MAX_BODY_BYTES, PING, FrameReader, encode_frame, frame_head
from ddrive.protocol.varint import encode_varint

FRAMES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 15), st.binary(max_size=300)), max_size=8)


def as_values(reader: FrameReader, chunk: bytes) -> list[tuple[int, int, bytes]]:
    """Return the frames that `chunk` completes, with copies of the bodies."""
    return [(channel, kind, bytes(body)) for channel, kind, body in reader.feed(chunk)]


@given(FRAMES, st.lists(st.integers(0, 2600), max_size=12))
def test_any_split_gives_the_same_frames(frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(encode_frame(*frame) + PING for frame in frames)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = FrameReader()
    found = []
    for start, stop in itertools.pairwise(places):
        found += as_values(reader, stream[start:stop])
    assert found == frames


def test_byte_by_byte() -> None:
    frames = [(1, 9, b"x" * 300), (200, 15, b""), (0, 1, b"\0")]
    reader = FrameReader()
    stream = b"".join(encode_frame(*frame) for frame in frames)
    assert [frame for byte in stream for frame in as_values(reader, bytes((byte,)))] == frames


def test_unfinished_frame_behind_whole_ones_is_kept() -> None:
    reader = FrameReader()
    stream = encode_frame(1, 3, b"abc") + encode_frame(1, 4, b"defg")
    assert as_values(reader, stream[:-1]) == [(1, 3, b"abc")]
    assert as_values(reader, stream[-1:] + PING) == [(1, 4, b"defg")]


def test_the_head_of_an_unfinished_frame_is_told() -> None:
    reader = FrameReader()
    stream = encode_frame(200, 9, bytes(5000))
    heads = []
    for byte in stream:
        heads.append(reader.held_head)
        reader.feed(bytes((byte,)))
    assert heads == [None] * 4 + [(200, 9)] * (len(stream) - 4)
    assert reader.held_head is None
    reader.feed(encode_varint(5000) + b"\xff" * 20)
    assert reader.held_head is None


def test_body_of_the_greatest_size_is_accepted() -> None:
    body = bytes(MAX_BODY_BYTES)
    assert as_values(FrameReader(), encode_frame(1, 9, body)) == [(1, 9, body)]


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 2, MAX_BODY_BYTES + 9, (1 << 49) - 1])
def test_longer_body_is_refused_by_its_length(size: int) -> None:
    reader = FrameReader()
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        reader.feed(encode_varint(size) + b"\x19" + (bytes(size - 1) if size == MAX_BODY_BYTES + 2 else b""))


def test_own_body_that_no_peer_accepts_is_not_written() -> None:
    with pytest.raises(LocalProtocolError):
        frame_head(1, 9, MAX_BODY_BYTES + 1)


def test_declared_size_reserves_no_memory() -> None:
    reader = FrameReader()
    tracemalloc.start()
    try:
        reader.feed(encode_varint(MAX_BODY_BYTES) + b"\x19")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_frame_smaller_than_its_header_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="within its header"):
        FrameReader().feed(b"\x01\x80\x01")


def test_endless_length_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="varint"):
        FrameReader().feed(b"\x80" * 8)


@given(st.binary(max_size=200))
def test_junk_gives_frames_or_the_one_error(junk: bytes) -> None:
    reader = FrameReader()
    try:
        for byte in junk:
            reader.feed(bytes((byte,)))
    except RemoteProtocolError:
        pass
