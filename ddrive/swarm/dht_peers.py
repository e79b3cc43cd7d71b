"""What a node of the DHT keeps for others: who announced what, and the tokens that prove who owns an address.

Everything is bounded, and what is not announced again is forgotten. The time and the random bytes are given.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from ddrive.swarm.dht_rpc import MAX_PEERS, TOKEN_BYTES
from ddrive.swarm.static import Address

KEEP_S = 12 * 60.0  # an announcement. Source: documentation of npm @hyperswarm/dht@4
MAX_TOPICS = 20_000  # the one announced least recently makes room
MAX_PEERS_OF_TOPIC = 500  # likewise
MAX_ANNOUNCED = 50_000  # likewise, of all topics: about 30 MB
MAX_OF_HOST = 5_000  # of these; beyond, nothing new is taken
TOKEN_S = 600.0  # a token is taken for one to two times as long; npm nodes take theirs for about as long as this

Key = TypeVar("Key", bound=Hashable)
Entropy = Callable[[int], bytes]  # gives so many random bytes


class Tokens:
    """Tokens that only whoever receives datagrams at a host can know."""

    def __init__(self, entropy: Entropy, now: float) -> None:
        self._entropy = entropy
        self._secrets = [entropy(TOKEN_BYTES), entropy(TOKEN_BYTES)]  # the newest first
        self._next_s = now + TOKEN_S

    def _renew(self, now: float) -> None:
        if now >= self._next_s:
            recent = now < self._next_s + TOKEN_S
            self._secrets = [self._entropy(TOKEN_BYTES), self._secrets[0] if recent else self._entropy(TOKEN_BYTES)]
            self._next_s = now + TOKEN_S

    def make(self, host: str, now: float) -> bytes:
        """Return the token for whoever is at `host`."""
        self._renew(now)
        return _token(self._secrets[0], host)

    def fits(self, token: bytes | None, host: str, now: float) -> bool:
        """Tell whether a token was made for `host` lately."""
        self._renew(now)
        return token in [_token(secret, host) for secret in self._secrets]


def _token(secret: bytes, host: str) -> bytes:
    return blake2b(host.encode(), key=secret, digest_size=TOKEN_BYTES).digest()


@dataclass(slots=True)
class _Announced:
    until_s: float
    local_address: Address | None


class Announcements:
    """Who announced which topic; both in the order in which they were announced last."""

    def __init__(self) -> None:
        self._topics: dict[bytes, dict[Address, _Announced]] = {}
        self._count = 0
        self._peers: Counter[Address] = Counter()  # how many topics each has announced
        self._hosts: Counter[str] = Counter()  # likewise, all peers of a host together

    def __len__(self) -> int:
        return len(self._topics)

    def add(self, topic: bytes, peer: Address, local_address: Address | None, now: float) -> None:
        """Keep that `peer` announced `topic`, if its host has not announced too much."""
        self.remove(topic, peer)
        if self._hosts[peer.host] >= MAX_OF_HOST:
            return
        peers = self._topics.pop(topic, {})
        self._topics[topic] = peers
        peers[peer] = _Announced(now + KEEP_S, local_address)
        self._count += 1
        self._peers[peer] += 1
        self._hosts[peer.host] += 1
        if len(peers) > MAX_PEERS_OF_TOPIC:
            self.remove(topic, next(iter(peers)))
        oldest = next(iter(self._topics))
        if len(self._topics) > MAX_TOPICS:
            for each in list(self._topics[oldest]):
                self.remove(oldest, each)
        elif self._count > MAX_ANNOUNCED:
            self.remove(oldest, next(iter(self._topics[oldest])))

    def remove(self, topic: bytes, peer: Address) -> None:
        """Forget that `peer` announced `topic`."""
        peers = self._topics.get(topic, {})
        if peers.pop(peer, None) is None:
            return
        self._count -= 1
        _take_one(self._peers, peer)
        _take_one(self._hosts, peer.host)
        if not peers:
            del self._topics[topic]

    def expire(self, now: float) -> None:
        """Forget what was announced too long ago."""
        for topic, peers in list(self._topics.items()):
            for peer in [peer for peer, announced in peers.items() if announced.until_s <= now]:
                self.remove(topic, peer)

    def knows(self, peer: Address) -> bool:
        """Tell whether `peer` announced anything."""
        return peer in self._peers

    def find(self, topic: bytes, asker: Address, start: int, now: float) -> list[Address]:
        """Return who announced `topic`, without the asker: some, from a random `start`, when there are many."""
        peers = [peer for peer, announced in self._topics.get(topic, {}).items() if announced.until_s > now]
        others = [peer for peer in peers if peer != asker]
        first = start % len(others) if len(others) > MAX_PEERS else 0
        return (others[first:] + others[:first])[:MAX_PEERS]

    def find_local(self, topic: bytes, asker: Address, local_address: Address, now: float) -> list[Address]:
        """Return the local addresses of those behind the same router as the asker, in the same /16 network."""
        network = local_address.host.split(".")[:2]
        found = [
            announced.local_address
            for peer, announced in self._topics.get(topic, {}).items()
            if announced.local_address is not None and announced.until_s > now and peer.host == asker.host
        ]
        near = [local for local in found if local.host.split(".")[:2] == network and local != local_address]
        return near[-MAX_PEERS:]


def _take_one(counts: Counter[Key], key: Key) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
