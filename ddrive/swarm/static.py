"""Addresses that people give: `host:port`, with brackets round an IPv6 host."""

from typing import NamedTuple

MAX_PORT = 65535
MAX_HOST_BYTES = 253  # of a host name. Source: RFC 1035


class Address(NamedTuple):
    """Where a peer listens; `host` is a name or an IP address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, *, lowest_port: int = 1) -> "Address":
        """Return the address that `text` names. Raises: ValueError when it names none."""
        host, colon, port = text.strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r} is no HOST:PORT: an IPv6 host needs brackets, as in [::1]:4000")
        if not colon or not host or len(host.encode()) > MAX_HOST_BYTES or not (port.isascii() and port.isdigit()):
            raise ValueError(f"{text!r} is no HOST:PORT")
        if not lowest_port <= int(port) <= MAX_PORT:
            raise ValueError(f"{text!r}: the port is not between {lowest_port} and {MAX_PORT}")
        return cls(host, int(port))
