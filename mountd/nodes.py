"""What a path is, and is to be, while it is being changed through a mount: see `staged.StagedDrive`."""

from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from ddrive.drive.stat import Stat, encode_stat
from ddrive.ids import PublicKey
from mountd.draft import Base, Content, Draft
from mountd.face import ExtentFace, FeedFace, ReaderFace
from mountd.journal import Change
from mountd.moments import Moment
from mountd.spool import Spool

Origin = tuple[str, Stat]  # where the drive has an entry, and what it was when it was first changed here


class DriveBytes(Protocol):
    """Where the bytes of files are that the drive has: `pending.Pending`."""

    async def content_of(self, path: str) -> PublicKey: ...
    async def open_base(self, path: str, stat: Stat, content: PublicKey | None = None) -> ReaderFace: ...


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """What a path is to be in the drive. `stat` None: nothing; `content` None: the bytes that the drive has.

    `changed` are the attributes that were set here; the others are those of `origin` when that has changed meanwhile.
    """

    serial: int
    path: str
    stat: Stat | None
    content: Content | None = None
    origin: Origin | None = None
    changed: frozenset[str] = frozenset()
    node: "Node | None" = None  # whose state this is
    made: Moment | None = None  # None: by a worker from before an update
    feed: PublicKey | None = None  # with the bytes of the drive whose entry this changes; None: of none, or unknown

    @property
    def lacks_content(self) -> bool:
        """Whether the drive has to get a content first."""
        return self.content is not None and self.content.extent is None

    def is_lost(self, feed: PublicKey | None) -> bool:
        """Tell whether it only changes an entry of a drive that is not there any more, but the one with `feed` is.

        `feed` None: one that cannot be changed here. A content can be stored in either, but these bytes are elsewhere.
        """
        return self.content is None and self.feed is not None and self.feed != feed

    def record(self) -> Change:
        """Return the form in which it is kept in the journal."""
        made = None if self.made is None else self.made.record()
        if self.stat is None:
            return [self.serial, self.path, None, None, None, None, made, self.feed]
        origin = None if self.origin is None else [self.origin[0], encode_stat(self.origin[1])]
        content = self.content
        kept: list[Any] | None = None
        if content is not None:
            base = None if content.base is None else [content.base.path, encode_stat(content.base.stat)]
            kept = [content.size, content.limit, content.runs(), base]
        return [self.serial, self.path, encode_stat(self.stat), origin, sorted(self.changed), kept, made, self.feed]


class Node:
    """A file, directory or link that was changed here, as programs see it. Also the reader of its bytes."""

    def __init__(self, spool: Spool, feed: FeedFace, drive: DriveBytes, stat: Stat, origin: Origin | None) -> None:
        """`feed`: that of the `drive`; `origin`: where it has the entry, None for something new."""
        self.stat = stat
        self.path: str | None = None  # None: it was removed, or is as the drive has it
        self.writers = 0  # open files that may write
        self.draft: Draft | None = None  # None: its bytes are those that the drive has
        self.origin = origin
        self.sealed_stat = None if origin is None else stat  # attributes of the last sealed state
        self.sealed_content: Content | None = None  # its bytes, if the drive has them not yet
        self.made: Moment | None = None  # when that state was made
        self.changed: set[str] = set()
        self.feed = feed
        self.content: PublicKey | None = None  # of the feed in which the drive has its bytes; None: nobody has looked
        self._spool = spool
        self._drive = drive
        self._place = origin[0] if origin else ""  # a path in the drive that its bytes are in
        self._reader: ReaderFace | None = None

    @property
    def is_dirty(self) -> bool:
        """Whether it is not as it was sealed."""
        return self.sealed_stat is None or (self.draft is not None and self.draft.is_dirty)

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.stat.size

    @property
    def extent(self) -> ExtentFace:
        """Where the drive has its bytes, if it has."""
        return self.stat

    async def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only at the end."""
        if self.draft is not None:
            return await self.draft.read(offset, size)
        if self._reader is None:
            self._reader = await self._drive.open_base(self._place, self.stat, self.content)
        return await self._reader.read(offset, size)

    def begin_read(self, offset: int, size: int) -> Coroutine[Any, Any, bytes]:
        """Return what reads: of what was changed, parts may be anywhere."""
        return self.read(offset, size)

    async def bind(self) -> None:
        """Settle where the drive has its bytes: while it is open, its path may come to lead into another drive."""
        if self.content is None and self.stat.blocks and self._place:
            self.content = await self._drive.content_of(self._place)

    def edit(self, path: str) -> Draft:
        """Return the draft to write into; `path` says which drive its bytes are in."""
        if self.draft is None:
            stat = self.stat
            size = stat.size if stat.blocks else 0
            base = Base(path, stat, partial(self._drive.open_base, content=self.content)) if size else None
            self.draft = Draft(self._spool, base, size, size)
        return self.draft

    def discard(self) -> None:
        """Give what only this node uses back: nobody reads it any more."""
        if self.draft is not None:
            self.draft.discard()
            self.draft = None

    async def aclose(self) -> None:
        """Nothing to do: the node lives as long as somebody needs it."""


@dataclass(slots=True, eq=False)
class Entry:
    """A path that is not as the drive has it, or may soon not be. `node` None: nothing is there."""

    path: str
    node: Node | None = None
    sealed: Sealed | None = None  # to be committed
    committing: Sealed | None = None  # being committed
    is_overtaken: bool = False  # others have changed what the drive has there

    @property
    def is_ready(self) -> bool:
        """Whether one of its states can be committed: the newest, or one before that."""
        return any(state is not None and not state.lacks_content for state in (self.sealed, self.committing))
