"""The nodes that a node of the DHT knows: many that are near to it, few of those far away.

Nodes are kept in buckets by the length of the prefix that their id shares with ours, 20 in each, so that strangers with
made-up ids fill no more than one bucket. Who is held stays as long as it answers. The time is given.
"""

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address

from ddrive.swarm.dht_rpc import ID_BYTES, Contact, distance
from ddrive.swarm.static import Address

BUCKET_NODES = 20  # Source: npm dht-rpc@4 answers with as many
MAX_BUCKETS = 8 * ID_BYTES
MAX_OF_HOST = 8  # nodes at one address of the internet: ids cost nothing, addresses do


@dataclass(slots=True)
class _Known:
    contact: Contact
    heard_s: float  # when it last answered


class NodeTable:
    """The nodes that have answered us."""

    def __init__(self, own_id: bytes) -> None:
        self._own_id = own_id
        self._buckets: dict[int, dict[bytes, _Known]] = {}  # by the number of bits that differ, then by id
        self._ids: dict[Address, bytes] = {}  # an address has one id
        self._hosts: Counter[str] = Counter()  # how many are held of each

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def _bucket(self, id_: bytes) -> dict[bytes, _Known]:
        return self._buckets.setdefault(distance(id_, self._own_id).bit_length(), {})

    def has_room(self, contact: Contact) -> bool:
        """Tell whether `heard` would take in a node that is not held."""
        bucket = self._bucket(contact.id)
        if contact.id == self._own_id or contact.id in bucket or len(bucket) >= BUCKET_NODES:
            return False
        host = contact.address.host
        return self._hosts[host] < MAX_OF_HOST or not IPv4Address(host).is_global

    def heard(self, contact: Contact, now: float) -> None:
        """Take note that a node has answered, and hold it if there is room. Nobody can move a node by its id."""
        if self._ids.get(contact.address, contact.id) != contact.id:
            self.lost(contact.address)  # another one is there now
        known = self._bucket(contact.id).get(contact.id)
        if known is not None and known.contact == contact:
            known.heard_s = now
        elif self.has_room(contact):
            self._bucket(contact.id)[contact.id] = _Known(contact, now)
            self._ids[contact.address] = contact.id
            self._hosts[contact.address.host] += 1

    def lost(self, address: Address) -> None:
        """Forget who was at `address`: it does not answer."""
        id_ = self._ids.pop(address, None)
        if id_ is None:
            return
        del self._bucket(id_)[id_]
        self._hosts[address.host] -= 1
        if not self._hosts[address.host]:
            del self._hosts[address.host]

    def nearest(self, target: bytes, most: int = BUCKET_NODES) -> list[Contact]:
        """Return the `most` nodes that are nearest to `target`, the nearest first."""
        contacts = [known.contact for bucket in self._buckets.values() for known in bucket.values()]
        return sorted(contacts, key=lambda contact: distance(contact.id, target))[:most]

    def latest(self, most: int) -> list[Contact]:
        """Return the `most` nodes that have answered last."""
        known = [known for bucket in self._buckets.values() for known in bucket.values()]
        return [item.contact for item in sorted(known, key=lambda item: -item.heard_s)[:most]]

    def silent(self, since_s: float, most: int) -> list[Contact]:
        """Return up to `most` nodes that have not answered since `since_s`, those silent for longest first."""
        known = [known for bucket in self._buckets.values() for known in bucket.values() if known.heard_s < since_s]
        return [item.contact for item in sorted(known, key=lambda item: item.heard_s)[:most]]
