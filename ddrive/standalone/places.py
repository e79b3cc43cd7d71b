"""Where a feed keeps its files: a directory on disk, memory, or files that a program makes itself."""

from collections.abc import Callable
from pathlib import Path

from ddrive.errors import StorageLocked
from ddrive.feed.storage import BITFIELD, DATA, FILE_NAMES, SIGNATURES, TREE, Directory, FileDirectory, Storage

StorageFactory = Callable[[str], Storage]

_GROWING = (TREE, SIGNATURES, BITFIELD, DATA)


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
        storage = self._factory(name)
        if not create and not storage.size():
            storage.close()
            raise FileNotFoundError(name)
        return storage

    def exists(self, name: str) -> bool:
        """Tell whether the file `name` has content."""
        storage = self._factory(name)
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
    """Return the directory that `place` stands for: a path, a directory object or a storage factory."""
    if isinstance(place, Path | str):
        return FileDirectory(place)
    return FactoryDirectory(place) if callable(place) else place
