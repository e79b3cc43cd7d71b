"""A drive in memory that a mount can show: any of it can be missing, slow, broken or changed by its author."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import trio

from ddrive.drive.stat import DIRECTORY_MODE, FILE_MODE, LINK_MODE, Mount, Stat
from ddrive.errors import NotFound
from ddrive.ids import BlockIndex, PublicKey

KEY = PublicKey(bytes(range(32)))
BLOCK_BYTES = 65536


class Entry(NamedTuple):
    name: str
    stat: Stat


class Extent(NamedTuple):
    offset: int
    blocks: int
    byte_offset: int


class Feed:
    """What is shown of a feed."""

    def __init__(self) -> None:
        self.peer_count = 1
        self.length = 2  # the header and one entry
        self.lacking = 0  # blocks that are not held
        self.missing: set[str] = set()  # paths of whose entries nothing is held
        self.grown = trio.Event()

    @property
    def giver_count(self) -> int:
        return self.peer_count

    def held(self, start: BlockIndex, end: BlockIndex) -> int:
        return end - start - self.lacking - len(self.missing)

    async def wait_length(self, min_length: int) -> int:
        while self.length < min_length:
            await self.grown.wait()
        return self.length


class Reader:
    """An open file; `closed` and the asked ranges are for tests to see."""

    def __init__(self, drive: "MemoryDrive", path: str, stat: Stat) -> None:
        self.size = stat.size
        self.extent = Extent(stat.offset, stat.blocks, stat.byte_offset)
        self.feed = drive.content
        self.closed = False
        self._drive = drive
        self._path = path
        self._data = drive.contents[stat.offset]

    async def read(self, offset: int, size: int) -> bytes:
        await self._drive.reach(self._path, "read")
        cut = self._drive.short_reads
        return self._data[offset : offset + size - cut]

    def begin_read(self, offset: int, size: int) -> Coroutine[Any, Any, bytes]:
        return self.read(offset, size)

    async def aclose(self) -> None:
        self.closed = True


class MemoryDrive:
    """The contract of `mountd.face.DriveFace`, over dictionaries."""

    def __init__(self) -> None:
        self.key = KEY
        self.metadata = self.content = Feed()
        self.stats: dict[str, Stat] = {}
        self.contents: dict[int, bytes] = {0: b""}
        self.missing = self.metadata.missing  # paths of which no peer has anything
        self.withheld: set[str] = set()  # paths whose content no peer has
        self.faults: dict[str, Exception] = {}  # path -> what touching it raises
        self.short_reads = 0
        self.calls: list[str] = []
        self.readers: list[Reader] = []
        self._changes: dict[int, set[str]] = {}
        self._arrived = trio.Event()
        self._waiting = 0  # calls that wait for something to arrive
        self._next = 1  # block of the next content

    @property
    def version(self) -> int:
        return self.metadata.length

    # What an author does

    def write(self, path: str, data: bytes, *, mode: int = FILE_MODE, mtime_ms: int = 1000, **metadata: bytes) -> Stat:
        """Put a file with fresh content."""
        blocks = -(-len(data) // BLOCK_BYTES)
        offset = self._next if data else 0
        self._next += blocks
        self.contents[offset] = data
        stat = Stat(
            mode,
            size=len(data),
            blocks=blocks,
            offset=offset,
            byte_offset=offset * BLOCK_BYTES,
            mtime_ms=mtime_ms,
            ctime_ms=mtime_ms,
            metadata={f"user.{name}": value for name, value in metadata.items()},
        )
        return self.put(path, stat)

    def put(self, path: str, stat: Stat) -> Stat:
        """Put any entry, as one new version."""
        self.stats[path] = stat
        self._changed(path)
        return stat

    def mkdir(self, path: str) -> Stat:
        return self.put(path, Stat(DIRECTORY_MODE, mtime_ms=1000, ctime_ms=1000))

    def symlink(self, path: str, target: str) -> Stat:
        return self.put(path, Stat(LINK_MODE, linkname=target, mtime_ms=1000, ctime_ms=1000))

    def mount(self, path: str, key: bytes, version: int | None = None) -> Stat:
        return self.put(path, Stat(DIRECTORY_MODE, mount=Mount(PublicKey(key), version), mtime_ms=1000, ctime_ms=1000))

    def remove(self, path: str) -> None:
        del self.stats[path]
        self._changed(path)

    def _changed(self, path: str) -> None:
        feed = self.metadata
        feed.length += 1
        self._changes[feed.length] = {path}
        feed.grown.set()
        feed.grown = trio.Event()

    # What peers do

    @property
    def is_stranded(self) -> bool:
        """Whether something is waited for and there is no peer."""
        return self._waiting > 0 and not self.metadata.peer_count

    def arrive(self, *paths: str) -> None:
        """The data of `paths`, or of everything, is here now."""
        self.missing -= set(paths) or set(self.missing)
        self.withheld -= set(paths) or set(self.withheld)
        self._arrived.set()
        self._arrived = trio.Event()

    async def reach(self, path: str, call: str) -> None:
        """Do what touching `path` does: nothing, wait, or raise."""
        self.calls.append(f"{call} {path}")
        if path in self.faults:
            raise self.faults[path]
        while path in self.missing or (call == "read" and path in self.withheld):
            self._waiting += 1
            try:
                await self._arrived.wait()
            finally:
                self._waiting -= 1

    # What a mount asks

    async def lstat(self, path: str) -> Stat:
        await self.reach(path, "lstat")
        stat = self.stats.get(path)
        if stat is None:
            if path != "/" and not any(other.startswith(path + "/") for other in self.stats):
                raise NotFound(path)
            stat = Stat(DIRECTORY_MODE, mtime_ms=1000, ctime_ms=1000)
        return stat

    async def open(self, path: str, stat: Stat | None = None) -> Reader:
        await self.reach(path, "open")
        self.readers.append(Reader(self, path, self.stats[path]))
        return self.readers[-1]

    async def changed(self, old: int) -> list[str]:
        await self.reach("*", "changed")
        return sorted({path for version in range(old, self.version) for path in self._changes[version + 1]})

    async def list(self, path: str) -> list[Entry]:
        await self.reach(path, "list")
        prefix = path.rstrip("/") + "/"
        names = {other[len(prefix) :].partition("/")[0] for other in self.stats if other.startswith(prefix)}
        implicit = Stat(DIRECTORY_MODE, mtime_ms=1000, ctime_ms=1000)
        return [Entry(name, self.stats.get(prefix + name, implicit)) for name in sorted(names)]


class FakeCallers:
    """The questions of `mountd.waits.Waits`, answered by the test."""

    def __init__(self) -> None:
        self.ending: set[int] = set()
        self.gone: set[int] = set()
        self.ending_inodes: Callable[[frozenset[int]], set[int]] = lambda orphans: set()
        self.unmounted = False

    def is_ending(self, thread: int) -> bool:
        return thread in self.ending

    def is_gone(self, thread: int) -> bool:
        return thread in self.gone

    def mount_is_gone(self) -> bool:
        return self.unmounted

    async def ending_files(self, files: dict[int, bytes], orphans: frozenset[int]) -> set[int]:
        return self.ending_inodes(orphans)
