"""Numbers of variable length: round trip, split input, bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddrive.errors import RemoteProtocolError
from ddrive.protocol.varint import decode_varint, encode_varint

LARGEST = (1 << 56) - 1


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (8 << 20, "80808004"),
        (LARGEST, "ff" * 7 + "7f"),
    ],
)
def test_known_numbers(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded
    assert decode_varint(bytes.fromhex(encoded), 0, len(encoded) // 2) == (value, len(encoded) // 2)


@given(st.integers(0, LARGEST), st.binary(max_size=3), st.binary(max_size=3))
def test_number_between_other_bytes(value: int, before: bytes, behind: bytes) -> None:
    data = before + encode_varint(value) + behind
    stop = len(data) - len(behind)
    assert decode_varint(data, len(before), len(data)) == (value, stop)
    assert decode_varint(data, len(before), stop - 1) is None


def test_number_not_in_shortest_form_is_accepted() -> None:
    assert decode_varint(b"\x85\x80\x00", 0, 3) == (5, 3)


def test_eight_bytes_without_end_are_refused() -> None:
    assert decode_varint(b"\xff" * 7, 0, 7) is None
    with pytest.raises(RemoteProtocolError):
        decode_varint(b"\xff" * 8, 0, 8)


@pytest.mark.parametrize("value", [-1, LARGEST + 1])
def test_number_that_does_not_fit_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_varint(value)
