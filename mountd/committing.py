"""Brings what was changed through a mount into its drive: grouped, content first, attributes last.

All that waits is one change of the drive: the content of all files is appended, then all entries are stored in one
append. What is sealed while contents are appended is stored with them if it has none to be appended itself. What fails
stays where it is, in the spool, and is tried again.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from ddrive.drive.mounts import OwnDrive
from ddrive.drive.stat import Stat, encode_stat
from ddrive.errors import (
    DriveError,
    InvalidPath,
    LengthChanged,
    NotADirectory,
    NotFound,
    NotWritable,
    StorageError,
    TimedOut,
)
from ddrive.trie import Delete, Put, Trie
from mountd.contents import append_contents
from mountd.entries import split
from mountd.journal import Attempt, Move
from mountd.lasting import Lasting
from mountd.merging import WRITTEN, has_landed, merged, owner_of
from mountd.nodes import Entry, Sealed
from mountd.pending import GROUP_S
from mountd.precedence import newer_entry
from mountd.staged import StagedDrive

log = logging.getLogger(__name__)

REFUSED = (StorageError, InvalidPath, LengthChanged)  # nothing was stored; of any other failure nobody knows
RETRY_S = (0.2, 1.0, 5.0)  # between tries that fail; the last one from then on


class _Final(NamedTuple):
    """What the drive gets at a path: `stat`, or nothing. `newer`: what others have stored there stays."""

    stat: Stat | None
    newer: bytes | None = None


@dataclass(slots=True)
class _Share:
    """What one drive gets: the mounted one, or one that is nested in it."""

    own: OwnDrive
    base: str  # where that drive is
    entries: list[Entry] = field(default_factory=list)
    tries: list["_Try"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Try:
    """An append that was asked for: what each entry becomes by it, and how to tell that it was made."""

    finals: list[_Final]
    attempt: Attempt | None  # None: it only removes, and may be made twice


class _Landed(Exception):
    """A try that nobody has confirmed is in the drive."""

    def __init__(self, made: _Try) -> None:
        super().__init__()
        self.made = made


class Committer:
    """The commits of one mount."""

    def __init__(self, staged: StagedDrive) -> None:
        self._staged = staged
        self.lasting = Lasting()  # what goes on although nobody waits for it any more, until `run` is cancelled
        self._doubtful: list[_Share] = []  # being stored when that was given up: the drive may have them
        self._turn = trio.Lock()  # held while entries are stored
        self._appending = trio.Lock()  # held while contents are appended; those who hold both took the turn first

    async def run(self) -> None:
        """Commit whenever something waits, until cancelled."""
        async with self.lasting.open():
            await self._commit_always()

    async def _commit_always(self) -> None:
        failures = 0
        while True:
            await self._staged.due.wait()
            with trio.move_on_after(GROUP_S):
                await self._staged.plenty.wait()
            try:
                await self.commit()
                failures = 0
            except (DriveError, OSError) as problem:
                log.warning("changes wait, as they cannot be stored: entries=%d why=%s", self._staged.pending, problem)
                self._staged.note_late()
                await self._make_room()
                await trio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1

    async def _make_room(self) -> None:
        """Give the disk space of the spool back that nothing needs any more."""
        with suppress(OSError):
            await self._staged.spool.sync(give_back=True)

    async def resolve(self) -> None:
        """Find out which changes of a dead worker are in the drive although it did not live to say so.

        Raises: what reading the drive raises.
        """
        spool = self._staged.spool
        landed: list[tuple[bytes, Attempt]] = []
        for attempt in spool.attempts:
            own = None
            with suppress(TimedOut):
                own = await owner_of(self._staged.drive, split(attempt.path)[0])
            if own is None:  # another drive is nested there now
                continue
            key = f"{own.path}/{split(attempt.path)[1]}".strip("/")
            if await has_landed(own.trie, key, attempt):
                landed.append((bytes(own.trie.feed.key), attempt))
        for feed, attempt in landed:
            # One that was refused looks the same as one after it that was not, but had other changes with that value:
            # what all of them have is stored, whichever it was.
            rivals = [set(other.serials) for where, other in landed if where == feed and other.meets(attempt)]
            serials = sorted(set(attempt.serials).intersection(*rivals))
            self._staged.settled(serials, {spool.paths.get(serial, "") for serial in attempt.serials})
            self._staged.follow({spool.paths.get(serial, "") for serial in serials}, attempt.end)
            spool.journal.done(serials)
            log.info("found in the drive already: entries=%d version=%d", len(serials), attempt.version)
        spool.attempts = []
        await self._resolve_move()
        for path, directory in self._staged.new_directories():
            with suppress(NotFound, NotADirectory):  # it is not new, if an older state of it was stored before the kill
                stored = await self._staged.drive.lstat(path)
                directory.origin = (path, stored) if stored.is_dir else None

    async def _resolve_move(self) -> None:
        """Let what waits move along with a directory of which nobody said whether it was moved, if it was.

        If not, that can still happen, until something else is stored.
        """
        move = self._staged.spool.move
        if move is not None:
            own = await self._staged.drive.own(split(move.new)[0])
            if await self._is_moved(own, own.trie, move):
                self._staged.moved(move.old, move.new)
                self._move_ended()

    def _move_ended(self) -> None:
        """Take note that all changes are where they belong."""
        self._staged.spool.move = None
        self._staged.spool.journal.moved()

    async def finish(self, limit_s: float) -> bool:
        """Commit all that is sealed, for `limit_s` seconds at most; tell whether nothing is left."""
        with trio.move_on_after(limit_s, shield=True):
            try:
                self._staged.seal_late()
                self._staged.include_all()
                while self._staged.pending:  # one state of a file after the other
                    await self.commit()
            except (DriveError, OSError) as problem:
                log.warning("changes cannot be stored: entries=%d why=%s", self._staged.pending, problem)
        return self._staged.is_clean

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Commit all that can be at once, and commit nothing while the context lasts.

        Contents that are not in the drive yet are not waited for: what has them is nowhere in the drive, or as it was.
        Raises: what storing raises.
        """
        async with self._turn:
            await self._resolve_move()
            while self._staged.is_ready or self._staged.holds_back:
                if not self._staged.is_ready:
                    await self._append_waiting()  # a removal waits for it, and that has to be in the drive too
                await self._store_ready()
            yield

    async def move(self, old: str, new: str) -> bool:
        """Move a directory in the drive, with what is not committed below it; tell whether there is any of that.

        To be called within `alone`. It should go on to its end (`lasting`): until then nothing is committed, as it
        would be stored where the directory was.
        Raises: what renaming raises.
        """
        staged, spool = self._staged, self._staged.spool
        with staged.moving(old, new):
            own = await staged.drive.own(split(old)[0])  # that of `old` may be a nested one, perhaps of somebody else
            move = Move(old, new, own.trie.version)
            spool.journal.moving(move)
            spool.move = move
            if staged.waits_below(old):
                await spool.sync_journal()
            try:
                await staged.drive.rename(old, new)
            except (DriveError, OSError):
                self._move_ended()
                raise
            staged.moved(old, new)
            self._move_ended()
            return staged.waits_below(new)

    @staticmethod
    async def _is_moved(own: OwnDrive, view: Trie, move: Move) -> bool:
        """Tell whether a directory was moved in a version of the drive; `own` is the one with its new place."""
        key = f"{own.path}/{split(move.new)[1]}".strip("/")
        for seq in range(max(1, move.version), view.version):
            node = await view.nodes.node(seq)
            if node.value is not None and (node.key == key or node.key.startswith(f"{key}/")):
                return True
        return False

    async def commit(self) -> None:
        """Store everything that waits now. Raises: what storing raises; then all of it waits still."""
        failure: Exception | None = None
        self._staged.seal_late()
        try:
            await self._append_waiting()
        except (DriveError, OSError) as problem:  # what has no content to append can be stored all the same
            failure = problem
        async with self._turn:
            await self._resolve_move()
            await self._store_ready()
        if failure is not None:
            raise failure

    async def _append_waiting(self) -> None:
        """Append the contents of all that waits. Nothing of the drive is changed by that, and changes go on."""
        async with self._appending:
            try:
                shares, failure = await self._shares(self._staged.take_contents())
                for share in shares:
                    sealed = [entry.committing for entry in share.entries if entry.committing is not None]
                    contents = {each.content: None for each in sealed if each.content is not None}
                    for content in contents:
                        content.users += 1  # whatever becomes of the entries meanwhile
                    try:
                        await append_contents(share.own.content, list(contents), self._staged.calm)
                    except (DriveError, OSError) as problem:  # of one drive, the others go on
                        failure = problem
                    finally:
                        for content in contents:
                            content.drop(done=False)
            finally:
                self._staged.give_back_contents()
            if failure is not None:
                raise failure

    async def _store_ready(self) -> None:
        doubtful = self._doubtful.copy()
        for share in doubtful:  # before anything else: programs went on from what these say
            await self._store(share)
            self._doubtful.remove(share)
        entries = self._staged.take()
        if not (doubtful or entries):
            return
        try:
            shares, failure = await self._shares(entries)
            for share in shares:
                try:
                    await self._store(share)
                except (DriveError, OSError) as problem:  # of one drive, the others go on
                    failure = problem
        finally:
            unknown = [entry for share in self._doubtful for entry in share.entries]
            self._staged.wait_for(unknown)
            self._staged.give_back([each for each in entries if each.committing is not None and each not in unknown])
        if not self._doubtful:  # what they have tried stays in the journal
            await self._staged.spool.settle(self._staged.changes, empty=self._staged.is_clean)
        if failure is not None:
            raise failure

    async def _shares(self, entries: Sequence[Entry]) -> tuple[list[_Share], Exception | None]:
        """Return what each drive gets. What was appended to another one, as its place was that one's then, waits on.

        So does what is below a drive that cannot be changed here, which is the failure then. What changes an entry of
        a drive that was taken out meanwhile is dropped.
        """
        root = await self._staged.drive.own("/")
        has_nested = bool(await root.mount_paths())
        owners: dict[str, OwnDrive | TimedOut | None] = {}
        found: dict[tuple[bytes, str], _Share] = {}
        failure: Exception | None = None
        for entry in entries:
            directory = entry.path.rpartition("/")[0]
            if directory not in owners:
                try:
                    owners[directory] = await owner_of(self._staged.drive, directory) if has_nested else root
                except TimedOut as problem:
                    owners[directory] = problem
            own, state = owners[directory], entry.committing
            if isinstance(own, TimedOut):
                failure = own
                continue
            if state is not None and state.is_lost(own.content.key if own else None):
                log.info("its drive is not there any more: path=%s", entry.path)
                self._staged.spool.journal.done([state.serial])
                self._staged.committed(entry, None, 0, root.content.key, is_newest=False)
                continue
            if own is None:
                failure = NotWritable(f"the drive that {entry.path!r} belongs to now cannot be changed here")
                continue
            content = None if state is None else state.content
            if content is not None and content.extent is not None and content.appended_to != own.content.key:
                content.extent = None  # a nested drive came or went meanwhile
                continue
            base = directory[: len(directory) - len(own.path)].rstrip("/") if has_nested else ""
            share = found.setdefault((bytes(own.trie.feed.key), base), _Share(own, base))
            share.entries.append(entry)
        return list(found.values()), failure

    async def _store(self, share: _Share) -> None:
        """Store what a drive gets, once: when this is given up or fails, `share` says what may have been stored.

        The states that follow were made on top of these, so they would be taken for what others have changed.
        """
        sealed = [entry.committing for entry in share.entries if entry.committing is not None]
        try:
            made = await self._update(share, sealed)
        except BaseException as problem:
            if share.tries and not isinstance(problem, REFUSED) and share not in self._doubtful:
                self._doubtful.append(share)
            raise
        self._staged.spool.journal.done([each.serial for each in sealed])
        version = made.attempt.end if made.attempt else 0
        for entry, final in zip(share.entries, made.finals, strict=True):
            self._staged.committed(entry, final.stat, version, share.own.content.key, is_newest=final.newer is None)
        log.info("committed: entries=%d version=%d", len(sealed), share.own.trie.version)

    async def _update(self, share: _Share, sealed: Sequence[Sealed]) -> _Try:
        """Change the drive, and return the try that did: a former one, if the drive has that already."""
        move = self._staged.spool.move
        above = None if move is None else await self._staged.drive.own(split(move.new)[0])
        start = 0

        async def decide(view: Trie) -> Sequence[Put | Delete]:
            nonlocal start
            start = view.version
            if move and above and above.trie is share.own.trie and await self._is_moved(above, view, move):
                raise LengthChanged(f"{move.old} was moved to {move.new} meanwhile")
            for former in share.tries:
                if former.attempt and await has_landed(
                    view, former.attempt.path.removeprefix(share.base), former.attempt
                ):
                    raise _Landed(former)
            finals = [await self._final(view, share.base, each) for each in sealed]
            changes = list(zip([each.path for each in sealed], finals, strict=True))
            removed = [path for path, final in changes if final.stat is None and final.newer is None]
            puts = [(path, encode_stat(final.stat)) for path, final in changes if final.stat is not None]
            puts += [(path, final.newer) for path, final in changes if final.stat is not None and final.newer]
            attempt = None
            if puts:
                attempt = Attempt(*puts[0], start, len(removed) + len(puts), [each.serial for each in sealed])
                self._staged.spool.journal.tried(attempt)
            share.tries.append(_Try(finals, attempt))
            removals = [Delete(path.removeprefix(share.base)) for path in removed]
            return [*removals, *(Put(path.removeprefix(share.base), value) for path, value in puts)]

        async with self._staged.batching:
            try:
                done = await share.own.trie.update(decide)
            except _Landed as found:
                return found.made
            if above is not None and above.trie is share.own.trie:
                self._move_ended()  # it cannot be made any more: the drive has become longer without it
            if share.own.trie.feed is self._staged.drive.metadata:
                self._staged.own.add(start, start + sum(node is not None for node in done))
            return share.tries[-1]

    async def _final(self, view: Trie, base: str, sealed: Sealed) -> _Final:
        """Return what to store for `sealed`, and what to store again after it as it is newer."""
        stat = await merged(view, base, sealed)
        found = await newer_entry(view, base, sealed, self._staged.own)
        if found is None:
            return _Final(stat)
        log.info("others have stored later what was changed here: path=%s made=%s", sealed.path, sealed.made)
        node, there = found
        is_same = stat is not None and sealed.origin is not None and sealed.origin[0] == sealed.path
        given = {name: getattr(stat, name) for name in sealed.changed - WRITTEN} if is_same else {}
        return _Final(stat, encode_stat(there._replace(**given)) if given else node.value)
