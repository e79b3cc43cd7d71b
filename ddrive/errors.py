"""The exceptions of ddrive: one small tree, so that a caller can catch as widely or as narrowly as it likes.

A message names the drive, path, block or peer it is about and, where there is one, the next step. How an error looks
from outside (errno, exit code) is decided in `mountd.errnos` alone.
"""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # of a system call that found no room


class DriveError(Exception):
    """Anything that ddrive itself reports."""


class NotFound(DriveError):
    """The path, version, tag or drive is proven not to exist; never raised for want of data."""


class AlreadyExists(DriveError):
    """An entry is already at this path."""


class NotADirectory(DriveError):
    """A directory was needed and something else is there."""


class IsADirectory(DriveError):
    """A file was needed and a directory is there."""


class NotEmpty(DriveError):
    """The directory still has entries."""


class InvalidPath(DriveError):
    """The path cannot name an entry of a drive."""


class UnusablePlace(DriveError):
    """A file or directory of this system that cannot serve what it was named for."""


class InvalidName(InvalidPath):
    """A path component is unusable: NUL, `/`, `.` or `..`, or not UTF-8."""


class NameTooLong(InvalidPath):
    """A path component is longer than 255 bytes, or the path longer than 8192."""


class TooManyLinks(DriveError):
    """Symbolic links or nested drives lead in a circle."""


class BadHandle(DriveError):
    """The open file is closed or was opened for something else."""


class NotWritable(DriveError):
    """The secret key of this feed is not held here, or the view is of a fixed version: nothing can be appended."""


class Behind(NotWritable):
    """More was signed of this own feed than is held here: a second signature for the same block would fork it."""


class CrossesMount(DriveError):
    """The operation would span two drives."""


class Unsupported(DriveError):
    """The drive format cannot express this."""


class InvalidKey(DriveError):
    """The text is not a key or URL of a drive."""


class NotHeld(DriveError):
    """The block is not held here and the caller did not want to wait for a peer."""


class NoPeers(DriveError):
    """No connected peer can provide what is missing."""


class TimedOut(DriveError):
    """The deadline passed before the data arrived."""


class Withdrawn(DriveError):
    """A wait was ended by `cancel`, or a download by `undownload`."""


class WriteRefused(DriveError):
    """The program's own check of a block refused it, so that it was not stored."""


class UndecodableBlock(DriveError):
    """A block or message is not of the encoding in which it is read; its bytes are as the author wrote them."""


class Closed(DriveError):
    """The feed, store or connection was closed while it was in use."""


class LengthChanged(DriveError):
    """Somebody else appended in between: read again and retry (compare-and-swap failed)."""


class SourceChanged(DriveError):
    """A file that is being stored is not what it was when that began."""


class TooLarge(DriveError):
    """A block, message or value is over the limit of the format."""


class InvalidProof(DriveError):
    """A block, node or signature does not verify against the author's key."""


class Misauthored(InvalidProof):
    """The author signed a block that is none of those his feed is made of: no peer has another one."""


class Untied(InvalidProof):
    """A longer signed tree of which nothing shows yet that it goes on from the one that is stored here."""


class Forked(InvalidProof):
    """Two different histories are signed with the key of this feed."""


class StorageError(DriveError):
    """The state directory cannot be used as it is."""


class DiskFull(StorageError):
    """There is no room for what is to be stored: on the disk, or beside what may not be dropped from the cache."""


class CorruptStorage(StorageError):
    """Bytes on our own disk do not verify."""


class ImpossibleEntry(CorruptStorage):
    """What the author of a drive has stored at a path cannot be understood, or cannot be true."""


class StorageLocked(StorageError):
    """Another process owns this directory."""


class WrongKey(StorageError):
    """The directory holds a feed of another key."""


class LocalProtocolError(DriveError):
    """We tried to do something that the protocol does not allow."""


class RemoteProtocolError(DriveError):
    """The peer broke the protocol or lied; its connection is closed."""


class EngineError(DriveError):
    """The engine of the state directory cannot be reached or started."""


class MountFailed(DriveError):
    """The file system could not be mounted at the given place."""


def first_cause(error: BaseException) -> BaseException:
    """Return the one error that an exception group carries; an interrupt goes before anything else."""
    while isinstance(error, BaseExceptionGroup):
        found = error.subgroup(KeyboardInterrupt) or error
        error = found.exceptions[0]
    return error
