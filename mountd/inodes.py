"""Which number stands for which entry of a drive, for as long as the kernel or an open file knows it.

A number stands for one *content*, not for a path: when a file is overwritten its path gets a new number, and the old
one stays with the old content. So the kernel's page cache never mixes two contents, and whoever has the old file open
keeps reading it. Numbers follow from parent, name and content alone, so an entry that the kernel forgot and looks up
again gets the number it had. That of an entry which was moved or written through the mount is remembered for that.
"""

import errno
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from zlib import adler32, crc32

from ddrive.drive.stat import DIRECTORY_BIT, KIND_BITS, Stat
from ddrive.ids import PublicKey
from mountd.face import NodeFace
from mountd.listing import Listing

ROOT_NUMBER = 1  # fixed by FUSE
_NO_MOUNT = (0, 0)
NUMBER_MASK = 2**63 - 1  # inode numbers stay positive for programs that take them for signed
MAX_STATS = 16_384  # of directories; attributes beyond these are asked of the drive again, about 0.3 KiB each
MAX_INODES = 12_288  # files and links; the kernel is asked to forget what is older, about 0.6 KiB each
MAX_RENUMBERED = 16_384  # remembered numbers of what was moved or written and then forgotten, about 0.3 KiB each
MAX_ASKED = 2048  # entries that the kernel is asked to forget and has not forgotten yet
MAX_LISTED = 8192  # entries of remembered listings, 0.4 KiB each; the newest listing is kept whatever its size


def identity_of(stat: Stat) -> int:
    """Return a number that is equal for equal content: same kind, same place in the feed, same size and time."""
    mode, _, _, size, blocks, offset, byte_offset, mtime_ms, _, linkname, mounted, _ = stat
    mount = (int.from_bytes(mounted.key[:8]), mounted.version or 0) if mounted else _NO_MOUNT
    kind = mode & KIND_BITS
    if kind == DIRECTORY_BIT:
        return hash((kind, *mount))
    link = crc32(to_bytes(linkname)) if linkname else 0
    return hash((kind, offset, blocks, byte_offset, size, mtime_ms, link, *mount))


def to_bytes(name: str) -> bytes:
    """Return `name` as the kernel spells it."""
    return name.encode("utf-8", "surrogateescape")


def _number_of(name: str) -> int:
    """Return a number for `name`, the same in each process; two sums that differ, as one of 32 bits is too short."""
    raw = to_bytes(name)
    return crc32(raw) << 32 | adler32(raw)


_NO_CHILDREN: dict[str, "Inode"] = {}  # of all that is no directory; nothing is ever put into it


class Inode:
    """One content under one number. `lookups` and `handles` count who knows it; only the table changes them."""

    __slots__ = (
        "attached",
        "children",
        "content",
        "expires",
        "foreign",
        "handles",
        "has_former_number",
        "identity",
        "is_dir",
        "listing",
        "listing_expires",
        "lookups",
        "lookups_below",
        "name",
        "nested",
        "node",
        "number",
        "parent",
        "pinned",
        "removed",
        "stat",
        "was_opened",
    )

    def __init__(self, number: int, parent: "Inode | None", name: str, identity: int, *, is_dir: bool) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.identity = identity
        self.is_dir = is_dir
        self.attached = True  # False: the path means something else by now, or nothing
        self.nested = False  # in a nested drive that follows its author: its changes are not announced
        self.foreign = False  # in a nested drive at all: its entry and content are in feeds of that drive
        self.content: PublicKey | None = None  # of the feed with the bytes of its drive, when it was last changed
        self.pinned = False  # in a version of a nested drive that cannot change
        self.removed = False  # through this mount: it has no name any more
        self.has_former_number = False  # its number follows from what it was, not from what it is
        self.node: NodeFace | None = None  # what was changed of it through this mount, while it is open
        self.stat: Stat | None = None  # attributes as last seen
        self.expires = 0.0  # until when `stat` may be used without asking, in seconds of the caller's clock
        self.listing: Listing | None = None
        self.listing_expires = 0.0
        self.lookups_below = 0  # single names asked of the drive since it was last listed unasked
        self.lookups = 0
        self.handles = 0
        self.was_opened = False  # lately: the kernel may have pages of it
        self.children: dict[str, Inode] = {} if is_dir else _NO_CHILDREN

    @property
    def path(self) -> str:
        """Return the path of the entry, `/` for the root."""
        names: list[str] = []
        inode = self
        while inode.parent is not None:
            names.append(inode.name)
            inode = inode.parent
        return "/" + "/".join(reversed(names))

    def child_path(self, name: str) -> str:
        """Return the path of `name` in this directory."""
        path = self.path
        return path + name if path == "/" else f"{path}/{name}"


def leads_back(inode: Inode, key: PublicKey) -> bool:
    """Tell whether `inode` is the place of a nested drive that it lies in already, at the same version.

    `key` is that of the mounted drive.
    """
    mount = inode.stat.mount if inode.stat is not None else None
    if mount is None or not inode.is_dir:
        return False
    above = inode.parent
    while above is not None:
        if above.stat is not None and above.stat.mount == mount:
            return True
        above = above.parent
    return mount.key == key and not mount.version


class InodeTable:
    """All inodes of one mount. It starts with the root, which stays."""

    def __init__(
        self, *, max_stats: int = MAX_STATS, max_listed: int = MAX_LISTED, max_inodes: int = MAX_INODES
    ) -> None:
        self.on_crowded: Callable[[Inode], None] = lambda inode: None  # asks the kernel to forget an entry
        self.root = Inode(ROOT_NUMBER, None, "", DIRECTORY_BIT, is_dir=True)
        self._by_number = {ROOT_NUMBER: self.root}
        self._stats: OrderedDict[int, Inode] = OrderedDict()
        self._listings: OrderedDict[int, Inode] = OrderedDict()
        self._listed = 0
        self._max_stats = max_stats
        self._max_listed = max_listed
        self._max_inodes = max_inodes
        self._renumbered: OrderedDict[tuple[int, str, int], int] = OrderedDict()  # parent, name, identity → number
        self._asked: set[int] = set()  # numbers that the kernel was asked to forget
        self._told: deque[int] = deque()  # numbers of files and links, oldest first; some are not known any more

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Inode]:
        return iter(list(self._by_number.values()))

    @property
    def is_crowded(self) -> bool:
        """Whether many more entries are known than should be, as the kernel is slow to forget them."""
        return len(self._told) > self._max_inodes + MAX_ASKED

    def get(self, number: int) -> Inode:
        """Return the inode with that number.

        Raises: OSError (ESTALE) when it is not known any more.
        """
        try:
            return self._by_number[number]
        except KeyError:
            raise OSError(errno.ESTALE, f"inode {number} is not known") from None

    def at(self, path: str) -> tuple[Inode, list[str]]:
        """Return the deepest known directory or entry on the way to `path`, and the names that are left to walk."""
        inode = self.root
        names = [name for name in path.split("/") if name]
        for position, name in enumerate(names):
            child = inode.children.get(name)
            if child is None:
                return inode, names[position:]
            inode = child
        return inode, []

    def bind(self, parent: Inode, name: str, stat: Stat, *, expires: float = 0.0) -> Inode:
        """Return the inode for what is at `name` in `parent` now, remembering `stat` until `expires`.

        A known inode with another content is detached: it keeps its number and its last attributes.
        """
        identity = identity_of(stat)
        inode = parent.children.get(name)
        if inode is None or inode.identity != identity:
            former = inode
            inode = self._new(parent, name, identity, is_dir=stat.mode & KIND_BITS == DIRECTORY_BIT)
            if former is not None:
                self.detach(former)
            mount = stat.mount
            inode.nested = parent.nested or (mount is not None and not mount.version)
            inode.foreign = parent.foreign or mount is not None
            inode.pinned = parent.pinned or (mount is not None and bool(mount.version))
        self.remember(inode, stat, expires)
        return inode

    def remember(self, inode: Inode, stat: Stat, expires: float) -> None:
        """Keep `stat` for `inode`; of directories those least recently set are dropped beyond `max_stats`.

        Those of a file go with the file. Those of the root stay: no entry of a directory tells them again.
        """
        inode.stat = stat
        inode.expires = expires
        if inode is self.root or not inode.is_dir:
            return
        self._stats[inode.number] = inode
        self._stats.move_to_end(inode.number)
        while len(self._stats) > self._max_stats:
            _, oldest = self._stats.popitem(last=False)
            if oldest.attached and not oldest.handles:
                oldest.stat = None

    def remember_listing(self, inode: Inode, listing: Listing, expires: float) -> None:
        """Keep the listing of a directory; the least recently set ones are dropped beyond `max_listed` entries."""
        self.drop_listing(inode)
        inode.listing = listing
        inode.listing_expires = expires
        self._listings[inode.number] = inode
        self._listed += len(listing)
        while self._listed > self._max_listed and len(self._listings) > 1:
            self.drop_listing(next(iter(self._listings.values())))

    def drop_listing(self, inode: Inode) -> None:
        """Forget the listing of a directory, if there is one."""
        if inode.listing is not None:
            self._listed -= len(inode.listing)
            inode.listing = None
            del self._listings[inode.number]

    # What was changed through the mount itself

    def restate(self, inode: Inode, stat: Stat, expires: float) -> None:
        """Remember new attributes of `inode`, which stays the same although its content may be another."""
        identity = identity_of(stat)
        if identity != inode.identity:
            inode.identity, inode.has_former_number = identity, True
        self.remember(inode, stat, expires)
        if inode.attached and inode.parent is not None:
            self.list_as(inode.parent, inode.name, stat)

    def list_as(self, directory: Inode, name: str, stat: Stat | None) -> None:
        """Let a remembered listing say what is at a name; None: nothing."""
        listing = directory.listing
        if listing is not None:
            self._listed -= len(listing)
            if stat is None:
                listing.remove(name)
            else:
                listing.put(name, stat)
            self._listed += len(listing)

    def remove(self, inode: Inode) -> None:
        """Take the name of `inode` away; it lives on while somebody knows it."""
        inode.removed = True
        if inode.parent is not None:
            self.list_as(inode.parent, inode.name, None)
        self.detach(inode)

    def move(self, inode: Inode, parent: Inode, name: str) -> None:
        """Let `inode`, with all below it, be at `name` in `parent`, where nothing is."""
        former = inode.parent
        assert former is not None
        self.list_as(former, inode.name, None)
        if former.children.get(inode.name) is inode:
            del former.children[inode.name]
        inode.parent, inode.name, inode.has_former_number = parent, name, True
        parent.children[name] = inode
        if inode.stat is not None:
            self.list_as(parent, name, inode.stat)
        self.drop_unused(former)

    def swap(self, one: Inode, other: Inode) -> None:
        """Let two inodes be each where the other is."""
        (first, first_name), (second, second_name) = (one.parent, one.name), (other.parent, other.name)
        assert first is not None
        assert second is not None
        one.parent, one.name, other.parent, other.name = second, second_name, first, first_name
        one.has_former_number = other.has_former_number = True
        second.children[second_name], first.children[first_name] = one, other

    def opened(self, inode: Inode) -> None:
        """Count one more open file or directory."""
        inode.handles += 1
        inode.was_opened = True

    def closed(self, inode: Inode) -> None:
        """Count one open file or directory less."""
        inode.handles -= 1
        self.drop_unused(inode)

    def forget(self, number: int, count: int) -> None:
        """Take back `count` lookups that the kernel was answered."""
        inode = self._by_number.get(number)
        if inode is not None:
            inode.lookups -= count
            if inode.lookups > 0 and number in self._asked:  # it was looked up again meanwhile
                self._asked.remove(number)
                self._told.append(number)
            self.drop_unused(inode)

    def drop_unused(self, inode: Inode) -> None:
        """Forget `inode`, and then parents that are left alone, unless somebody knows it."""
        while inode.parent is not None and inode.lookups <= 0 and inode.handles <= 0 and not inode.children:
            if self._by_number.pop(inode.number, None) is None:
                return
            self.drop_listing(inode)
            self._stats.pop(inode.number, None)
            if inode.has_former_number and inode.attached:
                self._renumbered[inode.parent.number, inode.name, inode.identity] = inode.number
                while len(self._renumbered) > MAX_RENUMBERED:
                    self._renumbered.popitem(last=False)
            self._part(inode)
            if inode.number in self._asked:
                self._asked.remove(inode.number)
                self._make_room()
            inode = inode.parent

    def detach(self, inode: Inode) -> None:
        """Part `inode` and all below from their path: they keep number and attributes until nobody knows them."""
        for child in list(inode.children.values()):
            self.detach(child)
        if inode.attached and inode.parent is not None:
            self._part(inode)
            self.drop_listing(inode)
            self.drop_unused(inode)

    def _part(self, inode: Inode) -> None:
        inode.attached = False
        parent = inode.parent
        if parent is not None and parent.children.get(inode.name) is inode:
            del parent.children[inode.name]
            if not parent.children:
                parent.children = {}  # an emptied one keeps its memory

    def _new(self, parent: Inode, name: str, identity: int, *, is_dir: bool) -> Inode:
        former = self._renumbered.pop((parent.number, name, identity), None)
        number = former or hash((parent.number, _number_of(name), identity)) & NUMBER_MASK
        while number <= ROOT_NUMBER or number in self._by_number:
            number = (number + 1) & NUMBER_MASK
        inode = Inode(number, parent, name, identity, is_dir=is_dir)
        inode.has_former_number = former is not None
        self._by_number[number] = inode
        parent.children[name] = inode
        if not is_dir:
            self._told.append(number)
            if len(self._told) > self._max_inodes:
                self._make_room()
        return inode

    def _make_room(self) -> None:
        """Let the kernel forget the oldest entries beyond `max_inodes`: it never does so by itself while it has room.

        What is open stays, and what was opened meanwhile gets another turn. An inode goes when the kernel says so.
        """
        for _ in range(len(self._told) - self._max_inodes):
            if len(self._asked) >= MAX_ASKED:
                return
            inode = self._by_number.get(self._told.popleft())
            if inode is None or not inode.attached:
                continue
            if inode.handles or inode.node is not None or inode.was_opened:
                inode.was_opened = False
                self._told.append(inode.number)
            else:
                self._asked.add(inode.number)
                self.on_crowded(inode)
