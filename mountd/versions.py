"""All versions of a mounted drive at once, as directories: `.ddrive/versions/<number>`, and a link for each tag.

Listings of the root do not show `.ddrive`, so that nothing that walks a tree comes upon it. What the drive itself has
at these paths is shown instead. Each version is a nested drive pinned at that version: read-only, and kept for ever.
"""

from collections.abc import Sequence

from ddrive.drive import DirEntry, Drive
from ddrive.drive.paths import is_hostile
from ddrive.drive.stat import DIRECTORY_MODE, LINK_MODE, Mount, Stat
from ddrive.errors import IsADirectory, NotFound
from ddrive.ids import PublicKey
from mountd.face import DriveFace, EntryFace, FeedFace, NestedDrivesFace, NestingFace, ReaderFace

TOP = "/.ddrive"
VERSIONS = "/.ddrive/versions"
NEWEST_LISTED = 100  # versions; older ones can be looked up all the same
TAGS_LISTED = 1000
_DIGITS_MAX = 16  # of a version


class VersionedDrive:
    """`base` with the versions of `drive` below `TOP`; both are the same drive. A `DriveFace`."""

    def __init__(self, base: DriveFace, drive: Drive) -> None:
        self._base = base
        self._drive = drive
        self._tags: dict[str, int] | None = None  # as they were shown last; None: nobody has looked

    @property
    def key(self) -> PublicKey:
        """The key of the drive."""
        return self._base.key

    @property
    def version(self) -> int:
        """The version of the drive."""
        return self._base.version

    @property
    def metadata(self) -> FeedFace:
        """The feed of its entries."""
        return self._base.metadata

    async def lstat(self, path: str) -> Stat:
        """Return the attributes of an entry. Raises: NotFound, what the drive raises."""
        if not await self._is_ours(path):
            return await self._base.lstat(path)
        if path in (TOP, VERSIONS):
            return self._pinned(Stat(DIRECTORY_MODE), 1, place=path)
        name, _, inner = path.removeprefix(VERSIONS + "/").partition("/")
        if not inner and not is_number(name):
            return _link(await self._tag(name))
        view = self._view(name)
        return await view.lstat(inner) if inner else self._pinned(await view.lstat("/"), view.version)

    async def list(self, path: str) -> Sequence[EntryFace]:
        """Return the entries of a directory; of the versions the newest ones. Raises: what the drive raises."""
        if not await self._is_ours(path):
            return await self._base.list(path)
        if path == TOP:
            return [DirEntry("versions", await self.lstat(VERSIONS))]
        if path == VERSIONS:
            return await self._all()
        name, _, inner = path.removeprefix(VERSIONS + "/").partition("/")
        return await self._view(name).list(inner)

    async def open(self, path: str, stat: Stat | None = None) -> ReaderFace:
        """Return a reader of a file. Raises: what the drive raises."""
        if not await self._is_ours(path):
            return await self._base.open(path, stat)
        name, _, inner = path.removeprefix(VERSIONS + "/").partition("/")
        if not inner:
            raise IsADirectory(f"{path!r} is a directory")
        return await self._view(name).open(inner)

    async def changed(self, old: int) -> Sequence[str]:
        """Return the paths that differ between version `old` and now; that version itself and tags, if shown."""
        found = await self._base.changed(old)
        if self._tags is None:
            return found
        before, self._tags = self._tags, await self._shown_tags()
        names = [name for name in {**before, **self._tags} if before.get(name) != self._tags.get(name)]
        return [*found, *(f"{VERSIONS[1:]}/{name}" for name in [str(self.version), *names])]

    async def nested(self) -> NestedDrivesFace:
        """Return the nested drives that were looked into."""
        assert isinstance(self._base, NestingFace)
        return await self._base.nested()

    # Inside

    async def _is_ours(self, path: str) -> bool:
        """Tell whether `path` is one that we add, and nothing of the drive itself is in its way."""
        if path not in (TOP, VERSIONS) and not path.startswith(VERSIONS + "/"):
            return False
        try:
            if not (await self._base.lstat(TOP)).is_dir or path == TOP:
                return False
            await self._base.lstat(VERSIONS)
        except NotFound:
            return True
        return False

    def _view(self, name: str) -> Drive:
        """Return the drive at the version called `name`. Raises: NotFound."""
        if not is_number(name) or not 0 < int(name) <= self._drive.version:
            raise NotFound(f"the drive has no version {name[:40]!r}, the newest is {self._drive.version}")
        return self._drive.checkout(int(name))

    def _pinned(self, stat: Stat, version: int, place: str = "") -> Stat:
        """Return the attributes of a drive that is nested here; `place` marks what is only fixed like one."""
        mount = Mount(self.key, version, hash=place.encode() or None)
        return stat._replace(mode=DIRECTORY_MODE & ~0o222, mount=mount)

    async def _tag(self, name: str) -> int:
        if self._tags is None:
            self._tags = {}
        self._tags[name] = await self._drive.tags.get(name)
        return self._tags[name]

    async def _shown_tags(self) -> dict[str, int]:
        """Return the tags that can be shown as names."""
        found = await self._drive.tags.all()
        fit = [(name, version) for name, version in found.items() if not (is_hostile(name) or "/" in name)]
        return dict([pair for pair in fit if not is_number(pair[0])][:TAGS_LISTED])

    async def _all(self) -> Sequence[DirEntry]:
        """Return the newest versions and the tags, by name."""
        self._tags = await self._shown_tags()
        entries = [DirEntry(name, _link(version)) for name, version in self._tags.items()]
        newest = self._drive.version
        for version in range(max(1, newest - NEWEST_LISTED + 1), newest + 1):
            stat = await self._drive.checkout(version).lstat("/")
            entries.append(DirEntry(str(version), self._pinned(stat, version)))
        return sorted(entries, key=lambda entry: entry.name)


def unlisted(directory: str, name: str) -> bool:
    """Tell whether `name` may be in a directory though listings of it do not show it."""
    return directory == VERSIONS or f"{directory.rstrip('/')}/{name}" in (TOP, VERSIONS)


def is_number(name: str) -> bool:
    """Tell whether a name is a version as we write it."""
    return name.isascii() and name.isdigit() and len(name) <= _DIGITS_MAX and name == str(int(name))


def _link(version: int) -> Stat:
    """Return the attributes of a link to a version."""
    return Stat(LINK_MODE | 0o777, linkname=str(version))
