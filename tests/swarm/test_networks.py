"""Which addresses of peers make sense where we are."""

from ipaddress import ip_interface

import pytest

from ddrive.swarm.dialing import Source
from ddrive.swarm.networks import Here, Network, parse_ip, refusal
from ddrive.swarm.static import Address

LOOPBACK = Network(1, "lo", (ip_interface("127.0.0.1/8"), ip_interface("::1/128")))
ETHERNET = Network(2, "eth0", (ip_interface("192.168.1.5/24"), ip_interface("fe80::5/64"), ip_interface("2600::5/64")))
HERE = Here((LOOPBACK, ETHERNET))
PORT = 4000


@pytest.mark.parametrize(
    ("host", "accepted_from"),
    [
        ("8.8.8.8", {"dht", "remembered"}),
        ("2600:1::1", {"dht", "remembered"}),
        ("192.168.1.9", {"lan", "remembered"}),
        ("192.168.2.9", set()),
        ("10.0.0.1", set()),
        ("100.64.0.1", set()),
        ("127.0.0.2", {"lan", "remembered"}),
        ("fe80::9", {"lan", "remembered"}),
        ("169.254.1.1", set()),
        ("224.0.0.1", set()),
        ("ff02::1", set()),
        ("0.0.0.0", set()),
        ("::", set()),
        ("255.255.255.255", set()),
        ("::ffff:10.0.0.1", set()),
        ("::ffff:8.8.8.8", {"dht", "remembered"}),
        ("2002:808:808::1", {"dht", "remembered"}),  # 6to4 of 8.8.8.8
        ("2002:a00:1::1", set()),  # 6to4 of 10.0.0.1
        ("64:ff9b::808:808", {"dht", "remembered"}),  # NAT64 of 8.8.8.8
        ("64:ff9b::7f00:1", set()),  # NAT64 of 127.0.0.1
        ("example.org", set()),
    ],
)
def test_who_is_believed_about_which_addresses(host: str, accepted_from: set[str]) -> None:
    sources: tuple[Source, ...] = ("lan", "dht", "remembered")
    accepted = {source for source in sources if refusal(Address(host, PORT), source, HERE, PORT) is None}
    assert accepted == accepted_from


@pytest.mark.parametrize("host", ["192.168.1.5", "127.0.0.1", "2600::5", "::ffff:192.168.1.5"])
def test_our_own_address_is_known(host: str) -> None:
    assert refusal(Address(host, PORT), "lan", HERE, PORT) == "our own address"
    assert refusal(Address(host, PORT), "dht", HERE, PORT, near_too=True) == "our own address"


def test_another_port_of_our_own_is_no_business_of_strangers() -> None:
    """It may be that of the mail server of this machine."""
    assert refusal(Address("2600::5", 25), "dht", HERE, PORT) == "our own address"
    assert refusal(Address("2600::5", 25), "mainline", HERE, PORT) == "our own address"
    assert refusal(Address("192.168.1.5", PORT + 1), "lan", HERE, PORT) is None
    assert refusal(Address("192.168.1.5", PORT + 1), "dht", HERE, PORT, near_too=True) is None


def test_in_a_private_network_private_addresses_are_believed() -> None:
    assert refusal(Address("10.0.0.1", PORT), "dht", HERE, PORT, near_too=True) is None
    assert refusal(Address("224.0.0.1", PORT), "dht", HERE, PORT, near_too=True) is not None


def test_on_the_lan_alone_nothing_beyond_is_dialled() -> None:
    assert refusal(Address("8.8.8.8", PORT), "remembered", HERE, PORT, far_too=False) is not None
    assert refusal(Address("8.8.8.8", PORT), "remembered", HERE, PORT, near_too=True, far_too=False) is not None
    assert refusal(Address("192.168.1.9", PORT), "remembered", HERE, PORT, far_too=False) is None


def test_a_port_is_needed() -> None:
    assert refusal(Address("8.8.8.8", 0), "dht", HERE, PORT) is not None


def test_zones_are_left_out() -> None:
    assert parse_ip("fe80::1%eth0") == parse_ip("fe80::1")
