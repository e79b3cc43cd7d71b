"""What lies in the directory of a store, told without opening a feed: which feeds, whose, and their size on disk."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ddrive.crypto import KEY_BYTES
from ddrive.feed.layout import HEADER_BYTES, SIGNATURE_BYTES
from ddrive.feed.storage import KEY, SECRET_KEY, SIGNATURES
from ddrive.ids import DiscoveryKey, PublicKey

NAME = "name"  # of a feed whose keys follow from it and the master key
DISK_UNIT_BYTES = 512  # of st_blocks, on every file system

_FOLDER_BYTES = 32


class StoredFeed(NamedTuple):
    """One feed on disk. `own`: its secret key is stored, or follows from the master key. `disk_bytes`: of all files."""

    key: PublicKey
    own: bool
    disk_bytes: int


def stored_feed(folder: Path) -> StoredFeed | None:
    """Return the feed in a folder of a store, None when there is none."""
    try:
        key = (folder / KEY).read_bytes()
        names = {entry.name: entry.stat().st_blocks * DISK_UNIT_BYTES for entry in os.scandir(folder)}
    except OSError:
        return None
    if len(key) != KEY_BYTES:
        return None
    return StoredFeed(PublicKey(key), not names.keys().isdisjoint((NAME, SECRET_KEY)), sum(names.values()))


def stored_feeds(root: Path) -> Iterator[StoredFeed]:
    """Yield every feed of the store at `root`. Waits for the disk: to be called in a thread."""
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*")):
        if _is_folder_name(folder) and (found := stored_feed(folder)) is not None:
            yield found


def signed_length(folder: Path) -> int:
    """Return how many blocks of the feed in a folder were signed: each signature has its place in the file."""
    try:
        size = (folder / SIGNATURES).stat().st_size
    except FileNotFoundError:
        return 0
    return max(0, -(-(size - HEADER_BYTES) // SIGNATURE_BYTES))


def _is_folder_name(folder: Path) -> bool:
    """Tell whether a folder lies where its own name says. Source: store.md section 1."""
    try:
        found = DiscoveryKey(bytes.fromhex(folder.name))
    except ValueError:
        return False
    name = found.hex()
    return len(found) == _FOLDER_BYTES and folder.parts[-3:] == (name[:2], name[2:4], name)
