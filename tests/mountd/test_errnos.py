"""Every error has an errno and an exit code, and the important ones have the right ones."""

import errno
from collections.abc import Iterator

import pytest

from ddrive import errors
from mountd.errnos import EXIT_CODES, EXIT_OTHER, to_errno, to_exit_code, told


def subclasses(kind: type[errors.DriveError]) -> Iterator[type[errors.DriveError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


@pytest.mark.parametrize("kind", list(subclasses(errors.DriveError)), ids=lambda kind: kind.__name__)
def test_every_error_has_an_errno_and_an_exit_code(kind: type[errors.DriveError]) -> None:
    assert to_errno(kind("text")) in errno.errorcode
    assert to_exit_code(kind("text")) in set(EXIT_CODES.values()) | {EXIT_OTHER}


@pytest.mark.parametrize("kind", list(subclasses(errors.DriveError)), ids=lambda kind: kind.__name__)
def test_only_proven_absence_is_enoent(kind: type[errors.DriveError]) -> None:
    assert (to_errno(kind("text")) == errno.ENOENT) == issubclass(kind, errors.NotFound)


@pytest.mark.parametrize(
    ("error", "number", "code"),
    [
        (errors.NotFound("x"), errno.ENOENT, 3),
        (errors.AlreadyExists("x"), errno.EEXIST, 1),
        (errors.NotADirectory("x"), errno.ENOTDIR, 1),
        (errors.IsADirectory("x"), errno.EISDIR, 1),
        (errors.NotEmpty("x"), errno.ENOTEMPTY, 1),
        (errors.InvalidPath("x"), errno.EINVAL, 2),
        (errors.UnusablePlace("x"), errno.EINVAL, 2),
        (errors.InvalidName("x"), errno.EILSEQ, 2),
        (errors.NameTooLong("x"), errno.ENAMETOOLONG, 2),
        (errors.TooManyLinks("x"), errno.ELOOP, 1),
        (errors.BadHandle("x"), errno.EBADF, 1),
        (errors.NotWritable("x"), errno.EROFS, 6),
        (errors.CrossesMount("x"), errno.EXDEV, 1),
        (errors.Unsupported("x"), errno.EOPNOTSUPP, 1),
        (errors.InvalidKey("x"), errno.EINVAL, 2),
        (errors.NoPeers("x"), errno.EHOSTUNREACH, 5),
        (errors.TimedOut("x"), errno.ETIMEDOUT, 5),
        (errors.InvalidProof("x"), errno.EIO, 4),
        (errors.Forked("x"), errno.EIO, 4),
        (errors.CorruptStorage("x"), errno.EIO, 4),
        (errors.StorageLocked("x"), errno.EBUSY, 7),
        (errors.StorageError("x"), errno.EIO, 7),
        (errors.DiskFull("x"), errno.ENOSPC, 7),
        (errors.MountFailed("x"), errno.EIO, 1),
        (OSError(errno.EACCES, "x"), errno.EACCES, 6),
        (OSError(errno.ENOSPC, "x"), errno.ENOSPC, 7),
        (FileNotFoundError(errno.ENOENT, "x"), errno.ENOENT, 3),
        (OSError("no number"), errno.EIO, 1),
        (ValueError("x"), errno.EIO, 1),
        (ExceptionGroup("x", [ValueError("y")]), errno.EIO, 1),
    ],
    ids=repr,
)
def test_the_table(error: Exception, number: int, code: int) -> None:
    assert (to_errno(error), to_exit_code(error)) == (number, code)


def test_the_nearest_base_class_decides() -> None:
    class Special(errors.NameTooLong):
        pass

    assert to_errno(Special("x")) == errno.ENAMETOOLONG


def test_a_reader_never_sees_a_full_disk() -> None:
    assert to_errno(OSError(errno.ENOSPC, "x"), reading=True) == errno.EIO
    assert to_errno(errors.DiskFull("x"), reading=True) == errno.EIO
    assert to_errno(OSError(errno.EINTR, "x"), reading=True) == errno.EINTR


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No room", "/a"), "No room (/a): free some space there"),
        (OSError(errno.EIO, "Bad disk", b"/\xff"), "Bad disk (/\udcff): see the state of this system"),
        (OSError(errno.ENOSPC, "No room"), "No room: free some space (df shows which disk is full)"),
        (OSError("no number"), "no number: see the state of this system"),
        (OSError(), "OSError: see the state of this system"),
    ],
    ids=repr,
)
def test_a_system_call_that_failed_is_told_with_what_to_do(error: OSError, text: str) -> None:
    assert told(error) == text


def test_the_place_of_a_call_that_names_none_is_told() -> None:
    assert told(OSError(errno.ENOSPC, "No room"), "/state") == "No room (/state): free some space there"
