"""Feeds in memory for the tests of the trie, and a reader whose blocks arrive when the test says so."""

from collections.abc import Callable, Sequence

import trio
from trio.testing import wait_all_tasks_blocked

from ddrive.crypto import KeyPair
from ddrive.feed import Feed, FeedLog, MemoryDirectory, RemoteTree
from ddrive.ids import BlockIndex


def new_feed(blocks: Sequence[bytes] = (), *, seed: bytes = b"7" * 32) -> Feed:
    """Return a writable feed that holds `blocks`."""
    pair = KeyPair.from_seed(seed)
    log = FeedLog.create(MemoryDirectory(), key=pair.public_key, secret_key=pair.secret_key)
    if blocks:
        log.append(blocks)
    return Feed(log)


def all_blocks(feed: Feed, start: int = 0) -> list[bytes]:
    """Return the blocks from `start` on."""
    return [feed.log.block(index) for index in range(start, feed.length)]


def hex_blocks(feed: Feed, start: int = 0) -> list[str]:
    """Return the blocks from `start` on as hex."""
    return [block.hex() for block in all_blocks(feed, start)]


class Reader:
    """A reader of `origin` that holds nothing but what is delivered; the source of its feed, which notes the wishes."""

    def __init__(self, origin: Feed) -> None:
        self.origin = origin
        self.held = FeedLog.create(MemoryDirectory(), key=origin.key, secret_key=None)
        self.feed = Feed(self.held)
        self.feed.set_source(self)
        self.wishes: list[tuple[int, int]] = []
        self.peer_count = 1

    def deliver(self, *indexes: int) -> None:
        """Let these blocks arrive."""
        log = self.origin.log
        assert isinstance(log, FeedLog)
        for index in indexes:
            digest = self.held.digest(index)
            proof = log.proof(index, digest=digest, hash_only=False, remote=RemoteTree())
            assert proof is not None
            self.feed.put(index, log.block(index), proof)

    def deliver_all(self) -> None:
        """Let everything arrive."""
        self.deliver(*reversed(range(self.origin.length)))

    async def serve(self, rounds: list[list[int]]) -> None:
        """Answer, whenever nothing else happens, all that is wished for at that time; note the blocks per round."""
        while True:
            await wait_all_tasks_blocked()
            wanted = sorted({i for wish in self.wishes for i in range(*wish) if not self.feed.has(i)})
            if not wanted:
                await trio.sleep(0.05)
                continue
            rounds.append(wanted)
            self.deliver(*wanted)

    def want_blocks(self, start: BlockIndex, end: BlockIndex, *, urgent: bool) -> Callable[[], None]:
        wish = (start, end)
        self.wishes.append(wish)
        return lambda: self.wishes.remove(wish) if wish in self.wishes else None

    def want_offset(self, byte_offset: int, start: BlockIndex, end: BlockIndex) -> Callable[[], None]:
        raise NotImplementedError

    def want_length(self, min_length: int) -> Callable[[], None]:
        return lambda: None

    async def refresh(self) -> None:
        await trio.lowlevel.checkpoint()
