"""The nodes of a feed in the order in which they were appended, reset markers excluded."""

from collections.abc import Awaitable, Callable

from ddrive.trie.lookup import Load
from ddrive.trie.node import TrieNode

_NODES_PER_TURN = 256


class History:
    """Asynchronous iterator over the nodes of blocks `first` to `end - 1`; it ends at a reset marker.

    Deletions show as the entry that was stored once more. With `grown`, which waits until the feed has more than the
    given number of blocks, it goes on behind `end` for ever.
    """

    def __init__(
        self,
        load: Load,
        first: int,
        end: int,
        *,
        reverse: bool = False,
        grown: Callable[[int], Awaitable[object]] | None = None,
    ) -> None:
        self._load = load
        self._reverse = reverse
        self._next = max(1, first)
        self._end = end
        self._grown = grown

    def __aiter__(self) -> "History":
        return self

    async def __anext__(self) -> TrieNode:
        if self._next >= self._end:
            if self._grown is None or self._reverse:
                raise StopAsyncIteration
            await self._grown(self._next)
            self._end = self._next + 1
        seq = self._end - 1 if self._reverse else self._next
        if not seq % _NODES_PER_TURN:
            await self._load.give_way()
        node = self._load.peek(seq) or await self._load.node(seq)
        if self._reverse:
            self._end -= 1
        else:
            self._next += 1
        if not node.key:
            self._next, self._end, self._grown = 0, 0, None
            raise StopAsyncIteration
        return node
