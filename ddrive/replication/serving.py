"""Answers to one peer's requests, in the order in which they came, as far as its connection has room."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from ddrive.errors import CorruptStorage, LocalProtocolError, RemoteProtocolError
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.merkle import RemoteTree
from ddrive.ids import BlockIndex, short
from ddrive.protocol.messages import Cancel, Data, Request, Unhave
from ddrive.replication.peer import PeerStats

MIN_RUN, MAX_RUN = 4, 64  # requests for blocks that are read together
MAX_RUN_BYTES = 512 * 1024  # of them: eight usual blocks, which are checked side by side
MAX_QUEUED = 256  # requests of one peer that wait for an answer; npm peers have at most 32 in flight

logger = logging.getLogger(__name__)


class Uploads:
    """The requests of one peer that are not answered yet, and what we know that it knows."""

    def __init__(
        self,
        send: Callable[..., None],
        stats: tuple[PeerStats, ...],
        served: Callable[[Sequence[Data]], None] = lambda answers: None,
    ) -> None:
        self._send = send
        self._served = served
        self._stats = stats
        self._queue: deque[Request] = deque()
        self._tree = RemoteTree()
        self._keeps = False  # the peer keeps every node that we send it
        self._last_seek = 0
        self._read: dict[int, bytes] = {}  # blocks that were read together and are asked for next
        self._last_size = 0  # of a block

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises: RemoteProtocolError when the peer has too many of them waiting.
        """
        if len(self._queue) >= MAX_QUEUED:
            raise RemoteProtocolError(f"more than {MAX_QUEUED} requests are waiting")
        self._queue.append(request)

    def begin_account(self) -> None:
        """Count on the peer to keep what it is sent from now on, and on nothing that it was sent before."""
        self._tree = RemoteTree()
        self._keeps = True

    def cancel(self, cancel: Cancel) -> None:
        """Forget a request that is not answered yet."""
        for request in self._queue:
            if (request.index, request.bytes, request.hash) == (cancel.index, cancel.bytes, cancel.hash):
                self._queue.remove(request)
                return

    def clear(self) -> None:
        """Forget all requests."""
        self._queue.clear()
        self._read.clear()

    def serve(self, feed: Feed, log: FeedLog, has_room: Callable[[], bool]) -> None:
        """Answer what waits while there is room for answers."""
        while self._queue and has_room():
            try:
                count = self._read_run(feed, log)
            except (CorruptStorage, OSError):  # the request about which that is true will tell
                count = 1
            self._give([answer for _ in range(count) if (answer := self._answer(feed, log, self._queue.popleft()))])
            self._read.clear()

    def _read_run(self, feed: Feed, log: FeedLog) -> int:
        """Read the blocks of the next requests with one call, if they lie side by side; returns how many.

        The next request is one to be answered in any case.
        """
        if self._last_size * MIN_RUN > MAX_RUN_BYTES:
            return 1
        start = end = self._queue[0].index
        usual = MAX_RUN_BYTES // self._last_size if self._last_size else MAX_RUN
        for request in islice(self._queue, min(usual, MAX_RUN)):
            if request.index != end or request.bytes or request.hash:
                break
            end = BlockIndex(end + 1)
        if end > log.length or (low := log.byte_offset(start)) is None:
            return 1
        while end - start >= MIN_RUN:
            high = log.byte_offset(end)
            if high is not None and high - low <= MAX_RUN_BYTES:
                self._read = dict(enumerate(feed.get_held_run(start, end) or (), start))
                return max(len(self._read), 1)
            end = BlockIndex((start + end) // 2)
        return 1

    def _give(self, answers: list[Data | Unhave]) -> None:
        """Send answers, and count the blocks in them."""
        try:
            self._send(*answers)
        except LocalProtocolError:  # one block alone, which leaves no room for its proof in a frame: it stays here
            self._tree, self._keeps = RemoteTree(), False
            return
        blocks = [answer for answer in answers if isinstance(answer, Data) and answer.value is not None]
        size = sum([len(answer.value or b"") for answer in blocks])
        for stats in self._stats:
            stats.uploaded_blocks += len(blocks)
            stats.uploaded_bytes += size
        self._served(blocks)

    def _answer(self, feed: Feed, log: FeedLog, request: Request) -> Data | Unhave | None:
        """Return what a request is answered with, None when it has been answered before."""
        index, digest, hash_only = request.index, request.nodes, request.hash
        if request.bytes:
            if request.bytes == self._last_seek:
                return None  # npm peers ask the same several times at once and want one answer
            located = log.locate(request.bytes)
            if located is not None and located[0] < log.length:
                self._last_seek, index, digest = request.bytes, located[0], 0
                hash_only = hash_only or not log.has(index)
        value = None
        try:
            proof = log.proof(index, digest=digest, hash_only=hash_only, remote=self._tree, kept=self._keeps)
            if proof is not None and not hash_only:
                value = self._read.pop(index, None)
                value = feed.get_held(index) if value is None else value
        except CorruptStorage:
            proof = None
        except OSError as error:
            logger.error("cannot read block feed=%s block=%d error=%s", short(log.key), index, error)
            proof = None
        if proof is None or (value is None and not hash_only):
            return Unhave(index)
        if self._keeps:
            self._tree.add(2 * index)
            for node in proof.nodes:
                self._tree.add(node.number)
        if value is not None:
            self._last_size = len(value)
        return Data(index, value, proof.nodes, proof.signature)
