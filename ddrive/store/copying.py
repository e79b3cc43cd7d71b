"""Store directories that other programs wrote, to be read and copied: the npm stores have the layout of ours.

Nothing in them is changed. Everything here waits for the disk and is to be called in a thread.
Source: store.md sections 1 and 2.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from ddrive.crypto import KEY_BYTES, SECRET_KEY_BYTES, discovery_key
from ddrive.dialect import DIALECTS, Dialect
from ddrive.errors import NotFound, StorageLocked
from ddrive.feed.storage import BITFIELD, DATA, KEY, SECRET_KEY, SIGNATURES, TREE
from ddrive.ids import PublicKey
from ddrive.store.derive import decode_name, derive_pair
from ddrive.store.shelf import NAME, feed_folders

PLACES = ("", "cores", "bases", "storage", "storage/cores", "storage/bases")  # where the npm programs keep a store
_COPY_BYTES = 1 << 26  # in one call
_FILES = (TREE, SIGNATURES, BITFIELD, DATA)


class ForeignFeed(NamedTuple):
    """A feed in such a directory; with its `secret_key` (64 bytes) if that is there, and the `name` it follows from."""

    key: PublicKey
    dialect: Dialect
    folder: Path
    name: bytes | None
    secret_key: bytes | None
    disk_bytes: int


class ForeignStore(NamedTuple):
    """Such a directory, or the one in it that holds the feeds."""

    root: Path
    master_key: bytes | None
    feeds: list[ForeignFeed]


def find_store(directory: Path) -> ForeignStore:
    """Return the store in a directory. Raises: NotFound when there is none."""
    for place in PLACES:
        root = directory / place
        master_key = _small(root / "master_key", KEY_BYTES)
        master_key = master_key if len(master_key) == KEY_BYTES else b""
        feeds = []
        for stored in feed_folders(root):
            for dialect in DIALECTS.values():
                digits = discovery_key(stored.key, dialect.discovery_ns).hex()
                folder = root / digits[:2] / digits[2:4] / digits
                if folder.is_dir():
                    name, secret_key = _secret(folder, stored.key, master_key, dialect)
                    feeds.append(ForeignFeed(stored.key, dialect, folder, name, secret_key, stored.disk_bytes))
        if feeds:
            return ForeignStore(root, master_key or None, feeds)
    raise NotFound(f"there are no feeds in {directory}: name the directory that has the file master_key in it")


def copy_feed(feed: ForeignFeed, target: Path) -> list[str]:
    """Copy the files of a feed into a new directory, and return the names of those that are missing.

    They are empty in the copy, as after damage: what can be told from the others is found again when it is opened.
    What the file system can share takes no space. The file `key` comes last: without it a folder is no feed.
    Raises: StorageLocked while another program uses it.
    """
    target.mkdir(mode=0o700, parents=True)
    missing = [name for name in _FILES if not (feed.folder / name).exists()]
    with ExitStack() as locked:
        if BITFIELD not in missing:
            bitfield = locked.enter_context((feed.folder / BITFIELD).open("rb"))
            try:
                fcntl.flock(bitfield, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                raise StorageLocked(f"{feed.folder} is in use: end the program that has it open") from error
        for name in _FILES:
            if name in missing:
                (target / name).touch()
            else:
                _copy(feed.folder / name, target / name)
    _copy(feed.folder / KEY, target / KEY)
    return missing


def remove(folders: Iterable[Path]) -> None:
    """Delete directories, as far as they exist."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _secret(folder: Path, key: PublicKey, master_key: bytes, dialect: Dialect) -> tuple[bytes | None, bytes | None]:
    """Return name and secret key of a feed, as far as its folder tells; a name of another master key tells nothing."""
    name = decode_name(_small(folder / NAME, 1 << 16)) if (folder / NAME).exists() and master_key else None
    if name is not None:
        pair = derive_pair(master_key, name, dialect)
        if pair.public_key == key:
            return name, pair.secret_key
    secret_key = _small(folder / SECRET_KEY, SECRET_KEY_BYTES)
    return None, secret_key if len(secret_key) == SECRET_KEY_BYTES else None


def _small(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its holes, durably."""
    with source.open("rb") as old, target.open("xb") as new:
        size = os.fstat(old.fileno()).st_size
        end = 0
        while end < size:
            try:
                start = os.lseek(old.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole follows
                break
            end = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            while start < end:
                copied = os.copy_file_range(old.fileno(), new.fileno(), min(end - start, _COPY_BYTES), start, start)
                if not copied:
                    break
                start += copied
        os.ftruncate(new.fileno(), size)
        os.fsync(new.fileno())
