"""A home behind a router, in network namespaces: Debian's miniupnpd, which opens ports for who asks; a host outside."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.hosts import Host, namespaces

# Like most routers it leads who is at home back in when he calls its outer address: to a DHT of two nodes it matters.
RULES = """
table inet filter {
  chain opened { }
  chain redirected { }
  chain masked { }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "home" accept
    jump opened
  }
  chain prerouting {
    type nat hook prerouting priority -100;
    jump redirected
    iifname "home" ip daddr 11.0.9.1 meta l4proto udp dnat ip to 192.168.7.2
  }
  chain postrouting {
    type nat hook postrouting priority 100;
    oifname "world" masquerade
    ip saddr 192.168.7.0/24 ip daddr 192.168.7.0/24 masquerade
    jump masked
  }
}
"""
SETTINGS = """
ext_ifname=world
listening_ip=home
enable_upnp={upnp}
enable_natpmp={natpmp}
port=0
uuid=11111111-2222-3333-4444-555555555555
allow {ports} 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=opened
upnp_nat_chain=redirected
upnp_nat_postrouting_chain=masked
"""


class Home(NamedTuple):
    """A host at home, one elsewhere, and the router in between, which lets in nobody unasked."""

    inside: Host
    outside: Host
    router: Host

    def opened(self) -> set[int]:
        """Return the ports of the router that lead to the host at home."""
        rules = subprocess.run(
            [*self.router.prefix, "/usr/sbin/nft", "list", "chain", "inet", "filter", "redirected"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return {
            int(word) for line in rules.splitlines() for word in line.split("dport ")[1:] for word in [word.split()[0]]
        }


@contextmanager
def home(directory: Path, *, upnp: bool = True, natpmp: bool = True, ports: str = "1024-65535") -> Iterator[Home]:
    """Give a home; `directory` is for the files of the router, which gives away `ports`."""
    words = {True: "yes", False: "no"}
    with namespaces(2) as (middle, names):
        router = Host(middle, "11.0.9.1")
        inside, outside = Host(names[0], "192.168.7.2"), Host(names[1], "11.0.9.2")
        for host, end, address in ((inside, "home", "192.168.7.1"), (outside, "world", "11.0.9.1")):
            host.ip("link", "add", "eth0", "type", "veth", "peer", "name", end, "netns", middle)
            router.ip("link", "set", end, "up")
            router.ip("address", "add", f"{address}/24", "dev", end)
            host.ip("address", "add", f"{host.address}/24", "dev", "eth0")
            host.ip("link", "set", "eth0", "up")
        inside.ip("route", "add", "default", "via", "192.168.7.1")
        subprocess.run([*router.prefix, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        subprocess.run([*router.prefix, "/usr/sbin/nft", "-f", "-"], input=RULES.encode(), check=True)
        with _daemon(router, directory, upnp=words[upnp], natpmp=words[natpmp], ports=ports):
            yield Home(inside, outside, router)


def _sockets(router: Host) -> str:
    """Return the UDP sockets of a host, as the kernel lists them."""
    return subprocess.run([*router.prefix, "cat", "/proc/net/udp"], check=True, capture_output=True, text=True).stdout


@contextmanager
def _daemon(router: Host, directory: Path, **settings_of: str) -> Iterator[None]:
    settings, pid = directory / "miniupnpd.conf", directory / "miniupnpd.pid"
    settings.write_text(SETTINGS.format(**settings_of))
    process = subprocess.Popen(
        [*router.prefix, "/usr/sbin/miniupnpd", "-d", "-f", str(settings), "-P", str(pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            wanted = [port for port, word in ((1900, "upnp"), (5351, "natpmp")) if settings_of[word] == "yes"]
            while not all(f":{port:04X} " in _sockets(router) for port in wanted):
                assert process.poll() is None
                time.sleep(0.02)
            yield
        finally:
            process.kill()
