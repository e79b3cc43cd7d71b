"""Whom to dial when: addresses, the peers found there, and how long to leave each alone.

Nothing here dials, sleeps or rolls dice: the time (seconds of any steady clock) and the jitter (0 to 1) are given.
"""

import math
from collections import Counter
from dataclasses import dataclass

from ddrive.swarm.static import Address

FIRST_DELAY_S = 1.0  # after the first failure, doubled with each further one
LONGEST_DELAY_S = 300.0
STEADY_S = 30.0  # a link that lasted so long was a success, however it ended
LIAR_DELAY_S = 600.0  # a peer that broke the protocol or sent what does not verify is left alone for this long
MAX_LIARS = 1024  # remembered; keys cost nothing, so it is no use to remember more


@dataclass(slots=True)
class Target:
    """An address that was given, and what came of it."""

    key: bytes | None = None  # the static key of who answered last
    failures: int = 0  # in a row
    next_s: float = 0.0  # not to be dialled before
    is_dialing: bool = False
    last_error: str | None = None


def delay_s(failures: int, jitter: float) -> float:
    """Return how long to wait after `failures` (from 1) in a row: 1 s to 5 min, shortened by up to half by `jitter`."""
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * (1 << min(failures - 1, 32)))
    return max(FIRST_DELAY_S, longest * (1 - jitter / 2))


class DialPlan:
    """All given addresses, and the keys to which links are up."""

    def __init__(self) -> None:
        self.targets: dict[Address, Target] = {}
        self._up: Counter[bytes] = Counter()  # links by static key
        self._liars: dict[bytes, float] = {}  # until when a key is refused

    def add(self, address: Address, now: float) -> None:
        """Want a link to `address`, at once: somebody asked for it, so what happened before does not count."""
        target = self.targets.setdefault(address, Target())
        target.failures, target.next_s = 0, now
        if target.key is not None:
            self._liars.pop(target.key, None)

    def remove(self, address: Address) -> None:
        """Want no link to `address` any more."""
        self.targets.pop(address, None)

    def due(self, now: float) -> list[Address]:
        """Return the addresses to dial now, those that have waited longest first."""
        waiting = [(target.next_s, address) for address, target in self.targets.items() if self._is_idle(target)]
        return [address for next_s, address in sorted(waiting) if next_s <= now]

    def next_s(self) -> float:
        """Return when the next address will be due; infinity when none will."""
        return min((target.next_s for target in self.targets.values() if self._is_idle(target)), default=math.inf)

    def _is_idle(self, target: Target) -> bool:
        return not target.is_dialing and not (target.key is not None and self._up[target.key])

    def refuses(self, key: bytes, now: float) -> bool:
        """Tell whether the holder of `key` has lied lately."""
        return self._liars.get(key, -math.inf) > now

    def began(self, address: Address) -> None:
        """Take note that `address` is being dialled."""
        if address in self.targets:
            self.targets[address].is_dialing = True

    def answered(self, address: Address, key: bytes) -> None:
        """Take note of who is found at `address`."""
        if address in self.targets:
            self.targets[address].key = key

    def found_ourselves(self, address: Address) -> None:
        """Never dial `address` again: it is our own."""
        if address in self.targets:
            target = self.targets[address]
            target.key, target.next_s, target.last_error = None, math.inf, "this is our own address"

    def failed(self, address: Address, now: float, jitter: float, reason: str, *, lied: bool = False) -> None:
        """Take note that dialling `address` has not led to a link, and for what reason."""
        target = self.targets.get(address)
        if target is None:
            return
        target.is_dialing = False
        if target.next_s < math.inf and self._is_idle(target):
            self._postpone(target, now, jitter, reason, lied=lied)

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
            self.targets[address].is_dialing = False
        if self._up[key] > 0:
            return
        del self._up[key]
        for target in self.targets.values():
            if target.key == key:
                if lived_s >= STEADY_S:
                    target.failures = 0
                self._postpone(target, now, jitter, reason, lied=lied)

    def _postpone(self, target: Target, now: float, jitter: float, reason: str, *, lied: bool) -> None:
        target.failures += 1
        target.last_error = reason
        target.next_s = now + (LIAR_DELAY_S if lied else delay_s(target.failures, jitter))
        if target.key is not None:
            target.next_s = max(target.next_s, self._liars.get(target.key, 0.0))

    def _remember_liar(self, key: bytes, now: float) -> None:
        self._liars.pop(key, None)
        if len(self._liars) >= MAX_LIARS:
            del self._liars[next(iter(self._liars))]
        self._liars[key] = now + LIAR_DELAY_S
