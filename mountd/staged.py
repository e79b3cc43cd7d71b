"""A drive as it will be: what was changed through a mount and is not in the drive yet, over what the drive has.

Each path that was changed has an `Entry`; what is there is a `Node`, which moves along when it is renamed and lives on
while it is open when it is removed. A node that is being written shows its newest bytes; what counts for the drive, and
after a crash, is its last *sealed* state: that of the last close, fsync, rename or change of attributes. Sealing writes
a journal record; `committing.Committer` brings sealed states into the drive.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from ddrive.drive import DirEntry
from ddrive.drive.paths import drive_path
from ddrive.drive.stat import Stat
from ddrive.errors import NotFound
from ddrive.ids import PublicKey
from mountd.draft import Draft
from mountd.face import EntryFace, NestedDrivesFace, NestedFace, ReaderFace
from mountd.moments import Moment
from mountd.nodes import Node, Origin, Sealed
from mountd.pending import Pending


class StagedDrive(Pending):
    """What a mount asks of a drive (`face.DriveFace`), and what it changes. Paths start with `/`.

    Changes do not wait: whether they are allowed, and what is there, the caller has found out.
    """

    # Reading

    @property
    def key(self) -> PublicKey:
        """The key of the drive."""
        return self.drive.key

    @property
    def version(self) -> int:
        """The version of the drive."""
        return self.drive.version

    def node(self, path: str) -> Node | None:
        """Return what was changed here and is at `path` now."""
        entry = self._entry(path)
        return None if entry is None else entry.node

    async def lstat(self, path: str) -> Stat:
        """Return the attributes of the entry at `path`. Raises: NotFound, what the drive raises."""
        while True:
            entry = self._entry(path)
            if entry is not None:
                if entry.node is None:
                    raise NotFound(f"no such file or directory: {path!r}")
                return entry.node.stat
            retired = self._retired
            try:
                stat = await self.drive.lstat(path)
            except NotFound:
                if retired == self._retired and self._entry(path) is None:
                    raise
                continue
            if retired == self._retired and self._entry(path) is None:
                return stat

    async def list(self, path: str) -> Sequence[EntryFace]:
        """Return the entries of a directory, by name. Raises: what the drive raises."""
        while True:
            retired, node = self._retired, self.node(path)
            if node is not None and node.origin is None:
                listed = []  # made here: what the drive has there is another entry, maybe a file or link
            else:
                listed = await self.drive.list(path)
            if retired == self._retired:
                break
        here = self._entries.get(path)
        if not here:
            return listed
        found = {entry.name: entry.stat for entry in listed}
        for name, entry in here.items():
            if entry.node is None:
                found.pop(name, None)
            else:
                found[name] = entry.node.stat
        return [DirEntry(name, stat) for name, stat in sorted(found.items())]

    async def open(self, path: str, stat: Stat | None = None) -> ReaderFace:
        """Return a reader of a file: its node when it was changed here, else a reader of the drive."""
        node = self.node(path)
        if node is None:
            return await self.drive.open(path, stat)
        await node.bind()
        return node

    async def changed(self, old: int) -> Sequence[str]:
        """Return the paths that others have changed since version `old`, unless what is there now is ours."""
        async with self.batching:  # what is ours is known as ours then
            pass
        if self.own.covers(old, self.version):
            return []
        version = self.version
        found = await self._by_others(await self.drive.changed(old))
        self.own.forget(version)
        return found

    async def changed_in(self, nested: NestedFace, old: int) -> Sequence[str]:
        """Return the same of a nested drive since its version `old`; paths are those of the outer drive."""
        async with self.batching:  # a directory that was moved there is at its new place here too
            pass
        return await self._by_others(await nested.changed(old))

    async def nested(self) -> NestedDrivesFace:
        """Return the nested drives that were looked into."""
        return StagedNestedDrives(self, await self.drive.nested())

    # Changing

    def pin(self, path: str, stat: Stat, known: Node | None = None, feed: PublicKey | None = None) -> Node:
        """Return the node at `path`; when there is none `known`, which was there, or one for what the drive has.

        Then the bytes that the drive has of it are in `feed`.
        """
        entry = self._entry(path)
        if entry is not None and entry.node is not None:
            return entry.node
        if known is None or known.draft is None:
            return self._put(path, self.new_node(stat, (path, stat), feed))
        known.stat = known.sealed_stat = stat
        known.origin = path, stat
        known.changed.clear()
        return self._put(path, known)

    def add(self, path: str, stat: Stat, *, sealed: bool = True) -> Node:
        """Return the node of something new at `path`; one that is not sealed counts only here.

        Raises: OSError, NameTooLong.
        """
        self._check_place(path)
        node = self.new_node(stat, None)
        if sealed:
            self._record([self._seal(node, path, stat)])
        return self._put(path, node)

    def remove(self, path: str, feed: PublicKey | None = None) -> None:
        """Let nothing be at `path`, in the drive whose bytes are in `feed`. Raises: OSError."""
        self._record([self._absent(path, feed)])
        self._vacate(path)

    def move(self, old: str, new: str, stat: Stat) -> Node:
        """Let what is at `old`, with attributes `stat`, be at `new` and nothing at `old`.

        Raises: OSError, NameTooLong.
        """
        self._check_place(new)
        node = self.pin(old, stat)
        node.changed.add("ctime_ms")
        self._record([self._absent(old, node.content), self._seal(node, new, stat)])
        node.stat, node.path = stat, new
        self._vacate(old)
        self._put(new, node)
        return node

    def swap(self, one: str, other: str, stats: Sequence[Stat]) -> None:
        """Let what is at either path be at the other. Raises: OSError."""
        first, second = self.pin(one, stats[0]), self.pin(other, stats[1])
        for node in (first, second):
            node.changed.add("ctime_ms")
        self._record([self._seal(first, other, stats[0]), self._seal(second, one, stats[1])])
        first.stat, second.stat = stats
        first.path, second.path = other, one
        self._put(other, first)
        self._put(one, second)

    def set(self, path: str, stat: Stat, **changes: Any) -> Node:
        """Change attributes of what is at `path`, `stat` so far. Raises: OSError."""
        node = self.pin(path, stat)
        self.set_node(node, **changes)
        return node

    def set_node(self, node: Node, **changes: Any) -> None:
        """Change attributes of a node, removed or not. Raises: OSError; then it is as it was."""
        former = set(node.changed)
        node.changed.update(changes)
        if node.sealed_stat is not None and node.path is not None:
            stat = node.sealed_stat._replace(**changes)
            try:
                self._record([self._sealed(node, node.path, stat, node.sealed_content)])
            except OSError:
                node.changed = former
                raise
        elif node.sealed_stat is not None:
            node.sealed_stat = node.sealed_stat._replace(**changes)
        node.stat = node.stat._replace(**changes)

    def touch(self, path: str, stat: Stat, now_ms: int, feed: PublicKey | None = None) -> Stat:
        """Note that a directory has other entries than before; return its attributes. `feed`: as for `pin`.

        Times for which the disk has no room are lost: the entries are there, and count.
        """
        node = self.pin(path, stat, feed=feed)
        entry = self._entry(path)
        times: dict[str, Any] = {"mtime_ms": now_ms, "ctime_ms": now_ms}
        if entry is None or entry.sealed is None:
            with suppress(OSError):
                self.set_node(node, **times)
        else:
            node.stat = node.stat._replace(**times)
            node.sealed_stat = node.stat
            node.changed.update(times)
            entry.sealed = replace(entry.sealed, stat=node.stat, changed=frozenset(node.changed))
        return node.stat

    def seal(self, node: Node, *, due: bool = True, made: Moment | None = None) -> None:
        """Let the present state of a node count, at least after a crash; `due`: in the drive too. Raises: OSError.

        `made`: when it was closed, if not now.
        """
        if node.path is None:
            return
        if node.is_dirty:
            self._record([self._seal(node, node.path, node.stat, made)], due=due)
        elif due and (entry := self._entry(node.path)) is not None and entry.sealed is not None:
            self._wait(entry)

    def revert(self, node: Node, path: str) -> None:
        """Let a node that nobody has open to write be as it was sealed last, if it ever was."""
        if node.sealed_stat is not None:
            node.discard()
            node.stat = node.sealed_stat
            if node.sealed_content is not None:
                node.draft = Draft.restored(self.spool, node.sealed_content)
            else:
                node.edit(path)

    def let_go(self, node: Node) -> None:
        """Forget a node if nobody writes to it and it is as the drive has it: then what others write there shows."""
        if node.path is not None and (entry := self._entry(node.path)) is not None:
            self._retire(entry)

    def seal_late(self) -> None:
        """Let those files count that found no room for that when they were closed, as far as there is some now."""
        for node in [node for node in self._late if not node.writers]:
            with suppress(OSError):
                self.seal(node, made=self._late[node])
                del self._late[node]

    @contextmanager
    def moving(self, old: str, new: str) -> Iterator[None]:
        """While the drive moves a directory, let nothing be below `old` that could not be at `new`.

        Raises: NameTooLong when something is.
        """
        self._move = old, new
        try:
            for entry in self._all():
                self._check_place(entry.path)
            yield
        finally:
            self._move = None

    def _check_place(self, path: str) -> None:
        """Raise NameTooLong when what is at `path`, or soon will be, has a path that the drive does not take."""
        if self._move is not None and _is_below(path, self._move[0]):
            path = self._move[1] + path.removeprefix(self._move[0])
        drive_path(path)

    def waits_below(self, directory: str) -> bool:
        """Tell whether something at or below a directory is sealed and not in the drive yet."""
        return any((entry.sealed or entry.committing) and _is_below(entry.path, directory) for entry in self._all())

    def moved(self, old: str, new: str) -> None:
        """The drive has moved a directory: let what is not committed move along."""
        former: list[Sealed] = []
        records: list[Sealed] = []

        def moved(sealed: Sealed | None) -> Sealed | None:
            if sealed is None:
                return None
            former.append(sealed)
            origin = _moved_origin(sealed.origin, old, new)
            path = new + sealed.path.removeprefix(old)
            made = sealed.made and replace(sealed.made, path=path)
            if made is not None:
                made.follows(self.moment(path).version)  # what the drive has put there came along
            records.append(replace(sealed, serial=self.spool.serial(), path=path, origin=origin, made=made))
            return records[-1]

        for entry in [entry for entry in self._all() if _is_below(entry.path, old)]:
            self._drop(entry)
            is_due = self._due.pop(entry.path, None) is not None
            path = new + entry.path.removeprefix(old)
            fresh = self._entry_at(path)
            fresh.is_overtaken = entry.is_overtaken
            fresh.committing, fresh.sealed = moved(entry.committing), moved(entry.sealed)
            if entry.node is not None:
                self._put(path, entry.node)
                entry.node.origin = _moved_origin(entry.node.origin, old, new)
            if is_due:
                self._wait(fresh)
        if records:
            self.spool.journal.moved_along([each.record() for each in records], [each.serial for each in former])

    def released(self, node: Node) -> None:
        """A file that could write was closed. Raises: OSError, when it could not be sealed: `seal_late` tries again."""
        node.writers -= 1
        if not node.writers and node.path is not None:
            made = self._late[node] = self.moment(node.path)
            try:
                self.seal(node, made=made)
            except OSError:
                made.late_from = made.version
                raise
            del self._late[node]
            self.let_go(node)

    async def _by_others(self, paths: Sequence[str]) -> Sequence[str]:
        """Return those of some changed paths where something is that we neither have put there nor are changing."""
        found = []
        for path in paths:
            entry = self._entry("/" + path)
            if entry is not None:
                entry.is_overtaken = True
            elif not await self._is_ours("/" + path):
                found.append(path)
        return found

    async def _is_ours(self, path: str) -> bool:
        if not self.own.knows(path):
            return False
        try:
            return await self.drive.lstat(path) == self.own.final(path)
        except NotFound:
            return self.own.final(path) is None


@dataclass(frozen=True, slots=True)
class StagedNested:
    """A nested drive, as `face.NestedFace`, in which changes of ours are no news."""

    staged: StagedDrive
    drive: NestedFace

    @property
    def path(self) -> str:
        """Where it is in the outer drive."""
        return self.drive.path

    @property
    def seen(self) -> int:
        """The version that it had when it was first looked into."""
        return self.drive.seen

    @property
    def version(self) -> int:
        """Its newest known version."""
        return self.drive.version

    async def wait_version(self, version: int) -> int:
        """Return the version as soon as it is known to be at least `version`."""
        return await self.drive.wait_version(version)

    async def changed(self, old: int) -> Sequence[str]:
        """Return the paths, from the root of the outer drive, that others have changed since version `old`."""
        return await self.staged.changed_in(self.drive, old)


class StagedNestedDrives:
    """The nested drives that were looked into, as `face.NestedDrivesFace`."""

    def __init__(self, staged: StagedDrive, found: NestedDrivesFace) -> None:
        self._staged = staged
        self._found = found

    @property
    def complete(self) -> bool:
        """Whether none was left out."""
        return self._found.complete

    def drives(self) -> Sequence[StagedNested]:
        """Return those known now."""
        return [StagedNested(self._staged, drive) for drive in self._found.drives()]

    async def more(self) -> None:
        """Return when another one was looked into."""
        await self._found.more()


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def _moved_origin(origin: Origin | None, old: str, new: str) -> Origin | None:
    if origin is None or not _is_below(origin[0], old):
        return origin
    return new + origin[0].removeprefix(old), origin[1]
