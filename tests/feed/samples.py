"""Feeds and disks that several tests of this layer use."""

import random
from collections.abc import Sequence
from typing import Any

from ddrive.crypto import KeyPair
from ddrive.feed import Directory, FeedLog, MemoryDirectory, RemoteTree
from ddrive.feed.merkle import Proof
from ddrive.feed.storage import FILE_NAMES, MemoryStorage
from tests.support.vectors import vector

PAIR = KeyPair.from_seed(bytes([7]) * 32)  # the key of the recorded feeds
SECTOR_BYTES = 512


def main_blocks() -> list[bytes]:
    """Return the 41 blocks of the feed in merkle.json and proofs.json."""
    return [
        bytes((131 * index + 7 * place + 13 * (place // 256)) % 256 for place in range(size))
        for index, size in enumerate(vector("merkle.json")["sizes"])
    ]


def writer(blocks: Sequence[bytes] = (), directory: Directory | None = None, batch: int = 1000) -> FeedLog:
    """Return an author's feed with `blocks`, appended `batch` at a time."""
    log = FeedLog.create(directory or MemoryDirectory(), key=PAIR.public_key, secret_key=PAIR.secret_key)
    for start in range(0, len(blocks), batch):
        log.append(blocks[start : start + batch])
    return log


def reader(directory: Directory | None = None) -> FeedLog:
    """Return an empty feed of the same author for somebody else."""
    return FeedLog.create(directory or MemoryDirectory(), key=PAIR.public_key)


def proof_of(source: FeedLog, index: int, digest: int = 0, *, hash_only: bool = False) -> Proof:
    """Return what `source` sends as proof of a block."""
    proof = source.proof(index, digest=digest, hash_only=hash_only, remote=RemoteTree())
    assert proof is not None
    return proof


def copy(source: FeedLog, target: FeedLog, indexes: Sequence[int]) -> None:
    """Give `target` blocks of `source` in the given order, each with the proof that its digest asks for."""
    for index in indexes:
        target.put(index, source.block(index), proof_of(source, index, target.digest(index)))


def content(log: FeedLog) -> dict[int, bytes]:
    """Return every held block, read."""
    return {index: log.block(index) for first, last in log.runs(0, log.length) for index in range(first, last)}


class Crashed(Exception):
    """The power is gone."""


class CrashingDirectory:
    """A directory in memory whose power fails after a number of changes; what was not synced is lost in part."""

    blocking = False

    def __init__(self, changes: int, files: dict[str, bytearray] | None = None) -> None:
        self.changes_left = changes
        self.durable = {name: bytearray(file) for name, file in (files or {}).items()}
        self.current = {name: bytearray(file) for name, file in self.durable.items()}
        self.pending: dict[str, list[tuple[str, Any, Any]]] = {}

    def change(self) -> None:
        """Count a change, or lose power."""
        if self.changes_left <= 0:
            raise Crashed
        self.changes_left -= 1

    def open(self, name: str, *, create: bool) -> "CrashingStorage":
        """Return the file `name`."""
        if name not in self.current:
            if not create:
                raise FileNotFoundError(name)
            self.current[name] = bytearray()
            self.durable.setdefault(name, bytearray())
        return CrashingStorage(self, name)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file `name`."""
        return name in self.current

    def lock(self) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Count as a change."""
        self.change()

    def close(self) -> None:
        """Do nothing."""

    def remove(self) -> None:
        """Delete the files."""
        for name in FILE_NAMES:
            self.current.pop(name, None)

    def after_restart(self, seed: int) -> MemoryDirectory:
        """Return what is on disk after the power came back: all that was synced, and some sectors of the rest."""
        chance = random.Random(seed)
        for name, changes in self.pending.items():
            file = MemoryStorage(self.durable[name])
            for kind, where, what in changes:
                if kind == "write":
                    for offset, piece in _sectors(where, what):
                        if chance.random() < 0.5:
                            file.write(offset, piece)
                elif chance.random() < 0.5:
                    getattr(file, kind)(*(value for value in (where, what) if value is not None))
        return MemoryDirectory(self.durable)


class CrashingStorage(MemoryStorage):
    """A file of a `CrashingDirectory`."""

    def __init__(self, directory: CrashingDirectory, name: str) -> None:
        super().__init__(directory.current[name])
        self._directory, self._name = directory, name

    def _note(self, *change: Any) -> None:
        self._directory.pending.setdefault(self._name, []).append(change)

    def write(self, offset: int, data: Any) -> None:
        """Write, not durably."""
        self._directory.change()
        super().write(offset, data)
        self._note("write", offset, bytes(data))

    def truncate(self, size: int) -> None:
        """Set the size, not durably."""
        self._directory.change()
        super().truncate(size)
        self._note("truncate", size, None)

    def punch(self, offset: int, size: int) -> None:
        """Free a range, not durably."""
        self._directory.change()
        super().punch(offset, size)
        self._note("punch", offset, size)

    def sync(self) -> None:
        """Make all changes durable."""
        self._directory.change()
        self._directory.pending.pop(self._name, None)
        self._directory.durable[self._name][:] = self._content


def _sectors(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    pieces = []
    while data:
        size = SECTOR_BYTES - offset % SECTOR_BYTES
        pieces.append((offset, data[:size]))
        offset, data = offset + size, data[size:]
    return pieces
