"""What was changed through a mount and waits to be committed: the table of changed paths, and how states are sealed.

Sealing writes a journal record; from then on that state counts, for the drive and after a crash.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

import trio

from ddrive.drive import Drive
from ddrive.drive.reader import FileReader, extent_of
from ddrive.drive.stat import Stat, decode_stat
from ddrive.ids import PublicKey
from mountd.draft import Base, Content, Draft
from mountd.entries import Entries, EntryTable, above
from mountd.face import NestedDrivesFace, ReaderFace
from mountd.journal import Change
from mountd.moments import Moment, now_ms
from mountd.nodes import Entry, Node, Origin, Sealed
from mountd.ownversions import OwnVersions
from mountd.precedence import alike
from mountd.spool import CHUNK_BYTES, Spool

CONTENT_FIELDS = ("size", "blocks", "offset", "byte_offset")
GROUP_S, GROUP_ENTRIES = 0.2, 1024  # from the first change to a commit of all until then, unless there are so many
GROUP_BYTES = 16 * 1024 * 1024
CALM_S = 0.03  # nobody has written for so long: then a commit does not slow anybody down
CALM_WAIT_S = 0.25  # but it waits no longer than this before each piece
CALM_BYTES_MAX = 1024 * 1024 * 1024  # and not at all when so much is in the spool
PENDING_MAX = 16384  # entries that wait for a commit before those who write wait too

Changes = list[Change]
OnStat = Callable[[str, Stat, PublicKey | None], None]  # the last one is the feed with the bytes of the drive


class Pending(EntryTable):
    """The changed paths of one mount. Base of `staged.StagedDrive`."""

    def __init__(self, drive: Drive, spool: Spool) -> None:
        super().__init__()
        self.drive = drive
        self.spool = spool
        self.metadata = drive.metadata
        self.own = OwnVersions()
        self.content_key: PublicKey | None = None  # of the feed with the bytes of the drive itself
        self.due = trio.Event()  # something waits for a commit
        self.plenty = trio.Event()  # so much that it should not wait longer
        self.room = trio.Event()  # set while those who write need not wait
        self.room.set()
        self.batching = trio.Lock()  # held while entries are stored in the drive
        self.written_at = 0.0  # when a program wrote last, in seconds of trio's clock
        self.on_stat: OnStat = lambda path, stat, feed: None  # the attributes of a path are these, in its drive
        self.on_stale: Callable[[str], None] = lambda path: None  # what is known of a path may be wrong
        self._due: dict[str, Entry] = {}
        self._late: dict[Node, Moment] = {}  # could not be sealed when they were closed
        self.known_nested: NestedDrivesFace | None = None  # the nested drives that were looked into
        self._due_bytes = 0
        self._move: tuple[str, str] | None = None  # from where to where the drive moves a directory now
        for change in spool.replayed:
            self._restore(change)
        spool.replayed = []
        spool.slots.seal_gaps()

    def new_node(self, stat: Stat, origin: Origin | None, feed: PublicKey | None = None) -> Node:
        """Return a node that is nowhere yet; its bytes are in `feed`."""
        node = Node(self.spool, self.metadata, self, stat, origin)
        node.content = feed
        return node

    async def content_of(self, path: str) -> PublicKey:
        """Return the key of the feed with the bytes of the drive that has `path` now."""
        return (await self.drive.own(path)).content.key

    async def open_base(self, path: str, stat: Stat, content: PublicKey | None = None) -> ReaderFace:
        """Return a reader of the bytes that `stat` says are in `content`; None: in that of the drive with `path`."""
        feed = await self.drive.bytes_feed(content or await self.content_of(path))
        return FileReader(feed, extent_of(stat), path)

    # What is to be committed

    @property
    def pending(self) -> int:
        """How many entries wait for a commit."""
        return len(self._due)

    def changes(self) -> Changes:
        """Return all that the journal has to hold, oldest first."""
        found = [sealed for entry in self._all() for sealed in (entry.committing, entry.sealed) if sealed is not None]
        return [sealed.record() for sealed in sorted(found, key=lambda sealed: sealed.serial)]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is sealed that the drive does not have."""
        return not any(entry.sealed or entry.committing for entry in self._all())

    def take_contents(self) -> Entries:
        """Return the entries that wait with a content which the drive does not have yet; that is in `committing`.

        They can be taken as soon as it has. What becomes of them meanwhile waits behind that.
        """
        waiting = [entry for entry in self._due.values() if entry.committing is None and entry.sealed is not None]
        entries = [entry for entry in waiting if entry.sealed is not None and entry.sealed.lacks_content]
        for entry in entries:
            entry.committing, entry.sealed = entry.sealed, None
        return entries

    def give_back_contents(self) -> None:
        """Let those from `take_contents` wait again whose content could not be appended."""
        given = [entry for entry in self._due.values() if entry.committing is not None]
        self.give_back([entry for entry in given if entry.committing is not None and entry.committing.lacks_content])

    def take(self) -> Entries:
        """Return all entries that can be committed now; what they are to be is in `committing`."""
        kept = self._kept()
        due, self._due = self._due, {}
        self._due_bytes = 0
        for former in (self.due, self.plenty, self.room):
            former.set()  # whoever waits looks again: it may not be they who take these
        self.due, self.plenty = trio.Event(), trio.Event()
        entries = [entry for path, entry in due.items() if path not in kept]
        for entry in entries:
            if entry.sealed is not None and not entry.sealed.lacks_content:  # newer than what is in `committing`
                if entry.committing is not None and entry.committing.content is not None:
                    entry.committing.content.drop(done=False)
                entry.committing, entry.sealed = entry.sealed, None
        for path, entry in due.items():
            if path in kept or entry.sealed is not None:
                self._wait(entry)
        return entries

    @property
    def is_ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._due.keys() - self._kept())

    @property
    def holds_back(self) -> bool:
        """Whether what could be committed waits for a content."""
        return any(self._due[path].is_ready for path in self._kept() & self._due.keys())

    def _kept(self) -> set[str]:
        """Return the paths that cannot be committed yet: those whose content was not appended, and where that was.

        Nobody shall see half of a rename; and a directory is not empty in the drive while something is kept there.
        """
        kept: set[str] = set()
        for entry in self._due.values():
            if entry.is_ready:
                continue
            kept.add(entry.path)
            for state in (entry.committing, entry.sealed):
                if state is not None and state.origin is not None:
                    kept.add(state.origin[0])
                    kept.update(path for path in above(state.origin[0]) if self._is_removed(path))
        return kept

    def _is_removed(self, path: str) -> bool:
        entry = self._entry(path)
        return entry is not None and entry.node is None

    def include_all(self) -> None:
        """Let what was sealed by an fsync wait too, though it was not closed."""
        for entry in self._all():
            if entry.sealed is not None:
                self._wait(entry)

    def settled(self, serials: Sequence[int], paths: Collection[str]) -> None:
        """Take note that changes of a dead worker, at `paths`, are in the drive already. Nothing is open yet."""
        for entry in self._all():
            if entry.sealed is not None and entry.sealed.serial in serials:
                self._due.pop(entry.path, None)
                if entry.sealed.content is not None:
                    entry.sealed.content.drop(done=True)
                if entry.node is not None:
                    entry.node.discard()
                self._drop(entry)
        for entry in self._all():
            sealed = entry.sealed
            if sealed is not None and sealed.origin is not None and sealed.origin[0] in paths:
                entry.sealed = replace(sealed, origin=None)  # that is another entry by now
                if entry.node is not None:
                    entry.node.origin = None

    def follow(self, paths: Collection[str], version: int) -> None:
        """Take note that the drive has older changes of a dead worker, at `paths`, since before `version`."""
        for entry in self._all():
            if entry.path in paths and entry.sealed is not None and entry.sealed.made is not None:
                entry.sealed.made.follows(version)

    def new_directories(self) -> list[tuple[str, Node]]:
        """Return the directories, with their paths, of which the drive is not known to have anything."""
        nodes = [(entry.path, entry.node) for entry in self._all() if entry.node is not None]
        return [(path, node) for path, node in nodes if node.origin is None and node.stat.is_dir]

    def give_back(self, entries: Entries) -> None:
        """Let entries from `take` wait again: they were not committed."""
        for entry in entries:
            if entry.sealed is None:
                entry.sealed = entry.committing
            elif entry.committing is not None and entry.committing.content is not None:
                entry.committing.content.drop(done=False)
            entry.committing = None
            self._wait(entry)

    def wait_for(self, entries: Entries) -> None:
        """Let entries wait that stay in `committing`: nobody knows whether the drive has them."""
        for entry in entries:
            self._wait(entry)

    def committed(self, entry: Entry, final: Stat | None, version: int, content: PublicKey, *, is_newest: bool) -> None:
        """Take note that the drive has at the path of `entry` what was being committed: `final`, or nothing.

        If that is not the newest, the drive has it in its history, and what others have stored is there; else what we
        have changed there since comes after `version`.
        """
        sealed, entry.committing = entry.committing, None
        assert sealed is not None
        if entry.sealed is None:
            self._due.pop(entry.path, None)
        node = entry.node
        if not is_newest or (
            final is not None and sealed.stat is not None and sealed.content is None and not alike(final, sealed.stat)
        ):
            entry.is_overtaken = True  # others have written what we only gave attributes, or have written later
        else:
            self.own.note(entry.path, final)
            for made in (entry.sealed and entry.sealed.made, node and self._late.get(node)):
                if made:
                    made.follows(version)
        if final is not None and sealed.node is not None:
            self._rooted(sealed.node, (entry.path, final))
        if final is not None and node is not None and node.path == entry.path and entry.sealed is None:
            self._renew(node, sealed, final, content)
        if sealed.content is not None:
            sealed.content.drop(done=True)
        self._retire(entry)

    def _rooted(self, node: Node, origin: Origin) -> None:
        """Note where the drive has a node now; it may have moved on here."""
        node.origin = origin
        entry = None if node.path is None else self._entry(node.path)
        sealed = None if entry is None else entry.sealed
        if entry is not None and sealed is not None and sealed.node is node:
            stat = sealed.stat
            if stat is not None and sealed.content is None:
                stat = stat._replace(**{name: getattr(origin[1], name) for name in CONTENT_FIELDS})
            entry.sealed = replace(sealed, origin=origin, stat=stat)

    def _renew(self, node: Node, sealed: Sealed, final: Stat, content: PublicKey) -> None:
        """Let a node go on from what the drive has now."""
        node.content = content
        if sealed.content is not None and node.sealed_content is sealed.content and node.draft is not None:
            node.sealed_content = None
            opened = partial(self.open_base, content=content)
            node.draft.rebase(sealed.content, Base(sealed.path, final, opened) if final.blocks else None)
        node.sealed_stat = final
        if not node.is_dirty:
            node.stat = final
            node.changed.clear()

    def _retire(self, entry: Entry) -> None:
        """Drop an entry that says nothing which the drive does not say."""
        node = entry.node
        if node is not None and node.path == entry.path and not node.is_dirty and not entry.is_overtaken:
            self.on_stat(entry.path, node.stat, node.content)
        if entry.sealed or entry.committing or (node is not None and (node.writers or node.is_dirty)):
            return
        if node is not None and node.draft is not None:
            node.draft.discard()  # a write that found no room may have made a chunk ready, as the drive has it
        self._drop(entry)
        if entry.is_overtaken:
            self.on_stale(entry.path)

    async def calm(self) -> None:
        """Return when programs write no more, or after a moment: large contents can wait, those who write cannot."""
        latest = trio.current_time() + CALM_WAIT_S
        while len(self.spool.slots) * CHUNK_BYTES < CALM_BYTES_MAX:
            now = trio.current_time()
            if now >= latest or now - self.written_at >= CALM_S:
                return
            await trio.sleep(CALM_S)

    # Sealing

    def moment(self, path: str) -> Moment:
        """Return when a change of `path` is made that is made now."""
        base, version = "", self.metadata.length
        for nested in () if self.known_nested is None else self.known_nested.drives():
            if path.startswith(f"/{nested.path}/") and len(nested.path) >= len(base):
                base, version = f"/{nested.path}", nested.version
        return Moment(path, base, version, now_ms())

    def note_late(self) -> None:
        """Take note that what is sealed cannot be stored now: what others store before it can is newer."""
        sealed = [state for entry in self._all() for state in (entry.committing, entry.sealed) if state is not None]
        for made in (*(state.made for state in sealed), *self._late.values()):
            if made is not None and made.late_from is None:
                made.late_from = self.moment(made.path).version

    def _absent(self, path: str, feed: PublicKey | None) -> Sealed:
        return Sealed(self.spool.serial(), path, None, made=self.moment(path), feed=feed)

    def _seal(self, node: Node, path: str, stat: Stat, made: Moment | None = None) -> Sealed:
        """Return the present bytes of a node, with `stat`, as what is to be at `path`; `_record` makes it count."""
        is_fresh = node.draft is not None and node.draft.is_dirty
        content = node.draft.seal() if node.draft is not None and is_fresh else node.sealed_content
        return self._sealed(node, path, stat, content, made)

    def _sealed(self, node: Node, path: str, stat: Stat, content: Content | None, made: Moment | None = None) -> Sealed:
        """Return a state of a node; a content that was sealed there before is as old as it was."""
        if made is None and content is not None and content is node.sealed_content:
            made = node.made
        if made is None or made.path != path:
            made = self.moment(path)
        changed = frozenset(node.changed)
        return Sealed(self.spool.serial(), path, stat, content, node.origin, changed, node, made, node.content)

    def _record(self, sealed: Sequence[Sealed], *, due: bool = True) -> None:
        """Write sealed states to the journal, and let them count. Raises: OSError; then none does."""
        try:
            self.spool.journal.changed([each.record() for each in sealed])
        except OSError:
            self._take_back(sealed)
            raise
        for each in sealed:
            if each.node is not None:
                each.node.sealed_stat, each.node.sealed_content = each.stat, each.content
                each.node.made = each.made
            if each.content is not None:
                each.content.users += 1  # before any is let go of: one content may only have changed its path
        for each in sealed:
            entry = self._entry_at(each.path)
            self._supersede(entry, each)
            if due:
                self._wait(entry)

    def _take_back(self, sealed: Sequence[Sealed]) -> None:
        """Let states that could not be recorded be as if they had never been sealed."""
        for each in sealed:
            node = each.node
            if node is not None and node.draft is not None and each.content not in (None, node.sealed_content):
                node.draft.unseal(each.content)
        for each in sealed:  # not before: the node that a rename takes from one path to another is at both
            if (entry := self._entry(each.path)) is not None:
                self._retire(entry)

    def _supersede(self, entry: Entry, sealed: Sealed) -> None:
        former, entry.sealed = entry.sealed, sealed
        if former is not None and former.content is not None:
            former.content.drop(done=False)

    def _wait(self, entry: Entry) -> None:
        self._due[entry.path] = entry
        content = entry.sealed.content if entry.sealed else None
        if content is not None:
            self._due_bytes += content.size
        self.due.set()
        if len(self._due) >= GROUP_ENTRIES or self._due_bytes >= GROUP_BYTES:
            self.plenty.set()
        if len(self._due) >= PENDING_MAX and self.room.is_set():
            self.room = trio.Event()

    def _restore(self, change: Change) -> None:
        """Take up what a dead worker has left."""
        serial, path, *rest = change
        made = Moment.restored(rest[4]) if len(rest) > 4 and rest[4] is not None else None
        feed = PublicKey(rest[5]) if len(rest) > 5 and rest[5] is not None else None
        if not rest or rest[0] is None:
            self._record_restored(Sealed(serial, path, None, made=made, feed=feed))
            return
        stat, origin, changed, kept = decode_stat(rest[0]), rest[1], rest[2], rest[3]
        node = self._put(path, self.new_node(stat, (origin[0], decode_stat(origin[1])) if origin else None, feed))
        node.stat = node.sealed_stat = stat
        node.made = made
        node.changed.update(changed)
        if kept is not None:
            size, limit, runs, base = kept
            chunks = {first + number: slot + number for first, slot, count in runs for number in range(count)}
            opened = partial(self.open_base, content=feed)
            content = Content(
                self.spool, Base(base[0], decode_stat(base[1]), opened) if base else None, size, limit, chunks
            )
            self.spool.slots.hold(chunks.values())
            node.sealed_content = content
            node.draft = Draft.restored(self.spool, content)
        self._record_restored(
            Sealed(serial, path, stat, node.sealed_content, node.origin, frozenset(changed), node, made, feed)
        )

    def _record_restored(self, sealed: Sealed) -> None:
        entry = self._entry_at(sealed.path)
        if sealed.stat is None:
            self._vacate(sealed.path)
        if sealed.content is not None:
            sealed.content.users += 1
        self._supersede(entry, sealed)
        self._wait(entry)
