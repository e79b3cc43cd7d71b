"""Iteration and comparison over mounted tries."""

from typing import Generic, Literal, NamedTuple, Protocol, Self, TypeVar

from ddrive.errors import CrossesMount
from ddrive.ids import PublicKey
from ddrive.trie.diff import Change, Diff
from ddrive.trie.iterate import Walk
from ddrive.trie.mountpoint import MountPoint, is_mount
from ddrive.trie.node import TrieNode
from ddrive.trie.path import key_path
from ddrive.trie.trie import Trie


class Mounting(Protocol):
    """A trie that can be left through its mounts: `MountTrie`."""

    @property
    def trie(self) -> Trie: ...
    @property
    def key(self) -> PublicKey: ...
    async def owner(self, path: str) -> "Place[Self]": ...
    async def enter(self, node: TrieNode) -> tuple[MountPoint, Self] | None: ...
    async def mount_at(self, path: str) -> MountPoint | None: ...


T = TypeVar("T", bound=Mounting)


class Found(NamedTuple, Generic[T]):
    """An entry, or where it would be: `trie` owns it under the key `inner`.

    `node` carries the path as seen from outside; None: there is no such entry. `mount` is the last mount on the way,
    its path relative to the trie it lies in; None in the outermost trie.
    """

    node: TrieNode | None
    trie: T
    mount: MountPoint | None
    inner: str


class Place(NamedTuple, Generic[T]):
    """Where a path leads: into `trie`, there to `inner`; `base` is the outer path of that trie's root, "" or "a/b"."""

    trie: T
    inner: str
    mount: MountPoint | None
    base: str

    def found(self, node: TrieNode | None, inner: str) -> Found[T]:
        """Return what is shown for `node`, which lies at `inner`."""
        shown = node if node is None or not self.base else node.moved(join(self.base, node.key))
        return Found(shown, self.trie, self.mount, inner)


def join(base: str, path: str) -> str:
    """Return `path` below `base`, either of which may be empty."""
    return f"{base}/{path}" if base and path else base or path


class MountWalk(Generic[T]):
    """Asynchronous iterator over `Found` entries; with `enter` each mount is followed by what is mounted there.

    A trie that the walk is inside of already is not entered again, whatever the version: mounts that lead in a circle
    end there. Neither is anything below `max_depth` mounts.
    """

    def __init__(
        self,
        trie: T,
        prefix: str,
        *,
        recursive: bool,
        enter: bool,
        gt: bool,
        reverse: bool,
        hidden: bool,
        max_depth: int,
    ) -> None:
        self._outer = trie
        self._prefix = prefix
        self._recursive = recursive
        self._enter = enter and recursive and not hidden
        self._gt = gt
        self._reverse = reverse
        self._hidden = hidden
        self._max_depth = max_depth
        self._opened = False
        self._levels: list[tuple[Place[T], Walk]] = []
        self._pending: TrieNode | None = None  # a mount that was shown and is entered next

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Found[T]:
        if not self._opened:
            place = await self._outer.owner(self._prefix)
            self._opened = True
            self._push(place, place.inner, gt=self._gt)
        if self._pending is not None:
            await self._enter_mount(self._pending)
            self._pending = None
        while self._levels:
            place, walk = self._levels[-1]
            try:
                node = await anext(walk)
            except StopAsyncIteration:
                self._levels.pop()
                continue
            if self._enter and is_mount(node):
                self._pending = node
            return place.found(node, node.key)
        raise StopAsyncIteration

    async def _enter_mount(self, node: TrieNode) -> None:
        place, _ = self._levels[-1]
        entered = await place.trie.enter(node)
        if entered is None or len(self._levels) > self._max_depth:
            return
        mount, trie = entered
        if all(trie.key != level.trie.key for level, _ in self._levels) and trie.key != self._outer.key:
            self._push(Place(trie, "", mount, join(place.base, node.key)), "", gt=False)

    def _push(self, place: Place[T], prefix: str, *, gt: bool) -> None:
        walk = place.trie.trie.iterate(
            "/" + prefix, recursive=self._recursive, gt=gt, reverse=self._reverse, hidden=self._hidden
        )
        self._levels.append((place, walk))


class MountChange(NamedTuple):
    """One difference between two versions; `mount` tells where the mount of kind `mount` or `unmount` leads."""

    kind: Literal["put", "del", "mount", "unmount"]
    key: str
    left: TrieNode | None
    right: TrieNode | None
    mount: MountPoint | None


class MountDiff(Generic[T]):
    """Asynchronous iterator over the changes at and below `prefix` from `right` to `left`; mounts are not entered.

    Raises: CrossesMount when the prefix belongs to different tries in the two.
    """

    def __init__(self, left: T, right: T, prefix: str) -> None:
        self._left = left
        self._right = right
        self._prefix = prefix
        self._base = ""
        self._diff: Diff | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MountChange:
        if self._diff is None:
            left, right = await self._left.owner(self._prefix), await self._right.owner(self._prefix)
            if left.trie.key != right.trie.key:
                raise CrossesMount(f"{self._prefix!r} was in another drive then")
            self._left, self._right, self._base = left.trie, right.trie, left.base
            self._diff = left.trie.trie.diff(right.trie.trie, "/" + left.inner)
        return await self._shown(await anext(self._diff))

    async def _shown(self, change: Change) -> MountChange:
        _, left, right = change
        mount = None
        if is_mount(left):
            mount = await self._left.mount_at(change.key)
        elif left is None and is_mount(right):
            mount = await self._right.mount_at(change.key)
        if left is None:
            kind: Literal["put", "del", "mount", "unmount"] = "del" if mount is None else "unmount"
        else:
            kind = "put" if mount is None else "mount"
        shown = [node and (node.moved(join(self._base, node.key)) if self._base else node) for node in (left, right)]
        return MountChange(kind, join(self._base, change.key), shown[0], shown[1], mount)


def normal_path(path: str) -> str:
    """Return `path` without empty components at its ends."""
    return "/".join(key_path(path).parts)
