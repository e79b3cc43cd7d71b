"""Help between peers: a reader that holds little names a key, and the other side names the blocks it will need.

A lookup then costs two round trips in place of one per hop. Who reads and who asks may be different processes: a read
asks through its feed (`PeerAsker`), and the owner of the feed's files takes the answer (`Assistant`). The answer is a
hint and nothing more: the blocks are fetched and verified like all others. Only what is held here is looked at to
answer, at most `MAX_BLOCKS` per request, so an answer is computed at once. The bytes travel in the feed extension
called like the trie type of the dialect.

Source: replication extension of `hypertrie@5` (`trie.md`, section 7, and the recorded messages).
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

import trio
from google.protobuf.message import DecodeError

from ddrive.errors import DriveError, NotHeld, RemoteProtocolError
from ddrive.feed import Feed
from ddrive.ids import BlockIndex
from ddrive.trie import schema_pb2
from ddrive.trie.iterate import Walk
from ddrive.trie.lookup import lookup
from ddrive.trie.node import TrieNode, is_text
from ddrive.trie.nodes import Nodes
from ddrive.trie.path import KeyPath, key_path

MESSAGE_BLOCKS: Final = 128  # block numbers in one full message
MAX_BLOCKS: Final = 2176  # per request: 17 messages
MAX_LOOKED_AT: Final = 4 * MAX_BLOCKS  # per request, repetitions included: a stack can name one block many times
MAX_TABLES: Final = 1 << 18  # per request, numbers in the tables of its blocks: proper ones have some 50 each
MAX_BARREN: Final = 2  # per request, turns of a walk in a row that come to no other block
MAX_PAYLOAD_BYTES: Final = 64 * 1024  # a request with a full stack, or an answer, is far smaller
ANSWER_S: Final = 30.0  # an answer that comes later is nobody's
ANSWER_CACHE_BYTES: Final = 8 * 1024 * 1024  # of decoded nodes per feed, for answering alone
_ENDLESS_S: Final = 1e18
_RECURSIVE: Final = 1  # bit of the flags of an iteration
_REVERSE: Final = 2
_AFTER: Final = 4

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


@runtime_checkable
class PeerSource(Protocol):
    """A `BlockSource` that can also pass a payload on to all peers of its feed."""

    def ask_peers(self, name: str, payload: bytes) -> None:
        """Send `payload` to the peers as a message of the extension `name`."""


class PeerAsker:
    """Asks the peers of `feed` for help, for a read that has to wait; the owner of the feed's files takes the answer.

    Its wishes stand at the owner, so that the blocks arrive by themselves.
    """

    def __init__(self, feed: Feed, name: str) -> None:
        self._feed = feed
        self._name = name

    def ask_get(self, head: int, key: str) -> None:
        """Ask which blocks a get needs."""
        self._ask(encode_get(head, key))

    def ask_iterator(self, head: int, key: str, flags: int, checkpoint: bytes | None) -> None:
        """Ask which blocks an iteration needs from here on."""
        self._ask(encode_iterator(head, key, flags, checkpoint))

    def _ask(self, payload: bytes) -> None:
        source = self._feed.source
        if isinstance(source, PeerSource) and len(payload) <= MAX_PAYLOAD_BYTES:
            source.ask_peers(self._name, payload)


class Assistant:
    """The owner's side of the extension for one feed: answers the peers, and fetches what they name when asked.

    There are wishes for `MAX_BLOCKS` blocks at most, the newest ones; they are not urgent: reads that wait go first.
    """

    def __init__(self, feed: Feed) -> None:
        self._nodes = Nodes(feed, limit_bytes=ANSWER_CACHE_BYTES)
        self._wishes: dict[int, Callable[[], None]] = {}  # withdrawals; nothing waits, so these may just be forgotten
        self._asked_at = -_ENDLESS_S
        self._unsubscribe = feed.subscribe(self)

    def close(self) -> None:
        """Answer no more, and withdraw the wishes that came from answers."""
        self._unsubscribe()
        self._asked_at = -_ENDLESS_S
        for seq in list(self._wishes):
            self._withdraw(seq)

    def asked(self) -> None:
        """Take note that the peers were asked: what they name is fetched."""
        self._asked_at = trio.current_time()

    def received(self, payload: bytes, send: Callable[[bytes], None]) -> None:
        """Take a payload from a peer; `send` sends one back to it. Raises: RemoteProtocolError."""
        message = decode(payload)
        if isinstance(message, CacheHint):
            self._take(message)
        elif message is not None:
            for blocks in answer(self._nodes, message):
                send(encode_hint(blocks))

    def _take(self, hint: CacheHint) -> None:
        if trio.current_time() - self._asked_at > ANSWER_S:
            return  # nobody asked
        feed, source = self._nodes.feed, self._nodes.feed.source
        for seq in hint.blocks:
            if source is not None and 0 < seq < feed.length and not feed.has(seq) and seq not in self._wishes:
                self._wishes[seq] = source.want_blocks(BlockIndex(seq), BlockIndex(seq + 1), urgent=False)
        for seq in list(islice(self._wishes, max(0, len(self._wishes) - MAX_BLOCKS))):
            self._withdraw(seq)

    def _withdraw(self, seq: int) -> None:
        withdraw = self._wishes.pop(seq, None)
        if withdraw is not None:
            withdraw()

    # What the feed tells (FeedListener)

    def stored(self, start: BlockIndex, end: BlockIndex) -> None:
        """End the wishes that came true."""
        if self._wishes:
            for seq in range(start, end) if end - start < len(self._wishes) else list(self._wishes):
                if start <= seq < end:
                    self._withdraw(seq)

    def grew(self, length: int) -> None:
        """Nothing to do."""

    def cleared(self, start: BlockIndex, end: BlockIndex) -> None:
        """Nothing to do: nodes are kept decoded, as the blocks have not changed."""

    def nodes_stored(self) -> None:
        """Nothing to do."""


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
        elif path.key or not request.stack:
            _at_once(_iterate(local, request, path))
        elif all(0 < seq < nodes.feed.length for _, seq in request.stack):
            waited_for = {seq for _, seq in request.stack}
            _at_once(_walk(local, request, path, request.stack).rest())
    except (_Enough, DriveError):
        pass  # what was visited until then is the answer
    blocks = [seq for seq in local.visited if seq not in waited_for]
    return [blocks[start : start + MESSAGE_BLOCKS] for start in range(0, len(blocks), MESSAGE_BLOCKS)]


async def _get(local: "_Local", head: int, path: KeyPath) -> None:
    await lookup(local, await local.head(head), path)


async def _iterate(local: "_Local", request: IteratorRequest, prefix: KeyPath) -> None:
    """Visit what an iteration below `prefix` visits."""
    walk = _walk(local, request, prefix, None)
    await walk.open()
    if request.stack is not None:
        local.visited.clear()
    await walk.rest()


def _walk(local: "_Local", request: IteratorRequest, prefix: KeyPath, stack: Sequence[tuple[int, int]] | None) -> Walk:
    """Return the walk of an iteration. The npm peers always take everything below; we do when that was asked for."""
    flags = request.flags
    return Walk(
        local,
        partial(local.head, request.head),
        prefix,
        recursive=bool(flags & _RECURSIVE),
        reverse=bool(flags & _REVERSE),
        after=bool(flags & _AFTER),
        stack=stack,
    )


class _Enough(Exception):
    """All that a request may cost was spent."""


class _Local:
    """A `Load` of what is held, which notes all that is visited, in order."""

    def __init__(self, nodes: Nodes) -> None:
        self.visited: dict[int, None] = {}
        self._nodes = nodes
        self._looked_at = 0
        self._tables = 0
        self._visited_before = 0  # at the last turn
        self._barren = 0

    async def head(self, seq: int) -> TrieNode | None:
        if not 0 < seq < self._nodes.feed.length:
            return None
        return self.peek(seq) or await self.node(seq)

    def peek(self, seq: int) -> TrieNode | None:
        self._looked_at += 1
        if seq in self.visited:
            if self._looked_at > MAX_LOOKED_AT:
                raise _Enough
            return self._nodes.peek(seq)
        if self._looked_at > MAX_LOOKED_AT or len(self.visited) >= MAX_BLOCKS or self._tables > MAX_TABLES:
            raise _Enough
        self.visited[seq] = None
        node = self._nodes.peek(seq)
        self._tables += 0 if node is None else len(node.numbers)
        return node

    async def node(self, seq: int) -> TrieNode:
        node = self._nodes.peek(seq)
        if node is None:
            raise NotHeld(f"block {seq} of {self._nodes.origin} is not held")
        return node

    def want(self, seqs: Sequence[int], first: int = 0, end: int = 0) -> None:
        """Wish for nothing."""

    async def give_way(self) -> None:
        """Go on, unless the walk only goes along the rows of a long table: others would wait for that."""
        self._barren = self._barren + 1 if len(self.visited) == self._visited_before else 0
        self._visited_before = len(self.visited)
        if self._barren > MAX_BARREN:
            raise _Enough


def _at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """Run what never waits, because its `Load` does not, to its end. Raises: what it raises."""
    try:
        work.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    work.close()
    raise AssertionError("a walk over held blocks waited")
