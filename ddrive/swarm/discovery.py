"""What every way of finding peers has in common: topics are joined, addresses are found, and all of it is counted.

A mechanism (the LAN, one of the DHTs) is opened as `async with open_…(…, sink, port=…) as found_by:` and gives each
address that it finds to `sink`, a plain call. `port` is the TCP port on which we take in peers. Only discovery keys
are ever shown to others. Nothing here does I/O.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from ddrive.dialect import Dialect
from ddrive.ids import DiscoveryKey
from ddrive.swarm.static import Address

TOPIC_BYTES = 20  # of a discovery key, that all mechanisms show. Source: npm hyperswarm@2, BEP 5

Mechanism = Literal["lan", "dht", "mainline"]


class Finding(NamedTuple):
    """Somebody who says to have a drive. `address.host` is an IP address, `discovery_key` one that was joined."""

    address: Address
    discovery_key: DiscoveryKey
    mechanism: Mechanism


Sink = Callable[[Finding], None]


@dataclass(slots=True)
class Counts:
    """What a mechanism did, since it was opened or since a topic was joined."""

    asked: int = 0  # lookups sent out
    answered: int = 0  # by others, to these
    found: int = 0  # addresses given to the sink
    announced: int = 0  # times we were made known to others, answers to their questions included


@dataclass(frozen=True, slots=True)
class DiscoveryReport:
    """How a mechanism is doing, with counts that do not change any more."""

    running: bool  # whether it can ask at all now
    last_error: str | None  # what is wrong, or was last, in words for people
    total: Counts
    topics: Mapping[DiscoveryKey, Counts]  # of those joined now
    detail: str | None = None  # its state in words for people, such as "37 nodes, port mapped by UPnP"


class Discovery(Protocol):
    """One way of finding peers. None of these calls waits or raises."""

    @property
    def name(self) -> Mechanism:
        """The name in findings and for people."""
        ...

    def join(self, discovery_key: DiscoveryKey, dialect: Dialect, *, announce: bool) -> None:
        """Look for peers of a topic from now on, at once at first, and make us known to them if told to.

        Joining again changes `announce` alone.
        """
        ...

    def leave(self, discovery_key: DiscoveryKey) -> None:
        """Look for peers of a topic no more, and take back what was announced where that is possible."""
        ...

    def refresh(self) -> None:
        """Look for all topics again now: our addresses or networks have changed, or somebody waits."""
        ...

    def reached_at(self, port: int) -> None:
        """Tell peers beyond our router from now on that a port of the router leads to us."""
        ...

    def linked(self, discovery_key: DiscoveryKey, *, is_linked: bool) -> None:
        """Take note whether a peer of a topic that was found is connected; said again and again while one is.

        Addresses alone are no reason to look more rarely: those who told them may lie.
        """
        ...

    def report(self) -> DiscoveryReport:
        """Return how it is doing."""
        ...


@dataclass(slots=True)
class Tally:
    """Counts of all topics together and of each that is joined: for the mechanisms to keep."""

    total: Counts = field(default_factory=Counts)
    topics: dict[DiscoveryKey, Counts] = field(default_factory=dict)

    def join(self, discovery_key: DiscoveryKey) -> None:
        """Begin to count for a topic."""
        self.topics.setdefault(discovery_key, Counts())

    def leave(self, discovery_key: DiscoveryKey) -> None:
        """Count for a topic no more."""
        self.topics.pop(discovery_key, None)

    def report(self, *, running: bool, last_error: str | None = None, detail: str | None = None) -> DiscoveryReport:
        """Return the counts as they are now."""
        topics = {key: replace(counts) for key, counts in self.topics.items()}
        return DiscoveryReport(running, last_error, replace(self.total), topics, detail)

    def add(
        self, discovery_key: DiscoveryKey, *, asked: int = 0, answered: int = 0, found: int = 0, announced: int = 0
    ) -> None:
        """Count for a topic (if it is joined) and in total."""
        for counts in filter(None, (self.total, self.topics.get(discovery_key))):
            counts.asked += asked
            counts.answered += answered
            counts.found += found
            counts.announced += announced
