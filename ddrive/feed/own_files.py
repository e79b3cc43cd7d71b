"""Making and opening the directory of a feed as its only owner.

A loss of power while a feed is made may leave a `key` that is empty, cut off or nothing but zeros. Nobody was told of
that feed, so the directory counts as one without a feed, unless anything else in it shows that one was used.
"""

from itertools import islice
from logging import getLogger
from typing import NamedTuple

from ddrive import crypto
from ddrive.errors import AlreadyExists, CorruptStorage, InvalidKey, StorageError, WrongKey
from ddrive.feed.layout import HEADER_BYTES, FeedFiles
from ddrive.feed.merkle import MAX_LENGTH
from ddrive.feed.recovery import signed_roots
from ddrive.feed.signing import Signing
from ddrive.feed.storage import (
    BITFIELD,
    DATA,
    FORKED,
    KEY,
    SECRET_KEY,
    SIGNATURES,
    TREE,
    Directory,
    read_small,
    write_small,
)
from ddrive.ids import PublicKey, short

TRIED_SIGNATURES = 16  # when a key is to be shown to be the one of the feed

_log = getLogger(__name__)


class OwnFiles(NamedTuple):
    """The files of a feed in a directory that is locked, and its keys."""

    files: FeedFiles
    key: PublicKey
    secret_key: bytes | None


def holds_feed(directory: Directory) -> bool:
    """Tell whether a feed is stored in a directory: its key is, or anything that only a feed in use has."""
    if _stored(directory, KEY, crypto.KEY_BYTES) or _stored(directory, SECRET_KEY, crypto.SECRET_KEY_BYTES):
        return True
    return directory.exists(FORKED) or _has_content(directory)


def make_files(
    directory: Directory, key: PublicKey, secret_key: bytes | None, signing: Signing, *, store_secret_key: bool
) -> None:
    """Make the files of an empty feed. Raises: AlreadyExists, StorageLocked, WrongKey."""
    signing.check(key, secret_key)
    directory.lock()
    try:
        if holds_feed(directory):
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
    stored = read_small(directory, KEY, crypto.KEY_BYTES)
    if stored != key and not holds_feed(directory):
        raise StorageError("no feed is stored here")
    directory.lock()
    try:
        kept = _stored_pair(directory)
        found = _found_key(directory, key, secret_key, kept, signing)
        if key is not None and key != found:
            raise WrongKey(f"feed {found.hex()} is stored here, not {key.hex()}")
        if kept is None and directory.exists(SECRET_KEY):
            _log.warning("the file with the secret key of a feed is damaged, it is not used key=%s", short(found))
        secret_key = secret_key or (None if kept is None else kept.secret_key)
        signing.check(found, secret_key)
        if found != stored:
            _log.warning("the file with the key of a feed was damaged or missing and is made anew key=%s", short(found))
            write_small(directory, KEY, found)
        return OwnFiles(FeedFiles(directory, cache_bytes=cache_bytes), found, secret_key)
    except BaseException:
        directory.close()
        raise


def _stored(directory: Directory, name: str, size: int) -> bytes:
    """Return the content of a file with a key, empty when there is none in it: it is cut off, or nothing but zeros."""
    content = read_small(directory, name, size)
    return content if len(content) == size and any(content) else b""


def _has_content(directory: Directory) -> bool:
    """Tell whether one of the files that grow is longer than one of an empty feed."""
    for name in (DATA, TREE, SIGNATURES, BITFIELD):
        try:
            storage = directory.open(name, create=False)
        except FileNotFoundError:
            continue
        try:
            if storage.size() > (0 if name == DATA else HEADER_BYTES):
                return True
        finally:
            storage.close()
    return False


def _stored_pair(directory: Directory) -> crypto.KeyPair | None:
    """Return the keys that are stored, None when they are not, or damaged."""
    try:
        return crypto.KeyPair.from_secret_key(_stored(directory, SECRET_KEY, crypto.SECRET_KEY_BYTES))
    except InvalidKey:
        return None


def _found_key(
    directory: Directory, key: PublicKey | None, secret_key: bytes | None, kept: crypto.KeyPair | None, signing: Signing
) -> PublicKey:
    """Return the key of the feed in a directory: the one in its file, unless something better shows that to be damaged.

    Raises: CorruptStorage when nothing shows which it is.
    """
    if key is None and secret_key is not None:
        key = crypto.KeyPair.from_secret_key(secret_key).public_key
    stored = read_small(directory, KEY, crypto.KEY_BYTES)
    if stored and stored == key:
        return key
    is_whole = bool(_stored(directory, KEY, crypto.KEY_BYTES))
    likely = None if kept is None or signing.sign is not None else kept.public_key
    if not is_whole and likely is not None:
        return likely
    for other in (key, likely):
        if other is not None and other != stored and _has_signed(directory, other, signing):
            return other
    if is_whole:
        return PublicKey(stored)
    raise CorruptStorage(
        "the file with the key of the feed is damaged, and "
        + ("no signature here is of the one that was given: " if key is not None else "no key was given: ")
        + "open the feed with its key to mend that, or restore the file from a backup"
    )


def _has_signed(directory: Directory, key: PublicKey, signing: Signing) -> bool:
    """Tell whether a signature in the files is one of `key`."""
    try:
        files = FeedFiles(directory, read_only=True)
    except (FileNotFoundError, CorruptStorage):
        return False
    try:
        lengths = islice(files.signed_lengths(1, MAX_LENGTH + 1), TRIED_SIGNATURES)
        return any(signed_roots(files, key, length, signing.verify) for length in lengths)
    finally:
        files.close()
