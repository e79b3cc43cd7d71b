"""How addresses are written."""

import pytest

from ddrive.swarm.static import Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:4000", "127.0.0.1", 4000),
        ("[::1]:1", "::1", 1),
        ("peer.example:65535", "peer.example", 65535),
        (" localhost:80 ", "localhost", 80),
    ],
)
def test_address_is_read_and_written(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert address == Address(host, port)
    assert str(address) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "host",
        "host:",
        ":80",
        "::1:80",
        "host:0",
        "host:65536",
        "host:-1",
        "host:8x",
        "host:٣",
        "[]:80",
        "h" * 254 + ":1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|port is not between"):
        Address.parse(text)


def test_free_port_can_be_asked_for_when_listening() -> None:
    assert Address.parse("127.0.0.1:0", lowest_port=0).port == 0
