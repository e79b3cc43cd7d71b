"""How an error looks from outside: the errno that a caller in the mount sees, the exit code of the command line.

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


def is_expected(error: BaseException) -> bool:
    """Tell whether `error` is one that the program reports itself, so that a traceback would say nothing new."""
    return isinstance(error, errors.DriveError | OSError)


def _nearest(table: dict[type[BaseException], int], error: BaseException, default: int) -> int:
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return default
