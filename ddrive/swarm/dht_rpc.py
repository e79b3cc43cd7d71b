"""The datagrams of the DHT of the npm peers as values.

A node has a random id of 32 bytes; how far two ids are from each other is their XOR, read as a number. Nodes ask each
other questions about a target, also 32 bytes long, and each answer names the nodes that the answering one knows nearest
to it. An update is only taken from who shows the token of an earlier answer, and so has proven to own its address. The
network is of IPv4 alone. What a datagram may claim is bounded here; what it means is not known here.
Source: datagrams of npm `dht-rpc@4` as used by `@hyperswarm/dht@4` and `@dswarm/dht@1`, and their documentation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from ddrive.errors import RemoteProtocolError
from ddrive.swarm import schema_pb2 as schema
from ddrive.swarm.static import Address

VERSION = 1
ID_BYTES = 32  # of nodes and of targets
TOKEN_BYTES = 32  # of those that npm nodes and we make; others are kept as they are
MAX_TOKEN_BYTES = 128
MAX_DATAGRAM_BYTES = 4096  # npm nodes send up to 1.7 KiB
MAX_CLOSER = 20  # nodes in one answer
MAX_PEERS = 64  # in an answer of ours, which then fits into one packet of 1500 bytes
MAX_PEERS_TAKEN = 128  # from one answer: as many as npm nodes send
MAX_RID = 0xFFFF

PING = "_ping"
FIND_NODE = "_find_node"
HOLEPUNCH = "_holepunch"
PEERS = "peers"

_PEER_BYTES = 6
_LOCAL_PEER_BYTES = 4
_CONTACT_BYTES = ID_BYTES + _PEER_BYTES


Body = TypeVar("Body")


class Kind(IntEnum):
    """What a datagram is."""

    QUERY = 1
    UPDATE = 2
    ANSWER = 3


class Contact(NamedTuple):
    """A node, and where it is."""

    id: bytes
    address: Address


@dataclass(frozen=True, slots=True)
class Datagram:
    """One question, update or answer. An answer has the `rid` of what it answers."""

    kind: Kind
    rid: int
    command: str = ""
    to: Address | None = None  # whom it is sent to, as the sender sees it: our own address, seen from outside
    id: bytes | None = None  # of the sender; None: it does not want to be told to others
    target: bytes | None = None
    closer: tuple[Contact, ...] = ()
    token: bytes | None = None
    error: str = ""
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class PeersAsked:
    """The value of a question `peers` about a topic, or of an update: we are there, or no more."""

    port: int = 0  # on which the sender takes in peers; 0: that of its datagrams
    local_address: Address | None = None  # in its own network
    unannounce: bool = False


def distance(one: bytes, other: bytes) -> int:
    """Return how far two ids are from each other."""
    return int.from_bytes(one, "big") ^ int.from_bytes(other, "big")


def pack_address(address: Address) -> bytes:
    """Return an IPv4 address as 6 bytes. Raises: ValueError when it is none."""
    return IPv4Address(address.host).packed + address.port.to_bytes(2, "big")


def unpack_address(packed: bytes) -> Address:
    """Return the address that 6 bytes are."""
    return Address(".".join(map(str, packed[:4])), int.from_bytes(packed[4:], "big"))


def encode(datagram: Datagram) -> bytes:
    """Return a datagram as bytes."""
    body = schema.Datagram(version=VERSION, kind=datagram.kind, rid=datagram.rid)
    if datagram.to is not None:
        body.to = pack_address(datagram.to)
    if datagram.closer:
        body.closer = b"".join(contact.id + pack_address(contact.address) for contact in datagram.closer)
    for name in ("id", "target", "token", "value"):
        content = getattr(datagram, name)
        if content is not None:
            setattr(body, name, content)
    if datagram.command:
        body.command = datagram.command.encode()
    if datagram.error:
        body.error = datagram.error.encode()
    return body.SerializeToString()


def decode(data: bytes) -> Datagram:
    """Return the datagram that `data` is.

    Raises: RemoteProtocolError when it is none, or a field has a size that it cannot have.
    """
    if len(data) > MAX_DATAGRAM_BYTES:
        raise RemoteProtocolError(f"a datagram has {len(data)} bytes")
    body = _parse(schema.Datagram.FromString, data)
    if body.kind not in set(Kind) or body.rid > MAX_RID:
        raise RemoteProtocolError(f"a datagram is of kind {body.kind} with the number {body.rid}")
    return Datagram(
        kind=Kind(body.kind),
        rid=body.rid,
        command=body.command.decode(errors="replace"),
        to=unpack_address(body.to) if len(body.to) == _PEER_BYTES else None,
        id=_sized(body.id, ID_BYTES) if body.HasField("id") else None,
        target=_sized(body.target, ID_BYTES) if body.HasField("target") else None,
        closer=_unpack_contacts(body.closer),
        token=_sized(body.token, MAX_TOKEN_BYTES, exact=False) if body.token else None,
        error=body.error.decode(errors="replace"),
        value=body.value if body.HasField("value") else None,
    )


def _sized(content: bytes, size: int, *, exact: bool = True) -> bytes:
    if len(content) > size or (exact and len(content) != size):
        raise RemoteProtocolError(f"a field of a datagram has {len(content)} bytes")
    return content


def _parse(parse: Callable[[bytes], Body], data: bytes) -> Body:
    try:
        return parse(data)
    except DecodeError as error:
        raise RemoteProtocolError("bytes are not what they should be: no protobuf message") from error


def _pieces(packed: bytes, size: int, most: int) -> list[bytes]:
    """Return the first `most` pieces of `size` bytes. Raises: RemoteProtocolError when some bytes are left over."""
    if len(packed) % size:
        raise RemoteProtocolError(f"a list of entries of {size} bytes has {len(packed)} bytes")
    return [packed[start : start + size] for start in range(0, min(len(packed), most * size), size)]


def _unpack_contacts(packed: bytes) -> tuple[Contact, ...]:
    pieces = _pieces(packed, _CONTACT_BYTES, MAX_CLOSER)
    contacts = (Contact(piece[:ID_BYTES], unpack_address(piece[ID_BYTES:])) for piece in pieces)
    return tuple(contact for contact in contacts if contact.address.port)


def encode_peers_asked(asked: PeersAsked) -> bytes:
    """Return the value of a question or update `peers`. It may be empty, but never left out: npm nodes trip over it."""
    body = schema.PeersAsked()
    if asked.port:
        body.port = asked.port
    if asked.local_address is not None:
        body.local_address = pack_address(asked.local_address)
    if asked.unannounce:
        body.unannounce = True
    return body.SerializeToString()


def decode_peers_asked(value: bytes) -> PeersAsked:
    """Return what a value says. Raises: RemoteProtocolError when it is none."""
    body = _parse(schema.PeersAsked.FromString, value)
    if body.port > 0xFFFF:
        raise RemoteProtocolError(f"{body.port} is no port")
    local = body.local_address if body.HasField("local_address") else b""
    if len(local) not in (0, _PEER_BYTES):
        raise RemoteProtocolError(f"an address has {len(local)} bytes")
    return PeersAsked(body.port, unpack_address(local) if local else None, body.unannounce)


def encode_peers_answered(peers: Iterable[Address], local_peers: Iterable[Address] = ()) -> bytes:
    """Return the value of an answer. All `local_peers` are in the /16 network of the local address of who asks."""
    body = schema.PeersAnswered()
    if packed := b"".join(map(pack_address, peers)):
        body.peers = packed
    if packed := b"".join(pack_address(peer)[2:] for peer in local_peers):
        body.local_peers = packed
    return body.SerializeToString()


def decode_peers_answered(value: bytes, local_address: Address | None = None) -> tuple[list[Address], list[Address]]:
    """Return the peers that a value names, and the local ones when we asked with a `local_address`.

    Raises: RemoteProtocolError when it is no such value.
    """
    body = _parse(schema.PeersAnswered.FromString, value)
    peers = map(unpack_address, _pieces(body.peers, _PEER_BYTES, MAX_PEERS_TAKEN))
    found = [peer for peer in peers if peer.port]
    if local_address is None:
        return found, []
    network = pack_address(local_address)[:2]
    suffixes = _pieces(body.local_peers, _LOCAL_PEER_BYTES, MAX_PEERS_TAKEN)
    return found, [unpack_address(network + suffix) for suffix in suffixes if any(suffix[2:])]


def encode_holepunch(*, asker: Address | None = None, wanted: Address | None = None) -> bytes:
    """Return the value of a request to reach somebody: whom, to who told of it; for whom, to the one to be reached."""
    body = schema.Holepunch()
    if asker is not None:
        body.asker = pack_address(asker)
    if wanted is not None:
        body.wanted = pack_address(wanted)
    return body.SerializeToString()


def decode_holepunch(value: bytes) -> tuple[Address | None, Address | None]:
    """Return who wants to reach us, and whom the sender wants to reach. Raises: RemoteProtocolError."""
    body = _parse(schema.Holepunch.FromString, value)
    asker, wanted = (
        unpack_address(packed) if len(packed) == _PEER_BYTES else None for packed in (body.asker, body.wanted)
    )
    return asker, wanted
