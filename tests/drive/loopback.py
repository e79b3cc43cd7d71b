"""A feed of ours and a sparse copy of it without network: what the copy wishes for is noted and served."""

from collections.abc import Callable, Sequence

from ddrive.crypto import KeyPair
from ddrive.feed import Feed, FeedLog, MemoryDirectory, RemoteTree
from ddrive.ids import BlockIndex

PAIR = KeyPair.from_seed(bytes([5]) * 32)


class Loopback:
    """`BlockSource` of the copy: `wishes` are standing, `served` the blocks handed over, `seeks` the bytes sought."""

    def __init__(self, author: Feed, copy: Feed) -> None:
        self.author = author
        self.copy = copy
        self.serving = True
        self.peer_count = 1
        self.wishes: list[tuple[int, int, bool]] = []
        self.asked: list[tuple[int, int, bool]] = []
        self.served: list[int] = []
        self.seeks: list[int] = []
        self._remote = RemoteTree()
        copy.set_source(self)

    def want_blocks(self, start: BlockIndex, end: BlockIndex, *, urgent: bool) -> Callable[[], None]:
        wish = (start, end, urgent)
        self.wishes.append(wish)
        self.asked.append(wish)
        if self.serving:
            for index in range(start, min(end, self.author.length)):
                if not self.copy.has(index):
                    self.served.append(index)
                    self._hand_over(index, self.author.get_held(index))
        return self._withdraw(wish)

    def want_offset(self, byte_offset: int, start: BlockIndex, end: BlockIndex) -> Callable[[], None]:
        wish = (start, end, True)
        self.wishes.append(wish)
        self.seeks.append(byte_offset)
        found = self.author.locate(byte_offset)
        if self.serving and found is not None and start <= found[0] < end:
            self._hand_over(found[0], None)
        return self._withdraw(wish)

    def want_length(self, min_length: int) -> Callable[[], None]:
        wish = (min_length, min_length, False)
        self.wishes.append(wish)
        return self._withdraw(wish)

    async def refresh(self) -> None:
        """There is never anything newer than what was served."""

    async def ends(self) -> bool:
        """Tell whether the copy knows of all blocks that the author has, who is the only peer."""
        return self.serving and self.copy.length == self.author.length

    def _withdraw(self, wish: tuple[int, int, bool]) -> Callable[[], None]:
        def withdraw() -> None:
            if wish in self.wishes:
                self.wishes.remove(wish)

        return withdraw

    def _hand_over(self, index: int, value: bytes | None) -> None:
        log = self.author.log
        assert isinstance(log, FeedLog)
        assert isinstance(self.copy.log, FeedLog)
        digest = self.copy.log.digest(index)
        proof = log.proof(index, digest=digest, hash_only=value is None, remote=self._remote)
        assert proof is not None
        self.copy.put(index, value, proof)


def own_feed(pair: KeyPair = PAIR) -> Feed:
    """Return an empty writable feed in memory."""
    return Feed(FeedLog.create(MemoryDirectory(), key=pair.public_key, secret_key=pair.secret_key))


async def sparse_copy(blocks: Sequence[bytes]) -> Loopback:
    """Return a feed of `blocks` and an empty copy of it."""
    author = own_feed()
    await author.append(blocks)
    copy = Feed(FeedLog.create(MemoryDirectory(), key=PAIR.public_key, secret_key=None))
    return Loopback(author, copy)
