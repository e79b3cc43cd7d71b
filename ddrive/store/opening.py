"""Opening the files of one feed of a store, also when that takes long.

To them belong its folder, its name, and the secret key that follows from the name. While the files of a damaged feed
are looked through in a thread, whoever wants the feed waits for that, and who closes the store ends it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from ddrive.crypto import KeyPair
from ddrive.dialect import Dialect
from ddrive.errors import Closed, StorageError
from ddrive.feed.log import FeedLog
from ddrive.feed.opening import open_in_thread
from ddrive.feed.own_files import holds_feed
from ddrive.feed.storage import KEY, FileDirectory, read_small
from ddrive.ids import DiscoveryKey, PublicKey, short
from ddrive.store.derive import decode_name, derive_pair, encode_name
from ddrive.store.files import make_folders, write_durably
from ddrive.store.shelf import NAME

_log = logging.getLogger(__name__)


def stored_feed(
    folder: Path, key: PublicKey, master_key: bytes, dialect: Dialect, *, name: bytes | None, pair: KeyPair | None
) -> FeedLog:
    """Open or create the files of a feed, with its secret key when that follows from a stored or given name.

    Fit for any thread, and to be called again when it was given up half-way.
    Raises: StorageError when the stored name is that of another feed, StorageLocked, CorruptStorage.
    """
    make_folders(folder)
    name_file = folder / NAME
    if pair is None and name_file.exists():
        stored = decode_name(name_file.read_bytes())
        if stored is not None:
            pair = derive_pair(master_key, stored, dialect)
            if pair.public_key != key:
                raise StorageError(f"{name_file} names another feed, or the master key has changed")
    if name is not None and not name_file.exists():
        write_durably(name_file, encode_name(name))  # before the key: a key without its name is read-only
    directory = FileDirectory(folder)
    if (is_made := holds_feed(directory)) and read_small(directory, KEY, len(key) + 1) != key:
        _log.warning("file with the key of a feed is damaged feed=%s", short(key))  # the folder tells which it is
        write_durably(folder / KEY, key)
    secret_key = pair.secret_key if pair else None
    opening = FeedLog.open if is_made else partial(FeedLog.create, store_secret_key=False)
    return opening(directory, key=key, secret_key=secret_key)


@dataclass(slots=True)
class _Opening:
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)


class Openings:
    """The feeds of a store whose files are being looked through."""

    def __init__(self) -> None:
        self._running: dict[DiscoveryKey, _Opening] = {}

    def __contains__(self, found: DiscoveryKey) -> bool:
        return found in self._running

    async def open(self, found: DiscoveryKey, make: Callable[[], FeedLog]) -> FeedLog:
        """Return the feed that `make` opens, in a thread. Raises: Closed when `cancel` ended it."""
        opening = self._running[found] = _Opening()
        try:
            with opening.scope:
                log = await open_in_thread(make)
                if not opening.scope.cancel_called:
                    return log
                log.close()  # the thread was done in the same moment
        finally:
            del self._running[found]
            opening.done.set()
        raise Closed(f"feed {short(found)} was still being opened when its store was closed")

    async def settled(self, found: DiscoveryKey) -> None:
        """Return when this feed is not being opened."""
        while (opening := self._running.get(found)) is not None:
            await opening.done.wait()

    async def cancel(self) -> None:
        """Give up all; returns when no thread works any more."""
        for opening in list(self._running.values()):
            opening.scope.cancel()
            await opening.done.wait()
