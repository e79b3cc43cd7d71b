"""The record of what was changed through a mount and is not in the drive yet; what a killed worker leaves to the next.

A file of records, each with its length and a checksum: a torn end is no record. Every change says what is at a path
from then on, so reading the records twice does no harm. Knows nothing of drives and does not interpret the changes.

What a record says can be newer than the bytes in the data file when power fails; so after another boot only records
before the last place of which a `SYNCED` says that the data of all before it is on the platter.
"""

import logging
import os
import struct
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import msgpack

log = logging.getLogger(__name__)

FORMAT = 1
RECORD_BYTES_MAX = 1 << 30  # a longer one is damage
_FRAME = struct.Struct("<II")  # length and CRC-32 of what follows
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

BEGUN, CHANGED, DONE, SYNCED, TRIED, MOVING, MOVED, BOOTED = range(8)  # kinds of records

Change = list[Any]  # serial number, path, and what is there; only the first two mean something here


class Attempt(NamedTuple):
    """An append to a drive that may have succeeded: then the drive has `value` at `path`.

    That is in one of the `versions` after `version`, and the changes `serials` are in the drive as well.
    """

    path: str
    value: bytes
    version: int
    versions: int
    serials: list[int]
    number: int = 0  # how many were asked for before it, of those in the journal
    confirmed: int | None = None  # how many had been when it was recorded that the drive has it

    @property
    def end(self) -> int:
        """The version that the drive has after it, or a later one when some of its removals had nothing to remove."""
        return self.version + self.versions

    def meets(self, other: "Attempt") -> bool:
        """Tell whether what one was to store and what the other was may be the same versions."""
        first, later = (self, other) if self.number < other.number else (other, self)
        if first.confirmed is not None and first.confirmed <= later.number:
            return False  # its end may be too far, but the drive had it when the other was asked for
        return first.version < later.end and later.version < first.end


_TOLD = 5  # fields of an `Attempt` that are in its record


class Mark(NamedTuple):
    """A place in a journal, which has begun anew so many times before."""

    restarts: int
    position: int


class Move(NamedTuple):
    """A directory that is moved in the drive, from `old` to `new`: if that was done, then after `version`."""

    old: str
    new: str
    version: int


@dataclass(slots=True)
class Replayed:
    """What a journal tells: whose it is, and the last change of each path not in the drive yet, oldest first.

    `move` is one of which nobody said that it was done, or not done. `survived` says of how many records the changes
    count when this is another boot, of which the journal does not tell yet.
    """

    owner: dict[str, Any]
    changes: list[Change] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)  # of all changes, by their serial numbers
    move: Move | None = None
    survived: int | None = None


class Journal:
    """An open journal, written to its end. Records are in the page cache when a call returns: a kill loses none."""

    def __init__(self, path: Path, owner: dict[str, Any], make: Callable[[], None] | None = None) -> None:
        """`owner` says whose changes these are, in what `replay` gives back. Appends to what is there.

        With `make` it is not open yet: that is called before the first record, and has to call `open`.
        """
        self._path = path
        self._owner = owner
        self._make = make
        self._owed: list[list[Any]] = []  # what has to be recorded before anything else
        self._restarts = 0
        self._file = -1
        self._size = 0
        if make is None:
            self.open()

    def open(self) -> None:
        """Open the file, and begin it when it is empty. Raises: OSError; then it is not open."""
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        if not self._size:
            try:
                self._begin()
            except OSError:
                self.close()
                raise

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self._size

    def changed(self, changes: list[Change]) -> None:
        """Record changes that belong together. Raises: OSError; then nothing is recorded."""
        self._append([CHANGED, changes])

    def done(self, serials: list[int]) -> None:
        """Record that the changes with these numbers, and older ones of the same paths, are in the drive.

        Where there is no room for that, nothing else is recorded before it. Until then another worker finds out itself.
        """
        self._owe([DONE, serials])

    def tried(self, attempt: Attempt) -> None:
        """Record that changes are about to be stored in the drive. Raises: OSError."""
        self._append([TRIED, *attempt[:_TOLD]])

    def moving(self, move: Move) -> None:
        """Record that a directory is about to be moved in the drive. Raises: OSError."""
        self._append([MOVING, *move])

    def moved_along(self, changes: list[Change], done: list[int]) -> None:
        """Record that `changes`, which moved with a directory, take the place of those `done`; room as for `moved`."""
        self._owe([CHANGED, changes], [DONE, done])

    def moved(self) -> None:
        """Record that the changes are where they belong, whether the directory was moved or not.

        Where there is no room for that, nothing else is recorded before it: what is at the old place by then would be
        taken for what was moved.
        """
        self._owe([MOVED])

    def booted(self, survived: int) -> None:
        """Record that this is another boot, and that of the changes so far only those in the first records count.

        What follows counts again without a sync; room as for `moved`.
        """
        self._owe([BOOTED, _boot_id(), survived])

    def mark(self) -> Mark:
        """Return where it ends now."""
        return Mark(self._restarts, self._size)

    def synced(self, until: Mark) -> None:
        """Record that the data of all changes before `until` is on the platter. Raises: OSError."""
        if until.restarts == self._restarts:
            self._add([SYNCED, until.position])  # of what is recorded: what is owed comes later

    def restart(self) -> None:
        """Begin anew: no change so far counts any more. Raises: OSError."""
        os.ftruncate(self._file, 0)
        self._size = 0
        self._restarts += 1
        self._owed.clear()
        self._begin()

    def rewrite(self, changes: list[Change], end: int) -> None:
        """Begin anew with `changes`, whose data is on the platter, and what was recorded from byte `end` on.

        Raises: OSError; then the journal is as it was.
        """
        with self._path.open("rb") as old:
            old.seek(end)
            later = old.read()
        fresh = self._path.with_suffix(".new")
        try:
            journal = self._anew(fresh, changes, later)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self._size, self._owed = journal._file, journal._size, []

    def _anew(self, fresh: Path, changes: list[Change], later: bytes) -> "Journal":
        """Return a journal with these changes and records in the place of this one. Raises: OSError."""
        journal = Journal(fresh, self._owner)
        try:
            journal.restart()
            journal.changed(changes)
            journal.synced(journal.mark())
            journal._write(later)
            journal.sync()
            os.replace(fresh, self._path)
        except OSError:
            journal.close()
            raise
        return journal

    def sync(self) -> None:
        """Return when all records are on the platter; to be called in a thread. Raises: OSError."""
        if self._file >= 0:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def cut(self, length: int) -> None:
        """Take away what stands behind the last whole record, before the first is appended."""
        os.ftruncate(self._file, length)
        self._size = length
        if not length:
            self._begin()

    def _begin(self) -> None:
        self._add([BEGUN, {"format": FORMAT, "boot": _boot_id()} | self._owner])

    def _append(self, record: list[Any]) -> None:
        self._pay()
        self._add(record)

    def _owe(self, *records: list[Any]) -> None:
        self._owed += records
        with suppress(OSError):
            self._pay()

    def _pay(self) -> None:
        while self._owed:
            self._add(self._owed[0])
            del self._owed[0]

    def _add(self, record: list[Any]) -> None:
        if self._file < 0 and self._make is not None:
            self._make()
        if not self._size and record[0] != BEGUN:
            self._begin()  # a restart found no room for it
        body: bytes = msgpack.packb(record, unicode_errors="surrogateescape")
        self._write(_FRAME.pack(len(body), crc32(body)) + body)

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:] if written else data)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)


def replay(path: Path) -> tuple[Replayed | None, int]:
    """Return what the journal at `path` tells and the length of its whole records; None when it tells nothing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, 0
    records, ends = _records(data)
    length = ends[-1] if ends else 0
    if not records or records[0][0] != BEGUN or records[0][1].get("format") != FORMAT:
        return None, 0
    found = Replayed(records[0][1])
    lost, known, boot = _lost(records)
    trusted = len(records)
    if boot != _boot_id():
        trusted = max(known, *(_trusted(number, record, ends) for number, record in enumerate(records)))
        found.survived = trusted
    paths = found.paths
    pending: dict[str, Change] = {}
    tried: dict[frozenset[int], list[int]] = {}  # which attempts, by their changes
    for number, record in enumerate(records):
        if record[0] == CHANGED:
            paths |= {change[0]: change[1] for change in record[1]}
            if number < trusted and number not in lost:
                pending |= {change[1]: change for change in record[1]}
        elif record[0] == DONE:
            for serial in record[1]:
                where = paths.get(serial, "")
                if where in pending and pending[where][0] <= serial:
                    del pending[where]
            for which in tried.pop(frozenset(record[1]), ()):
                found.attempts[which] = found.attempts[which]._replace(confirmed=len(found.attempts))
        elif record[0] == TRIED:
            tried.setdefault(frozenset(record[5]), []).append(len(found.attempts))
            found.attempts.append(Attempt(*record[1:])._replace(number=len(found.attempts)))
        elif record[0] in (MOVING, MOVED):
            found.move = Move(*record[1:]) if record[0] == MOVING else None
    found.changes = sorted(pending.values(), key=lambda change: change[0])
    return found, length


def _lost(records: list[list[Any]]) -> tuple[set[int], int, str | None]:
    """Return which records did not survive the boots so far, before which the others did, and the last boot told of."""
    lost: set[int] = set()
    known, boot = 0, records[0][1].get("boot")
    for number, record in enumerate(records):
        if record[0] == BOOTED:
            known, boot = number, record[1]
            lost.update(range(record[2], number))
    return lost, known, boot


def _trusted(number: int, record: list[Any], ends: list[int]) -> int:
    """Return of how many records this one, the `number`th, says that their data is on the platter."""
    if record[0] != SYNCED:
        return 0
    return bisect_right(ends, record[1]) if len(record) > 1 else number  # it used to tell no place


def _records(data: bytes) -> tuple[list[list[Any]], list[int]]:
    """Return the whole records at the beginning of `data`, and where each ends."""
    records: list[list[Any]] = []
    ends: list[int] = []
    position = 0
    while position + _FRAME.size <= len(data):
        size, checksum = _FRAME.unpack_from(data, position)
        body = data[position + _FRAME.size : position + _FRAME.size + size]
        if not 0 < size <= RECORD_BYTES_MAX or len(body) < size or crc32(body) != checksum:
            break  # a power failure may leave zeros, which would be a record of nothing: its checksum is 0
        records.append(msgpack.unpackb(body, unicode_errors="surrogateescape", strict_map_key=False))
        position += _FRAME.size + size
        ends.append(position)
    if position < len(data):
        log.info("journal ends in a torn record: kept=%d of=%d", position, len(data))
    return records, ends


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()
