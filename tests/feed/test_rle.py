"""Run-length bitfields: recorded forms, round trips, and input made to hurt."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.errors import RemoteProtocolError
from ddrive.feed import rle
from tests.support.vectors import vector

runs = st.lists(st.tuples(st.sampled_from([0, 0xFF, 1, 0x80]), st.integers(1, 70)), max_size=12)


@pytest.mark.parametrize("row", vector("rle.json")["vectors"], ids=lambda row: row["input"][:20] or "empty")
def test_both_directions_match_the_vectors(row):
    assert rle.encode(bytes.fromhex(row["input"])).hex() == row["encoded"]
    assert rle.decode(bytes.fromhex(row["encoded"]), 1 << 16).hex() == row["decoded"]


@given(runs)
@settings(max_examples=60, deadline=None)
def test_decoding_gives_back_what_was_encoded(parts):
    data = b"".join(bytes([value]) * count for value, count in parts)
    encoded = rle.encode(data)
    assert rle.decode(encoded, len(data)) == data.rstrip(b"\x00")
    assert len(encoded) <= len(data) + 9


@given(st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_input_is_decoded_within_the_limit_or_refused(data):
    with suppress(RemoteProtocolError):
        assert len(rle.decode(data, 64)) <= 64


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff\xff\xff\x7f",  # a run of 2^47 bytes
        b"\xff" * 8,  # a number without an end
        b"\xff" * 3,  # a number that is cut off
        b"\x08\x01",  # a literal that is cut off
        b"\x07" * 65,  # many short runs
    ],
)
def test_hostile_input_is_refused(data):
    with pytest.raises(RemoteProtocolError):
        rle.decode(data, 64)
