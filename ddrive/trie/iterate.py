"""The entries below a prefix in the order of their digits, the same for every peer (it is not alphabetical).

The walk keeps a stack of (digit index, node): below that digit everything is still to come. Each node is visited once,
because the pointers of a row lead to disjoint parts of the trie; a node that is not in the part its pointer names ends
the walk with an error. So the time is bounded by the number of entries, whatever the blocks say.
"""

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from itertools import combinations
from typing import Final

from ddrive.trie.lookup import Head, Load, distrust, lookup, misplaced
from ddrive.trie.node import InvalidNode, TrieNode, encode_varints
from ddrive.trie.path import COMPONENT_DIGITS, KeyPath, divergence, parting

_FORWARD: Final = (3, 2, 1, 0, 4)  # order of stacking the digits of a row; the last one is visited first
_REVERSE: Final = (4, 0, 1, 2, 3)
_FORWARD_RANKS: Final = tuple(_FORWARD.index(slot % 5) for slot in range(32))
_REVERSE_RANKS: Final = tuple(_REVERSE.index(slot % 5) for slot in range(32))
_ENDLESS: Final = 1 << 62
_NO_DIGIT: Final = -1
MAX_DOUBTFUL: Final = 1024  # nodes that one walk takes on the word of nodes with garbled keys
STEPS_PER_REQUEST: Final = 2048  # between two requests to the peers; the npm peers do the same
_NODES_AHEAD: Final = 1024  # looked at before a wait, about a millisecond
_CHUNK: Final = 256  # entries found in one go before they are handed out
_STEPS_PER_TURN: Final = 2048  # at most, whatever is found: some milliseconds

# (index, seq, node, parent, digit): the digits before index are settled; node is None when it was not held at the time
# of stacking; parent points to it and says its digit at index - 1, and is None when that was checked already
_Step = tuple[int, int, TrieNode | None, TrieNode | None, int]


class Walk:
    """Asynchronous iterator over nodes. Dropping it before its end needs no clean-up.

    Not recursive: one node for each direct child, the newest at or below it. `after` leaves the entry of the prefix
    itself out. `stack` starts at pairs (index, seq) that `checkpoint` gave, instead of at the prefix. Walks may share
    `doubtful`, so that together they take as little on the word of garbled nodes as one.
    """

    def __init__(
        self,
        load: Load,
        head: Head,
        prefix: KeyPath,
        *,
        recursive: bool = True,
        after: bool = False,
        reverse: bool = False,
        stack: Sequence[tuple[int, int]] | None = None,
        doubtful: set[int] | None = None,
    ) -> None:
        self._load = load
        self._head = head
        self._prefix = prefix
        self._after = after
        self._ranks = _REVERSE_RANKS if reverse else _FORWARD_RANKS
        self._start = prefix.length - 1
        self._end = _ENDLESS if recursive else self._start + COMPONENT_DIGITS
        self._stack: list[_Step] = [(index, seq, None, None, 0) for index, seq in stack or ()]
        self._opened = stack is not None
        self._newest: int | None = None  # block of the newest entry at or below the prefix
        self._steps = 0
        self._next_request = 0
        self._ready: list[TrieNode] = []  # found, not handed out yet, in reverse
        # what garbled nodes point to, which cannot be checked: taken once
        self._doubtful: set[int] = set() if doubtful is None else doubtful

    def __aiter__(self) -> "Walk":
        return self

    async def __anext__(self) -> TrieNode:
        if not self._ready and not await self._fill():
            raise StopAsyncIteration
        return self._ready.pop()

    async def rest(self) -> list[TrieNode]:
        """Return all that is still to come."""
        return await self.some(_ENDLESS)

    async def some(self, count: int) -> list[TrieNode]:
        """Return the next entries: at least `count`, or all that are still to come; none at the end."""
        found: list[TrieNode] = []
        while len(found) < count and (self._ready or await self._fill()):
            found += reversed(self._ready)
            self._ready.clear()
        return found

    def request_due(self) -> bool:
        """Tell whether it is time to ask the peers what comes next: at first, then after `STEPS_PER_REQUEST` steps."""
        if self._steps < self._next_request:
            return False
        self._next_request = self._steps + STEPS_PER_REQUEST
        return True

    def checkpoint(self) -> bytes | None:
        """Return where the walk is, as the replication extension writes it: varint pairs of index and block.

        None while the place of the prefix is not found.
        """
        if not self._opened:
            return None
        return encode_varints(number for step in self._stack for number in step[:2])

    async def open(self) -> int | None:
        """Find the place of the prefix, as the first use does otherwise; return the block of the newest entry there.

        All that the walk finds follows from that block. None: there is nothing.
        """
        if not self._opened:
            node = await lookup(self._load, await self._head(), self._prefix, prefix=True)
            self._opened = True
            if node is not None:
                self._newest = node.seq
                self._stack.append((self._start, node.seq, node, None, 0))
        return self._newest

    async def _fill(self) -> bool:
        """Find the next entries; tell whether there are any. Waits for a block only while it has none to hand out."""
        if self._opened:
            await self._load.give_way()
        await self.open()
        found: list[TrieNode] = []
        stack, peek = self._stack, self._load.peek
        turn = self._steps + _STEPS_PER_TURN
        while stack and len(found) < _CHUNK:
            if self._steps >= turn:
                if found:  # given out first: a cancellation would lose it
                    break
                turn += _STEPS_PER_TURN
                await self._load.give_way()
            index, seq, known, parent, digit = stack[-1]
            node = known or peek(seq)
            if node is None:
                self._look_ahead()
                if found:
                    break
                node = await self._load.node(seq)
            stack.pop()
            self._steps += 1
            if parent is not None:
                check_child(node, parent, index - 1, digit)
            if not node.key:
                continue
            start = node.first_row(index)
            if start and (row := node.numbers[start - 1]) < self._end:
                mark = len(stack)
                if self._expand(node, row, start):
                    await self._settle(mark)
            elif not (self._after and len(node.parts) == len(self._prefix.parts)):
                found.append(node)
        found.reverse()
        self._ready = found
        return bool(found)

    def _expand(self, node: TrieNode, row: int, start: int) -> bool:
        """Stack what row `row` of `node`, whose bits are at `start`, points at, and the node itself.

        Tells whether several of them have the same digit, so that their order depends on their keys.
        """
        own = node.digit(row)
        ranks = self._ranks
        order = [(ranks[own], -1, node.seq)]
        for slot, seq in node.pointers_at(start):
            order.append((ranks[slot], slot, seq))
        order.sort()
        row += 1
        if node.garbled:
            self._expand_garbled(node, row, [(slot, seq) for _, slot, seq in order])
            return False
        tied, before = False, -1
        peek = self._load.peek
        for rank, slot, seq in order:
            tied = tied or rank == before
            before = rank
            if slot < 0:
                self._stack.append((row, seq, node, None, own))
            else:
                self._stack.append((row, seq, peek(seq), node, slot % 5))
        return tied

    def _expand_garbled(self, node: TrieNode, row: int, order: list[tuple[int, int]]) -> None:
        """Stack what a node points at whose own place nobody knows; each of these once, so that the walk ends."""
        for slot, seq in order:
            if slot < 0:
                self._stack.append((row, seq, node, None, _NO_DIGIT))
            elif seq not in self._doubtful:
                self._doubtful.add(seq)
                self._stack.append((row, seq, self._load.peek(seq), None, slot % 5))
        if len(self._doubtful) > MAX_DOUBTFUL:
            raise node.fault("too much lies behind keys that are no text")

    def _look_ahead(self) -> None:
        """Ask for all that is missing next, now that the walk has to wait: the first missing nodes on every branch."""
        todo = [(index, seq, node) for index, seq, node, _, _ in self._stack]
        with suppress(InvalidNode):  # it is reported when the walk comes to it
            for _ in range(_NODES_AHEAD):
                if not todo:
                    return
                index, seq, known = todo.pop()
                node = known or self._load.peek(seq)
                if node is None:
                    self._load.want([seq], index, self._end)
                    continue
                rows, starts = node.rows()
                first = bisect_left(rows, index)
                for position in reversed(range(first, min(first + _NODES_AHEAD, len(rows)))):
                    if rows[position] < self._end:
                        todo += [(rows[position] + 1, seq, None) for _, seq in node.pointers_at(starts[position])]

    async def _settle(self, mark: int) -> None:
        """Put the steps stacked since `mark` that share a digit in the order of their keys, smallest on top."""
        digits: dict[int, list[_Step]] = {}
        for step in self._stack[mark:]:
            digits.setdefault(step[4], []).append(step)
        del self._stack[mark:]
        for steps in digits.values():
            if len(steps) > 1:
                steps = await self._in_order(steps)
            self._stack += steps

    async def _in_order(self, steps: list[_Step]) -> list[_Step]:
        loaded: list[tuple[int, int, TrieNode, None, int]] = []
        for index, seq, known, parent, digit in steps:
            node = known or self._load.peek(seq) or await self._load.node(seq)
            if parent is not None:
                check_child(node, parent, index - 1, digit)
            loaded.append((index, seq, node, None, digit))
        for left, right in combinations(loaded, 2):
            if not (left[2].garbled or right[2].garbled) and divergence(left[2], right[2]) != left[0] - 1:
                raise misplaced(min(left[2], right[2], key=lambda node: node.seq))
        loaded.sort(key=lambda step: step[2].key.encode("utf-16-be", "surrogatepass"), reverse=True)
        return [*loaded]


def check_child(node: TrieNode, parent: TrieNode, row: int, digit: int) -> None:
    """Check that `node` lies where row `row` of `parent` says, if it has a place at all. Raises: InvalidNode."""
    if not node.garbled and (not node.key or parting(parent, node) != row << 3 | digit):
        distrust(node)
