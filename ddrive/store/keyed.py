"""Which directories of this system hold secret keys of ddrive or of the npm programs, told by the files in them.

Whoever copies them to others, writes over them or removes them has to know: they cannot be made again.
"""

import os
import stat as modes

from ddrive.crypto import KEY_BYTES, SECRET_KEY_BYTES, KeyPair
from ddrive.dialect import DIALECTS
from ddrive.errors import InvalidKey
from ddrive.feed.storage import BITFIELD, DATA, KEY, SECRET_KEY, SIGNATURES, TREE

MASTER_KEY = "master_key"
SECRET_FILES = (MASTER_KEY, SECRET_KEY)
_OF_ENGINES = ("engine.lock", "identity")  # an engine makes the first one before it makes its keys
_OF_STORES = "lock"  # npm stores have none
_OF_FEEDS = (KEY, TREE, BITFIELD, DATA, SIGNATURES)


def keys_in(place: str) -> str | None:
    """Return what directory of keys is at `place`, in words; None when it is none, or nobody can tell."""
    if is_state(place):
        return "the state directory of ddrive, with the secret keys of another engine"
    size = _size(f"{place}/{MASTER_KEY}")
    if size == KEY_BYTES or (size > KEY_BYTES and os.path.lexists(f"{place}/{_OF_STORES}")):
        return "a store of feeds, with its secret keys"
    beside = any(os.path.lexists(f"{place}/{name}") for name in _OF_FEEDS)
    if beside and _is_secret_key(f"{place}/{SECRET_KEY}"):
        return "a feed, with its secret key"
    return None


def is_state(place: str) -> bool:
    """Tell whether a directory is the state directory of some engine, or a copy of one: it has keys in it."""
    return any(os.path.lexists(f"{place}/{name}") for name in _OF_ENGINES) and any(
        os.path.lexists(f"{place}/{dialect}/{MASTER_KEY}") for dialect in DIALECTS
    )


def _is_secret_key(place: str) -> bool:
    """Tell whether a file is the secret key of a feed, and not only called so: its halves belong together then.

    One that cannot be read counts as one.
    """
    if _size(place) != SECRET_KEY_BYTES:
        return False
    try:
        with open(place, "rb") as file:
            KeyPair.from_secret_key(file.read(SECRET_KEY_BYTES))
    except InvalidKey:
        return False
    except OSError:
        return True
    return True


def _size(place: str) -> int:
    """Return the size of a file, -1 when there is none."""
    try:
        status = os.lstat(place)
    except OSError:
        return -1
    return status.st_size if modes.S_ISREG(status.st_mode) else -1
