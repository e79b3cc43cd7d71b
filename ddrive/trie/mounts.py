"""One tree of entries over a trie and all the tries mounted in it.

A path belongs to a mounted trie when one of its parts has both nodes of a mount; the mount nearest to the root counts.
(The npm peers look at the nearest entry instead and so may miss a mount next to entries that were there before it.)
Mounts can lead in a circle: a path passes through at most `MAX_DEPTH` of them, and an iteration does not enter a trie
it is already in.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from ddrive.dialect import Dialect
from ddrive.errors import CrossesMount, InvalidPath, NotFound, TooManyLinks
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from ddrive.trie.batch import Condition, Delete, Put
from ddrive.trie.fixed import check_version
from ddrive.trie.lookup import ancestors, lookup
from ddrive.trie.mountpoint import (
    MOUNT_FLAG,
    RECORDS,
    MountPoint,
    decode_mount,
    is_mount,
    mount_changes,
    move_records,
    removal,
)
from ddrive.trie.mountwalk import Found, MountDiff, MountWalk, Place, join, normal_path
from ddrive.trie.node import TrieNode
from ddrive.trie.path import KeyPath, normalize, writable_path
from ddrive.trie.trie import Trie, move_changes, open_trie
from ddrive.trie.visited import Visited

MAX_DEPTH: Final = 64  # mounts within mounts

OpenTrie = Callable[[PublicKey], Awaitable[Trie]]
Changes = Sequence[Put | Delete]
Decide = Callable[[Trie, str], Awaitable[Changes]]  # shown the trie that owns a path, and its key there
CheckMove = Callable[[Trie, str, str], Awaitable[Changes]]

Entry = Found["MountTrie"]
Owner = Place["MountTrie"]


class _Tries:
    """The tries that are open, each once; `root` is there from the beginning."""

    def __init__(self, root: Trie, open_mounted: OpenTrie) -> None:
        self._open_mounted = open_mounted
        self.root = root.feed.key
        self.visited: Visited[MountTrie] = Visited()
        self._tries: dict[tuple[PublicKey, int | None], MountTrie] = {}
        self._locks: dict[PublicKey, trio.Lock] = {}
        self._tries[root.feed.key, None] = MountTrie(root.live(), self)

    async def open(self, mount: MountPoint) -> "MountTrie":
        """Return the trie that `mount` leads to. Raises: what opening it raises, as `check_version`."""
        trie = await self._opened(mount)
        if mount.version is not None and mount.version > trie.feed.length:
            await check_version(trie.feed, mount.version)
        return trie

    async def _opened(self, mount: MountPoint) -> "MountTrie":
        found = self._tries.get((mount.key, mount.version))
        if found is not None:
            return found
        async with self._locks.setdefault(mount.key, trio.Lock()):
            live = self._tries.get((mount.key, None))
            if live is None:
                live = self._tries[mount.key, None] = MountTrie(await self._open_mounted(mount.key), self)
            if mount.version is None:
                return live
            return self._tries.setdefault((mount.key, mount.version), live.checkout(mount.version))

    def is_open(self, mount: MountPoint) -> bool:
        """Tell whether the trie is open already."""
        return (mount.key, None) in self._tries


Mounts = list[tuple[str, MountPoint, "MountTrie"]]


class MountTrie:
    """A trie seen together with what is mounted in it. Made by `open_mount_trie` and `checkout`."""

    def __init__(self, trie: Trie, tries: _Tries) -> None:
        self.trie = trie
        self._tries = tries

    def __repr__(self) -> str:
        return f"<MountTrie over {self.trie!r}>"

    @property
    def key(self) -> PublicKey:
        """The key of the feed."""
        return self.trie.feed.key

    @property
    def feed(self) -> Feed:
        """The feed of the trie itself."""
        return self.trie.feed

    @property
    def metadata(self) -> bytes | None:
        """The bytes that the header carries; a drive's content key."""
        return self.trie.metadata

    @property
    def version(self) -> int:
        """Number of blocks of the trie itself that this view sees."""
        return self.trie.version

    @property
    def writable(self) -> bool:
        """Whether the trie itself can be changed here."""
        return self.trie.writable

    @property
    def visited(self) -> "Visited[MountTrie]":
        """The mounted tries that paths of the outermost one led through, without those of fixed versions."""
        return self._tries.visited

    def checkout(self, version: int) -> "MountTrie":
        """Return the view of the first `version` blocks. Mounts without a version still show their newest."""
        return MountTrie(self.trie.checkout(version), self._tries)

    def snapshot(self) -> "MountTrie":
        """Return the view of the present version."""
        return self.checkout(self.version)

    async def refresh(self) -> None:
        """Ask the peers for a newer version of the trie itself."""
        await self.trie.refresh()

    async def owner(self, path: str) -> Owner:
        """Return where the content at and below `path` lies; for a mount point that is the root of what is mounted.

        Raises: TooManyLinks, InvalidNode, what opening a mounted trie raises.
        """
        return await self._place(path, through_last=True)

    async def place(self, path: str) -> Owner:
        """Return where the entry `path` itself is stored; for a mount point the trie that holds the mount.

        Raises: as `owner`.
        """
        return await self._place(path, through_last=False)

    async def get(self, path: str, *, hidden: bool = False) -> Entry:
        """Return the entry at `path` with its owner; its `node` is None when there is none. Raises: as `owner`."""
        place = await self.place(path)
        node = await place.trie.trie.get("/" + place.inner, hidden=hidden)
        return place.found(node, place.inner)

    def iterate(
        self,
        prefix: str = "",
        *,
        recursive: bool = True,
        enter_mounts: bool = False,
        gt: bool = False,
        reverse: bool = False,
        hidden: bool = False,
    ) -> "MountWalk[MountTrie]":
        """Return an asynchronous iterator over `Found` entries at and below `prefix`.

        As `Trie.iterate`. With `enter_mounts` (and `recursive`) a mount is followed by all that is mounted there,
        unless the iteration is inside that trie already.
        """
        return MountWalk(
            self,
            prefix,
            recursive=recursive,
            enter=enter_mounts,
            gt=gt,
            reverse=reverse,
            hidden=hidden,
            max_depth=MAX_DEPTH,
        )

    async def list(self, prefix: str = "", *, recursive: bool = True, hidden: bool = False) -> list[Entry]:
        """Return the entries at and below `prefix`, mounts not entered."""
        place = await self.owner(prefix)
        nodes = await place.trie.trie.list("/" + place.inner, recursive=recursive, hidden=hidden)
        return [place.found(node, node.key) for node in nodes]

    def diff(self, other: "MountTrie | int" = 1, prefix: str = "") -> "MountDiff[MountTrie]":
        """Return an asynchronous iterator over the changes from `other` to this view; mounts are not entered."""
        return MountDiff(self, self.checkout(other) if isinstance(other, int) else other, prefix)

    async def put(
        self,
        path: str,
        value: bytes | None,
        *,
        flags: int = 0,
        hidden: bool = False,
        condition: Condition | None = None,
        closest: bool = False,
    ) -> TrieNode | None:
        """Store an entry in the trie that owns `path`. At a mount point, flags other than its own end the mount.

        Returns and raises: as `Trie.put`.
        """

        async def decide(view: Trie, key: str) -> Changes:
            change = Put("/" + key, value, flags, hidden, condition, closest)
            if hidden or flags == MOUNT_FLAG or not is_mount(await view.get("/" + key)):
                return [change]
            return [change, Delete(MountPoint(key, self.key).record_key, hidden=True)]

        return (await self.update(path, decide))[0]

    async def delete(
        self, path: str, *, hidden: bool = False, condition: Condition | None = None, closest: bool = False
    ) -> TrieNode | None:
        """Remove the entry at `path`, a mount point with its record. Returns and raises: as `Trie.delete`."""

        async def decide(view: Trie, key: str) -> Changes:
            change = Delete("/" + key, hidden, condition, closest)
            if hidden or not is_mount(await view.get("/" + key)):
                return [change]
            return [change, Delete(MountPoint(key, self.key).record_key, hidden=True)]

        return (await self.update(path, decide))[0]

    async def mount(self, path: str, key: PublicKey, *, version: int | None = None, value: bytes | None = b"") -> None:
        """Mount the trie `key` at `path`; `value` is that of the visible entry. Raises: InvalidKey, as `put`."""

        async def decide(_: Trie, inner: str) -> Changes:
            return mount_changes(MountPoint(normal_path("/" + inner), key, version), value)

        await self.update(path, decide)

    async def unmount(self, path: str) -> None:
        """Remove the mount at `path`. Raises: NotFound when there is none, as `put`."""

        async def decide(view: Trie, inner: str) -> Changes:
            node = await view.get("/" + inner)
            if not is_mount(node):
                raise NotFound(f"nothing is mounted at {path!r}")
            return removal(inner, node)

        await self.update(path, decide)

    async def rename(self, old: str, new: str, *, check: CheckMove | None = None) -> int:
        """Move the entry at `old` and all below it to `new` in one append, mounts included; return their number.

        `check` is shown the present version and both keys in it: it answers with further changes, or raises to refuse.
        Raises: CrossesMount when the two belong to different tries, InvalidPath when one contains the other.
        """
        return await self._transfer(old, new, check, keep=False)

    async def copy(self, old: str, new: str, *, check: CheckMove | None = None) -> int:
        """Store the entry at `old` and all below it at `new` too. As `rename`, but the old entries stay."""
        return await self._transfer(old, new, check, keep=True)

    async def _transfer(self, old: str, new: str, check: CheckMove | None, *, keep: bool) -> int:
        for _ in range(MAX_DEPTH):
            source, target = await self.place(old), await self.place(new)
            if source.trie.trie is not target.trie.trie:
                raise CrossesMount(f"{old!r} and {new!r} are in different drives")
            before, after = writable_path("/" + source.inner), writable_path("/" + target.inner)
            with suppress(_OwnerChanged):
                return await self._move_within(source.trie.trie, before, after, check, keep=keep)
        raise TooManyLinks(f"the mounts on the way to {old!r} and {new!r} keep changing")

    async def _move_within(
        self, trie: Trie, before: KeyPath, after: KeyPath, check: CheckMove | None, *, keep: bool
    ) -> int:
        """Do what `_transfer` is for within one trie."""
        count = 0

        async def moves(view: Trie) -> Changes:
            nonlocal count
            await self._check_owner(view, before.key)
            await self._check_owner(view, after.key)
            more = await check(view, before.key, after.key) if check is not None else ()
            shared = min(len(before.parts), len(after.parts))
            if before.parts[:shared] == after.parts[:shared]:
                raise InvalidPath(f"{before.key!r} cannot be moved to {after.key!r}: one contains the other")
            nodes = await view.list("/" + before.key)
            count = len(nodes)
            records = await view.list(f"{RECORDS}/{before.key}", hidden=True)
            changes = [*move_changes(nodes, before, after), *move_records(records, before, after)]
            return [*(change for change in changes if isinstance(change, Put) or not keep), *more]

        await trie.update(moves)
        return count

    async def mounts(self, *, recursive: bool = False, opened_only: bool = False) -> Mounts:
        """Return (path, mount, trie that holds it) of all mounts; those inside mounted tries when `recursive`.

        `opened_only` does not descend into tries that are not open yet. Raises: as `owner`.
        """
        return await self._mounts("", recursive, opened_only, frozenset([self.key]))

    async def _mounts(self, base: str, recursive: bool, opened_only: bool, inside: frozenset[PublicKey]) -> Mounts:
        result: Mounts = []
        for node in await self.trie.list(RECORDS, hidden=True):
            if not is_mount(node) or len(node.parts) < 2 or node.garbled:
                continue
            mount = decode_mount(node)
            if not is_mount(await self.trie.get("/" + mount.path)):
                continue
            path = join(base, mount.path)
            result.append((path, mount, self))
            enter = recursive and mount.key not in inside and len(inside) <= MAX_DEPTH
            if enter and (not opened_only or self._tries.is_open(mount)):
                with suppress(NotFound):  # a version that there is not
                    mounted = await self._tries.open(mount)
                    result += await mounted._mounts(path, True, opened_only, inside | {mount.key})
        return result

    async def enter(self, node: TrieNode) -> tuple[MountPoint, "MountTrie"] | None:
        """Return where the mount node `node` of this trie leads; None when it has no record. Raises: as `owner`."""
        mount = await self.mount_at(node.key)
        return None if mount is None else (mount, await self._tries.open(mount))

    async def mount_at(self, path: str) -> MountPoint | None:
        """Return the record for exactly this path of the trie itself, None when there is none. Raises: InvalidNode."""
        record = await self.trie.get(f"{RECORDS}/{path}", hidden=True)
        return decode_mount(record) if record is not None and is_mount(record) else None

    async def _place(self, path: str, *, through_last: bool) -> Owner:
        place = Place(self, normal_path(path), None, "")
        for _ in range(MAX_DEPTH + 1):
            following = await place.trie._next_place(place, through_last)
            if following is None:
                return place
            place = following
            if self.key == self._tries.root and not place.trie.trie.fixed:
                self._tries.visited.note(place.base, place.trie)
        raise TooManyLinks(f"{path!r} passes through more than {MAX_DEPTH} mounts")

    async def _next_place(self, place: Owner, through_last: bool) -> Owner | None:
        """Return where the first mount on the way to `place.inner` leads, None when no mount is on the way."""
        path = KeyPath(place.inner)
        record_path = KeyPath(f"{RECORDS}/{place.inner}", hidden=True)
        load = self.trie.helped(record_path, path)
        head = await self.trie.head(load)
        for record in await ancestors(load, head, record_path, 2):
            depth = len(record.parts) - 1
            if not is_mount(record) or record.garbled or (depth == len(path.parts) and not through_last):
                continue
            visible = await lookup(load, head, KeyPath("/" + "/".join(path.parts[:depth])))
            if is_mount(visible):
                mount = decode_mount(record)
                trie = await self._tries.open(mount)
                return Place(trie, "/".join(path.parts[depth:]), mount, join(place.base, mount.path))
        return None

    async def update(self, path: str, decide: Decide) -> Sequence[TrieNode | None]:
        """Do what `decide` answers in the trie that owns the entry `path`, even when mounts change meanwhile.

        As `Trie.update`; `decide` is given that trie at its present version, and the key that `path` has in it.
        """
        key = normalize(path)
        for _ in range(MAX_DEPTH):
            place = await self.place(key)
            inner = key if place.trie is self else place.inner

            async def checked(view: Trie, inner: str = inner) -> Changes:
                await self._check_owner(view, inner)
                return await decide(view, inner)

            with suppress(_OwnerChanged):
                return await place.trie.trie.update(checked)
        raise TooManyLinks(f"the mounts on the way to {path!r} keep changing")

    async def _check_owner(self, view: Trie, inner: str) -> None:
        """Raise `_OwnerChanged` when something is mounted by now in `view` on the way to `inner`."""
        owner = MountTrie(view, self._tries)
        if await owner._next_place(Place(owner, inner, None, ""), False) is not None:
            raise _OwnerChanged


async def open_mount_trie(
    feed: Feed,
    dialect: Dialect,
    open_mounted: OpenTrie,
    *,
    metadata: bytes | None = None,
    subtype: str | None = None,
) -> MountTrie:
    """Return the trie in `feed` together with what is mounted in it; `open_mounted` opens a trie by its key.

    Otherwise as `open_trie`; the subtype of a new trie is that of the dialect's drives when None is given.
    """
    trie = await open_trie(feed, dialect, metadata=metadata, subtype=subtype or dialect.trie_subtype)
    return await _Tries(trie, open_mounted).open(MountPoint("", feed.key))


class _OwnerChanged(Exception):
    """Something was mounted on the way to a path while it was being written."""
