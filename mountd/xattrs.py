"""The extended attributes of a mount: ours, `user.ddrive.*`, and those that the author of an entry gave it.

Ours are told to whoever asks for them by name, and not listed: programs that copy attributes take what is listed along,
and would have to set and remove what cannot be set nor removed.
"""

import errno
from collections.abc import Mapping

from ddrive.drive.stat import Stat, user_attributes
from ddrive.ids import BlockIndex
from mountd.face import DriveFace
from mountd.inodes import to_bytes

PREFIX = "user."
OWN_PREFIX = "user.ddrive."
LINK_AS_IS = "ddrive.link"  # a symbolic link whose absolute target is not meant from the drive's root
TOTAL_BYTES_MAX = 64 * 1024  # of all names and values of an entry, which are stored with it
OF_ALL = ("key", "version")
OF_FILES = ("blocks", "held", "offset")


def names_of(stat: Stat) -> list[str]:
    """Return the names of the attributes that the author gave an entry; those under our prefix are never his."""
    return list(user_attributes(stat.metadata))


def given_value(stat: Stat, name: str) -> bytes | None:
    """Return the value that the author gave, None when there is none that may be shown."""
    if not name.startswith(PREFIX) or name.startswith(OWN_PREFIX):
        return None
    return stat.metadata.get(name)


def check_given(name: str, metadata: Mapping[str, bytes]) -> None:
    """Raise OSError when `name` is not the author's to set, or when `metadata` is too much for one entry."""
    if not name.startswith(PREFIX):
        raise OSError(errno.EOPNOTSUPP, f"attributes are named {PREFIX}…, not {name}")
    if name == PREFIX:
        raise OSError(errno.EINVAL, "the attribute has no name")  # no other file system keeps it, so none could copy it
    if name.startswith(OWN_PREFIX):
        raise OSError(errno.EOPNOTSUPP, f"{name} is not set but told by the mount")  # `cp` and `mv` go on after that
    if sum(len(to_bytes(other)) + len(value) for other, value in metadata.items()) > TOTAL_BYTES_MAX:
        raise OSError(errno.ENOSPC, f"an entry has room for {TOTAL_BYTES_MAX} bytes of attributes")


async def own_value(drive: DriveFace, path: str, stat: Stat, name: str) -> bytes | None:
    """Return the value of `user.ddrive.NAME` as text, None when the entry has no such attribute."""
    if name == "key":
        return drive.key.hex().encode()
    if name not in OF_ALL + (OF_FILES if stat.is_file else ()):
        return None
    number = {"version": drive.version, "blocks": stat.blocks, "offset": stat.offset}.get(name)
    if number is None:
        reader = await drive.open(path)
        try:
            number = reader.feed.held(BlockIndex(stat.offset), BlockIndex(stat.offset + stat.blocks))
        finally:
            await reader.aclose()
    return str(number).encode()
