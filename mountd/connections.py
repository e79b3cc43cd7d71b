"""The kernel's connections to processes that serve mounts, by the control files it has for each.

They lie in a file system of their own, which is not mounted everywhere; root can look into it all the same.
Source: Documentation/filesystems/fuse.rst of Linux.
"""

import logging
import os
from contextlib import suppress
from pathlib import PurePath

from mountd.mount_calls import new_mount
from mountd.mountinfo import FILE_SYSTEM, mounted_at

CONTROL = PurePath("/sys/fs/fuse/connections")

_log = logging.getLogger(__name__)


def open_control(device: str, name: str) -> int:
    """Return the descriptor of a control file, for writing, of the mount that is `device` (`0:40`, of mountinfo) now.

    It stays that mount's: when the mount has ended, the kernel may give its number to another, and writing here does
    nothing. Raises: OSError where we may not.
    """
    path = PurePath(device.partition(":")[2], name)
    with suppress(OSError):
        return os.open(CONTROL / path, os.O_WRONLY)
    root = new_mount("fusectl")
    try:
        return os.open(path, os.O_WRONLY, dir_fd=root)
    finally:
        os.close(root)


def write_control(descriptor: int, value: int) -> None:
    """Set a control file. Raises: OSError."""
    os.write(descriptor, b"%d" % value)


def way_to_abort(mountpoint: str) -> int | None:
    """Return the descriptor of the control file that ends the mount at `mountpoint`, if we may have it."""
    place = mounted_at(mountpoint)
    if place is None or place.kind != FILE_SYSTEM:
        return None
    try:
        descriptor = open_control(place.device, "abort")
    except OSError as problem:
        _log.debug("mount cannot be aborted: mountpoint=%s why=%s", mountpoint, problem)
        return None
    if mounted_at(mountpoint) == place:
        return descriptor
    os.close(descriptor)  # it may be another's
    return None
