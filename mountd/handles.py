"""Open files and directories of one mount, by the number that the kernel hands back with each call.

Numbers are never used twice, so a call that arrives late for a closed file cannot reach another one.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ddrive.drive.stat import Stat
from ddrive.errors import BadHandle
from mountd.face import ReaderFace
from mountd.inodes import Inode


@dataclass(slots=True)
class FileHandle:
    """An open file: the reader is bound to the content that the file had when it was opened."""

    inode: Inode
    reader: ReaderFace
    opener: int  # thread id of the process that opened it, 0 when unknown
    writes: bool = False
    failure: Exception | None = None  # what the last read that had to wait ended with
    failed_at: float = 0.0  # when it did, in seconds of the caller's clock


@dataclass(slots=True)
class DirHandle:
    """An open directory: a listing that does not change while it is read, so that offsets stay valid."""

    inode: Inode
    opener: int
    entries: list[tuple[str, Stat]] = field(default_factory=list)
    epoch: int = 0  # state of the drive's caches that `entries` belong to


H = TypeVar("H", FileHandle, DirHandle)


class HandleTable(Generic[H]):
    """Numbers for open things of one kind, from 1."""

    def __init__(self) -> None:
        self._next = 1
        self._open: dict[int, H] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, handle: H) -> int:
        """Return the number under which `handle` is found from now on."""
        number = self._next
        self._next += 1
        self._open[number] = handle
        return number

    def get(self, number: int) -> H:
        """Return what is open under `number`.

        Raises: BadHandle when nothing is.
        """
        try:
            return self._open[number]
        except KeyError:
            raise BadHandle(f"nothing is open under handle {number}") from None

    def remove(self, number: int) -> H:
        """Return what was open under `number`, which is free now.

        Raises: BadHandle when nothing was.
        """
        handle = self.get(number)
        del self._open[number]
        return handle

    def clear(self) -> list[H]:
        """Return everything that was still open; the table is empty afterwards."""
        left = list(self._open.values())
        self._open.clear()
        return left


def reads(reader: ReaderFace, stat: Stat) -> bool:
    """Tell whether `reader` gives the content that `stat` is about; a plain feed shown as a file may grow."""
    if stat.mount is not None:
        return True
    size = stat.size if stat.blocks else 0
    extent = reader.extent
    place, expected = (extent.offset, extent.blocks, extent.byte_offset), (stat.offset, stat.blocks, stat.byte_offset)
    return reader.size == size and (not size or place == expected)
