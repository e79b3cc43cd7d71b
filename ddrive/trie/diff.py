"""What changed between two versions of one database.

Both tries are walked side by side; where both point at the same block, everything below is equal and is skipped. At the
last digit of a component the two sides are paired by the component itself, so that keys of equal hashes never meet (the
npm peers mix them up there). The order is that of the peers: descending digits.
"""

from bisect import bisect_left
from contextlib import suppress
from typing import NamedTuple

from ddrive.trie.iterate import check_child
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
        self._stack: list[_Pair] = []
        self._late: list[Change] = []  # the second half of a pair with two spellings of one path
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
            if self._equal_or_skipped(pair):
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
        todo = list(self._stack)
        with suppress(InvalidNode):  # it is reported when the walk comes to it
            for _ in range(_PAIRS_AHEAD):
                if not todo:
                    return
                pair = todo.pop()
                if not self._equal_or_skipped(pair) and (row := _next_row(pair)) != _ENDLESS:
                    pairs, missing = self._below(pair, row)
                    self._load.want(missing)
                    todo += pairs

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

    def _below(self, pair: _Pair, row: int) -> tuple[list[_Pair], list[int]]:
        """Return the pairs below the digit at `row`, or if that needs blocks that are not held, those.

        Raises: InvalidNode.
        """
        _, left, right = pair
        ours, theirs = _branches(left, row), _branches(right, row)
        missing: list[int] = []
        pairs: list[_Pair] = []
        for digit in range(5):
            common = {*ours[digit]} & {*theirs[digit]}
            lefts = self._children(left, row, digit, ours[digit], common, missing)
            rights = self._children(right, row, digit, theirs[digit], common, missing)
            pairs += [_Pair(row + 1, lefts.get(name), rights.get(name)) for name in {**lefts, **rights}]
        return ([], missing) if missing else (pairs, missing)

    def _children(
        self, parent: TrieNode | None, row: int, digit: int, seqs: list[int], common: set[int], missing: list[int]
    ) -> dict[str, TrieNode]:
        """Return the nodes `seqs` but `common` by their component where hashes can be equal, by "" elsewhere.

        Those that are not held go to `missing`. Raises: InvalidNode.
        """
        children: dict[str, TrieNode] = {}
        for seq in seqs:
            if seq in common:
                continue
            node = self._load.peek(seq)
            if node is None:
                missing.append(seq)
                continue
            if parent is not None and seq != parent.seq:
                check_child(node, parent, row, digit)
            depth = (row - 1) >> 5
            if node.garbled and depth >= len(node.parts):
                raise misplaced(node)
            name = node.parts[depth] if is_check_point(row) else ""
            if name in children:
                raise misplaced(node)
            children[name] = node
        return children


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
