"""Where a feed keeps its files: a directory on disk, memory, or files that a program makes itself."""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Protocol, cast

from ddrive.errors import StorageLocked
from ddrive.feed.hashing import Buffer
from ddrive.feed.storage import BITFIELD, DATA, FILE_NAMES, SIGNATURES, TREE, Directory, FileDirectory, Storage

_DIRECTORY = ("blocking", "open", "exists", "lock", "sync", "close", "remove")
_GROWING = (TREE, SIGNATURES, BITFIELD, DATA)
_NEEDED = ("read", "write", "size", "truncate", "sync", "close")
_OPTIONAL = ("write_all", "write_through", "punch", "extents", "preload", "unload")
_PIECE_BYTES = 1 << 16


class PlainStorage(Protocol):
    """The part of `Storage` that a program's own files need; the rest can be done by it."""

    def read(self, offset: int, size: int) -> bytes:
        """As in `Storage`, like the others."""

    def write(self, offset: int, data: Buffer) -> None: ...

    def size(self) -> int: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


StorageFactory = Callable[[str], PlainStorage]


class CompletedStorage:
    """A whole `Storage` made of a plain one; what the plain one has beyond that is used."""

    def __init__(self, plain: PlainStorage, name: str) -> None:
        if missing := [method for method in _NEEDED if not callable(getattr(plain, method, None))]:
            if isinstance(plain, Coroutine):
                plain.close()
            raise TypeError(f"what the factory gives for {name} lacks {', '.join(missing)}: {plain!r:.80}")
        for method in _OPTIONAL:
            if hasattr(plain, method):
                setattr(self, method, getattr(plain, method))
        self.read, self.write, self.size = plain.read, plain.write, plain.size
        self.truncate, self.sync, self.close = plain.truncate, plain.sync, plain.close

    def write_all(self, offset: int, pieces: Sequence[Buffer]) -> None:
        """Write all pieces in one."""
        self.write(offset, b"".join(pieces))

    def write_through(self, offset: int, pieces: Sequence[Buffer]) -> None:
        """Write all pieces."""
        self.write_all(offset, pieces)

    def punch(self, offset: int, size: int) -> None:
        """Overwrite the range with zeros: no space is freed."""
        end = min(offset + size, self.size())
        for start in range(offset, end, _PIECE_BYTES):
            self.write(start, bytes(min(_PIECE_BYTES, end - start)))

    def extents(self) -> list[tuple[int, int]]:
        """Return the whole file as one range."""
        size = self.size()
        return [(0, size)] if size else []

    def preload(self, size: int) -> None:
        """Do nothing."""

    def unload(self, offset: int, size: int) -> None:
        """Do nothing."""


class FactoryDirectory:
    """The files that `factory(name)` gives: each time the same content for the same name, empty at first.

    A file without content counts as absent. `blocking` says whether `sync` may wait for a disk, and so runs in a
    thread. There is no lock between processes: who shares such files has to see to that.
    """

    def __init__(self, factory: StorageFactory, *, blocking: bool = False) -> None:
        self.blocking = blocking
        self._factory = factory
        self._locked = False

    def open(self, name: str, *, create: bool) -> Storage:
        """Return the file `name`."""
        storage = CompletedStorage(self._factory(name), name)
        if not create and not storage.size():
            storage.close()
            raise FileNotFoundError(name)
        return storage

    def exists(self, name: str) -> bool:
        """Tell whether the file `name` has content."""
        storage = CompletedStorage(self._factory(name), name)
        try:
            return storage.size() > 0
        finally:
            storage.close()

    def lock(self) -> None:
        """Become the only owner within this object."""
        if self._locked:
            raise StorageLocked("the feed is open already")
        self._locked = True

    def sync(self) -> None:
        """Do nothing: names are the factory's business."""

    def close(self) -> None:
        """Give up the lock."""
        self._locked = False

    def remove(self) -> None:
        """Empty all files."""
        for name in FILE_NAMES:
            if name in _GROWING or self.exists(name):
                storage = self._factory(name)
                storage.truncate(0)
                storage.close()


def directory_of(place: Path | str | Directory | StorageFactory) -> Directory:
    """Return the directory that `place` stands for: a path, a directory object or a storage factory.

    Raises: TypeError for anything else.
    """
    if isinstance(place, Path | str):
        return FileDirectory(place)
    if all(hasattr(place, name) for name in _DIRECTORY) and not isinstance(place, type):
        return cast(Directory, place)
    if not callable(place) or (isinstance(place, type) and hasattr(place, "exists")):
        raise TypeError(f"a feed lies in a path, a Directory or what a function from names gives, not in {place!r:.80}")
    return FactoryDirectory(place)


def place_name(directory: Directory) -> str:
    """Return what messages call a place."""
    return str(directory.path) if isinstance(directory, FileDirectory) else "the given storage"
