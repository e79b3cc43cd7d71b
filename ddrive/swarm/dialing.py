"""Whom to dial when: addresses, the peers found there, and how long to leave each alone.

Nothing here dials, sleeps or rolls dice: the time (seconds of any steady clock) and the jitter (0 to 1) are given.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal

from ddrive.ids import DiscoveryKey
from ddrive.swarm.discovery import Mechanism
from ddrive.swarm.static import Address

FIRST_DELAY_S = 1.0  # after the first failure, doubled with each further one
LONGEST_DELAY_S = 300.0
STEADY_S = 10.0  # a link that lasted so long was a success, however it ended
RECENT_S = 600.0  # after the end of such a link, its address is tried at short intervals: a router may be restarting
RECENT_DELAY_S = 4.0  # the longest of these; with a dial that fails after 5 s, a link is back 10 s after its router
LIAR_DELAY_S = 600.0  # a peer that broke the protocol or sent what does not verify is left alone for this long
MAX_LIARS = 1024  # remembered; keys cost nothing, so it is no use to remember more
MAX_DIALS = 8  # at once
MAX_FAR_DIALS = 6  # of these; addresses that a DHT tells are often dead, and those nearby should not wait for them
MAX_DIALS_OF_HOST = 4  # of these; a host that tells of thousands of its ports must not keep us from the others
MAX_PEERS_PER_TOPIC = 24  # linked or being dialled, of those that were found
MAX_FOUND = 512  # addresses that were found, of all topics; beyond, the one that failed most makes room
MAX_FOUND_OF_HOST = 16  # likewise, of one host: several peers may be behind one router
GIVEN_UP = 8  # failures in a row after which an address that was found is forgotten

OURSELVES = "this is our own address, or that of a copy of our state directory, which has the same key so far"

Source = Literal["given", "remembered"] | Mechanism
RANK: dict[Source, int] = {"given": 0, "remembered": 1, "lan": 2, "dht": 3, "mainline": 3}  # who is dialled first
FAR = RANK["dht"]


@dataclass(slots=True)
class DialCounts:
    """What came of the addresses that one source told."""

    dialled: int = 0
    reached: int = 0  # somebody who proved who he is


@dataclass(slots=True)
class Target:
    """An address that was given or found, and what came of it."""

    source: Source = "given"  # the best of those that told it
    topics: set[DiscoveryKey] = field(default_factory=set)  # for which it was found; nobody said when it was given
    key: bytes | None = None  # the static key of who answered last
    failures: int = 0  # in a row
    steady_s: float = -math.inf  # when a link that had lasted ended last
    next_s: float = 0.0  # not to be dialled before
    is_dialing: bool = False
    is_shaking: bool = False  # the dialling has not led to a link yet
    last_error: str | None = None


def delay_s(failures: int, jitter: float, longest_s: float = LONGEST_DELAY_S) -> float:
    """Return how long to wait after `failures` (from 1) in a row: 1 s to 5 min, shortened by up to half by `jitter`."""
    delay = min(longest_s, FIRST_DELAY_S * (1 << min(failures - 1, 32)))
    return max(FIRST_DELAY_S, delay * (1 - jitter / 2))


def _is_recent(target: Target, now: float) -> bool:
    """Tell whether a link that had lasted was up there lately."""
    return now < target.steady_s + RECENT_S


class DialPlan:
    """All addresses, and the keys to which links are up."""

    def __init__(self) -> None:
        self.targets: dict[Address, Target] = {}
        self.counts: defaultdict[Source, DialCounts] = defaultdict(DialCounts)
        self._up: Counter[bytes] = Counter()  # links by static key
        self._liars: dict[bytes, float] = {}  # until when a key is refused

    def add(self, address: Address, now: float) -> None:
        """Want a link to `address`, at once: somebody asked for it, so what happened before does not count."""
        target = self.targets.setdefault(address, Target())
        target.source, target.failures, target.next_s = "given", 0, now
        if target.key is not None:
            self._liars.pop(target.key, None)

    def found(self, address: Address, topic: DiscoveryKey, source: Source, now: float) -> bool:
        """Try to link to `address`, as a peer of `topic` may be there; return whether that is news.

        One that failed is tried sooner when the LAN tells it again: there, who is told of has just spoken.
        """
        target = self.targets.get(address)
        if target is None:
            if not self._has_room(address.host, now):
                return False
            target = self.targets[address] = Target(source, next_s=now)
        elif RANK[source] < RANK[target.source]:
            target.source = source
        if source == "lan" and target.failures and not self._lied(target, now) and target.next_s < math.inf:
            target.next_s = min(target.next_s, now + FIRST_DELAY_S)
        is_news = topic not in target.topics
        target.topics.add(topic)
        return is_news

    def _has_room(self, host: str, now: float) -> bool:
        """Tell whether one more address found of a host can be kept; one that only fails makes room."""
        found = [
            (0 if _is_recent(target, now) else target.failures, address)
            for address, target in self.targets.items()
            if target.source != "given"
        ]
        of_host = [(failures, address) for failures, address in found if address.host == host]
        if len(of_host) >= MAX_FOUND_OF_HOST:
            found = of_host
        elif len(found) < MAX_FOUND:
            return True
        failures, worst = max(found)
        if failures and self._is_idle(self.targets[worst]):
            del self.targets[worst]
            return True
        return False

    def forget_topic(self, topic: DiscoveryKey) -> None:
        """Forget the addresses that were found for `topic` alone."""
        for address, target in list(self.targets.items()):
            if topic in target.topics:
                target.topics.discard(topic)
                if not target.topics and target.source != "given":
                    del self.targets[address]

    def retry(self, now: float) -> None:
        """Try all that failed at once: it may have been for want of a network, which has changed."""
        for target in self.targets.values():
            if target.failures and target.next_s < math.inf and not self._lied(target, now):
                target.failures, target.next_s = 0, now

    def remove(self, address: Address) -> None:
        """Want no link to `address` any more."""
        self.targets.pop(address, None)

    def due(self, now: float) -> list[Address]:
        """Return the addresses to dial now: the best sources first, of these the ones that have waited longest."""
        waiting = [
            (RANK[target.source], target.next_s, address)
            for address, target in self.targets.items()
            if target.next_s <= now and self._is_idle(target)
        ]
        if not waiting:
            return []
        dials = Counter(RANK[target.source] == FAR for target in self.targets.values() if target.is_shaking)
        hosts = Counter(address.host for address, target in self.targets.items() if target.is_shaking)
        peers = self._peers_by_topic()
        found = []
        for rank, _, address in sorted(waiting):
            is_far, topics = rank == FAR, self.targets[address].topics
            is_full = topics and all(peers[topic] >= MAX_PEERS_PER_TOPIC for topic in topics)
            is_busy = dials.total() >= MAX_DIALS or (is_far and dials[True] >= MAX_FAR_DIALS)
            if rank and (is_full or is_busy or hosts[address.host] >= MAX_DIALS_OF_HOST):
                continue
            dials[is_far] += 1
            hosts[address.host] += 1
            peers.update(topics)
            found.append(address)
        return found

    def _peers_by_topic(self) -> Counter[DiscoveryKey]:
        """Return how many peers are linked or being dialled, as far as it is known for which topics."""
        busy = [target for target in self.targets.values() if target.topics and not self._is_idle(target)]
        peers = {target.key or id(target): target.topics for target in busy}
        return Counter(topic for topics in peers.values() for topic in topics)

    def next_s(self, after: float = -math.inf) -> float:
        """Return when the next address will be due, of those not due by `after`; infinity when none will."""
        return min(
            (target.next_s for target in self.targets.values() if target.next_s > after and self._is_idle(target)),
            default=math.inf,
        )

    def _is_idle(self, target: Target) -> bool:
        return not target.is_dialing and not (target.key is not None and self._up[target.key])

    def refuses(self, key: bytes, now: float) -> bool:
        """Tell whether the holder of `key` has lied lately."""
        return self._liars.get(key, -math.inf) > now

    def began(self, address: Address) -> None:
        """Take note that `address` is being dialled."""
        target = self.targets.get(address)
        if target is not None:
            target.is_dialing = target.is_shaking = True
            self.counts[target.source].dialled += 1

    def answered(self, address: Address, key: bytes) -> None:
        """Take note of who is found at `address`."""
        target = self.targets.get(address)
        if target is not None:
            target.key, target.is_shaking = key, False
            self.counts[target.source].reached += 1

    def found_ourselves(self, address: Address) -> None:
        """Never dial `address` again: it is our own."""
        if address in self.targets:
            target = self.targets[address]
            target.key, target.next_s, target.last_error = None, math.inf, OURSELVES

    def failed(
        self,
        address: Address,
        now: float,
        jitter: float,
        reason: str,
        *,
        lied: bool = False,
        turned_away: bool = False,
    ) -> None:
        """Take note that dialling `address` has not led to a link, and for what reason.

        Whoever turns us away is no outage: there may be hundreds like us.
        """
        target = self.targets.get(address)
        if target is None:
            return
        target.is_dialing = target.is_shaking = False
        if turned_away and _is_recent(target, now):
            target.failures, target.steady_s = 0, -math.inf
        if target.next_s < math.inf and self._is_idle(target):
            self._postpone(target, now, jitter, reason, lied=lied)
            may_go = target.source != "given" and not lied and not _is_recent(target, now)
            if target.failures >= GIVEN_UP and may_go:
                del self.targets[address]

    def linked(self, key: bytes) -> None:
        """Take note of a link to `key`, whichever side began it."""
        self._up[key] += 1
        for target in self.targets.values():
            if target.key == key:
                target.last_error = None

    def ended(
        self, key: bytes, now: float, jitter: float, reason: str, *, lived_s: float, lied: bool, address: Address | None
    ) -> None:
        """Take note that a link to `key` has ended, which we had begun at `address` if that is given."""
        self._up[key] -= 1
        if lied:
            self._remember_liar(key, now)
        if address in self.targets:
            self.targets[address].is_dialing = self.targets[address].is_shaking = False
        if self._up[key] > 0:
            return
        del self._up[key]
        for target in self.targets.values():
            if target.key == key:
                if lived_s >= STEADY_S:
                    target.failures, target.steady_s = 0, now
                self._postpone(target, now, jitter, reason, lied=lied)

    def _postpone(self, target: Target, now: float, jitter: float, reason: str, *, lied: bool) -> None:
        target.failures += 1
        target.last_error = reason
        longest_s = RECENT_DELAY_S if _is_recent(target, now) else LONGEST_DELAY_S
        target.next_s = now + (LIAR_DELAY_S if lied else delay_s(target.failures, jitter, longest_s))
        if target.key is not None:
            target.next_s = max(target.next_s, self._liars.get(target.key, 0.0))

    def _lied(self, target: Target, now: float) -> bool:
        return target.next_s > now + LONGEST_DELAY_S or (target.key is not None and self.refuses(target.key, now))

    def _remember_liar(self, key: bytes, now: float) -> None:
        self._liars.pop(key, None)
        if len(self._liars) >= MAX_LIARS:
            del self._liars[next(iter(self._liars))]
        self._liars[key] = now + LIAR_DELAY_S
