"""How an error looks from outside: the errno that a caller in the mount sees, the exit code of the command line, and
what is said of a system call that failed.

One table each; the nearest base class decides, so a new subclass of a listed error needs no line of its own.
"""

import errno

from ddrive import errors

EXIT_OTHER = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNVERIFIED = 4
EXIT_TRY_AGAIN = 5
EXIT_NOT_PERMITTED = 6
EXIT_STORAGE = 7

ERRNOS: dict[type[BaseException], int] = {
    errors.DriveError: errno.EIO,
    errors.NotFound: errno.ENOENT,
    errors.AlreadyExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.InvalidPath: errno.EINVAL,
    errors.UnusablePlace: errno.EINVAL,
    errors.InvalidName: errno.EILSEQ,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.TooManyLinks: errno.ELOOP,
    errors.BadHandle: errno.EBADF,
    errors.NotWritable: errno.EROFS,
    errors.CrossesMount: errno.EXDEV,
    errors.Unsupported: errno.EOPNOTSUPP,
    errors.InvalidKey: errno.EINVAL,
    errors.NotHeld: errno.EHOSTUNREACH,
    errors.NoPeers: errno.EHOSTUNREACH,
    errors.TimedOut: errno.ETIMEDOUT,
    errors.LengthChanged: errno.EAGAIN,
    errors.TooLarge: errno.EFBIG,
    errors.StorageLocked: errno.EBUSY,
    errors.DiskFull: errno.ENOSPC,
    errors.EngineError: errno.EHOSTUNREACH,
}

EXIT_CODES: dict[type[BaseException], int] = {
    errors.DriveError: EXIT_OTHER,
    errors.NotFound: EXIT_NOT_FOUND,
    errors.InvalidPath: EXIT_USAGE,
    errors.UnusablePlace: EXIT_USAGE,
    errors.InvalidKey: EXIT_USAGE,
    errors.InvalidProof: EXIT_UNVERIFIED,
    errors.CorruptStorage: EXIT_UNVERIFIED,
    errors.NotHeld: EXIT_TRY_AGAIN,
    errors.NoPeers: EXIT_TRY_AGAIN,
    errors.TimedOut: EXIT_TRY_AGAIN,
    errors.NotWritable: EXIT_NOT_PERMITTED,
    errors.StorageError: EXIT_STORAGE,
}

SYSTEM_EXIT_CODES = {
    errno.ENOENT: EXIT_NOT_FOUND,
    errno.EHOSTUNREACH: EXIT_TRY_AGAIN,
    errno.ETIMEDOUT: EXIT_TRY_AGAIN,
    errno.EACCES: EXIT_NOT_PERMITTED,
    errno.EPERM: EXIT_NOT_PERMITTED,
    errno.EROFS: EXIT_NOT_PERMITTED,
    errno.ENOSPC: EXIT_STORAGE,
    errno.EDQUOT: EXIT_STORAGE,
}

SYSTEM_ADVICE = {
    errno.ENOENT: "check the spelling",
    errno.EACCES: "check the permissions, or work as another user",
    errno.EPERM: "check the permissions, or work as another user",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.ENOTDIR: "name a directory",
    errno.EEXIST: "something else is there; choose another place",
}
OTHER_ADVICE = "see the state of this system"


def to_errno(error: BaseException, *, reading: bool = False) -> int:
    """Return the errno for `error`; EIO when nothing better is known.

    With `reading`, a full disk of ours is EIO: whoever reads did not ask to store anything.
    """
    number = error.errno or errno.EIO if isinstance(error, OSError) else _nearest(ERRNOS, error, errno.EIO)
    return errno.EIO if reading and number in errors.DISK_FULL else number


def to_exit_code(error: BaseException) -> int:
    """Return the exit code of a command that ends with `error`; 1 when nothing better is known."""
    if isinstance(error, OSError):
        return SYSTEM_EXIT_CODES.get(error.errno or errno.EIO, EXIT_OTHER)
    return _nearest(EXIT_CODES, error, EXIT_OTHER)


def advice_for(error: OSError) -> str:
    """Return what to do about a system call that failed."""
    return SYSTEM_ADVICE.get(error.errno or 0, OTHER_ADVICE)


def told(error: OSError, place: str = "") -> str:
    """Return what is said of a system call that failed: what, where, and what to do next.

    `place` is where it was, if the call itself named no file.
    """
    named = error.filename.decode("utf-8", "surrogateescape") if isinstance(error.filename, bytes) else error.filename
    place = named if isinstance(named, str) else place
    advice = advice_for(error)
    if not place and error.errno in errors.DISK_FULL:
        advice = "free some space (df shows which disk is full)"
    what = error.strerror or str(error) or type(error).__name__
    return f"{what} ({place}): {advice}" if place else f"{what}: {advice}"


def is_expected(error: BaseException) -> bool:
    """Tell whether `error` is one that the program reports itself, so that a traceback would say nothing new."""
    return isinstance(error, errors.DriveError | OSError)


def _nearest(table: dict[type[BaseException], int], error: BaseException, default: int) -> int:
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return default
