"""Removing a directory tree of this system, however deep, with few descriptors and without following a link.

`shutil.rmtree` calls itself once and keeps a file open for every level: it ends at some 1000 of them. Directories with
secret keys, which cannot be made again, and what is mounted stay, with the directories on the way to them.
"""

import os
import stat as modes
from dataclasses import dataclass

from ddrive.store.keyed import keys_in

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True)
class _Level:
    """A directory that is being emptied, which it is, and the directories in it that are still there."""

    name: str
    identity: tuple[int, int]
    below: list[str]
    stays: bool = False


def identity(descriptor: int) -> tuple[int, int]:
    """Return what tells an open directory from all others."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def unlock(name: str, directory: int, *, same_mount: bool = False) -> None:
    """Let us into the directory `name` of an open one; with `same_mount` unless something is mounted there."""
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not same_mount or mount_of(descriptor) == mount_of(directory):
            os.chmod(f"/proc/self/fd/{descriptor}", modes.S_IRWXU)  # such a descriptor has no fchmod
    finally:
        os.close(descriptor)


def why_kept(descriptor: int, mount: int) -> str | None:
    """Return why an open directory, which lies in a `mount`, is not to be removed or changed; None when it may be."""
    if mount_of(descriptor) != mount:
        return "something is mounted there"
    return keys_in(f"/proc/self/fd/{descriptor}")


def mount_of(descriptor: int) -> int:
    """Return what tells the mount that an open directory lies in from all others; bind mounts have the same device."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
            return next(int(line[7:]) for line in file if line.startswith(b"mnt_id:"))
    except (OSError, StopIteration):
        return os.fstat(descriptor).st_dev


def remove_tree(name: str, directory: int, *, dry_run: bool = False) -> list[tuple[str, str]]:
    """Remove the directory `name` of an open one with all below it, also what is locked there.

    Returns the paths, from there, that stay, each with why. With `dry_run` nothing is removed.
    Raises: OSError, also when something is moved meanwhile.
    """
    kept: list[tuple[str, str]] = []
    mount = mount_of(directory)
    current, levels = _enter(name, directory, dry_run=dry_run), list[_Level]()
    try:
        levels.append(_emptied(name, current, levels, mount, kept, dry_run=dry_run))
        while levels:
            level = levels[-1]
            if level.below:
                deeper = level.below.pop()
                inner = _enter(deeper, current, dry_run=dry_run)
                os.close(current)
                current = inner
                levels.append(_emptied(deeper, current, levels, mount, kept, dry_run=dry_run))
                continue
            levels.pop()
            above = os.open("..", OPEN_DIRECTORY, dir_fd=current) if levels else os.dup(directory)
            os.close(current)
            current = above
            if levels and identity(current) != levels[-1].identity:
                raise OSError(f"{level.name!r} was moved while it was removed")
            if level.stays and levels:
                levels[-1].stays = True
            elif not (level.stays or dry_run):
                os.rmdir(level.name, dir_fd=current)
    finally:
        os.close(current)
    return kept


def _enter(name: str, directory: int, *, dry_run: bool) -> int:
    """Return the open directory `name` of an open one, which is unlocked if need be."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not dry_run and modes.S_ISDIR(status.st_mode) and status.st_mode & modes.S_IRWXU != modes.S_IRWXU:
        unlock(name, directory, same_mount=True)
    return os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


def _emptied(
    name: str, descriptor: int, above: list[_Level], mount: int, kept: list[tuple[str, str]], *, dry_run: bool
) -> _Level:
    """Remove the files and links of an open directory; return what is left of it. One that stays is added to `kept`."""
    why = why_kept(descriptor, mount)
    if why is not None:
        kept.append(("/".join([*(level.name for level in above), name]), why))
        return _Level(name, identity(descriptor), [], stays=True)
    below = []
    with os.scandir(descriptor) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            below.append(entry.name)
        elif not dry_run:
            os.unlink(entry.name, dir_fd=descriptor)
    return _Level(name, identity(descriptor), below)
