"""A network of DHT nodes without sockets: datagrams take 20 to 60 ms, some get lost, time passes when asked to."""

import heapq
from itertools import count
from random import Random

from ddrive.swarm.dht_node import Node, Walk
from ddrive.swarm.dht_rpc import FIND_NODE, PEERS, Datagram, PeersAsked, decode_peers_answered, encode_peers_asked
from ddrive.swarm.static import Address

STEP_S = 0.03
IDLE_S = 0.5  # a step while no datagram is under way


class Net:
    """All nodes, by address, and the datagrams under way."""

    def __init__(self, seed: int = 1, *, loss: float = 0.0) -> None:
        self.now = 1000.0
        self.nodes: dict[Address, Node] = {}
        self.sent = 0
        self.bytes_to: dict[Address, int] = {}
        self.loss = loss
        self.random = Random(seed)
        self._numbers = count()
        self._under_way: list[tuple[float, int, bytes, Address, Address]] = []

    def add(self, *begin: Address, is_ephemeral: bool = False, host: str | None = None) -> Address:
        """Start a node, which finds its place by way of the nodes in `begin`; return its address."""
        number = len(self.nodes) + 1
        address = Address(host or f"10.0.{number >> 8}.{number & 255}", 1000 + number)
        self.nodes[address] = node = Node(self.random.randbytes, self.now, is_ephemeral=is_ephemeral)
        if begin:
            self.walk(address, Walk(node.id, FIND_NODE), *begin)
        return address

    def send(self, data: bytes, source: Address, to: Address) -> None:
        """Put a datagram under way."""
        self.sent += 1
        if self.random.random() >= self.loss:
            arrival = self.now + self.random.uniform(0.02, 0.06)
            heapq.heappush(self._under_way, (arrival, next(self._numbers), data, source, to))

    def flush(self) -> None:
        """Send what the nodes want to send."""
        for address, node in self.nodes.items():
            out, node.out = node.out, []
            for data, to in out:
                self.send(data, address, to)

    def run(self, seconds: float) -> None:
        """Let time pass, in steps."""
        end = self.now + seconds
        while self.now < end:
            self.flush()
            self.now += STEP_S if self._under_way else min(IDLE_S, end - self.now)
            while self._under_way and self._under_way[0][0] <= self.now:
                _, _, data, source, to = heapq.heappop(self._under_way)
                self.bytes_to[to] = self.bytes_to.get(to, 0) + len(data)
                if to in self.nodes:
                    self.nodes[to].receive(data, source, self.now)
            for node in self.nodes.values():
                node.tick(self.now)

    def walk(self, address: Address, walk: Walk, *begin: Address) -> Walk:
        """Have a node walk; return once it is done."""
        done: list[Walk] = []
        walk.on_done = done.append
        self.nodes[address].start(walk, begin, self.now)
        for _ in range(400):
            if done:
                return walk
            self.run(0.25)
        raise AssertionError("the walk does not end")

    def lookup(self, address: Address, topic: bytes, *begin: Address) -> set[Address]:
        """Return the peers of a topic that a node finds."""
        found: set[Address] = set()

        def take(datagram: Datagram, node: Address) -> None:
            found.update(decode_peers_answered(datagram.value or b"")[0])

        self.walk(address, Walk(topic, PEERS, encode_peers_asked(PeersAsked(1)), on_answer=take), *begin)
        return found

    def announce(self, address: Address, topic: bytes, port: int, *begin: Address, unannounce: bool = False) -> Walk:
        """Have a node announce a topic, or take that back."""
        value = encode_peers_asked(PeersAsked(port))
        update = encode_peers_asked(PeersAsked(port, unannounce=unannounce))
        return self.walk(address, Walk(topic, PEERS, value, update), *begin)
