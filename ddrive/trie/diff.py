"""What changed between two versions of one database.

Both tries are walked side by side; where both point at the same block, everything below is equal and is skipped. At the
last digit of a component the two sides are paired by the component itself, so that keys of equal hashes never meet (the
npm peers mix them up there). The order is that of the peers: descending digits.

Where a node has a garbled key its own digits cannot be told: there all entries below are compared by their keys.
"""

from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NamedTuple

from ddrive.trie.iterate import Walk, check_child
from ddrive.trie.lookup import Head, Load, digit_seqs, lookup, misplaced
from ddrive.trie.node import InvalidNode, TrieNode
from ddrive.trie.path import KeyPath, divergence, is_check_point

_ENDLESS = 1 << 62
_STEPS_PER_TURN = 64  # about a millisecond
_PAIRS_AHEAD = 256  # looked at before a wait, a few milliseconds


class Change(NamedTuple):
    """One difference. `left` None: only in the right version; `right` None: only in the left one.

    When both are there, the entry was stored again in between; its value may be equal.
    """

    key: str
    left: TrieNode | None
    right: TrieNode | None


class _Pair(NamedTuple):
    start: int  # both sides agree on the digits before
    left: TrieNode | None
    right: TrieNode | None


class _Murky(NamedTuple):
    """Blocks that lead to all below one place, on both sides; those of garbled nodes are among them."""

    start: int
    left: list[int]
    right: list[int]


class Diff:
    """Asynchronous iterator over the changes at and below `prefix` from the trie of `right` to that of `left`.

    `skip_removed` leaves out what only the right one has, `skip_added` what only the left one has.
    """

    def __init__(
        self,
        load: Load,
        left: Head,
        right: Head,
        prefix: KeyPath,
        *,
        skip_removed: bool = False,
        skip_added: bool = False,
    ) -> None:
        self._load = load
        self._heads = left, right
        self._prefix = prefix
        self._skip_removed = skip_removed
        self._skip_added = skip_added
        self._stack: list[_Pair | _Murky] = []
        self._late: list[Change] = []  # what was found at once, in reverse
        self._doubtful: tuple[set[int], set[int]] = set(), set()  # what garbled nodes of each side point to
        self._opened = False
        self._steps = 0

    def __aiter__(self) -> "Diff":
        return self

    async def __anext__(self) -> Change:
        if not self._opened:
            left, right = [await lookup(self._load, await head(), self._prefix, prefix=True) for head in self._heads]
            self._stack.append(_Pair(self._prefix.length - 1, left, right))
            self._opened = True
        while not self._late:
            if not self._stack:
                raise StopAsyncIteration
            self._steps += 1
            if not self._steps % _STEPS_PER_TURN:
                await self._load.give_way()
            pair = self._stack.pop()
            if isinstance(pair, _Murky):
                self._late += reversed(await self._compared(pair))
                continue
            if self._equal_or_skipped(pair):
                continue
            if _is_garbled(pair):
                sides = [[] if node is None else [node.seq] for node in pair[1:]]
                self._stack.append(_Murky(pair.start, *sides))
                continue
            row = _next_row(pair)
            if row == _ENDLESS:
                self._late += reversed(self._changes(pair))
                continue
            pairs, missing = self._below(pair, row)
            if missing:
                self._stack.append(pair)
                self._look_ahead()
                for seq in missing:
                    await self._load.node(seq)
            self._stack += pairs
        return self._late.pop()

    def _look_ahead(self) -> None:
        """Ask for all that is missing next, now that the walk has to wait: the first missing nodes on every branch."""
        todo = [pair for pair in self._stack if isinstance(pair, _Pair)]
        with suppress(InvalidNode):  # it is reported when the walk comes to it
            for _ in range(_PAIRS_AHEAD):
                if not todo:
                    return
                pair = todo.pop()
                if self._equal_or_skipped(pair) or _is_garbled(pair):
                    continue
                if (row := _next_row(pair)) != _ENDLESS:
                    pairs, missing = self._below(pair, row)
                    self._load.want(missing)
                    todo += [pair for pair in pairs if isinstance(pair, _Pair)]

    def _equal_or_skipped(self, pair: _Pair) -> bool:
        _, left, right = pair
        if left is None:
            return right is None or self._skip_removed
        if right is None:
            return self._skip_added
        return left.seq == right.seq

    def _changes(self, pair: _Pair) -> list[Change]:
        _, left, right = pair
        if left is not None and right is not None and left.key != right.key:
            halves = [_Pair(0, left, None), _Pair(0, None, right)]
            return [change for half in halves if not self._equal_or_skipped(half) for change in self._changes(half)]
        node = left or right
        return [Change(node.key, left, right)] if node is not None else []

    async def _compared(self, murky: _Murky) -> list[Change]:
        """Return the changes at one place, which is walked through on both sides: each side once, whatever it says."""
        theirs = {node.key: node.seq async for node in self._walk(murky.start, murky.right, 1)}
        changes: list[Change] = []
        async for node in self._walk(murky.start, murky.left, 0):
            seq = theirs.pop(node.key, None)
            if seq is None and not self._skip_added:
                changes.append(Change(node.key, node, None))
            elif seq is not None and seq != node.seq:
                changes.append(Change(node.key, node, await self._load.node(seq)))
        if not self._skip_removed:
            changes += [Change(key, None, await self._load.node(seq)) for key, seq in theirs.items()]
        return changes

    async def _walk(self, start: int, seqs: list[int], side: int) -> AsyncIterator[TrieNode]:
        """Give the entries below what the blocks `seqs` lead to; those whose place is unknown are none."""
        stack = [(start, seq) for seq in seqs]
        walk = Walk(self._load, self._heads[side], self._prefix, stack=stack, doubtful=self._doubtful[side])
        async for node in walk:
            if not node.garbled:
                yield node

    def _below(self, pair: _Pair, row: int) -> tuple[list[_Pair | _Murky], list[int]]:
        """Return what is below the digit at `row`, or if that needs blocks that are not held, those.

        Raises: InvalidNode.
        """
        _, left, right = pair
        ours, theirs = _branches(left, row), _branches(right, row)
        missing: list[int] = []
        pairs: list[_Pair | _Murky] = []
        for digit in range(5):
            common = {*ours[digit]} & {*theirs[digit]}
            lefts = self._children(left, row, digit, ours[digit], common, missing)
            rights = self._children(right, row, digit, theirs[digit], common, missing)
            if any(node.garbled for node in (*lefts, *rights)):
                sides = [[node.seq for node in nodes] for nodes in (lefts, rights)]
                pairs.append(_Murky(row + 1, *sides))
                continue
            our_names, their_names = _named(lefts, row), _named(rights, row)
            names = {**our_names, **their_names}
            pairs += [_Pair(row + 1, our_names.get(name), their_names.get(name)) for name in names]
        return ([], missing) if missing else (pairs, missing)

    def _children(
        self, parent: TrieNode | None, row: int, digit: int, seqs: list[int], common: set[int], missing: list[int]
    ) -> list[TrieNode]:
        """Return the nodes `seqs` but `common`; those that are not held go to `missing`. Raises: InvalidNode."""
        children: list[TrieNode] = []
        for seq in seqs:
            if seq in common:
                continue
            node = self._load.peek(seq)
            if node is None:
                missing.append(seq)
                continue
            if parent is not None and seq != parent.seq:
                check_child(node, parent, row, digit)
            children.append(node)
        return children


def _is_garbled(pair: _Pair) -> bool:
    return any(node is not None and node.garbled for node in pair[1:])


def _named(nodes: list[TrieNode], row: int) -> dict[str, TrieNode]:
    """Return the nodes by their component where hashes can be equal, by "" elsewhere. Raises: InvalidNode."""
    named: dict[str, TrieNode] = {}
    for node in nodes:
        name = node.parts[(row - 1) >> 5] if is_check_point(row) else ""
        if name in named:
            raise misplaced(node)
        named[name] = node
    return named


def _next_row(pair: _Pair) -> int:
    """Return the next digit at which there is a choice or the sides part, `_ENDLESS` when there is none."""
    index, left, right = pair
    row = _ENDLESS
    for node in (left, right):
        if node is not None:
            rows, _ = node.rows()
            position = bisect_left(rows, index)
            if position < len(rows):
                row = min(row, rows[position])
    if left is not None and right is not None:
        stop = divergence(left, right)
        if stop < left.length:
            row = min(row, stop)
    return row


def _branches(node: TrieNode | None, row: int) -> list[list[int]]:
    """Return per digit the blocks that lead on: the node itself under its own digit, then those it points at."""
    if node is None:
        return [[]] * 5
    own = node.digit(row)
    return [([node.seq] if digit == own else []) + digit_seqs(node, row, digit) for digit in range(5)]
