"""The asynchronous face of a feed: wait for blocks that peers send, make our own durable, tell who listens.

The same class stands over the files themselves (`FeedLog`) and over a view of files that another process owns
(`FeedView`). Who can get what is missing is a `BlockSource`, handed in. Wishes are withdrawn by plain calls, so a
cancelled wait leaves nothing behind. Deadlines are the caller's: cancel scopes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import trio

from ddrive.errors import CorruptStorage, DiskFull, NotHeld
from ddrive.feed.checking import CheckedFeed
from ddrive.feed.hashing import Buffer
from ddrive.feed.log import FeedLog, Stored
from ddrive.feed.losing import lost_error
from ddrive.feed.merkle import MAX_LENGTH, Proof
from ddrive.feed.source import BlockSource, FeedListener, Reserving
from ddrive.feed.view import FeedView
from ddrive.ids import BlockIndex, PublicKey

YIELD_EVERY = 32  # held blocks handed out before other tasks get their turn (a checkpoint costs 6 us)


class Feed(CheckedFeed):
    """A feed to read from, to wait on and, with the secret key, to append to."""

    def __init__(self, log: FeedLog | FeedView, *, name: str = "") -> None:
        super().__init__(log, name=name)
        self.reserving: Reserving | None = None
        self._handed_out = 0

    def __repr__(self) -> str:
        return f"<Feed {self.name} length={self.length}>"

    @property
    def key(self) -> PublicKey:
        """The public key, which names the feed."""
        return self.log.key

    @property
    def forked(self) -> bool:
        """Whether two signed histories were seen; the first one is kept."""
        return self.log.forked

    @property
    def closed(self) -> bool:
        """Whether the feed was closed."""
        return self._closed

    @property
    def source(self) -> BlockSource | None:
        """Who gets what is missing."""
        return self._source

    @property
    def peer_count(self) -> int:
        """How many peers carry this feed now."""
        return self._source.peer_count if self._source is not None else 0

    @property
    def giver_count(self) -> int:
        """How many of them have some of it, or have yet to say what they have."""
        return self._source.giver_count if self._source is not None else 0

    def set_source(self, source: BlockSource | None) -> None:
        """Say who gets what is missing from now on."""
        self._source = source

    def subscribe(self, listener: FeedListener) -> Callable[[], None]:
        """Tell `listener` of changes until the returned function is called."""
        return self._audience.subscribe(listener)

    # -- reading

    def has(self, index: int) -> bool:
        """Tell whether block `index` is held."""
        return self.log.has(index)

    def held(self, start: int, end: int) -> int:
        """Return how many of the blocks `start` up to `end` are held."""
        return self.log.held(start, end)

    def runs(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the held runs within blocks `start` up to `end`, half-open, in order."""
        return self.log.runs(start, end)

    def locate(self, byte_offset: int) -> tuple[BlockIndex, int] | None:
        """Return the block of a byte and the place in it, None when nodes are missing; `seek` also waits for them."""
        return self.log.locate(byte_offset)

    def byte_offset(self, index: int) -> int | None:
        """Return where block `index` starts, None when nodes are missing."""
        return self.log.byte_offset(index)

    def get_held(self, index: int) -> bytes | None:
        """Return block `index` without waiting, None when it is not held.

        Raises: CorruptStorage when our own block is damaged.
        """
        if not self.log.has(index):
            return self.log.passing.get(index)
        try:
            return self.log.block(index)
        except NotHeld:
            self._audience.cleared(index, index + 1)
            return None
        except CorruptStorage:
            self._audience.cleared(index, index + 1)
            raise

    def get_held_part(self, start: int, end: int, near: int) -> bytes | None:
        """Return the bytes `start` up to `end` of the content, if their blocks were checked before, else None.

        Whoever reads here and there in large blocks need neither take them in whole each time nor find out which they
        are. `near` is the block that holds the bytes, or the likely one: it counts as used.
        """
        return self.log.part(start, end, near)

    def get_held_run(self, start: int, end: int) -> list[bytes] | None:
        """Return the blocks `start` up to `end` with one read, or None; `get_held` of each then tells more."""
        return self.log.blocks(start, end)

    def preload(self) -> None:
        """Say that many blocks are going to be read here and there, as in a trie: read in large pieces meanwhile."""
        self.log.preload()

    def load_ahead(self, start: int, end: int) -> None:
        """Say that the blocks `start` up to `end` are read soon: those held are read and checked in threads."""
        self.log.load_ahead(start, end)

    def loaded_run(self, index: int, max_bytes: int) -> tuple[bytes | memoryview, int] | None:
        """Return blocks from `index` on that lie together in memory because of `load_ahead`, and how many they are.

        As many as `max_bytes` hold, or one; each is given out once. None when block `index` was not loaded.
        """
        return self.log.loaded_run(index, max_bytes)

    def watch_passing(self, watcher: Callable[[int, bytes], None]) -> Callable[[], None]:
        """Give `watcher` each verified block that there is no room for until the returned function is called."""
        return self._audience.watch_passing(watcher)

    async def get(self, index: int, *, wait: bool = True, urgent: bool = True) -> bytes:
        """Return block `index`, from a peer when it is not held.

        Raises: NotHeld when it is not held and `wait` is false, Closed, CorruptStorage when our disk has lost it and
        no peer has it.
        """
        _check_index(index)
        waited = False
        while True:
            self._check_open()
            try:
                data = self.get_held(index)
            except CorruptStorage:
                if not wait:
                    raise
                data = None
            if data is not None:
                self.log.misses += waited
                self.log.note_order(index)
                await self._give_way()
                return data
            self.check_lost(index, index + 1)
            if self.log.has(index):  # it was found, though it was not listed
                continue
            if not wait:
                raise NotHeld(f"block {index} of feed {self.name} is not held")
            with self.want(index, index + 1, urgent=urgent):
                waited = True  # unless the source had it at once
                if not self.log.has(index) and not await self._audience.waiters.block(index):
                    raise lost_error(self.key, [index])

    async def seek(self, byte_offset: int, *, start: int = 0, end: int | None = None) -> tuple[BlockIndex, int]:
        """Return the block that holds the byte at `byte_offset` and the place in it; the end is (length, 0).

        `start` and `end` bound the blocks in which it lies, where the caller knows. Waits for what is missing, also
        for bytes beyond the end. Raises: Closed.
        """
        while True:
            self._check_open()
            found = self.log.locate(byte_offset)
            if found is None:
                await self._wait_for_nodes(byte_offset, start, MAX_LENGTH if end is None else end)
            elif self.log.size_proven(found[0]):
                await self._give_way()
                return found
            else:
                # a peer could have shifted the border between two blocks: only the block itself settles it
                await self.get(found[0])
                if found[0] in self.log.passing and self.log.locate(byte_offset) == found:
                    return found

    @contextmanager
    def want(self, start: int, end: int, *, urgent: bool = False) -> Iterator[None]:
        """Wish for the blocks `start` up to `end` while the `with` block lasts."""
        _check_index(start)
        if self._source is None or end <= start or self.log.held(start, end) == end - start:
            yield
            return
        withdraw = self._source.want_blocks(BlockIndex(start), BlockIndex(end), urgent=urgent)
        try:
            yield
        finally:
            withdraw()

    async def download(self, start: int, end: int) -> None:
        """Return when all blocks from `start` up to `end` are held.

        Raises: Closed, DiskFull when there is no room for one of them, CorruptStorage as `get`.
        """
        await trio.lowlevel.checkpoint()
        with self.want(start, end):
            while missing := max(end - start, 0) - self.log.held(start, end):
                self._check_open()
                self.check_lost(start, end)
                found = await self._audience.waiters.blocks(start, end, missing)
                if found.lost:
                    raise lost_error(self.key, found.lost)
                if found.full:
                    raise DiskFull(
                        f"no room for blocks {start} to {end - 1} of feed {self.name}: free some space on the disk, "
                        "or give the cache more"
                    )

    async def wait_length(self, min_length: int) -> int:
        """Return the length as soon as it is at least `min_length`.

        Raises: Closed.
        """
        await trio.lowlevel.checkpoint()
        while self.length < min_length:
            self._check_open()
            withdraw = self._source.want_length(min_length) if self._source is not None else _nothing
            try:
                if self.length < min_length:  # the source may have had it at once
                    await self._audience.waiters.length(min_length)
            finally:
                withdraw()
        return self.length

    async def refresh(self) -> None:
        """Return when what connected peers announced is proven, or at once without peers."""
        self._check_open()
        if self._source is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._source.refresh()

    async def ends(self) -> bool:
        """Tell whether a connected peer has all blocks of the feed, and none tells of more: more may never come.

        Returns as `refresh` does; False without peers.
        """
        self._check_open()
        if self._source is None:
            await trio.lowlevel.checkpoint()
            return False
        return await self._source.ends()

    # -- changing

    async def reserve(self, took_s: float = 0.0) -> None:
        """Return when it is up to us to append to a view: other processes do so after `unreserve`.

        They wait for some seconds, or `took_s` and what is used of this if that is longer; then they go between.
        """
        if self.reserving is not None:
            await self.wait_length(await self.reserving.reserve(took_s))
        else:
            await trio.lowlevel.checkpoint()

    async def settle(self) -> None:
        """Return when no append is under way any more that had begun before, not even one of a process that has died.

        Over a view it waits for the owner of the files. Raises: EngineError when there will be none any more.
        """
        if self.reserving is not None:
            await self.wait_length(await self.reserving.settle())
        else:
            async with self._turn:
                pass

    def unreserve(self) -> None:
        """Let other processes append."""
        if self.reserving is not None:
            self.reserving.unreserve()

    def put(self, index: int, value: Buffer | None, proof: Proof, *, tied: bool = False, soon: bool = True) -> Stored:
        """Verify and store what a peer sent, wake who waits for it and tell the listeners.

        With `tied` a longer tree has to be shown to go on from ours; `soon`: the block is going to be read at once.
        Raises: InvalidProof, Untied, Forked.
        """
        result = self._owned().put(index, value, proof, tied=tied, soon=soon)
        if result.grew:
            self._audience.grew(self.length)
        if result.block:
            self._audience.stored(index, index + 1)
        elif value is not None and index in self.log.passing:
            self._audience.passed(index, bytes(value))
        else:
            self._audience.nodes_stored()
        return result

    def put_all(self, blocks: Mapping[BlockIndex, tuple[Buffer, Proof]], *, soon: bool = True) -> int:
        """Do the same for several blocks in one go; returns how many were stored.

        It ends before the first block about which anything is unusual: `put` tells what.
        """
        runs = self._owned().put_all(blocks, soon=soon)
        for start, end in runs:
            self._audience.stored(start, end)
        return sum(end - start for start, end in runs)

    def clear(self, start: int, end: int) -> None:
        """Drop the blocks from `start` up to `end` and free their space; they can be fetched again."""
        for first, last in self._owned().clear(start, end):
            self._audience.cleared(first, last)

    def report_floor(self) -> None:
        """Let who listens look again whether something is missing of a feed of ours."""
        self._audience.grew(self.length)

    # -- what the owner of the files reports to a view

    def report_stored(self, start: int, end: int) -> None:
        """The owner holds the blocks `start` up to `end` now."""
        self._viewed().mark_held(start, end)
        self._audience.stored(start, end)

    def report_cleared(self, start: int, end: int) -> None:
        """The owner does not hold the blocks `start` up to `end` any more."""
        self._viewed().mark_cleared(start, end)
        self._audience.cleared(start, end)

    def report_grew(self, length: int) -> None:
        """The owner has `length` blocks proven.

        Raises: CorruptStorage when the files do not show it.
        """
        if length > self.length:
            self._viewed().grow(length)
            self._audience.grew(self.length)

    def report_passed(self, index: int, block: bytes) -> None:
        """The owner has no room for a block that is wished for here; an empty one stands for one too long to send."""
        if block:
            self._viewed().passing.add(index, block)
        self._audience.passed(index, block)

    def report_nodes(self) -> None:
        """The owner stored proof nodes."""
        self._audience.nodes_stored()

    # -- inside

    async def _wait_for_nodes(self, byte_offset: int, start: int, end: int) -> None:
        withdraw = _nothing
        if self._source is not None:
            withdraw = self._source.want_offset(byte_offset, BlockIndex(start), BlockIndex(end))
        try:
            if self.log.locate(byte_offset) is None:  # the source may have had them at once
                await self._audience.waiters.news()
        finally:
            withdraw()

    async def _give_way(self) -> None:
        self._handed_out += 1
        if self._handed_out >= YIELD_EVERY:
            self._handed_out = 0
            await trio.lowlevel.checkpoint()

    def _viewed(self) -> FeedView:
        assert isinstance(self.log, FeedView), "only a view is told by an owner"
        return self.log


def _check_index(index: int) -> None:
    if not 0 <= index < MAX_LENGTH:
        raise ValueError(f"{index} is not the index of a block")


def _nothing() -> None:
    pass
