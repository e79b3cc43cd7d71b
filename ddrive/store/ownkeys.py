"""The secret keys of a store as values: all that is needed to be the author of our feeds again somewhere else.

Most of them follow from the master key and a name; the rest were given as key pairs and are stored as they are.
"""

from pathlib import Path
from typing import NamedTuple

from ddrive.crypto import SECRET_KEY_BYTES
from ddrive.feed.storage import SECRET_KEY
from ddrive.ids import PublicKey
from ddrive.store.derive import decode_name, feed_folder
from ddrive.store.shelf import NAME, feed_folders, signed_length
from ddrive.store.store import OwnedStore


class OwnFeed(NamedTuple):
    """A feed of ours: its name, or its secret key where it was made from a key pair; how many blocks were signed."""

    key: PublicKey
    name: bytes | None
    secret_key: bytes | None
    length: int


def own_feeds(store: OwnedStore) -> list[OwnFeed]:
    """Return all feeds of ours in a store. Waits for the disk: to be called in a thread."""
    found = []
    for stored in feed_folders(store.path):
        if stored.own:
            folder = store.path / feed_folder(store.discovery_key(stored.key))
            name = decode_name(_content(folder / NAME))
            secret_key = _content(folder / SECRET_KEY)[:SECRET_KEY_BYTES] or None
            if name is not None or secret_key is not None:
                found.append(OwnFeed(stored.key, name, secret_key, signed_length(folder)))
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
