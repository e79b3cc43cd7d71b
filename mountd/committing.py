"""Brings what was changed through a mount into its drive: grouped, content first, attributes last.

All that waits is one change of the drive: the content of all files is appended, then all entries are stored in one
append. What is sealed while contents are appended is stored with them if it has none to be appended itself. What fails
stays where it is, in the spool, and is tried again.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from ddrive.drive.content import APPEND_BYTES, BLOCK_BYTES, writing
from ddrive.drive.mounts import OwnDrive
from ddrive.drive.reader import Extent
from ddrive.drive.stat import Stat, decode_stat, encode_stat
from ddrive.drive.writer import located
from ddrive.errors import DriveError, LengthChanged, NotADirectory, NotFound
from ddrive.feed import Feed
from ddrive.trie import Delete, Put, Trie
from mountd.draft import Content
from mountd.journal import Attempt, Move
from mountd.lasting import Lasting
from mountd.nodes import Entry, Sealed
from mountd.pending import GROUP_S, split
from mountd.staged import StagedDrive

log = logging.getLogger(__name__)

PIECE_BYTES = 16 * 1024 * 1024  # of a large content appended at once
WRITTEN = frozenset({"size", "blocks", "offset", "byte_offset", "mtime_ms", "ctime_ms"})  # what writing changes
RETRY_S = (0.2, 1.0, 5.0)  # between tries that fail; the last one from then on


@dataclass(slots=True)
class _Share:
    """What one drive gets: the mounted one, or one that is nested in it."""

    own: OwnDrive
    base: str  # where that drive is
    entries: list[Entry] = field(default_factory=list)
    finals: list[Stat | None] = field(default_factory=list)


class Committer:
    """The commits of one mount."""

    def __init__(self, staged: StagedDrive) -> None:
        self._staged = staged
        self.lasting = Lasting()  # what goes on although nobody waits for it any more, until `run` is cancelled
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
        for attempt in spool.attempts:
            own = await self._staged.drive.own(attempt.path.rpartition("/")[0])
            key = f"{own.path}/{attempt.path.rpartition('/')[2]}".strip("/")
            for seq in range(attempt.version, min(attempt.version + attempt.versions, own.trie.version)):
                node = await own.trie.nodes.node(seq)
                if node.key == key and node.value == attempt.value:
                    self._staged.settled(attempt.serials)
                    spool.journal.done(attempt.serials)
                    log.info("found in the drive already: entries=%d version=%d", attempt.versions, seq)
                    break
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
            own = await staged.drive.own(old)
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
            failure: Exception | None = None
            try:
                for share in await self._shares(self._staged.take_contents()):
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
        entries = self._staged.take()
        if not entries:
            return
        failure: Exception | None = None
        try:
            for share in await self._shares(entries):
                try:
                    await self._store(share)
                except (DriveError, OSError) as problem:  # of one drive, the others go on
                    failure = problem
                    continue
                serials = [entry.committing.serial for entry in share.entries if entry.committing is not None]
                self._staged.spool.journal.done(serials)
                for entry, final in zip(share.entries, share.finals, strict=True):
                    self._staged.committed(entry, final)
        finally:
            self._staged.give_back([entry for entry in entries if entry.committing is not None])
        await self._staged.spool.settle(self._staged.changes, empty=self._staged.is_clean)
        if failure is not None:
            raise failure

    async def _shares(self, entries: Sequence[Entry]) -> list[_Share]:
        """Return what each drive gets."""
        drive = self._staged.drive
        root = await drive.own("/")
        has_nested = bool(await root.mount_paths())
        owners: dict[str, OwnDrive] = {}
        found: dict[tuple[bytes, str], _Share] = {}
        for entry in entries:
            directory = entry.path.rpartition("/")[0]
            own = owners.get(directory) if has_nested else root
            if own is None:
                own = owners[directory] = await drive.own(directory)
            base = directory[: len(directory) - len(own.path)].rstrip("/") if has_nested else ""
            share = found.setdefault((bytes(own.trie.feed.key), base), _Share(own, base))
            share.entries.append(entry)
        return list(found.values())

    async def _store(self, share: _Share) -> None:
        sealed = [entry.committing for entry in share.entries if entry.committing is not None]
        start = 0
        move = self._staged.spool.move
        above = None if move is None else await self._staged.drive.own(split(move.new)[0])

        async def decide(view: Trie) -> Sequence[Put | Delete]:
            nonlocal start
            start = view.version
            if move and above and above.trie is share.own.trie and await self._is_moved(above, view, move):
                raise LengthChanged(f"{move.old} was moved to {move.new} meanwhile")
            share.finals = [await _final(view, share.base, each) for each in sealed]
            removals: list[Put | Delete] = []
            puts: list[Put | Delete] = []
            for each, final in zip(sealed, share.finals, strict=True):
                inner = each.path.removeprefix(share.base)
                if final is None:
                    removals.append(Delete(inner))
                    continue
                value = encode_stat(final)
                if not puts:
                    serials = [other.serial for other in sealed]
                    self._staged.spool.journal.tried(Attempt(each.path, value, start, len(sealed), serials))
                puts.append(Put(inner, value))
            return removals + puts

        async with self._staged.batching:
            done = await share.own.trie.update(decide)
            if above is not None and above.trie is share.own.trie:
                self._move_ended()  # it cannot be made any more: the drive has become longer without it
            if share.own.trie.feed is self._staged.drive.metadata:
                self._staged.own.add(start, start + sum(node is not None for node in done))
        log.info("committed: entries=%d version=%d", len(sealed), share.own.trie.version)


async def append_contents(feed: Feed, contents: Sequence[Content], calm: Callable[[], Awaitable[None]]) -> None:
    """Append contents that are not in the drive yet, small ones together, and note where they are.

    `calm` is awaited before each piece of a large one.

    Raises: what appending and reading the spool raises; those that are appended are noted.
    """
    group: list[Content] = []
    room = APPEND_BYTES
    for content in contents:
        if content.size > APPEND_BYTES:
            await _append_large(feed, content, calm)
            continue
        if content.size > room:
            await _append_group(feed, group)
            group, room = [], APPEND_BYTES
        group.append(content)
        room -= content.size
    await _append_group(feed, group)


async def _append_group(feed: Feed, contents: Sequence[Content]) -> None:
    if not contents:
        return
    blocks: list[bytes] = []
    for content in contents:
        blocks += await _blocks(content, 0, content.size)
    async with writing(feed) as written:
        await written.write(blocks)
        extent = written.extent
    offset, byte_offset = extent.offset, extent.byte_offset
    for content in contents:
        count = -(-content.size // BLOCK_BYTES)
        content.extent = Extent(offset, count, byte_offset, content.size)
        offset += count
        byte_offset += content.size


async def _append_large(feed: Feed, content: Content, calm: Callable[[], Awaitable[None]]) -> None:
    async with writing(feed) as written:
        for start in range(0, content.size, PIECE_BYTES):
            await calm()
            end = min(start + PIECE_BYTES, content.size)
            await written.write(content.blocks(start, end) or await _blocks(content, start, end))
        content.extent = written.extent


async def _blocks(content: Content, start: int, end: int) -> list[bytes]:
    """Return the bytes from `start` up to `end` in blocks."""
    found: list[bytes] = []
    for at in range(start, end, BLOCK_BYTES):
        found.append(await content.read(at, min(BLOCK_BYTES, end - at)))
        await trio.lowlevel.checkpoint()
    return found


async def _final(view: Trie, base: str, sealed: Sealed) -> Stat | None:
    """Return what to store for `sealed`: with what others have changed meanwhile, where we have not."""
    if sealed.stat is None:
        return None
    stat, changed = sealed.stat, sealed.changed
    extent = None if sealed.content is None else sealed.content.extent
    if extent is not None:
        stat, changed = located(stat, extent), changed | WRITTEN
    if sealed.origin is None:
        return stat
    node = await view.get(sealed.origin[0].removeprefix(base))
    if node is None:
        return stat
    now = decode_stat(node.value)
    if now == sealed.origin[1] or (now.is_file, now.is_dir) != (stat.is_file, stat.is_dir):
        return stat
    return now._replace(**{name: getattr(stat, name) for name in changed})
