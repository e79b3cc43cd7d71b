"""Making and opening the directory of a feed as its only owner."""

from typing import NamedTuple

from ddrive import crypto
from ddrive.errors import AlreadyExists, CorruptStorage, StorageError, WrongKey
from ddrive.feed.layout import FeedFiles
from ddrive.feed.signing import Signing
from ddrive.feed.storage import KEY, SECRET_KEY, Directory, read_small, write_small
from ddrive.ids import PublicKey, short


class OwnFiles(NamedTuple):
    """The files of a feed in a directory that is locked, and its keys."""

    files: FeedFiles
    key: PublicKey
    secret_key: bytes | None


def make_files(
    directory: Directory, key: PublicKey, secret_key: bytes | None, signing: Signing, *, store_secret_key: bool
) -> None:
    """Make the files of an empty feed. Raises: AlreadyExists, StorageLocked, WrongKey."""
    signing.check(key, secret_key)
    directory.lock()
    try:
        if directory.exists(KEY):
            raise AlreadyExists(f"a feed is stored here already, not {short(key)}")
        FeedFiles(directory).close()
        if secret_key is not None and store_secret_key:
            write_small(directory, SECRET_KEY, secret_key)
        write_small(directory, KEY, key)
        directory.sync()
    finally:
        directory.close()


def open_files(
    directory: Directory,
    key: PublicKey | None,
    secret_key: bytes | None,
    signing: Signing,
    cache_bytes: int | None,
) -> OwnFiles:
    """Lock a directory and open the files in it.

    Raises: StorageError when no feed is there, StorageLocked, WrongKey, CorruptStorage; it is not locked then.
    """
    if not directory.exists(KEY):
        raise StorageError("no feed is stored here")
    directory.lock()
    try:
        stored = PublicKey(read_small(directory, KEY, crypto.KEY_BYTES))
        if len(stored) != crypto.KEY_BYTES:
            raise CorruptStorage("the file with the key of the feed is cut off")
        if key is not None and key != stored:
            raise WrongKey(f"feed {short(stored)} is stored here, not {short(key)}")
        if secret_key is None and directory.exists(SECRET_KEY):
            secret_key = read_small(directory, SECRET_KEY, crypto.SECRET_KEY_BYTES) or None
        signing.check(stored, secret_key)
        return OwnFiles(FeedFiles(directory, cache_bytes=cache_bytes), stored, secret_key)
    except BaseException:
        directory.close()
        raise
