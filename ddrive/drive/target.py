"""The directory tree that an export writes: every change is made relative to an open directory.

A drive comes from a stranger, and so may what lies in the target already. So no symbolic link is ever followed below
the target, nothing outside it is touched, and bits that give somebody the rights of another are not restored. All
functions block; they run in worker threads.
"""

import os
import shutil
import stat as modes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ddrive.drive.stat import Stat, user_attributes
from ddrive.errors import DISK_FULL, DiskFull

_NS_PER_MS = 1_000_000
_SAFE_PERMISSIONS = 0o777
_SAFE_IN_DIRECTORIES = _SAFE_PERMISSIONS | modes.S_ISVTX  # which only protects what others have in it
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Blocked(Exception):
    """Something cannot be written; the text says why."""


class AttributesLost(Blocked):
    """Something was written, but the system does not keep its extended attributes; the text says why."""


@dataclass(frozen=True, slots=True)
class Output:
    """A file to write as a whole, or a link to make (`data` is then not used)."""

    name: str
    stat: Stat
    data: bytes = b""


class Directory:
    """An open directory of the target; `is_new`: it was made by this export."""

    def __init__(self, descriptor: int, *, is_new: bool = False) -> None:
        self.descriptor = descriptor
        self.is_new = is_new

    @classmethod
    def root(cls, path: Path) -> "Directory":
        """Return the target itself, made if need be."""
        path.mkdir(parents=True, exist_ok=True)
        return cls(os.open(path, _OPEN_DIRECTORY))

    @classmethod
    def look(cls, path: Path) -> "Directory":
        """Return the target itself to look at; where there is none, an empty one."""
        return cls(os.open(path, _OPEN_DIRECTORY)) if path.is_dir() else NotThere()

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def enter(self, name: str, *, replace: bool) -> "Directory":
        """Return the directory `name` in this one, made if need be. Raises: Blocked, DiskFull."""
        try:
            status = self._status(name)
            if status is not None and not modes.S_ISDIR(status.st_mode):
                self._clear(name, replace=replace)
                status = None
            if status is None:
                os.mkdir(name, 0o700, dir_fd=self.descriptor)
            elif status.st_mode & modes.S_IRWXU != modes.S_IRWXU:
                self._unlock(name)
            descriptor = os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.descriptor)
            return Directory(descriptor, is_new=status is None)
        except (OSError, ValueError) as problem:
            raise blocked(problem) from None

    def look_into(self, name: str) -> "Directory":
        """Return the directory `name` in this one to look at; where there is none, an empty one."""
        try:
            return Directory(os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.descriptor))
        except (OSError, ValueError):
            return NotThere()

    def finish(self, stat: Stat) -> None:
        """Give this directory its attributes, when everything is in it. Raises: Blocked, OSError."""
        _finish(self.descriptor, stat)

    def is_current(self, name: str, stat: Stat, *, mend: bool = True) -> bool:
        """Tell whether `name` is there already, with this size and time; to `mend` it, its other attributes are set."""
        try:
            status = self._status(name)
            if status is None or modes.S_IFMT(status.st_mode) != modes.S_IFMT(stat.mode):
                return False
            if stat.is_symlink:
                return os.readlink(name, dir_fd=self.descriptor) == stat.linkname
            if status.st_size != stat.size or status.st_mtime_ns // _NS_PER_MS != stat.mtime_ms:
                return False
            other_mode = status.st_mode & _SAFE_PERMISSIONS != stat.mode & _SAFE_PERMISSIONS
            if other_mode or user_attributes(stat.metadata):
                with self.opened(name, os.O_RDONLY | os.O_NOFOLLOW) as file:
                    if not mend:
                        return not other_mode and not _missing_attributes(file.descriptor, stat)
                    _set_attributes(file.descriptor, stat)
                    os.fchmod(file.descriptor, stat.mode & _SAFE_PERMISSIONS)
            return True
        except (OSError, ValueError, Blocked):
            return False

    def opened(self, name: str, flags: int) -> "File":
        """Return the open file `name`."""
        return File(os.open(name, flags | os.O_CLOEXEC, 0o600, dir_fd=self.descriptor))

    def create(self, name: str, *, replace: bool) -> "File":
        """Return a new empty file `name` in the place of whatever else was there. Raises: Blocked, DiskFull."""
        try:
            self._clear(name, replace=replace)
            return self.opened(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
        except (OSError, ValueError) as problem:
            raise blocked(problem) from None

    def write(self, output: Output, *, replace: bool) -> None:
        """Make a file or link. Raises: Blocked, DiskFull."""
        try:
            if output.stat.is_symlink:
                self._clear(output.name, replace=replace)
                os.symlink(output.stat.linkname or "", output.name, dir_fd=self.descriptor)
                _set_times(output.name, output.stat, self.descriptor)
                return
            with self.create(output.name, replace=replace) as file:
                file.write([output.data])
                file.finish(output.stat)
        except (OSError, ValueError) as problem:
            raise blocked(problem) from None

    def names(self) -> list[str]:
        """Return what is in this directory."""
        return os.listdir(self.descriptor)

    def remove(self, name: str) -> None:
        """Remove whatever `name` is, with all below it. Raises: Blocked, DiskFull."""
        try:
            self._clear(name, replace=True)
        except OSError as problem:
            raise blocked(problem) from None

    def _unlock(self, name: str) -> None:
        """Let us into the directory `name`; its mode is set at the end anyway."""
        descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.descriptor)
        try:
            os.chmod(f"/proc/self/fd/{descriptor}", modes.S_IRWXU)  # such a descriptor has no fchmod
        finally:
            os.close(descriptor)

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _clear(self, name: str, *, replace: bool) -> None:
        """Make `name` free; a directory goes only with `replace`."""
        status = self._status(name)
        if status is None:
            return
        if not modes.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=self.descriptor)
        elif replace:
            shutil.rmtree(name, dir_fd=self.descriptor)
        else:
            raise Blocked("a directory is in the way")


class NotThere(Directory):
    """A directory of the target that does not exist, to be looked at."""

    def __init__(self) -> None:
        super().__init__(-1, is_new=True)

    def close(self) -> None:
        """Do nothing."""

    def look_into(self, name: str) -> Directory:
        """Return what is in it: nothing either."""
        return self

    def is_current(self, name: str, stat: Stat, *, mend: bool = True) -> bool:
        """Nothing is."""
        return False

    def names(self) -> list[str]:
        """Return nothing."""
        return []


class File:
    """A file of the target that is being written."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, parts: Iterable[bytes]) -> None:
        """Append `parts`."""
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(self.descriptor, view) :]

    def finish(self, stat: Stat) -> None:
        """Give the file its attributes, last of all its times: an interrupted export leaves a file of another time.

        Raises: Blocked, OSError.
        """
        _finish(self.descriptor, stat)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def write_all(directory: Directory, outputs: list[Output], *, replace: bool) -> dict[str, Blocked]:
    """Write many small files; return the reason for each that could not be written. Raises: DiskFull."""
    refused = {}
    for output in outputs:
        try:
            directory.write(output, replace=replace)
        except Blocked as problem:
            refused[output.name] = problem
    return refused


def _finish(descriptor: int, stat: Stat) -> None:
    """Give an open file or directory its attributes; times last of all. Raises: Blocked, OSError."""
    problem = None
    try:
        _set_attributes(descriptor, stat)  # as long as we may write
    except Blocked as blocked:
        problem = blocked
    os.fchmod(descriptor, stat.mode & (_SAFE_IN_DIRECTORIES if stat.is_dir else _SAFE_PERMISSIONS))
    _set_times(descriptor, stat)
    if problem is not None:
        raise problem


def _missing_attributes(descriptor: int, stat: Stat) -> list[tuple[str, bytes]]:
    """Return the extended attributes that an open file or directory is to get."""
    wanted = user_attributes(stat.metadata)
    if not wanted:
        return []
    present = set(os.listxattr(descriptor))
    return [item for item in wanted.items() if item[0] not in present or os.getxattr(descriptor, item[0]) != item[1]]


def _set_attributes(descriptor: int, stat: Stat) -> None:
    """Give an open file or directory the extended attributes of its user. Raises: Blocked."""
    try:
        for name, value in _missing_attributes(descriptor, stat):
            os.setxattr(descriptor, name, value)
    except (OSError, ValueError) as problem:
        raise AttributesLost(f"its extended attributes cannot be kept there: {blocked(problem)}") from None


def _set_times(target: int | str, stat: Stat, directory: int | None = None) -> None:
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
