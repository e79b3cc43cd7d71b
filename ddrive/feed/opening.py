"""Opening a feed's files without holding up the event loop, and one feed for programs that need no store.

A feed is open after a few reads, in less time than a thread takes to start. Only where bits were lost its blocks have
to be looked through, which takes seconds for each GiB: that goes on in a thread.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from logging import getLogger
from pathlib import Path

import trio

from ddrive.crypto import KeyPair
from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.feed.own_files import holds_feed
from ddrive.feed.recovery import after_each_piece
from ddrive.feed.storage import Directory, FileDirectory
from ddrive.ids import PublicKey

_limiter = trio.CapacityLimiter(1)  # feeds looked through at a time: it is work for one core, and for one disk
_log = getLogger(__name__)


class TakesLong(Exception):
    """Opening a feed is more than can be done on the event loop; its files are closed again."""


def open_now(make: Callable[[], FeedLog]) -> FeedLog:
    """Return the feed that `make` opens.

    Raises: TakesLong after some milliseconds, when its files have to be looked through: see `open_in_thread`.
    """
    with after_each_piece(_give_up):
        return make()


async def open_in_thread(make: Callable[[], FeedLog]) -> FeedLog:
    """Return the feed that `make` opens, in a thread; a caller who is cancelled waits for a piece of it at most."""

    def work() -> FeedLog:
        with after_each_piece(trio.from_thread.check_cancelled):
            return make()

    _log.info("looking through the files of a feed: its list of blocks was lost, or is not up to date")
    return await trio.to_thread.run_sync(work, limiter=_limiter)


async def open_log(directory: Directory, make: Callable[[], FeedLog]) -> FeedLog:
    """Return the feed that `make` opens in `directory`; may call it twice, on the event loop and then in a thread."""
    if not directory.blocking:  # memory: nothing waits, and tests stop the clock while tasks do
        return make()
    try:
        return open_now(make)
    except TakesLong:
        return await open_in_thread(make)


def _give_up() -> None:
    raise TakesLong


@asynccontextmanager
async def open_feed(
    place: Path | str | Directory, *, key: PublicKey | None = None, secret_key: bytes | None = None
) -> AsyncIterator[Feed]:
    """Open the feed in a directory, making it when there is none: a new one of our own when no `key` is given.

    Raises: WrongKey, StorageLocked, CorruptStorage.
    """
    directory = FileDirectory(place) if isinstance(place, Path | str) else place
    stored = holds_feed(directory)
    if key is None and not stored:
        pair = KeyPair.generate() if secret_key is None else KeyPair.from_secret_key(secret_key)
        key, secret_key = pair.public_key, pair.secret_key

    def make() -> FeedLog:
        if key is None or stored:
            return FeedLog.open(directory, key=key, secret_key=secret_key)
        return FeedLog.create(directory, key=key, secret_key=secret_key)

    log = await open_log(directory, make)
    feed = Feed(log)
    try:
        yield feed
    finally:
        await feed.aclose()
