"""The directory tree that an export writes: every change is made relative to an open directory.

A drive comes from a stranger, and so may what lies in the target already. So no symbolic link is ever followed below
the target, and nothing outside it is touched. A file has its name when it is whole: until then it is called as
`TEMPORARY` says, and locked, so that the next export can tell what nobody writes any more. All functions block; they
run in worker threads.
"""

import fcntl
import os
import re
import stat as modes
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ddrive.drive.removing import OPEN_DIRECTORY, identity, remove_tree, unlock
from ddrive.drive.restoring import (
    SAFE_PERMISSIONS,
    AttributesLost,
    Blocked,
    blocked,
    finish,
    missing_attributes,
    other_attributes,
    set_attributes,
    set_times,
)
from ddrive.drive.stat import Stat, user_attributes
from ddrive.errors import UnusablePlace
from ddrive.store.keyed import keys_in

TEMPORARY = re.compile(r"\.ddrive-export-[0-9a-f]{16}")  # the name of what is being written
ATTEMPTS = 10  # at making what another export takes for left over meanwhile
SYNC_BYTES = 1024 * 1024  # a file above that is on the disk before its name; for all that takes twice as long

_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Output:
    """A file to write as a whole, or a link to make (`data` is then not used)."""

    name: str
    stat: Stat
    data: bytes = b""


class Directory:
    """An open directory of the target; `is_new`: it was made by this export."""

    def __init__(self, descriptor: int, *, is_new: bool = False) -> None:
        self.descriptor = descriptor  # -1 while it is suspended
        self.is_new = is_new
        self._identity: tuple[int, int] | None = None

    @classmethod
    def root(cls, path: Path) -> "Directory":
        """Return the target itself, made if need be. Raises: UnusablePlace when it holds secret keys."""
        _check(path)
        path.mkdir(parents=True, exist_ok=True)
        return cls(os.open(path, OPEN_DIRECTORY))

    @classmethod
    def look(cls, path: Path) -> "Directory":
        """Return the target itself to look at; where there is none, an empty one. Raises: UnusablePlace, as above."""
        _check(path)
        return cls(os.open(path, OPEN_DIRECTORY)) if path.is_dir() else NotThere()

    def close(self) -> None:
        """Close it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    @property
    def is_suspended(self) -> bool:
        """Whether it has to be opened again before it is used."""
        return self.descriptor < 0

    def suspend(self) -> None:
        """Give back the descriptor until `resume`."""
        if not self.is_suspended:
            self._identity = identity(self.descriptor)
            self.close()

    def resume(self, name: str, other: "Directory") -> None:
        """Open it again: as `name`, which may be `..`, of another directory. Raises: Blocked when it is another now."""
        try:
            descriptor = os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=other.descriptor)
        except OSError as problem:
            raise Blocked(problem.strerror or str(problem)) from None
        if identity(descriptor) != self._identity:
            os.close(descriptor)
            raise Blocked("it was moved away meanwhile")
        self.descriptor = descriptor

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
                unlock(name, self.descriptor)
            descriptor = os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.descriptor)
            return _checked(Directory(descriptor, is_new=status is None))
        except (OSError, ValueError) as problem:
            raise blocked(problem) from None

    def look_into(self, name: str) -> "Directory":
        """Return the directory `name` in this one to look at; where there is none, an empty one. Raises: Blocked."""
        try:
            return _checked(Directory(os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.descriptor)))
        except (OSError, ValueError):
            return NotThere()

    def finish(self, stat: Stat, *, exact: bool = False) -> None:
        """Give this directory its attributes, `exact` ones, when everything is in it. Raises: Blocked, OSError."""
        finish(self.descriptor, stat, exact=exact)

    def is_current(self, name: str, stat: Stat, *, mend: bool = True, exact: bool = False) -> bool:
        """Tell whether `name` is there already, with this size and time; to `mend` it, its other attributes are set.

        `exact`: extended attributes that it has beyond these go.
        """
        try:
            status = self._status(name)
            if status is None or modes.S_IFMT(status.st_mode) != modes.S_IFMT(stat.mode):
                return False
            if stat.is_symlink:
                return os.readlink(name, dir_fd=self.descriptor) == stat.linkname
            if status.st_size != stat.size or status.st_mtime_ns // _NS_PER_MS != stat.mtime_ms:
                return False
            other_mode = status.st_mode & SAFE_PERMISSIONS != stat.mode & SAFE_PERMISSIONS
            others = other_attributes(f"/proc/self/fd/{self.descriptor}/{name}", stat) if exact else []
            if other_mode or others or user_attributes(stat.metadata):
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.descriptor)
                try:
                    if not mend:
                        return not other_mode and not others and not missing_attributes(descriptor, stat)
                    set_attributes(descriptor, stat, exact=exact)
                    os.fchmod(descriptor, stat.mode & SAFE_PERMISSIONS)
                finally:
                    os.close(descriptor)
            return True
        except (OSError, ValueError, Blocked):
            return False

    def create(self, name: str, *, replace: bool) -> "File":
        """Return a new empty file, which is to be called `name` when it is whole. Raises: Blocked, DiskFull."""
        try:
            status = self._status(name)
            if status is not None and modes.S_ISDIR(status.st_mode) and not replace:
                raise Blocked("a directory is in the way")
            return File(self, name, replace=replace)
        except (OSError, ValueError) as problem:
            raise blocked(problem) from None

    def write(self, output: Output, *, replace: bool) -> None:
        """Make a file or link. Raises: Blocked, DiskFull."""
        try:
            if output.stat.is_symlink:
                self._link(output.name, output.stat, replace=replace)
                return
            with self.create(output.name, replace=replace) as file:
                file.write([output.data])
                file.finish(output.stat)
        except (OSError, ValueError) as problem:
            raise blocked(problem) from None

    def _link(self, name: str, stat: Stat, *, replace: bool) -> None:
        """Make a link in the place of `name`; again, when another export has taken it for left over."""
        for _ in range(ATTEMPTS - 1):
            with suppress(FileNotFoundError):
                self._link_once(name, stat, replace=replace)
                return
        self._link_once(name, stat, replace=replace)

    def _link_once(self, name: str, stat: Stat, *, replace: bool) -> None:
        temporary = _temporary()
        os.symlink(stat.linkname or "", temporary, dir_fd=self.descriptor)
        try:
            set_times(temporary, stat, self.descriptor)
            self.put(temporary, name, replace=replace)
        except BaseException:
            self.discard(temporary)
            raise

    def put(self, temporary: str, name: str, *, replace: bool) -> None:
        """Call `name` what is whole now; a directory in its place goes only with `replace`.

        Raises: Blocked, OSError.
        """
        renaming = temporary, name
        try:
            os.rename(*renaming, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except IsADirectoryError:
            self._clear(name, replace=replace)
            os.rename(*renaming, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def discard(self, temporary: str) -> None:
        """Remove what did not become whole."""
        with suppress(OSError):
            os.unlink(temporary, dir_fd=self.descriptor)

    def tidy(self, kept: Collection[str]) -> None:
        """Remove what an export that was interrupted has left here, but for what the drive itself calls so (`kept`)."""
        for name in os.listdir(self.descriptor):
            if _is_temporary(name) and name not in kept:
                self._tidy(name)

    def _tidy(self, name: str) -> None:
        """Remove a file unless another export writes it now; locked meanwhile, so that one which begins can tell."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.descriptor)
        except OSError:
            self.discard(name)
            return
        try:
            with suppress(OSError):  # there are file systems without locks
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
            self.discard(name)
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Return what is in this directory, but for what another export is writing."""
        return [name for name in os.listdir(self.descriptor) if not _is_temporary(name)]

    def remove(self, name: str, *, dry_run: bool = False) -> list[tuple[str, str]]:
        """Remove whatever `name` is, with all below it; return the paths that stay, and why.

        Raises: Blocked, DiskFull.
        """
        try:
            status = self._status(name)
            if status is not None and modes.S_ISDIR(status.st_mode):
                return remove_tree(name, self.descriptor, dry_run=dry_run)
            if status is not None and not dry_run:
                os.unlink(name, dir_fd=self.descriptor)
            return []
        except OSError as problem:
            raise blocked(problem) from None

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _clear(self, name: str, *, replace: bool) -> None:
        """Make `name` free; a directory goes only with `replace`."""
        status = self._status(name)
        if status is not None and modes.S_ISDIR(status.st_mode) and not replace:
            raise Blocked("a directory is in the way")
        for path, why in self.remove(name):
            raise Blocked(f"a directory is in the way, and in it {path}: {why}")


def _check(path: Path) -> None:
    if (what := keys_in(str(path))) is not None:
        raise UnusablePlace(f"nothing is written into {path}, as it is {what}: choose another name")


def _checked(directory: Directory) -> Directory:
    """Return a directory that was there already, unless nothing in it is to be changed. Raises: Blocked."""
    if not directory.is_new and (why := keys_in(f"/proc/self/fd/{directory.descriptor}")) is not None:
        directory.close()
        raise Blocked(why)
    return directory


class NotThere(Directory):
    """A directory of the target that does not exist, to be looked at."""

    def __init__(self) -> None:
        super().__init__(-1, is_new=True)

    @property
    def is_suspended(self) -> bool:
        """It never is."""
        return False

    def suspend(self) -> None:
        """Do nothing."""

    def look_into(self, name: str) -> Directory:
        """Return what is in it: nothing either."""
        return self

    def is_current(self, name: str, stat: Stat, *, mend: bool = True, exact: bool = False) -> bool:
        """Nothing is."""
        return False

    def names(self) -> list[str]:
        """Return nothing."""
        return []

    def tidy(self, kept: Collection[str]) -> None:
        """Do nothing."""


class File:
    """A file of the target that is being written; what was not finished when it is closed goes away."""

    def __init__(self, directory: Directory, name: str, *, replace: bool) -> None:
        self._directory = directory
        self._name = name
        self._replace = replace
        self._temporary: str | None = None
        self._descriptor = -1
        for attempt in range(1, ATTEMPTS + 1):
            self._temporary, self._descriptor = _begun(directory.descriptor)
            if _is_kept(self._descriptor) or attempt == ATTEMPTS:
                break
            os.close(self._descriptor)

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, parts: Iterable[bytes]) -> None:
        """Append `parts`."""
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(self._descriptor, view) :]

    def finish(self, stat: Stat) -> None:
        """Give the file its attributes, then its name. Raises: Blocked, OSError."""
        lost: AttributesLost | None = None
        try:
            finish(self._descriptor, stat)
        except AttributesLost as problem:
            lost = problem
        if stat.size > SYNC_BYTES:
            os.fsync(self._descriptor)
        assert self._temporary is not None
        self._directory.put(self._temporary, self._name, replace=self._replace)
        self._temporary = None
        if lost is not None:
            raise lost

    def close(self) -> None:
        """Close the file."""
        if self._temporary is not None:
            self._directory.discard(self._temporary)
        os.close(self._descriptor)


def _begun(directory: int) -> tuple[str, int]:
    """Return a new file in an open directory under a name for now, and its descriptor."""
    name = _temporary()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return name, os.open(name, flags, 0o600, dir_fd=directory)


def _is_kept(descriptor: int) -> bool:
    """Lock a file that was just begun; tell whether no other export has taken it for left over before."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # it is being tidied away now
        return False
    except OSError:  # there are file systems without locks
        pass
    return bool(os.fstat(descriptor).st_nlink)


def _temporary() -> str:
    return f".ddrive-export-{os.urandom(8).hex()}"


def _is_temporary(name: str) -> bool:
    return name.startswith(".ddrive-export-") and TEMPORARY.fullmatch(name) is not None


def write_all(directory: Directory, outputs: list[Output], *, replace: bool) -> dict[str, Blocked]:
    """Write many small files; return the reason for each that could not be written. Raises: DiskFull."""
    refused = {}
    for output in outputs:
        try:
            directory.write(output, replace=replace)
        except Blocked as problem:
            refused[output.name] = problem
    return refused
