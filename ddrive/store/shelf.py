"""What lies in the directory of a store, told without opening a feed: which feeds, whose, and their size on disk."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ddrive.crypto import KEY_BYTES
from ddrive.feed.bitfield import Bitfield
from ddrive.feed.layout import HEADER_BYTES, SIGNATURE_BYTES, FeedFiles
from ddrive.feed.reading import SEGMENT_BITS, StoredFeed
from ddrive.feed.storage import KEY, SECRET_KEY, SIGNATURES, FileDirectory
from ddrive.ids import DiscoveryKey, Node, PublicKey
from ddrive.store.runs import Run, without

NAME = "name"  # of a feed whose keys follow from it and the master key
DISK_UNIT_BYTES = 512  # of st_blocks, on every file system

_FOLDER_BYTES = 32


class FeedFolder(NamedTuple):
    """One feed on disk. `own`: its secret key is stored, or follows from the master key. `disk_bytes`: of all files."""

    key: PublicKey
    own: bool
    disk_bytes: int


def feed_folder_at(folder: Path) -> FeedFolder | None:
    """Return the feed in a folder of a store, None when there is none."""
    try:
        key = (folder / KEY).read_bytes()
        names = {entry.name: entry.stat().st_blocks * DISK_UNIT_BYTES for entry in os.scandir(folder)}
    except OSError:
        return None
    if len(key) != KEY_BYTES:
        return None
    return FeedFolder(PublicKey(key), not names.keys().isdisjoint((NAME, SECRET_KEY)), sum(names.values()))


def feed_folders(root: Path) -> Iterator[FeedFolder]:
    """Yield every feed of the store at `root`. Waits for the disk: to be called in a thread."""
    for folder in folders(root):
        if (found := feed_folder_at(folder)) is not None:
            yield found


def folders(root: Path) -> Iterator[Path]:
    """Yield every place of the store at `root` where a feed may be. Waits for the disk: to be called in a thread."""
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*")):
        if _is_folder_name(folder):
            yield folder


class HeldOnDisk(NamedTuple):
    """What a feed holds: its first block (empty when it is not held), and bytes by segment."""

    first: bytes
    segments: list[tuple[int, int]]


class _FeedOnDisk(StoredFeed):
    """The files of a feed that is not open, to count what they hold."""

    def __init__(self, directory: FileDirectory, key: PublicKey) -> None:
        files = FeedFiles(directory, read_only=True)
        super().__init__(directory, files, Bitfield.load(files.read_pages(), files.page_bytes), key)
        self.length = self._bits.length()
        self.byte_length = -1

    def count(self, excluded: Sequence[Run]) -> list[tuple[int, int]]:
        """Return (segment, bytes) of what is held but for some blocks."""
        found: dict[int, int] = {}
        for start, end in without(self.runs(0, self.length), excluded):
            for number, size in sizes(self, start, end):
                found[number] = found.get(number, 0) + size
        return sorted(found.items())

    def first(self) -> bytes:
        """Return the first block, empty when it is not held."""
        leaf = self._node(0)
        return self._files.data.read(0, leaf.size) if self.has(0) and leaf is not None else b""

    def close(self) -> None:
        """Give the files back."""
        self._files.close()

    def _node(self, number: int) -> Node | None:
        return self._files.node(number) if self._bits.known(number) else None

    def _note_verified(self, blocks: range, stamp: int, content: range) -> None:
        pass


def sizes(feed: StoredFeed, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (segment, bytes) of held blocks; what is not located is left out."""
    while start < end:
        stop = min(end, ((start >> SEGMENT_BITS) + 1) << SEGMENT_BITS)
        first, last = feed.byte_offset(start), feed.end_offset(stop - 1)
        if first is not None and last is not None:
            yield start >> SEGMENT_BITS, last - first
        start = stop


def held_on_disk(folder: Path, key: PublicKey, excluded: Sequence[Run]) -> HeldOnDisk:
    """Return what a feed that is not open holds but for some blocks. Waits for the disk: to be called in a thread.

    Raises: OSError, StorageError.
    """
    feed = _FeedOnDisk(FileDirectory(folder, read_only=True), key)
    try:
        return HeldOnDisk(feed.first(), feed.count(excluded))
    finally:
        feed.close()


def signed_length(folder: Path) -> int:
    """Return how many blocks of the feed in a folder were signed: each signature has its place in the file."""
    try:
        size = (folder / SIGNATURES).stat().st_size
    except FileNotFoundError:
        return 0
    return max(0, -(-(size - HEADER_BYTES) // SIGNATURE_BYTES))


def _is_folder_name(folder: Path) -> bool:
    """Tell whether a folder lies where its own name says. Source: store.md section 1."""
    try:
        found = DiscoveryKey(bytes.fromhex(folder.name))
    except ValueError:
        return False
    name = found.hex()
    return len(found) == _FOLDER_BYTES and folder.parts[-3:] == (name[:2], name[2:4], name)
