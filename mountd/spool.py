"""Where bytes written through a mount are until they are in the drive: a directory with a data file and a journal.

The data file is a row of slots of one chunk each. A slot is written by one file; once a journal record names it, its
bytes stay until that record does not count any more, so a file always comes back as it was when it was last closed or
synced. Calls are synchronous: they end in the page cache. Only `sync` waits for the platter, in a thread.
"""

import fcntl
import heapq
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import trio

from ddrive.errors import DISK_FULL
from mountd.journal import Attempt, Change, Journal, Move, Replayed, replay

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024  # as the blocks of the files we append
SUPERSEDED_MAX = 4096  # slots (256 MiB) that wait for the next sync; with more it is made
BEGINNING_BYTES = 512  # a sector: of a journal that tells something they are not all zeros
RESTART_BYTES = 16 * 1024 * 1024  # a longer journal is written anew with what still counts
_LOCK, _DATA, _JOURNAL = "lock", "data", "journal"
PLACE = "mountpoint"  # what a journal says of its owner besides the drive


class Slots:
    """Which slots of the data file are in use, and by how many."""

    def __init__(self) -> None:
        self._users: dict[int, int] = {}
        self._free: list[int] = []  # a heap: low slots first keeps the file short
        self._end = 0  # all slots from here on were never used
        self._done: list[int] = []  # unused, but named by a change of which the disk may not know that it is done
        self._superseded: list[int] = []  # unused, but named by a change that a newer one replaced
        self._leaving: set[int] = set()  # of both, those that are free when the sync that is under way has ended

    def __len__(self) -> int:
        return len(self._users)

    @property
    def superseded(self) -> int:
        """How many slots wait for a sync of all data."""
        return len(self._superseded)

    def take(self) -> int:
        """Return a slot that nobody uses, with one user."""
        if self._free:
            slot = heapq.heappop(self._free)
        else:
            slot = self._end
            self._end += 1
        self._users[slot] = 1
        return slot

    def hold(self, slots: Iterable[int]) -> None:
        """Count one more user of each."""
        for slot in slots:
            users = self._users.get(slot, 0)
            self._users[slot] = users + 1
            self._end = max(self._end, slot + 1)

    def drop(self, slots: Iterable[int], *, into: list[int] | None = None) -> None:
        """Count one user of each less; those without are free at once, or put `into` a waiting room."""
        for slot in slots:
            users = self._users[slot] - 1
            if users:
                self._users[slot] = users
                continue
            del self._users[slot]
            if into is None:
                heapq.heappush(self._free, slot)
            else:
                into.append(slot)

    def drop_done(self, slots: Iterable[int]) -> None:
        """As `drop`, of a change that is in the drive: free when the journal is synced."""
        self.drop(slots, into=self._done)

    def drop_superseded(self, slots: Iterable[int]) -> None:
        """As `drop`, of a change that a newer one replaced: free when all is synced."""
        self.drop(slots, into=self._superseded)

    @contextmanager
    def leaving(self, *, all_data: bool) -> Iterator[None]:
        """Make those free that wait now for a sync, when it has ended, which is when the context does.

        If that ends with an error they wait for another one.
        """
        done, self._done = self._done, []
        superseded: list[int] = []
        if all_data:
            superseded, self._superseded = self._superseded, []
        self._leaving.update(done, superseded)
        try:
            yield
            for slot in (*done, *superseded):
                heapq.heappush(self._free, slot)
        except BaseException:
            self._done += done
            self._superseded += superseded
            raise
        finally:
            self._leaving.difference_update(done, superseded)

    def seal_gaps(self) -> None:
        """Let slots that nobody uses wait for a sync of all data, after `hold` of those that are used.

        What the dead worker recorded last, and so is not used, the disk may still take for what counts.
        """
        self._superseded = [slot for slot in range(self._end) if slot not in self._users]

    def shorten(self) -> int:
        """Leave out free slots at the end; return how many slots the file needs."""
        named = (self._users, self._done, self._superseded, self._leaving)
        end = 1 + max((max(some) for some in named if some), default=-1)
        if end < self._end:
            self._free = [slot for slot in self._free if slot < end]
            heapq.heapify(self._free)
            self._end = end
        return self._end


class Spool:
    """One spool directory, locked by this process as long as it is open."""

    data: FileIO  # what was written; there once it is made

    def __init__(self, directory: Path, lock: int | None, owner: dict[str, Any]) -> None:
        """Open what is in `directory`, whose lock is held; None: there is no such directory before `make`.

        Raises: OSError.
        """
        self.directory = directory
        self.slots = Slots()
        found, length = replay(directory / _JOURNAL)
        self.replayed: list[Change] = found.changes if found else []
        self.attempts: list[Attempt] = found.attempts if found else []
        self.paths = found.paths if found else {}  # of all changes in the journal, by serial number
        self.move: Move | None = found.move if found else None
        self.journal = Journal(directory / _JOURNAL, owner, self.make)
        self._lock = lock
        self._data = -1
        self._syncing = trio.Lock()
        self._serial = max(self.paths, default=0)  # no number twice: what was tried names them
        if lock is not None:
            try:
                self._open()
                self.journal.cut(length)
            except OSError:
                self.close(remove=False)
                raise
        if found and found.survived is not None:
            self.journal.booted(found.survived)

    @property
    def is_made(self) -> bool:
        """Whether there is such a directory: not while the disk has no room for one, and nothing was written."""
        return self._lock is not None

    def make(self) -> None:
        """Make the directory, if it is not there. Raises: OSError, ENOSPC above all; then nothing of it is left."""
        if self._lock is not None:
            return
        try:
            self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700)
            self._lock = _locked(self.directory, create=True)
            if self._lock is None:
                raise OSError(f"{self.directory} cannot be locked")
            self._open()
        except OSError:
            self.close(remove=True)
            raise

    def _open(self) -> None:
        self.journal.open()
        self.data = FileIO(os.open(self.directory / _DATA, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
        self._data = self.data.fileno()

    def serial(self) -> int:
        """Return a number for a change, higher than all before."""
        self._serial += 1
        return self._serial

    def read(self, place: int, size: int) -> bytes:
        """Return `size` bytes of the data file; those beyond its end are zeros. Raises: OSError."""
        data = os.pread(self._data, size, place)
        return data if len(data) == size else data + bytes(size - len(data))

    def has(self, place: int, size: int) -> bool:
        """Tell whether the data file is long enough to have so many bytes there."""
        return os.fstat(self._data).st_size >= place + size

    def write(self, place: int, data: memoryview | bytes) -> None:
        """Write into slots of the caller. Raises: OSError, ENOSPC above all."""
        written = self.write_some(place, data)
        while written < len(data):
            written += self.write_some(place + written, memoryview(data)[written:])

    def write_some(self, place: int, data: memoryview | bytes) -> int:
        """Write into slots of the caller as far as there is room; return how many bytes. Raises: as `write`."""
        self.make()
        try:
            return os.pwrite(self._data, data, place)
        except OSError as problem:
            if problem.errno not in DISK_FULL or len(data) <= CHUNK_BYTES:
                raise
        return os.pwrite(self._data, data[:CHUNK_BYTES], place)  # ext4 (Linux 6.18) stores none of what is too much

    async def sync_journal(self) -> None:
        """Return when all that is recorded so far is on the platter. Raises: OSError."""
        async with self._syncing:
            await trio.to_thread.run_sync(self.journal.sync)

    async def sync(self, *, give_back: bool = False) -> None:
        """Return when everything written and recorded so far is on the platter. Raises: OSError.

        With `give_back` the disk space of free slots at the end is given back then.
        """
        if not self.is_made:  # nothing was
            return
        async with self._syncing:
            until = self.journal.mark()  # what comes meanwhile is not in it, nor are slots free that only that replaces
            with self.slots.leaving(all_data=True):
                await trio.to_thread.run_sync(os.fdatasync, self._data)
                self.journal.synced(until)
                await trio.to_thread.run_sync(self.journal.sync)
            if give_back:
                self._shorten()

    async def settle(self, changes: Callable[[], list[Change]], *, empty: bool) -> None:
        """Free what is used no more; the disk knows it then too. Raises: OSError.

        `changes` gives all that count, oldest first; `empty` says that there are none.
        """
        if empty:
            self.journal.restart()
        elif self.journal.size > RESTART_BYTES or self.slots.superseded > SUPERSEDED_MAX:
            await self._rewrite(changes)
            return
        with self.slots.leaving(all_data=empty):
            async with self._syncing:
                await trio.to_thread.run_sync(self.journal.sync)
        self._shorten()

    async def _rewrite(self, changes: Callable[[], list[Change]]) -> None:
        """Begin the journal anew with `changes` and what is recorded until their data is on the platter."""
        async with self._syncing:
            before, counting = self.journal.size, changes()
            with self.slots.leaving(all_data=True):
                await trio.to_thread.run_sync(os.fdatasync, self._data)
                self.journal.rewrite(counting, before)
                await trio.to_thread.run_sync(self.journal.sync)

    def _shorten(self) -> None:
        os.ftruncate(self._data, self.slots.shorten() * CHUNK_BYTES)

    def close(self, *, remove: bool) -> None:
        """Close the files and give the lock up; `remove` the directory when nothing in it counts."""
        self.journal.close()
        if self._data >= 0:
            self.data.close()
            self._data = -1
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def open_spools(root: Path, owner: dict[str, Any], place: str, others: Collection[str] = ()) -> list[Spool]:
    """Return the spools that dead workers left for `owner`; when there is none, a new one. All are locked.

    Where the disk has no room for a new one it is made when something is written.

    First comes that of the mount at `place`. Those of mounts at `others` are left to their own next workers: programs
    there count on what they have closed. One that was left between the end of its journal and the next beginning is
    removed: nothing in it counts.
    Raises: OSError.
    """
    found: list[Spool] = []
    for directory in sorted(root.iterdir()) if root.exists() else ():
        told, _ = replay(directory / _JOURNAL)
        is_ours = told is not None and owner.items() <= told.owner.items() and told.owner.get(PLACE) not in others
        if not (is_ours or _is_blank(directory / _JOURNAL)):
            continue  # not locked for a look: the worker that begins to serve it at this moment would pass it over
        if (lock := _locked(directory)) is None:
            continue
        if is_ours:
            spool = Spool(directory, lock, owner | {PLACE: place})
            found.insert(0 if told is not None and told.owner.get(PLACE) == place else len(found), spool)
            log.info("spool taken over: place=%s changes=%d", directory.name, len(spool.replayed))
            continue
        if _is_blank(directory / _JOURNAL):  # still
            shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
    return found or [_new(root, owner | {PLACE: place})]


def _is_blank(journal: Path) -> bool:
    """Tell whether a journal is there and says nothing: `Journal.restart` was interrupted, after all was stored.

    When power fails it may be there with its length, but without its bytes: those are zeros then.
    """
    try:
        with journal.open("rb") as file:
            return not any(file.read(BEGINNING_BYTES))
    except OSError:
        return False


def left_journals(root: Path) -> Iterator[Replayed]:
    """Yield what is recorded in each spool that no process works with. Raises: OSError."""
    for directory in sorted(root.iterdir()) if root.exists() else ():
        if (lock := _locked(directory)) is not None:
            os.close(lock)  # at once: whoever mounts the drive meanwhile shall get it
            told, _ = replay(directory / _JOURNAL)
            if told is not None:
                yield told


def _new(root: Path, owner: dict[str, Any]) -> Spool:
    spool = Spool(root / secrets.token_hex(8), None, owner)
    try:
        spool.make()
    except OSError as problem:
        if problem.errno not in DISK_FULL:
            raise
        log.warning("no room for a spool, so nothing can be written: place=%s", spool.directory)
    return spool


def _locked(directory: Path, *, create: bool = False) -> int | None:
    """Return the lock of a spool directory, None when another process has it or it is no spool.

    Raises: OSError, when it is to be created and cannot be.
    """
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    except OSError:
        if create:
            raise
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
