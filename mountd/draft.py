"""The bytes of a file that is being changed: chunks in the spool over the content that it had.

A chunk that was never written is read from the base, up to where that was ever cut off, and is zeros behind. `seal`
gives the content as of now, which later writes leave alone: they go to slots of their own.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from ddrive.drive.reader import Extent
from ddrive.drive.stat import Stat
from ddrive.errors import DISK_FULL
from ddrive.feed.file_blocks import FileBlocks, Place
from ddrive.ids import PublicKey
from mountd.face import ReaderFace
from mountd.spool import CHUNK_BYTES, Spool

Run = list[int]  # first chunk, first slot, how many


class Base(NamedTuple):
    """The content that the drive has for a file: `stat` says where it is, `path` in which drive."""

    path: str
    stat: Stat
    open: Callable[[str, Stat], Awaitable[ReaderFace]]


class Piece(NamedTuple):
    """A part of a file: `place` in the data file, or in the base when that is None and `is_hole` is not set."""

    start: int
    end: int
    place: int | None
    is_hole: bool


class Former(NamedTuple):
    """How a draft was before it got another size: `cut` are the chunks, with their slots, that do not show any more."""

    size: int
    limit: int
    least: int
    is_dirty: bool
    cut: dict[int, int]


class Content:
    """Bytes that do not change."""

    def __init__(self, spool: Spool, base: Base | None, size: int, limit: int, chunks: dict[int, int]) -> None:
        """`limit`: how many bytes of the base show; `chunks`: chunk → slot, held by the caller for this content."""
        self.size = size
        self.limit = limit
        self.chunks = chunks
        self.users = 0  # how many sealed entries name it
        self.extent: Extent | None = None  # where it is in the drive, once it was appended
        self.appended_to: PublicKey | None = None  # the feed that it is in then
        self._spool = spool
        self.base = base
        self._reader: ReaderFace | None = None

    async def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only at the end. Raises: OSError, what reading the base raises."""
        parts: list[bytes] = []
        for piece in self.pieces(offset, min(offset + size, self.size)):  # step by step: a draft may change meanwhile
            length = piece.end - piece.start
            if piece.place is not None:
                parts.append(self._spool.read(piece.place, length))
            elif piece.is_hole:
                parts.append(bytes(length))
            else:
                parts.append(await self._read_base(piece.start, length))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Yield where the bytes from `start` to `end` are."""
        while start < end:
            chunk = start // CHUNK_BYTES
            slot = self.chunks.get(chunk)
            stop = min(end, (chunk + 1) * CHUNK_BYTES)
            if slot is not None:
                place = slot * CHUNK_BYTES + start % CHUNK_BYTES
                while stop < end and self.chunks.get(stop // CHUNK_BYTES) == slot + stop // CHUNK_BYTES - chunk:
                    stop = min(end, stop + CHUNK_BYTES)
                yield Piece(start, stop, place, False)
            else:
                is_hole = start >= self.limit
                while stop < end and stop // CHUNK_BYTES not in self.chunks:
                    stop = min(end, stop + CHUNK_BYTES)
                if not is_hole:
                    stop = min(stop, self.limit)
                yield Piece(start, stop, None, is_hole)
            start = stop

    def blocks(self, start: int, end: int) -> FileBlocks | None:
        """Return the bytes from the chunk at `start` up to `end` as blocks that others can read in the spool.

        None when some are not there.
        """
        places: list[Place] = []
        for offset in range(start, end, CHUNK_BYTES):
            slot, size = self.chunks.get(offset // CHUNK_BYTES), min(CHUNK_BYTES, end - offset)
            if slot is None or not self._spool.has(slot * CHUNK_BYTES, size):
                return None
            places.append(Place(slot * CHUNK_BYTES, size))
        return FileBlocks(self._spool.data, places)

    def runs(self) -> list[Run]:
        """Return the chunks that are in the spool, those side by side as one."""
        found: list[Run] = []
        for chunk, slot in sorted(self.chunks.items()):
            last = found[-1] if found else None
            if last is not None and chunk == last[0] + last[2] and slot == last[1] + last[2]:
                last[2] += 1
            else:
                found.append([chunk, slot, 1])
        return found

    def drop(self, *, done: bool) -> None:
        """Take note that an entry names it no more; `done` when that is in the drive."""
        self.users -= 1
        if not self.users:
            slots = self._spool.slots
            (slots.drop_done if done else slots.drop_superseded)(self.chunks.values())

    async def _read_base(self, offset: int, size: int) -> bytes:
        base, reader = self.base, self._reader
        if reader is None:
            assert base is not None
            reader = await base.open(base.path, base.stat)
            if self.base is base:  # a draft may have got another one meanwhile
                self._reader = reader
        return await reader.read(offset, size)


class Draft(Content):
    """Bytes that change. Two calls for one file may run at the same time only if neither is `truncate`."""

    def __init__(self, spool: Spool, base: Base | None, size: int, limit: int) -> None:
        super().__init__(spool, base, size, limit, {})
        self._own: set[int] = set()  # slots that no sealed content knows: written in place
        self._least = size  # the smallest size since the last seal
        self._before = self._own, self._least  # as they were at the last seal
        self.is_dirty = False  # whether it differs from the last sealed content

    @classmethod
    def restored(cls, spool: Spool, sealed: Content) -> "Draft":
        """Return the draft that goes on from a sealed content."""
        draft = cls(spool, sealed.base, sealed.size, sealed.limit)
        draft.chunks = dict(sealed.chunks)
        spool.slots.hold(draft.chunks.values())
        return draft

    async def write(self, offset: int, data: bytes) -> int:
        """Put `data` at `offset`; return how many bytes: not all when the disk is full then.

        Raises: OSError when there are none, ENOSPC above all, what reading the base raises.
        """
        end, former = offset + len(data), self.size
        if offset > former:
            await self.truncate(offset)
        try:
            end = await self._prepare_edges(offset, end)
            stored = self._write(offset, memoryview(data)[: end - offset])
        except BaseException:
            if self.size == offset > former:  # still
                await self.truncate(former)
            raise
        self.size = max(self.size, offset + stored)
        self.is_dirty = True
        return stored

    async def truncate(self, size: int) -> None:
        """Cut off behind `size`, or fill up with zeros. Raises: as `write`."""
        await self.make_ready(size)
        self.let_go(self.resize(size))

    async def make_ready(self, size: int) -> None:
        """Let zeros be where `resize` will show more. Nothing that shows changes. Raises: as `write`."""
        if size > self.size and (rest := self.size % CHUNK_BYTES) and self.size // CHUNK_BYTES in self.chunks:
            await self._prepare(self.size // CHUNK_BYTES)
            place = self.chunks[self.size // CHUNK_BYTES] * CHUNK_BYTES + rest
            self._spool.write(place, bytes(min(size - self.size, CHUNK_BYTES - rest)))

    def resize(self, size: int) -> Former:
        """Have another size, right after `make_ready`; return what `take_back`, or else `let_go`, is to be given."""
        cut = [chunk for chunk in self.chunks if chunk * CHUNK_BYTES >= size] if size < self.size else []
        former = Former(
            self.size, self.limit, self._least, self.is_dirty, {chunk: self.chunks.pop(chunk) for chunk in cut}
        )
        self.size = size
        self.limit = min(self.limit, size)
        self._least = min(self._least, size)
        self.is_dirty = True
        return former

    def take_back(self, former: Former) -> None:
        """Be as before the last `resize`. A `seal` in between was taken back too, and nothing else was done."""
        self.size, self.limit, self._least, self.is_dirty, cut = former
        self.chunks |= cut

    def let_go(self, former: Former) -> None:
        """Give back what was cut off."""
        self._give_back(former.cut.values())

    def seal(self) -> Content:
        """Return the content as of now; it holds its slots until nobody uses it."""
        self._spool.slots.hold(self.chunks.values())
        self._before = self._own, self._least
        self._own, self._least = set(), self.size
        self.is_dirty = False
        return Content(self._spool, self.base, self.size, self.limit, dict(self.chunks))

    def unseal(self, sealed: Content) -> None:
        """Take the last `seal` back, right after it: nobody knows of `sealed`."""
        self._own, self._least = self._before
        self.is_dirty = True
        self._spool.slots.drop(sealed.chunks.values())

    def rebase(self, sealed: Content, base: Base | None) -> None:
        """Go on from `sealed`, the content of the last `seal`, which is in the drive now: `base` is."""
        for chunk, slot in sealed.chunks.items():
            if self.chunks.get(chunk) == slot:
                del self.chunks[chunk]
                self._spool.slots.drop_done([slot])
        self.limit = self._least
        self.base, self._reader = base, None

    def discard(self) -> None:
        """Give all slots back: nobody reads this any more."""
        for chunk in list(self.chunks):
            self._forget(chunk)

    def _forget(self, chunk: int) -> None:
        self._give_back([self.chunks.pop(chunk)])

    def _give_back(self, slots: Iterable[int]) -> None:
        for slot in slots:
            if slot in self._own:
                self._own.discard(slot)
                self._spool.slots.drop([slot])
            else:
                self._spool.slots.drop_superseded([slot])

    def _partly(self, offset: int, end: int) -> set[int]:
        """Return the chunks of which a write from `offset` to `end` leaves something that shows."""
        chunks = {offset // CHUNK_BYTES} if offset % CHUNK_BYTES else set()
        if end % CHUNK_BYTES and end < self.size:
            chunks.add(end // CHUNK_BYTES)
        return chunks

    async def _prepare_edges(self, offset: int, end: int) -> int:
        """Make ready what a write from `offset` to `end` covers in part; return up to where it can go.

        That is not `end` when the disk has no room for a chunk of which only the rest is old. Raises: as `write`.
        """
        while chunks := [chunk for chunk in self._partly(offset, end) if self.chunks.get(chunk) not in self._own]:
            chunk = min(chunks)
            try:
                await self._prepare(chunk)  # while one is read, a seal may take the other away again
            except OSError as problem:
                if problem.errno not in DISK_FULL or chunk * CHUNK_BYTES <= offset:
                    raise
                end = chunk * CHUNK_BYTES
        return end

    async def _prepare(self, chunk: int) -> None:
        """Make a chunk ready to be written in part: its bytes so far are in a slot of our own."""
        start = chunk * CHUNK_BYTES
        while (slot := self.chunks.get(chunk)) is None or slot not in self._own:
            end = min(start + CHUNK_BYTES, self.size)
            old = await self.read(start, end - start) if start < end else b""
            if self.chunks.get(chunk) == slot and end == min(start + CHUNK_BYTES, self.size):
                self._place({chunk: self._filled(old)})
                return

    def _filled(self, data: bytes) -> int:
        slot = self._spool.slots.take()
        try:
            self._spool.write(slot * CHUNK_BYTES, data)
        except OSError:
            self._spool.slots.drop([slot])
            raise
        return slot

    def _write(self, offset: int, data: memoryview) -> int:
        """Write where every chunk is ours, or covered whole, or behind the end; return how many bytes count then.

        Raises: OSError when none do.
        """
        taken: dict[int, int] = {}
        stored = 0
        try:
            for place, size in self._runs_to_write(offset, offset + len(data), taken):
                end = stored + size
                while stored < end:
                    written = self._spool.write_some(place, data[stored:end])
                    stored += written
                    place += written
        except OSError:
            stored = self._cut_short(offset, stored, taken)
            if not stored:
                raise
        self._place(taken)
        return stored

    def _runs_to_write(self, position: int, end: int, taken: dict[int, int]) -> list[tuple[int, int]]:
        """Return where in the data file the bytes from `position` to `end` go, and how many side by side.

        Chunks that have no slot of ours get one, noted in `taken`.
        """
        runs: list[tuple[int, int]] = []
        while position < end:
            chunk = position // CHUNK_BYTES
            slot = self.chunks.get(chunk, -1)
            if slot not in self._own:
                slot = taken[chunk] = self._spool.slots.take()
            here = slot * CHUNK_BYTES + position % CHUNK_BYTES
            stop = min(end, (chunk + 1) * CHUNK_BYTES)
            if runs and sum(runs[-1]) == here:
                runs[-1] = runs[-1][0], runs[-1][1] + stop - position
            else:
                runs.append((here, stop - position))
            position = stop
        return runs

    def _cut_short(self, offset: int, stored: int, taken: dict[int, int]) -> int:
        """Return how many bytes of a write count of which only `stored` found room; the others take no slot.

        Of what shows behind them, a new slot has nothing.
        """
        end = offset + stored
        if end < self.size and end // CHUNK_BYTES in taken:
            end -= end % CHUNK_BYTES
        self._spool.slots.drop([taken.pop(chunk) for chunk in [*taken] if chunk * CHUNK_BYTES >= end])
        return end - offset

    def _place(self, taken: dict[int, int]) -> None:
        for chunk, slot in taken.items():
            if chunk in self.chunks:
                self._forget(chunk)
            self.chunks[chunk] = slot
            self._own.add(slot)
