"""One feed for programs that need no store: a directory and, where it is somebody else's, the key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ddrive.crypto import KeyPair
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.storage import KEY, Directory, FileDirectory
from ddrive.ids import PublicKey


@asynccontextmanager
async def open_feed(
    place: Path | str | Directory, *, key: PublicKey | None = None, secret_key: bytes | None = None
) -> AsyncIterator[Feed]:
    """Open the feed in a directory, making it when there is none: a new one of our own when no `key` is given.

    Raises: WrongKey, StorageLocked, CorruptStorage.
    """
    directory = FileDirectory(place) if isinstance(place, Path | str) else place
    if directory.exists(KEY):
        log = FeedLog.open(directory, key=key, secret_key=secret_key)
    else:
        if key is None:
            pair = KeyPair.generate() if secret_key is None else KeyPair.from_secret_key(secret_key)
            key, secret_key = pair.public_key, pair.secret_key
        log = FeedLog.create(directory, key=key, secret_key=secret_key)
    feed = Feed(log)
    try:
        yield feed
    finally:
        await feed.aclose()
