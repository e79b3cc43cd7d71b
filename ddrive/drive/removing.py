"""Removing a directory tree of this system, however deep, with few descriptors and without following a link.

`shutil.rmtree` calls itself once and keeps a file open for every level: it ends at some 1000 of them.
"""

import os
import stat as modes
from dataclasses import dataclass

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True)
class _Level:
    """A directory that is being emptied, which it is, and the directories in it that are still there."""

    name: str
    identity: tuple[int, int]
    below: list[str]


def identity(descriptor: int) -> tuple[int, int]:
    """Return what tells an open directory from all others."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def unlock(name: str, directory: int) -> None:
    """Let us into the directory `name` of an open one."""
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", modes.S_IRWXU)  # such a descriptor has no fchmod
    finally:
        os.close(descriptor)


def remove_tree(name: str, directory: int) -> None:
    """Remove the directory `name` of an open one with all below it, also what is locked there.

    Raises: OSError, also when something is moved meanwhile.
    """
    current, levels = _enter(name, directory), []
    try:
        levels.append(_emptied(name, current))
        while levels:
            level = levels[-1]
            if level.below:
                deeper = level.below.pop()
                inner = _enter(deeper, current)
                os.close(current)
                current = inner
                levels.append(_emptied(deeper, current))
                continue
            levels.pop()
            above = os.open("..", OPEN_DIRECTORY, dir_fd=current) if levels else os.dup(directory)
            os.close(current)
            current = above
            if levels and identity(current) != levels[-1].identity:
                raise OSError(f"{level.name!r} was moved while it was removed")
            os.rmdir(level.name, dir_fd=current)
    finally:
        os.close(current)


def _enter(name: str, directory: int) -> int:
    """Return the open directory `name` of an open one, which is unlocked if need be."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if modes.S_ISDIR(status.st_mode) and status.st_mode & modes.S_IRWXU != modes.S_IRWXU:
        unlock(name, directory)
    return os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


def _emptied(name: str, descriptor: int) -> _Level:
    """Remove the files and links of an open directory; return what is left of it."""
    below = []
    with os.scandir(descriptor) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            below.append(entry.name)
        else:
            os.unlink(entry.name, dir_fd=descriptor)
    return _Level(name, identity(descriptor), below)
