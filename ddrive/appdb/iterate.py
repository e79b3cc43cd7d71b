"""The keys at and below a prefix, in the order of their digits, and what differs between two views of a database.

The order is the same for every peer and not alphabetical. A branch is split where its live entries have pointers or
part; each entry is met once on its own path, so the time is bounded by the entries and their tables.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from ddrive.appdb.merge import Load, ending, follow, narrow, settle
from ddrive.appdb.node import Entry, digit, hashes_of, parting
from ddrive.trie.path import COMPONENT_DIGITS, END

Heads = Callable[[], Awaitable[Sequence[Entry]]]  # gives the heads of the view that is looked at

_FORWARD: Final = (3, 2, 1, 0, END)  # order of stacking; the last one is visited first
_REVERSE: Final = (END, 0, 1, 2, 3)
_STEPS_PER_TURN: Final = 64  # about a millisecond


class Change(NamedTuple):
    """The entries of one key in the `left` and in the `right` view; either may be empty."""

    key: str
    left: list[Entry]
    right: list[Entry]


class _Branch(NamedTuple):
    start: int  # all entries agree on the digits before
    live: list[Entry]


class Walk:
    """Asynchronous iterator over lists of nodes, one per key: several nodes where writers conflict.

    Not recursive: one list for each direct child, of its newest nodes. `after` leaves out the key of the prefix itself.
    Deleted keys are left out unless `deletes`. The view is that of the first step.
    """

    def __init__(
        self,
        load: Load,
        heads: Heads,
        prefix: str,
        *,
        recursive: bool = True,
        reverse: bool = False,
        after: bool = False,
        deletes: bool = False,
    ) -> None:
        self._load = load
        self._heads = heads
        self._prefix = prefix
        self._hashes = hashes_of(prefix)
        self._start = COMPONENT_DIGITS * len(self._hashes)
        self._stop = None if recursive else self._start + COMPONENT_DIGITS
        self._order = _REVERSE if reverse else _FORWARD
        self._skips_start = after or not prefix
        self._deletes = deletes
        self._stack: list[_Branch | list[list[Entry]]] = []
        self._opened = False
        self._steps = 0

    def __aiter__(self) -> "Walk":
        return self

    async def __anext__(self) -> list[Entry]:
        if not self._opened:
            self._opened = True
            self._stack.append(_Branch(self._start, await narrow(self._load, await self._heads(), self._hashes)))
        while self._stack:
            top = self._stack[-1]
            if isinstance(top, list):
                if top:
                    return top.pop()
                self._stack.pop()
                continue
            self._stack.pop()
            if top.live:
                await self._step(top)
        raise StopAsyncIteration

    async def rest(self) -> list[list[Entry]]:
        """Return all that is still to come."""
        return [nodes async for nodes in self]

    async def _step(self, branch: _Branch) -> None:
        """Replace a branch by what it is made of."""
        self._steps += 1
        if not self._steps % _STEPS_PER_TURN:
            await self._load.give_way()
        index = split_index(branch)
        if self._stop is not None and index >= self._stop:
            await self._child(branch)
            return
        for number in self._order:
            if number == END:
                if index > self._start or not self._skips_start:
                    self._stack.append(self._shown(await ending(self._load, branch.live, index)))
            else:
                self._stack.append(_Branch(index + 1, await part(self._load, branch.live, index, number)))

    def _shown(self, keys: dict[str, list[Entry]]) -> list[list[Entry]]:
        """Return the nodes of the keys that are to be shown, the last one first."""
        return [
            keys[key]
            for key in sorted(keys, reverse=True)
            if key.startswith(self._prefix) and (self._deletes or not all(node.deleted for node in keys[key]))
        ]

    async def _child(self, branch: _Branch) -> None:
        """Show a direct child: its newest nodes, or any key below it when those are deletions."""
        shown = {node.key for node in branch.live if self._deletes or not node.deleted}
        nodes = [node for node in branch.live if node.key in shown and node.key.startswith(self._prefix)]
        if nodes:
            self._stack.append([nodes])
            return
        below = Walk(self._load, self._heads, self._prefix, deletes=self._deletes)
        below._opened = True
        below._stack.append(branch)
        found = await anext(below, None)
        if found:
            self._stack.append([found])


class Diff:
    """Asynchronous iterator over the keys whose nodes differ in two views. Branches that are equal are skipped."""

    def __init__(self, load: Load, left: Heads, right: Heads, prefix: str) -> None:
        self._load = load
        self._heads = left, right
        self._prefix = prefix
        self._stack: list[tuple[int, list[Entry], list[Entry]] | list[Change]] = []
        self._opened = False
        self._steps = 0

    def __aiter__(self) -> "Diff":
        return self

    async def __anext__(self) -> Change:
        if not self._opened:
            self._opened = True
            hashes = hashes_of(self._prefix)
            left, right = [await narrow(self._load, await heads(), hashes) for heads in self._heads]
            self._stack.append((COMPONENT_DIGITS * len(hashes), left, right))
        while self._stack:
            top = self._stack[-1]
            if isinstance(top, list):
                if top:
                    return top.pop()
                self._stack.pop()
                continue
            self._stack.pop()
            if _pointers(top[1]) != _pointers(top[2]):
                await self._step(*top)
        raise StopAsyncIteration

    async def _step(self, start: int, left: list[Entry], right: list[Entry]) -> None:
        self._steps += 1
        if not self._steps % _STEPS_PER_TURN:
            await self._load.give_way()
        index = split_index(_Branch(start, left + right))
        for number in _FORWARD:
            if number == END:
                self._stack.append(
                    self._changes(
                        await ending(self._load, left, index) if left else {},
                        await ending(self._load, right, index) if right else {},
                    )
                )
            else:
                parts = [await part(self._load, live, index, number) if live else [] for live in (left, right)]
                self._stack.append((index + 1, parts[0], parts[1]))

    def _changes(self, left: dict[str, list[Entry]], right: dict[str, list[Entry]]) -> list[Change]:
        """Return the differences between keys of one path, the last one first."""
        found: list[Change] = []
        for key in sorted(left.keys() | right.keys(), reverse=True):
            ours, theirs = _alive(left.get(key, [])), _alive(right.get(key, []))
            if key.startswith(self._prefix) and key and _pointers(ours) != _pointers(theirs):
                found.append(Change(key, ours, theirs))
        return found


def split_index(branch: _Branch) -> int:
    """Return the first index at which there is more than one way: a row of pointers, different digits, or the end."""
    start, live = branch
    first = live[0].hashes
    index = COMPONENT_DIGITS * len(first)
    for entry in live:
        index = min(index, parting(first, entry.hashes))
        for row in entry.rows:
            if row >= start:
                index = min(index, row)
                break
    return index


async def part(load: Load, live: Sequence[Entry], index: int, number: int) -> list[Entry]:
    """Return the live entries that have the digit `number` at `index`."""
    found: list[Entry] = []
    for entry in live:
        if digit(entry.hashes, index) == number:
            found.append(entry)
        for pointer in entry.pointers(index, number):
            found.append(await follow(load, entry, pointer, index, number))
    return settle(found)


def _alive(nodes: list[Entry]) -> list[Entry]:
    """Return the nodes of a key, none when it is deleted."""
    return [] if all(node.deleted for node in nodes) else nodes


def _pointers(nodes: list[Entry]) -> set[int]:
    return {node.pointer for node in nodes}
