"""Store directories that other programs wrote, to be read and copied: the npm stores have the layout of ours.

Nothing in them is changed. Everything here waits for the disk and is to be called in a thread.
Source: store.md sections 1 and 2.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ddrive.crypto import KEY_BYTES, SECRET_KEY_BYTES, discovery_key
from ddrive.dialect import DIALECTS, Dialect
from ddrive.errors import NotFound, StorageLocked
from ddrive.feed.storage import BITFIELD, DATA, KEY, SECRET_KEY, SIGNATURES, TREE
from ddrive.ids import PublicKey
from ddrive.store.derive import content_name, decode_name, derive_pair
from ddrive.store.shelf import DISK_UNIT_BYTES, NAME, folders

PLACES = ("", "cores", "bases", "storage", "storage/cores", "storage/bases")  # where the npm programs keep a store
_COPY_BYTES = 1 << 26  # in one call
_HEADER_BYTES_MAX = 512  # of the first block of a drive, at the beginning of `data`: some 60 bytes
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
    nameless: list[Path]  # folders of feeds whose public key nothing in them tells


def find_store(directory: Path) -> ForeignStore:
    """Return the store in a directory. Raises: NotFound when there is none."""
    for place in PLACES:
        root = directory / place
        master_key = _small(root / "master_key", KEY_BYTES)
        master_key = master_key if len(master_key) == KEY_BYTES else b""
        feeds, nameless = [], []
        for folder in folders(root):
            found = _feed(folder, master_key)
            if found is not None:
                feeds.append(found)
            elif any((folder / name).exists() for name in _FILES):
                nameless.append(folder)
        feeds += list(_named_by_others(nameless, feeds, master_key))
        nameless = [folder for folder in nameless if all(folder != feed.folder for feed in feeds)]
        if feeds or nameless:
            return ForeignStore(root, master_key or None, feeds, nameless)
    raise NotFound(f"there are no feeds in {directory}: name the directory that has the file master_key in it")


def check_unused(feeds: Iterable[ForeignFeed]) -> None:
    """Return when no other program uses any of these feeds now. Raises: StorageLocked."""
    for feed in feeds:
        with _locked(feed.folder):
            continue


def copy_feed(feed: ForeignFeed, target: Path) -> list[str]:
    """Copy the files of a feed into a new directory, and return the names of those that are missing.

    They are empty in the copy, as after damage: what can be told from the others is found again when it is opened.
    What the file system can share takes no space. The file `key` comes last: without it a folder is no feed.
    Raises: StorageLocked while another program uses it, or when one changed it meanwhile.
    """
    target.mkdir(mode=0o700, parents=True)
    missing = [name for name in _FILES if not (feed.folder / name).exists()]
    with _locked(feed.folder):
        before = _looks(feed.folder)
        for name in _FILES:
            if name in missing:
                (target / name).touch()
            else:
                _copy(feed.folder / name, target / name)
        if _looks(feed.folder) != before:
            raise StorageLocked(f"{feed.folder} changes while it is copied: end the program that writes it")
    with (target / KEY).open("xb") as file:
        file.write(feed.key)
        file.flush()
        os.fsync(file.fileno())
    return missing


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other programs out of a feed. Raises: StorageLocked when one uses it."""
    try:
        bitfield = (folder / BITFIELD).open("rb")
    except FileNotFoundError:
        yield
        return
    with bitfield:
        try:
            fcntl.flock(bitfield, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageLocked(f"{folder} is in use: end the program that has it open") from error
        yield


def _looks(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of the files of a feed: who writes without a lock changes them."""
    statuses = {entry.name: entry.stat() for entry in os.scandir(folder)}
    return {name: (status.st_size, status.st_mtime_ns) for name, status in statuses.items()}


def remove(places: Iterable[Path]) -> None:
    """Delete directories, as far as they exist."""
    for place in places:
        shutil.rmtree(place, ignore_errors=True)


def _feed(folder: Path, master_key: bytes) -> ForeignFeed | None:
    """Return the feed in a folder, None when nothing tells its public key: `key`, its secret key, or its name."""
    for dialect in DIALECTS.values():
        pairs = list(_secrets(folder, master_key, dialect))
        keys = [_small(folder / KEY, KEY_BYTES + 1), *(secret_key[-KEY_BYTES:] for _, secret_key in pairs)]
        for key in keys:
            if len(key) == KEY_BYTES and discovery_key(PublicKey(key), dialect.discovery_ns).hex() == folder.name:
                own = [pair for pair in pairs if pair[1][-KEY_BYTES:] == key]
                name, secret_key = own[0] if own else (None, None)
                return ForeignFeed(PublicKey(key), dialect, folder, name, secret_key, _disk_bytes(folder))
    return None


def _named_by_others(folders: Sequence[Path], feeds: Iterable[ForeignFeed], master_key: bytes) -> Iterator[ForeignFeed]:
    """Yield the feeds in folders that do not tell their keys: the first block of a drive holds that of its content."""
    by_name = {folder.name: folder for folder in folders}
    for feed in feeds if folders else ():
        first = _small(feed.folder / DATA, _HEADER_BYTES_MAX)
        for start in range(len(first) - KEY_BYTES + 1):
            key = PublicKey(first[start : start + KEY_BYTES])
            folder = by_name.get(discovery_key(key, feed.dialect.discovery_ns).hex())
            if folder is None:
                continue
            name = content_name(feed.key).encode()
            pair = derive_pair(master_key, name, feed.dialect) if master_key else None
            if pair is not None and pair.public_key == key:
                yield ForeignFeed(key, feed.dialect, folder, name, pair.secret_key, _disk_bytes(folder))
            else:
                yield ForeignFeed(key, feed.dialect, folder, None, None, _disk_bytes(folder))
            break


def _disk_bytes(folder: Path) -> int:
    return sum(entry.stat().st_blocks * DISK_UNIT_BYTES for entry in os.scandir(folder))


def _secrets(folder: Path, master_key: bytes, dialect: Dialect) -> Iterator[tuple[bytes | None, bytes]]:
    """Yield what may be name and secret key of a feed, as its folder tells; the public key is its second half."""
    name = decode_name(_small(folder / NAME, 1 << 16)) if (folder / NAME).exists() and master_key else None
    if name is not None:
        yield name, derive_pair(master_key, name, dialect).secret_key
    secret_key = _small(folder / SECRET_KEY, SECRET_KEY_BYTES)
    if len(secret_key) == SECRET_KEY_BYTES:
        yield None, secret_key


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
