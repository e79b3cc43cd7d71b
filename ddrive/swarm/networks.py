"""The networks that this machine is on, as values, and which addresses of peers make sense there."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, IPv6Network, ip_address

from ddrive.swarm.dialing import Source
from ddrive.swarm.static import Address

IpAddress = IPv4Address | IPv6Address

_FAR: frozenset[Source] = frozenset(("dht", "mainline"))
_NAT64 = IPv6Network("64:ff9b::/96")  # a gateway leads on to the IPv4 address in the last 4 bytes. Source: RFC 6052


@dataclass(frozen=True, slots=True)
class Network:
    """One network interface, and our addresses there."""

    index: int
    name: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    is_running: bool = True  # up, and with somebody at the other end of the cable

    @property
    def is_loopback(self) -> bool:
        """Whether it leads nowhere."""
        return all(address.ip.is_loopback for address in self.addresses)

    def reaches(self, address: IpAddress) -> bool:
        """Tell whether an address is on this network, without a router in between."""
        return any(address in own.network for own in self.addresses if own.version == address.version)


@dataclass(frozen=True, slots=True)
class Here:
    """All networks that this machine is on."""

    networks: tuple[Network, ...]

    def owns(self, address: IpAddress) -> bool:
        """Tell whether an address is our own."""
        return any(own.ip == address for network in self.networks for own in network.addresses)

    def reaches(self, address: IpAddress) -> bool:
        """Tell whether an address is on one of our networks."""
        return any(network.reaches(address) for network in self.networks)


def parse_ip(host: str) -> IpAddress | None:
    """Return the IP address that `host` is, None when it is a name; an IPv4 address in IPv6 form is told as IPv4."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def refusal(
    address: Address, source: Source, here: Here, port: int, *, near_too: bool = False, far_too: bool = True
) -> str | None:
    """Return why an address that `source` told is not to be dialled, None when it may be.

    `port` is where we take in peers ourselves. Strangers in a DHT name addresses of other people's networks, by mistake
    or to make us attack somebody on ours; `near_too` is for a DHT that is private itself. Whom we remember may have
    been on a network where we are no more. Without `far_too`, what is beyond a router is left alone.
    """
    ip = parse_ip(address.host)
    if isinstance(ip, IPv6Address) and (ip.sixtofour or ip in _NAT64):
        ip = ip.sixtofour or IPv4Address(ip.packed[-4:])
    if ip is None or ip.is_multicast or ip.is_unspecified or not address.port:
        return "not an address of a peer"
    if here.owns(ip) and (address.port == port or (source in _FAR and not near_too)):
        return "our own address"
    if source == "lan":
        return None if here.reaches(ip) else "not on a network of ours"
    is_near = source == "remembered" and here.reaches(ip)
    if is_near or (far_too and (near_too or ip.is_global)):
        return None
    return "not an address of the internet" if far_too else "not on a network of ours"
