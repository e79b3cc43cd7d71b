"""Sizes, durations and addresses as people type and read them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd import values


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("10G", 10**10), ("512MiB", 512 * 2**20), ("1.5k", 1500), ("2 KiB", 2048), ("7B", 7)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("30s", 30), ("5m", 300), ("500ms", 0.5), ("1.5h", 5400)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1s", "5 parsecs", "0", "0s", "1e3", "5m30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        values.parse_duration(text)


@pytest.mark.parametrize("text", ["", "G", "-1", "10X", "1,5M", "MiB5"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        values.parse_size(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "host.example:65535", "[::1]:4711", "[fe80::1%eth0]:80"])
def test_addresses_are_read(text: str) -> None:
    assert values.parse_address(text) == text


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:0", "host:65536", "::1:80", "a b:80", "h:80/x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        values.parse_address(text)


def test_a_port_to_listen_on_may_be_chosen_by_the_system() -> None:
    assert values.parse_address("127.0.0.1:0", any_port=True) == "127.0.0.1:0"


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (values.parse_size, values.parse_duration, values.parse_address):
        with suppress(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB")]
)
def test_sizes_are_shown(count: int, text: str) -> None:
    assert values.format_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59, "59s"), (61, "1m 01s"), (3661, "1h 01m"), (187200, "2d 04h")]
)
def test_durations_are_shown(seconds: float, text: str) -> None:
    assert values.format_duration(seconds) == text
