"""The attributes of a drive's entry, given to a file, directory or link of this system, and what it does not take.

Bits that give somebody the rights of another are not restored. All functions block; they run in worker threads.
"""

import os
import stat as modes

from ddrive.drive.stat import Stat, user_attributes
from ddrive.errors import DISK_FULL, DiskFull

SAFE_PERMISSIONS = 0o777
_SAFE_IN_DIRECTORIES = SAFE_PERMISSIONS | modes.S_ISVTX  # which only protects what others have in it
_NS_PER_MS = 1_000_000


class Blocked(Exception):
    """Something cannot be written; the text says why."""


class AttributesLost(Blocked):
    """Something was written, but the system does not keep its extended attributes; the text says why."""


def finish(descriptor: int, stat: Stat, *, exact: bool = False) -> None:
    """Give an open file or directory its attributes; times last of all. Raises: Blocked, OSError.

    `exact`: what it has of its user's extended attributes beyond them goes.
    """
    problem = None
    try:
        set_attributes(descriptor, stat, exact=exact)  # as long as we may write
    except Blocked as blocked:
        problem = blocked
    os.fchmod(descriptor, stat.mode & (_SAFE_IN_DIRECTORIES if stat.is_dir else SAFE_PERMISSIONS))
    set_times(descriptor, stat)
    if problem is not None:
        raise problem


def missing_attributes(descriptor: int, stat: Stat) -> list[tuple[str, bytes]]:
    """Return the extended attributes that an open file or directory is to get."""
    wanted = user_attributes(stat.metadata)
    if not wanted:
        return []
    present = set(os.listxattr(descriptor))
    return [item for item in wanted.items() if item[0] not in present or os.getxattr(descriptor, item[0]) != item[1]]


def other_attributes(target: int | str, stat: Stat) -> list[str]:
    """Return which extended attributes of its user an open file, or what is at a path, has beyond those of `stat`."""
    try:
        present = os.listxattr(target)
    except OSError:  # there are file systems without them
        return []
    return sorted(set(user_attributes(dict.fromkeys(present, b""))) - set(stat.metadata)) if present else []


def set_attributes(descriptor: int, stat: Stat, *, exact: bool = False) -> None:
    """Give an open file or directory the extended attributes of its user. Raises: Blocked."""
    try:
        for name in other_attributes(descriptor, stat) if exact else ():
            os.removexattr(descriptor, name)
        for name, value in missing_attributes(descriptor, stat):
            os.setxattr(descriptor, name, value)
    except (OSError, ValueError) as problem:
        raise AttributesLost(f"its extended attributes cannot be kept there: {blocked(problem)}") from None


def set_times(target: int | str, stat: Stat, directory: int | None = None) -> None:
    """Set the modification time of a descriptor or of a link; a time that the system cannot express is left out."""
    times = (stat.mtime_ms * _NS_PER_MS, stat.mtime_ms * _NS_PER_MS)
    try:
        if directory is None:
            os.utime(target, ns=times)
        else:
            os.utime(target, ns=times, dir_fd=directory, follow_symlinks=False)
    except OverflowError:
        return


def blocked(problem: Exception) -> Exception:
    """Return what to raise for something that cannot be written: a full disk concerns all that is still to come."""
    why = getattr(problem, "strerror", None) or str(problem)
    return DiskFull(why) if isinstance(problem, OSError) and problem.errno in DISK_FULL else Blocked(why)
