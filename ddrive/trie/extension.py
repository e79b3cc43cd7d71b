"""Help between peers: a reader that holds little names a key, and the other side names the blocks it will need.

A lookup then costs two round trips in place of one per hop. The answer is a hint and nothing more: the blocks are
fetched and verified like all others. Only what is held here is looked at to answer, at most `MAX_BLOCKS` per request,
so an answer is computed at once. The bytes travel in the feed extension called like the dialect's trie type.

Source: replication extension of `hypertrie@5` (`trie.md`, section 7, and the recorded messages).
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError

from ddrive.errors import DriveError, NotHeld, RemoteProtocolError
from ddrive.trie import schema_pb2
from ddrive.trie.iterate import Walk
from ddrive.trie.lookup import lookup
from ddrive.trie.node import TrieNode, is_text
from ddrive.trie.nodes import Nodes, Prefetch
from ddrive.trie.path import KeyPath, key_path

MESSAGE_BLOCKS: Final = 128  # block numbers in one full message
MAX_BLOCKS: Final = 2176  # per request: 17 messages
MAX_LOOKED_AT: Final = 4 * MAX_BLOCKS  # per request, repetitions included: a stack can name one block many times
MAX_PAYLOAD_BYTES: Final = 64 * 1024  # a request with a full stack, or an answer, is far smaller

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Which blocks does a get of `key` need, from the head block `head`?"""

    head: int
    key: str


@dataclass(frozen=True, slots=True)
class IteratorRequest:
    """Which blocks does an iteration below `key` need? `stack` is where it is, None while it looks for the
    prefix. Bits of `flags`: 1 recursive, 2 reverse, 4 without the prefix itself, 8 hidden."""

    head: int
    key: str
    flags: int = 1
    stack: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class CacheHint:
    """These blocks will be needed, in this order."""

    blocks: tuple[int, ...]


Message = GetRequest | IteratorRequest | CacheHint


def encode_get(head: int, key: str) -> bytes:
    """Return the payload of a get request."""
    return schema_pb2.Extension(get=schema_pb2.Extension.Get(head=head, key=key)).SerializeToString()


def encode_iterator(head: int, key: str, flags: int, checkpoint: bytes | None) -> bytes:
    """Return the payload of an iteration request; `checkpoint` as `Walk.checkpoint` gives it."""
    request = schema_pb2.Extension.Iterator(head=head, key=key, flags=flags)
    if checkpoint is not None:
        request.checkpoint = checkpoint
    return schema_pb2.Extension(iterator=request).SerializeToString()


def encode_hint(blocks: Sequence[int]) -> bytes:
    """Return the payload that names `blocks`, at least one."""
    hint = schema_pb2.Extension.Cache(start=min(blocks), end=max(blocks) + 1, blocks=blocks)
    return schema_pb2.Extension(cache=hint).SerializeToString()


def decode(payload: bytes) -> Message | None:
    """Return what a peer sent, None when it holds nothing we know. Raises: RemoteProtocolError."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RemoteProtocolError(f"a trie message of {len(payload)} bytes")
    try:
        message = schema_pb2.Extension.FromString(payload)
    except DecodeError as error:
        raise RemoteProtocolError(f"not a trie message: {error}") from error
    if not is_text(message.get.key) or not is_text(message.iterator.key):
        raise RemoteProtocolError("the key in a trie message is no text")
    if message.HasField("get"):
        return GetRequest(message.get.head, message.get.key)
    if message.HasField("iterator"):
        request = message.iterator
        stack = _pairs(request.checkpoint) if request.HasField("checkpoint") else None
        return IteratorRequest(request.head, request.key, request.flags, stack)
    if message.HasField("cache"):
        return CacheHint(tuple(islice(message.cache.blocks, MAX_BLOCKS)))
    return None


def _pairs(checkpoint: bytes) -> tuple[tuple[int, int], ...]:
    numbers: list[int] = []
    value = shift = 0
    for byte in checkpoint:
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 63:
            raise RemoteProtocolError("a number in a trie message is too long")
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    if shift or len(numbers) % 2 or len(numbers) > 2 * MAX_BLOCKS:
        raise RemoteProtocolError("the stack in a trie message is cut short or too long")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


class Assistant:
    """Both sides of the extension for one feed: answers peers, and asks them when a read has to wait.

    `broadcast` sends a payload to all peers of the feed. Reads ask from now on, until `close`.
    """

    def __init__(self, nodes: Nodes, broadcast: Callable[[bytes], None]) -> None:
        self._nodes = nodes
        self._broadcast = broadcast
        self._hinted: Prefetch | None = None
        nodes.assistant = self

    def close(self) -> None:
        """Ask no more, and withdraw the wishes that came from answers."""
        self._nodes.assistant = None
        self._hinted = None

    def received(self, payload: bytes, send: Callable[[bytes], None]) -> None:
        """Take a payload from a peer; `send` sends one back to it. Raises: RemoteProtocolError."""
        message = decode(payload)
        if isinstance(message, CacheHint):
            self._take(message)
        elif message is not None:
            for blocks in answer(self._nodes, message):
                send(encode_hint(blocks))

    def ask_get(self, head: int, key: str) -> None:
        """Ask the peers what a get needs."""
        self._expect()
        self._broadcast(encode_get(head, key))

    def ask_iterator(self, head: int, key: str, flags: int, checkpoint: bytes | None) -> None:
        """Ask the peers what an iteration needs from here on."""
        self._expect()
        self._broadcast(encode_iterator(head, key, flags, checkpoint))

    def _expect(self) -> None:
        self._hinted = Prefetch(self._nodes, limit=MAX_BLOCKS)  # wishes of earlier answers end

    def _take(self, hint: CacheHint) -> None:
        if self._hinted is None:
            return  # nobody asked
        length = self._nodes.feed.length
        self._hinted.want([seq for seq in hint.blocks if 0 < seq < length and self._nodes.peek(seq) is None])


def answer(nodes: Nodes, request: GetRequest | IteratorRequest) -> list[list[int]]:
    """Return the blocks that the request needs as far as they are held here, in messages of `MESSAGE_BLOCKS`.

    What its stack names is left out: the peer knows that it needs those.
    """
    local = _Local(nodes)
    path = key_path(request.key)
    waited_for: set[int] = set()
    try:
        if isinstance(request, GetRequest):
            if path.key:
                _at_once(_get(local, request.head, path))
        elif path.key:
            _at_once(_iterate(local, request.head, path, None, leave_out_opening=request.stack is not None))
        else:
            head = nodes.feed.length - 1
            stack = request.stack
            if stack is not None and not all(0 < seq <= head for _, seq in stack):
                return []
            waited_for = {seq for _, seq in stack or ()}
            _at_once(_iterate(local, head, path, stack, leave_out_opening=False))
    except (_Enough, DriveError):
        pass  # what was visited until then is the answer
    blocks = [seq for seq in local.visited if seq not in waited_for]
    return [blocks[start : start + MESSAGE_BLOCKS] for start in range(0, len(blocks), MESSAGE_BLOCKS)]


async def _get(local: "_Local", head: int, path: KeyPath) -> None:
    await lookup(local, await local.head(head), path)


async def _iterate(
    local: "_Local",
    head: int,
    prefix: KeyPath,
    stack: Sequence[tuple[int, int]] | None,
    *,
    leave_out_opening: bool,
) -> None:
    async def known_head() -> TrieNode | None:
        return await local.head(head)

    walk = Walk(local, known_head, prefix, stack=stack)
    await walk.open()
    if leave_out_opening:
        local.visited.clear()
    await walk.rest()


class _Enough(Exception):
    """All that a request may cost was spent."""


class _Local:
    """A `Load` of what is held, which notes all that is visited, in order."""

    def __init__(self, nodes: Nodes) -> None:
        self.visited: dict[int, None] = {}
        self._nodes = nodes
        self._looked_at = 0

    async def head(self, seq: int) -> TrieNode | None:
        if not 0 < seq < self._nodes.feed.length:
            return None
        return self.peek(seq) or await self.node(seq)

    def peek(self, seq: int) -> TrieNode | None:
        self._looked_at += 1
        if self._looked_at > MAX_LOOKED_AT or (len(self.visited) >= MAX_BLOCKS and seq not in self.visited):
            raise _Enough
        self.visited[seq] = None
        return self._nodes.peek(seq)

    async def node(self, seq: int) -> TrieNode:
        node = self._nodes.peek(seq)
        if node is None:
            raise NotHeld(f"block {seq} of {self._nodes.origin} is not held")
        return node

    def want(self, seqs: Sequence[int], first: int = 0, end: int = 0) -> None:
        """Wish for nothing."""

    async def give_way(self) -> None:
        """Go on: the work is bounded."""


def _at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """Run what never waits, because its `Load` does not, to its end. Raises: what it raises."""
    try:
        work.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    work.close()
    raise AssertionError("a walk over held blocks waited")
