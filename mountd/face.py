"""What a mount needs of a drive, and no more: so that another drive format can stand beside today's.

`ddrive.drive.Drive` fits; tests use a drive in memory. Nothing here does anything.
"""

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, runtime_checkable

from ddrive.drive.stat import Stat
from ddrive.ids import BlockIndex, PublicKey


class EntryFace(Protocol):
    """One line of a directory listing."""

    @property
    def name(self) -> str: ...
    @property
    def stat(self) -> Stat: ...


class FeedFace(Protocol):
    """The part of a feed that is shown to users."""

    @property
    def peer_count(self) -> int: ...
    @property
    def giver_count(self) -> int: ...

    def held(self, start: BlockIndex, end: BlockIndex) -> int:
        """Return how many of the blocks `start` to `end` (not included) are held here."""

    async def wait_length(self, min_length: int) -> int:
        """Return the length as soon as it is proven to be at least `min_length`."""


class ExtentFace(Protocol):
    """Where a content is: which blocks of a feed, the first of them starting at byte `byte_offset`."""

    @property
    def offset(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def byte_offset(self) -> int: ...


class ReaderFace(Protocol):
    """An open file, bound to the content that it had when it was opened."""

    @property
    def size(self) -> int:
        """Return the size of that content in bytes."""

    @property
    def extent(self) -> ExtentFace:
        """Return where that content is."""

    @property
    def feed(self) -> FeedFace:
        """Return the feed that holds it."""

    async def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only at the end of the file."""

    def begin_read(self, offset: int, size: int) -> bytes | Coroutine[Any, Any, bytes]:
        """Return what `read` does if that takes no waiting, else what waits for it."""

    async def aclose(self) -> None:
        """Withdraw every wish of this reader."""


class NodeFace(ReaderFace, Protocol):
    """What was changed of an entry through this mount. It shows its newest bytes."""

    @property
    def stat(self) -> Stat:
        """Return its newest attributes."""


class DriveFace(Protocol):
    """A drive: paths are absolute and start with `/`."""

    @property
    def key(self) -> PublicKey: ...
    @property
    def version(self) -> int: ...
    @property
    def metadata(self) -> FeedFace: ...

    async def lstat(self, path: str) -> Stat:
        """Return the attributes of the entry at `path`; NotFound only when its absence is proven."""

    async def list(self, path: str) -> Sequence[EntryFace]:
        """Return the entries of the directory at `path`, by name."""

    async def open(self, path: str, stat: Stat | None = None) -> ReaderFace:
        """Return a reader of the file at `path`; `stat` are its attributes if they are known and no nested drive's."""

    async def changed(self, old: int) -> Sequence[str]:
        """Return the paths that differ between version `old` and now."""


class NestedFace(Protocol):
    """A nested drive that shows its newest version; `seen` is the one it had when it was first looked into."""

    @property
    def path(self) -> str: ...
    @property
    def seen(self) -> int: ...
    @property
    def version(self) -> int: ...
    async def wait_version(self, version: int) -> int:
        """Return the version as soon as it is known to be at least `version`."""

    async def changed(self, old: int) -> Sequence[str]:
        """Return the paths, from the root of the outer drive, that differ between version `old` and now."""


class NestedDrivesFace(Protocol):
    """The nested drives that were looked into."""

    @property
    def complete(self) -> bool:
        """Return whether none was left out."""

    def drives(self) -> Sequence[NestedFace]:
        """Return those known now."""

    async def more(self) -> None:
        """Return when another one was looked into."""


@runtime_checkable
class NestingFace(Protocol):
    """A drive that tells which nested drives were looked into."""

    async def nested(self) -> NestedDrivesFace:
        """Return them; the result grows as more are."""
