"""Appending to a feed and making it durable, in turns: what a feed does that waits for a disk.

Nothing is shown to anybody else before it is durable. Once an append has begun to write it is not cancelled: two
signed blocks for one index would fork the feed for ever.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import NamedTuple

import trio

from ddrive.errors import Closed, LengthChanged, NotWritable
from ddrive.feed.file_blocks import FileBlocks, loaded
from ddrive.feed.hashing import Buffer
from ddrive.feed.log import FeedLog
from ddrive.feed.merkle import Grown
from ddrive.feed.owned import Staged
from ddrive.feed.view import FeedView
from ddrive.feed.waiting import Audience
from ddrive.ids import BlockIndex, short

TOGETHER_BYTES = 32 * 1024 * 1024  # in one sync, if so much waits: more would keep the first of them waiting

BESIDE_BYTES = 512 * 1024  # from here on a thread saves more than it costs to start one

_log = getLogger(__name__)

Appender = Callable[[Sequence[Buffer], int | None, bool], Awaitable[BlockIndex]]
_limiter = trio.CapacityLimiter(8)  # threads waiting for a disk


@dataclass(slots=True, eq=False)
class Step:
    """One of several appends that go one behind the other: it is not made, whatever the length, if `before` failed."""

    before: "Step | None" = None
    failed: bool = False

    def cannot_follow(self) -> bool:
        """Tell whether the one before has failed."""
        return self.before is not None and self.before.failed

    def end(self, *, failed: bool) -> None:
        """Take note of how it ended; what was before it does not matter any more."""
        self.failed, self.before = failed, None


@dataclass(slots=True, eq=False)
class _Waiting:
    """A durable append: what it is, and once it was written, where, or why not."""

    blocks: Sequence[Buffer]
    expected_length: int | None
    step: Step
    start: BlockIndex | None = None
    error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Give it up, and with it what is to go behind it."""
        self.error = error
        self.step.end(failed=True)


class _Group(NamedTuple):
    """Durable appends that were staged together."""

    members: list[_Waiting]
    staged: Staged


class AppendableFeed:
    """The part of a feed that writes; over a view, `appender` hands blocks to the owner of the files."""

    def __init__(self, log: FeedLog | FeedView, *, name: str = "") -> None:
        self.log = log
        self.name = name or short(log.key)
        self.appender: Appender = self._append_here
        self._audience = Audience()
        self._turn = trio.Lock()
        self._waiting: deque[_Waiting] = deque()  # durable appends that nobody has begun to write
        self._next: _Group | None = None  # staged while those before were made durable
        self._closed = False
        self._ended = trio.Event()

    @property
    def length(self) -> int:
        """The number of blocks that the author is proven to have signed."""
        return self.log.length

    @property
    def byte_length(self) -> int:
        """The number of bytes in all `length` blocks."""
        return self.log.byte_length

    @property
    def writable(self) -> bool:
        """Whether the secret key is at hand."""
        return self.log.writable

    @property
    def unborn(self) -> bool:
        """Whether this is a feed of ours to which nothing was ever appended."""
        return self.writable and not self.length and not self.behind

    @property
    def behind(self) -> bool:
        """Whether more was signed of this feed of ours than is held here, so that nothing may be appended yet."""
        return self.log.behind

    @property
    def cut_off(self) -> bool:
        """Whether this is a feed of ours whose files prove less than was signed, so that its end is lost here."""
        return isinstance(self.log, FeedLog) and self.log.writable and self.log.damaged

    async def append(
        self,
        blocks: Sequence[Buffer],
        *,
        expected_length: int | None = None,
        durable: bool = True,
        atomic: bool = True,
        step: Step | None = None,
    ) -> BlockIndex:
        """Append blocks under one signature and return the index of the first, once they are durable.

        With `expected_length` the feed must still have that length. Without `durable` the blocks can be read here at
        once; they are signed and shown to peers with the next `flush`, durable append or `aclose`, and a loss of power
        before that loses them. Without `atomic` many blocks may go in several appends, which is quicker over a view:
        when one of them fails, those before it stay. `step` makes it one of several, where the files are ours.
        Blocks may be `FileBlocks`, which are read from an open file.
        Raises: NotWritable, LengthChanged, TooLarge, Forked, CorruptStorage, SourceChanged, Closed, and TypeError when
        `blocks` is something else, like a single block.
        """
        self._check_open()
        if not isinstance(blocks, FileBlocks) and not _are_blocks(blocks):
            raise TypeError(f"feed {self.name}: append takes a list of blocks, each of them bytes")
        if self.appender != self._append_here:
            return await self.appender(blocks, expected_length, atomic)
        blocks = await loaded(blocks)
        if not durable:
            return await self._append_unsigned(blocks, expected_length)
        return await self._append_here(blocks, expected_length, step=step)

    async def flush(self) -> None:
        """Make received blocks durable, then the bits that say they are held."""
        log = self.log
        if isinstance(log, FeedView) or self._closed:
            return
        async with self._turn:
            await self._flush(log)

    async def wait_closed(self) -> None:
        """Return when the feed was closed."""
        await self._ended.wait()

    async def aclose(self) -> None:
        """Let go of the files; tasks that wait get `Closed`. Further calls do nothing."""
        if self._closed:
            return
        self._closed = True
        self._ended.set()
        self._audience.waiters.wake_all()
        with trio.CancelScope(shield=True):
            async with self._turn:
                try:
                    if isinstance(self.log, FeedLog):
                        await self._finish_next(self.log)
                        await self._flush(self.log)
                finally:
                    self.log.close()

    # -- inside

    async def _append_here(
        self, blocks: Sequence[Buffer], expected_length: int | None, atomic: bool = True, step: Step | None = None
    ) -> BlockIndex:
        log = self._appendable()
        waiting = _Waiting(blocks, expected_length, step or Step())
        self._waiting.append(waiting)
        try:
            await self._turn.acquire()
        except trio.Cancelled as error:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                waiting.fail(error)
                raise
            with trio.CancelScope(shield=True):  # another task is writing it together with its own
                await self._turn.acquire()
        try:
            with trio.CancelScope(shield=True):
                while waiting in self._waiting or (self._next is not None and waiting in self._next.members):
                    await self._append_together(log)
        finally:
            self._turn.release()
        if waiting.start is None or waiting.error is not None:
            raise waiting.error or Closed(f"feed {self.name} is closed")
        return waiting.start

    async def _append_together(self, log: FeedLog) -> None:
        """Append for all tasks that wait for it, as far as that is no giant append, with one signature and one sync.

        Meanwhile those that came after them are staged, if they are large: the sync of many small ones is shared.
        """
        group, self._next = self._next or await self._stage(log, None), None
        if group is None:
            return
        unseen = log.signed_length
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            if log.blocking and sum(sum(map(len, waiting.blocks)) for waiting in self._waiting) >= BESIDE_BYTES:
                nursery.start_soon(self._stage_next, log, group.staged)
            try:
                await self._secure(log, group.staged)
            except BaseException as error:
                failure = error
        if failure is None:
            for waiting in group.members:
                waiting.step.end(failed=False)
            self._show(unseen, group.staged.length)
            return
        log.abandon()
        for waiting in group.members:
            waiting.fail(failure)
        if self._next is not None:
            self._waiting.extendleft(reversed(self._next.members))
            self._next = None

    async def _finish_next(self, log: FeedLog) -> None:
        """Make durable what was staged already."""
        while self._next is not None:
            await self._append_together(log)

    async def _stage_next(self, log: FeedLog, after: Staged) -> None:
        self._next = await self._stage(log, after)

    async def _stage(self, log: FeedLog, after: Staged | None) -> _Group | None:
        """Stage what waits behind what was staged last, if anything; those with which that fails are told why."""
        members, blocks = self._take_waiting(log, log.length if after is None else after.length)
        if not members:
            return None
        try:
            return _Group(members, await _staged(log, blocks, after, through=True))
        except BaseException as error:
            for waiting in members:
                waiting.fail(error)
            return None

    def _take_waiting(self, log: FeedLog, length: int) -> tuple[list[_Waiting], list[Buffer]]:
        """Return appends to be written together behind `length` blocks, and all their blocks.

        Those that cannot be appended are told why.
        """
        taken: list[_Waiting] = []
        blocks: list[Buffer] = []
        size = 0
        while self._waiting:
            waiting = self._waiting[0]
            size += sum(map(len, waiting.blocks))
            if taken and (size > TOGETHER_BYTES or log.on_write is not None):
                break
            self._waiting.popleft()
            try:
                self._check_length(waiting.expected_length, length + len(blocks))
                log.check_appendable(waiting.blocks)
                if waiting.step.cannot_follow():
                    raise LengthChanged(f"feed {self.name} was not given what goes before these blocks")
            except Exception as error:
                waiting.fail(error)
                continue
            waiting.start = BlockIndex(length + len(blocks))
            taken.append(waiting)
            blocks += waiting.blocks
        return taken, blocks

    async def _append_unsigned(self, blocks: Sequence[Buffer], expected_length: int | None) -> BlockIndex:
        log = self._appendable()
        async with self._turn:
            with trio.CancelScope(shield=True):
                await self._finish_next(log)
                self._check_length(expected_length, self.length)
                staged = await _staged(log, blocks)
            log.publish(staged, signed=False)
        self._audience.waiters.grew(self.length)
        self._audience.waiters.stored(staged.start, staged.length)
        return staged.start

    def _appendable(self) -> FeedLog:
        if isinstance(self.log, FeedView) or not self.writable:
            raise NotWritable(f"feed {self.name} is not ours, or its secret key is not here")
        return self.log

    def _check_length(self, expected_length: int | None, length: int) -> None:
        """Return when `length`, with the blocks that go before, is the expected length."""
        self._check_open()
        if expected_length is not None and expected_length != length:
            raise LengthChanged(f"feed {self.name} has {length} blocks, not {expected_length}")

    def _show(self, start: int, end: int) -> None:
        """Tell everybody of our own blocks, which are durable now."""
        if end > start:
            self._audience.grew(self.length)
            self._audience.stored(start, end)

    async def _secure(self, log: FeedLog, staged: Staged) -> None:
        """Make a staged append durable and only then part of the feed."""
        await _in_thread(log, lambda: log.secure(staged))
        log.publish(staged)
        pages = log.begin_flush() or []
        try:
            log.end_flush(pages)
        except OSError as error:  # the blocks are on disk and signed: their bits can be restored from that
            log.cancel_flush(pages)
            _log.warning("bits not written feed=%s error=%s", self.name, error)

    async def _flush(self, log: FeedLog) -> None:
        pages = log.begin_flush()
        if pages is None:
            return
        unseen = log.signed_length
        with trio.CancelScope(shield=True):
            try:
                await _in_thread(log, log.sync_files)
                log.end_flush(pages)
            except BaseException:
                log.cancel_flush(pages)
                raise
        if not self._closed and log.writable:
            self._show(unseen, log.signed_length)

    def _owned(self) -> FeedLog:
        if not isinstance(self.log, FeedLog):
            raise NotWritable(f"feed {self.name} is a view: its files belong to another process")
        return self.log

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"feed {self.name} is closed")


def _are_blocks(blocks: object) -> bool:
    """Tell whether something is a list of bytes: of what can be looked at only once nothing would be appended."""
    if not isinstance(blocks, Sequence) or isinstance(blocks, str | bytes | bytearray | memoryview):
        return False
    return all(issubclass(kind, Buffer) for kind in set(map(type, blocks)))


async def _staged(
    log: FeedLog, blocks: Sequence[Buffer], after: Staged | None = None, *, through: bool = False
) -> Staged:
    """Stage an append; of many bytes one thread makes the hashes while another one writes, `through` to the disk."""
    if not log.blocking or sum(map(len, blocks)) < BESIDE_BYTES:
        return log.stage(blocks, after)
    before = log.begin_staging(blocks, after)
    hashing: list[Grown] = []
    failed: list[Exception] = []

    async def beside(work: Callable[[], None]) -> None:
        try:
            await trio.to_thread.run_sync(work, limiter=_limiter)
        except Exception as error:  # as it is, not in a group
            failed.append(error)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beside, lambda: hashing.append(log.grown(before, blocks)))
            nursery.start_soon(beside, lambda: log.stage_content(before, blocks, through=through))
        if failed:
            raise failed[0]
        return log.stage_nodes(before, hashing[0])
    except BaseException:
        log.undo_staging(before)
        raise


async def _in_thread(log: FeedLog, work: Callable[[], None]) -> None:
    """Do what waits for a disk in a thread; in memory at once, because tests stop the clock while tasks wait."""
    if log.blocking:
        await trio.to_thread.run_sync(work, limiter=_limiter)
    else:
        work()
        await trio.lowlevel.checkpoint()
