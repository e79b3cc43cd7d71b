"""Noticing that networks have changed, on a host of its own."""

import subprocess
import sys

from tests.support.hosts import Host, lan

LOOK = """
from ddrive.swarm.watching import look_around
print([network.is_running for network in look_around().networks if network.name == "eth0"])
"""


def seen(host: Host) -> str:
    """Return whether the network of a host runs, as a process there sees it."""
    done = subprocess.run([*host.prefix, sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_link_that_is_down_is_seen_though_its_address_stays() -> None:
    with lan(1) as (host,):
        subprocess.run([*host.prefix, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"], check=True)
        assert seen(host) == "[True]"
        host.ip("link", "set", "eth0", "down")
        assert seen(host) == "[False]"
        host.ip("link", "set", "eth0", "up")
        assert seen(host) == "[True]"
