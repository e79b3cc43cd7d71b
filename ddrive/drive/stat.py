"""The attributes of an entry ↔ the bytes stored under its trie key.

Only translation: whether the numbers make sense against a content feed is found out by the reader. Source of the
layout: `Stat` of `ddrive@5` and `hyperdrive@10` (drive.md section 2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from ddrive.drive.schema_pb2 import StatRecord
from ddrive.errors import CorruptStorage, ImpossibleEntry, InvalidPath
from ddrive.ids import PublicKey

KIND_BITS = 0o170000
FILE_BIT = 0o100000
DIRECTORY_BIT = 0o040000
LINK_BIT = 0o120000
PERMISSION_BITS = 0o7777

FILE_MODE = FILE_BIT | 0o644  # the peers' defaults
DIRECTORY_MODE = DIRECTORY_BIT | 0o755
LINK_MODE = LINK_BIT | 0o644

_KINDS = frozenset({0, FILE_BIT, DIRECTORY_BIT, LINK_BIT, *(kind << 12 for kind in (1, 2, 6, 12))})  # FIFO … socket

UINT32_MAX = (1 << 32) - 1
UINT64_MAX = (1 << 64) - 1
TIME_MS_MAX = 8_640_000_000_000_000  # the last moment that the peers can express, in the year 275760
KEY_BYTES = 32

USER_ATTRIBUTES = "user."  # extended attributes of this name space are metadata of the same name
TOLD_ATTRIBUTES = "user.ddrive."  # but not these, by which our mounts describe what they show
_MODE_TAG = b"\x08"  # field 1, a number

NO_METADATA: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted at an entry: a drive, or a plain feed shown as a file. `version` None follows the newest."""

    key: PublicKey
    version: int | None = None
    feed: bool = False
    hash: bytes | None = None  # never set or checked by the peers, kept when re-written


class Stat(NamedTuple):
    """Attributes of one entry.

    `mode` holds kind and permission bits. A file's bytes are the blocks `offset` up to `offset + blocks` of the content
    feed of the drive that owns the entry, `size` bytes in all, the first at byte `byte_offset` of that feed. Times are
    milliseconds since 1970. `metadata` holds extended attributes by full name.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    blocks: int = 0
    offset: int = 0
    byte_offset: int = 0
    mtime_ms: int = 0
    ctime_ms: int = 0
    linkname: str | None = None
    mount: Mount | None = None
    metadata: Mapping[str, bytes] = NO_METADATA

    def __hash__(self) -> int:
        """Return the hash of what makes two equal: a mapping has none of its own."""
        return hash((*self[:-1], frozenset(self.metadata.items())))

    @property
    def is_file(self) -> bool:
        """Whether it has bytes to read; a mounted plain feed is a file too."""
        return self.mode & KIND_BITS == FILE_BIT

    @property
    def is_dir(self) -> bool:
        """Whether it can hold entries; the place of a nested drive is a directory too."""
        return self.mode & KIND_BITS == DIRECTORY_BIT

    @property
    def is_symlink(self) -> bool:
        """Whether it only names another path, `linkname`."""
        return self.mode & KIND_BITS == LINK_BIT


def user_attributes(metadata: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return what of `metadata` is an extended attribute of the user, by its full name, if a system takes that."""
    if not metadata:
        return NO_METADATA
    return {
        name: value
        for name, value in metadata.items()
        if name.startswith(USER_ATTRIBUTES) and not name.startswith(TOLD_ATTRIBUTES)
        if name != USER_ATTRIBUTES and "\0" not in name
    }


def decode_stat(data: bytes | None) -> Stat:
    """Return the attributes stored as `data`.

    Numbers that are absent are 0; a metadata record without value counts as removed. Text that is not UTF-8 is kept
    with surrogate escapes, as Python does for file names.
    Raises: ImpossibleEntry when `data` is no Stat: the author of the drive wrote something else there.
    """
    try:
        record = StatRecord.FromString(data or b"")
    except DecodeError:
        raise ImpossibleEntry("the attributes of this entry cannot be decoded") from None
    mode = record.mode
    if not mode:
        raise ImpossibleEntry("the attributes of this entry have no mode")
    if mode & ~PERMISSION_BITS not in _KINDS:
        raise ImpossibleEntry(f"the mode of this entry, {mode:#o}, is of no kind of file")
    mtime_ms, ctime_ms = record.mtime_ms, record.ctime_ms
    linkname, metadata = record.linkname, record.metadata
    return Stat(
        mode,
        record.uid,
        record.gid,
        record.size,
        record.blocks,
        record.offset,
        record.byte_offset,
        mtime_ms,
        mtime_ms if ctime_ms == mtime_ms else ctime_ms,  # mostly the same number, kept once
        linkname.decode("utf-8", "surrogateescape") if linkname else None,
        _decode_mount(record.mount) if record.HasField("mount") else None,
        _decode_metadata(metadata) if metadata else NO_METADATA,
    )


def storable_ms(time_ms: int) -> int:
    """Return the time, in ms since 1970, that is nearest to `time_ms` among those that a drive can hold."""
    return min(max(0, time_ms), TIME_MS_MAX)


def may_be_stat(data: bytes | None) -> bool:
    """Tell at a glance whether `decode_stat` takes `data`: what every writer begins with is the mode."""
    return data is not None and (data[:1] == _MODE_TAG or _is_stat(data))


def _is_stat(data: bytes) -> bool:
    try:
        decode_stat(data)
    except CorruptStorage:
        return False
    return True


def _decode_mount(record: Any) -> Mount:
    """Return the mount in `record` (generated message)."""
    if len(record.key) != KEY_BYTES:
        raise ImpossibleEntry(f"the key of a mount has {len(record.key)} bytes, not {KEY_BYTES}")
    return Mount(PublicKey(record.key), record.version or None, record.feed, record.hash or None)


def _decode_metadata(records: Any) -> Mapping[str, bytes]:
    """Return the metadata in `records` (generated messages); the last one of a name counts."""
    found: dict[str, bytes] = {}
    for record in records:
        name = record.name.decode("utf-8", "surrogateescape")
        found.pop(name, None)
        if record.HasField("value"):
            found[name] = record.value
    return MappingProxyType(found)


def encode_stat(stat: Stat) -> bytes:
    """Return the bytes to store for `stat`, field for field as the peers write them.

    Fields 1 to 9 are always written, zeros included. A time before 1970 becomes 0, as the format cannot express it.
    Raises: InvalidPath when a number or text does not fit the format.
    """
    try:
        record = StatRecord(
            mode=stat.mode,
            uid=stat.uid & UINT32_MAX,
            gid=stat.gid & UINT32_MAX,
            size=stat.size,
            blocks=stat.blocks,
            offset=stat.offset,
            byte_offset=stat.byte_offset,
            mtime_ms=max(0, stat.mtime_ms),
            ctime_ms=max(0, stat.ctime_ms),
        )
        if stat.linkname:
            record.linkname = stat.linkname.encode("utf-8", "surrogateescape")
        if stat.mount is not None:
            _encode_mount(stat.mount, record.mount)
        for name, value in stat.metadata.items():
            record.metadata.add(name=name.encode("utf-8", "surrogateescape"), value=value)
    except (ValueError, UnicodeEncodeError) as problem:
        raise InvalidPath(f"these attributes cannot be stored: {problem}") from None
    return record.SerializeToString()


def _encode_mount(mount: Mount, record: Any) -> None:
    """Fill the generated message `record`; `version` and `hash` are left out when there is none."""
    record.key = mount.key
    if mount.version:
        record.version = mount.version
    if mount.hash:
        record.hash = mount.hash
    record.feed = mount.feed
