"""What is to be kept whatever else is dropped, in `pins.json`: paths of drives, and the blocks that they had then.

A pin follows its path: of newer entries that have come in for it, the newest of each file is kept too. Those are found
again among the entries that are held, so they are not in the file.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ddrive.errors import StorageError
from ddrive.ids import PublicKey
from ddrive.store.runs import Run, joined, within, without
from mountd.files import load_json, save_json

Blocks = Mapping[PublicKey, list[Run]]


@dataclass(frozen=True, slots=True)
class Pin:
    """A path of a drive that is kept, at the version that it had, and the blocks in which its content lies."""

    key: PublicKey
    path: str
    version: int
    blocks: Blocks

    def to_json(self) -> dict[str, Any]:
        """Return the form in which the pin is kept."""
        blocks = {feed.hex(): runs for feed, runs in self.blocks.items()}
        return {"key": self.key.hex(), "path": self.path, "version": self.version, "blocks": blocks}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Pin":
        """Return the pin that was kept as `value`. Raises: KeyError, TypeError, ValueError."""
        key = PublicKey(bytes.fromhex(value["key"]))
        return cls(key, str(value["path"]), int(value["version"]), blocks_of(value["blocks"]))


class Newer(NamedTuple):
    """Where the content of a file is by an entry that came in later."""

    version: int
    feed: PublicKey
    run: Run


class Pins:
    """All pins. What is added is on disk when the call returns, what is dropped when it was saved."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._pins = [Pin.from_json(value) for value in load_json(path, [])]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error!r}): move it away to start anew") from error
        self._newer: dict[tuple[PublicKey, str], Newer] = {}  # by drive and path
        self._runs = self._joined()

    def __iter__(self) -> Iterator[Pin]:
        return iter(list(self._pins))

    def runs(self, feed: PublicKey) -> list[Run]:
        """Return the blocks of a feed that are kept, in order."""
        return self._runs.get(feed, [])

    def outside(self, feed: PublicKey, start: int, end: int) -> Iterator[Run]:
        """Yield those of the blocks `start` up to `end` of a feed that are not kept."""
        return without([(start, end)], within(self.runs(feed), start, end))

    def of(self, key: PublicKey) -> list[Pin]:
        """Return the pins of a drive."""
        return [pin for pin in self._pins if pin.key == key]

    def add(self, pin: Pin) -> None:
        """Keep a path, instead of what was kept of the same path before."""
        pins = [other for other in self._pins if (other.key, other.path) != (pin.key, pin.path)]
        pins.append(pin)
        self._save(pins)
        self._pins = pins
        self._newer = {
            place: newer
            for place, newer in self._newer.items()
            if not (place[0] == pin.key and is_within(place[1], pin.path) and newer.version < pin.version)
        }
        self._runs = self._joined()

    def follow(self, key: PublicKey, path: str, newer: Newer) -> bool:
        """Keep what a file of a drive has by a newer entry, if it is pinned; tells whether that is news."""
        if not any(is_within(path, pin.path) and newer.version >= pin.version for pin in self.of(key)):
            return False
        former = self._newer.get((key, path))
        if former is not None and former.version >= newer.version:
            return False
        self._newer[key, path] = newer
        if former is not None:
            self._runs = self._joined()
        elif newer.run[0] < newer.run[1]:
            runs = self._runs.setdefault(newer.feed, [])
            first = bisect_left(runs, newer.run[0], key=lambda run: run[1])
            last = bisect_right(runs, newer.run[1], first, key=lambda run: run[0])
            runs[first:last] = joined([*runs[first:last], newer.run])
        return True

    def drop(self, key: PublicKey, path: str, blocks: Blocks) -> set[PublicKey]:
        """Keep a path no longer, nor what is below it, nor these blocks; returns the feeds that this concerns.

        Then `save`: on a full disk there is no room for that before the bytes are freed.
        """
        before = self._pins
        self._pins = [
            rest
            for pin in before
            if not (pin.key == key and is_within(pin.path, path)) and (rest := _less(pin, blocks)).blocks
        ]
        touched = {feed for pin in before if pin not in self._pins for feed in pin.blocks}
        for place, newer in list(self._newer.items()):
            if place[0] == key and is_within(place[1], path):
                touched.add(newer.feed)
                del self._newer[place]
        self._runs = self._joined()
        return touched

    def save(self) -> None:
        """Let what was dropped not be kept after a restart either."""
        if self._pins or self._path.exists():
            self._save(self._pins)

    def _save(self, pins: Iterable[Pin]) -> None:
        save_json(self._path, [pin.to_json() for pin in pins])

    def _joined(self) -> dict[PublicKey, list[Run]]:
        found: dict[PublicKey, list[Run]] = {}
        for pin in self._pins:
            for feed, runs in pin.blocks.items():
                found.setdefault(feed, []).extend(runs)
        for newer in self._newer.values():
            found.setdefault(newer.feed, []).append(newer.run)
        return {feed: joined(runs) for feed, runs in found.items()}


def is_within(path: str, directory: str) -> bool:
    """Tell whether a path is a directory or lies below it."""
    base = directory.strip("/")
    inner = path.strip("/")
    return not base or inner == base or inner.startswith(f"{base}/")


def blocks_of(value: Mapping[str, Iterable[Iterable[int]]]) -> dict[PublicKey, list[Run]]:
    """Return blocks from their JSON form. Raises: TypeError, ValueError."""
    found: dict[PublicKey, list[Run]] = {}
    for key, pairs in value.items():
        runs = [(int(start), int(end)) for start, end in pairs]
        found[PublicKey(bytes.fromhex(key))] = joined(runs)
    return found


def _less(pin: Pin, blocks: Blocks) -> Pin:
    """Return a pin without some blocks, and without feeds of which nothing is left."""
    if not any(feed in blocks for feed in pin.blocks):
        return pin
    rest = {feed: list(without(runs, blocks.get(feed, ()))) for feed, runs in pin.blocks.items()}
    return Pin(pin.key, pin.path, pin.version, {feed: runs for feed, runs in rest.items() if runs})
