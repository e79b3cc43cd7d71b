"""Opening a feed that stands alone: where it lies, whose it is, and how it behaves."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from logging import getLogger
from pathlib import Path

import trio

from ddrive.crypto import KEY_BYTES, KeyPair
from ddrive.dialect import DWEB, Dialect
from ddrive.errors import DriveError, InvalidKey, NotFound, NotWritable, WriteRefused
from ddrive.feed.hashing import Buffer
from ddrive.feed.log import FeedLog
from ddrive.feed.opening import open_log
from ddrive.feed.own_files import holds_feed
from ddrive.feed.signing import ED25519, Sign, Signing, Verify
from ddrive.feed.storage import Directory, FileDirectory
from ddrive.ids import PublicKey, short
from ddrive.protocol.keys import NoiseKeyPair
from ddrive.standalone.arguments import check_number
from ddrive.standalone.encodings import Encoding, encoding_of
from ddrive.standalone.feed import StandaloneFeed
from ddrive.standalone.hooks import check_hooks
from ddrive.standalone.host import FeedOptions
from ddrive.standalone.peers import Peer
from ddrive.standalone.places import StorageFactory, directory_of, place_name
from ddrive.standalone.replicating import static_secret_of

TICK_S = 0.25  # how often the exchange looks after what takes too long
LOADER_THREADS = 2  # read and check large blocks ahead of who reads them in order
FLUSH_S = 1.0  # how often received and unsynced blocks are made durable

OnWrite = Callable[[int, bytes, Peer | None], object]

logger = getLogger(__name__)


@asynccontextmanager
async def open_feed(
    place: Path | str | Directory | StorageFactory,
    key: PublicKey | bytes | None = None,
    *,
    dialect: Dialect = DWEB,
    create_if_missing: bool = True,
    overwrite: bool = False,
    writable: bool = False,
    secret_key: bytes | None = None,
    store_secret_key: bool = True,
    sign: Sign | None = None,
    verify: Verify | None = None,
    storage_cache_size: int | None = None,
    value_encoding: str | Encoding = "binary",
    sparse: bool = False,
    eager_update: bool = False,
    if_available: bool = False,
    downloading: bool | None = None,
    uploading: bool = True,
    on_write: OnWrite | None = None,
    stats: bool = True,
    key_pair: NoiseKeyPair | None = None,
) -> AsyncIterator[StandaloneFeed]:
    """Open the feed in `place`, or make one: our own without a `key`, else an empty copy of somebody's.

    `place`: a path, a `Directory`, or a function from a file's name to its `Storage`. `dialect`: the family of peers.
    `create_if_missing` false: `NotFound` where no feed is. `overwrite`: delete the one that is there. `writable`: fail
    where nothing can be appended. `secret_key` (64 bytes) makes the feed of that key, or an existing one writable for
    now; a new feed keeps it unless `store_secret_key` is false. `storage_cache_size`: bytes of the tree in memory.
    `value_encoding`: a name like `json`, or an object with `encode` and `decode`. `sparse`: fetch only what is asked
    for, with `eager_update` the length too. `if_available`: the default of that option of calls. `downloading` (by
    default unless the feed is ours), `uploading`: ask peers, answer them. `stats` false: do not show `feed.stats`.
    `key_pair`: by which peers know us. `sign`, `verify`: own signatures, for a feed whose `key` is given;
    `verify(message, signature, key)` → bool, `sign(message)` → 64 bytes, the same for the same message; both may run in
    a thread. `on_write(index, block, peer)` before each block is written (own: peer None); an exception prevents that.
    Raises: NotFound, NotWritable, WrongKey, StorageLocked, CorruptStorage, InvalidKey, ValueError or TypeError for
    options that cannot be, OSError where no feed can lie. Nothing is deleted for `overwrite` then.
    """
    encoding = encoding_of(value_encoding)
    static_secret = static_secret_of(NoiseKeyPair.generate() if key_pair is None else key_pair)
    _check_options(dialect, storage_cache_size, on_write=on_write, sign=sign, verify=verify)
    directory = directory_of(place)
    log = await _open_log(
        directory,
        None if key is None else _public_key(key),
        None if secret_key is None else _secret_key(secret_key),
        create=create_if_missing,
        overwrite=overwrite,
        writable=writable,
        store_secret_key=store_secret_key,
        signing=Signing(sign, verify or ED25519.verify),
        cache_bytes=storage_cache_size,
    )
    options = FeedOptions(dialect, static_secret, encoding, if_available, stats)
    async with _running(log, directory, options) as feed:
        log.on_write = _hook(feed, on_write) if on_write is not None else None
        feed.set_uploading(uploading)
        feed.set_downloading(not log.writable if downloading is None else downloading)
        feed.follow(everything=not sparse, length=eager_update)
        yield feed


def _check_options(dialect: Dialect, storage_cache_size: int | None, **hooks: object) -> None:
    """Raise ValueError or TypeError for options that cannot be."""
    if not isinstance(dialect, Dialect):
        raise TypeError(f"dialect is ddrive.DWEB or ddrive.HYPERCORE, not {dialect!r:.80}")
    if storage_cache_size is not None:
        check_number("storage_cache_size", storage_cache_size)
    if storage_cache_size is not None and storage_cache_size < 0:
        raise ValueError(f"storage_cache_size is a number of bytes, not {storage_cache_size}")
    check_hooks(**hooks)


@asynccontextmanager
async def _running(log: FeedLog, directory: Directory, options: FeedOptions) -> AsyncIterator[StandaloneFeed]:
    """Look after a feed while the context lasts, and close it."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery, _loader(log, directory):
        feed = StandaloneFeed(log, directory, options, nursery)
        nursery.start_soon(_look_after, feed)
        try:
            yield feed
            await feed.close_links()
        except trio.Cancelled:
            await _close(feed, quietly=True)
            raise
        except BaseException as error:  # raised again outside, where no nursery wraps it into a group
            failure = error
        failure = await _close(feed, quietly=failure is not None) or failure
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _close(feed: StandaloneFeed, *, quietly: bool) -> Exception | None:
    """Close a feed and return what went wrong with that, or `quietly` log it, as something else is raised already."""
    try:
        with trio.CancelScope(shield=True):
            await feed.aclose()
    except Exception as error:
        if not quietly:
            return error
        logger.error("cannot close feed=%s error=%s", short(feed.key), error)
    return None


@asynccontextmanager
async def _loader(log: FeedLog, directory: Directory) -> AsyncIterator[None]:
    """Give a feed on disk threads that read ahead; a program's own storage is only read from one."""
    if not isinstance(directory, FileDirectory):
        yield
        return
    with ThreadPoolExecutor(LOADER_THREADS, thread_name_prefix="load") as executor:
        log.load_in(executor)
        yield


async def _open_log(
    directory: Directory,
    key: PublicKey | None,
    secret_key: bytes | None,
    *,
    create: bool,
    overwrite: bool,
    writable: bool,
    store_secret_key: bool,
    signing: Signing,
    cache_bytes: int | None,
) -> FeedLog:
    """Open the files of a feed or make them."""
    stored = holds_feed(directory)
    if not stored and not create:
        raise NotFound(f"no feed is stored in {place_name(directory)}: without create_if_missing none is made")
    if overwrite or not stored:
        key, secret_key = _keys_of_new(key, secret_key, signing, writable=writable)
    if overwrite and stored:
        directory.lock()
        try:
            directory.remove()
        finally:
            directory.close()

    def make() -> FeedLog:
        if key is None or holds_feed(directory):
            return FeedLog.open(directory, key=key, secret_key=secret_key, signing=signing, cache_bytes=cache_bytes)
        return FeedLog.create(
            directory,
            key=key,
            secret_key=secret_key,
            store_secret_key=store_secret_key,
            signing=signing,
            cache_bytes=cache_bytes,
        )

    log = await open_log(directory, make)
    if writable and not log.writable:
        log.close()
        raise NotWritable(f"the secret key of feed {short(log.key)} is not here: give it as secret_key")
    return log


def _keys_of_new(
    key: PublicKey | None, secret_key: bytes | None, signing: Signing, *, writable: bool
) -> tuple[PublicKey, bytes | None]:
    """Return the keys of a feed that is to be made. Raises: InvalidKey, WrongKey, NotWritable."""
    if key is None:
        if signing.sign is not None:
            raise InvalidKey("a feed with an own `sign` needs the key under which its signatures verify")
        pair = KeyPair.generate() if secret_key is None else KeyPair.from_secret_key(secret_key)
        return pair.public_key, pair.secret_key
    signing.check(key, secret_key)
    if writable and secret_key is None and signing.sign is None:
        raise NotWritable("a feed that is made from its key alone cannot be appended to: give its secret_key")
    return key, secret_key


def _public_key(key: bytes) -> PublicKey:
    """Return a key that was given. Raises: InvalidKey."""
    if not isinstance(key, bytes | bytearray | memoryview) or len(key) != KEY_BYTES:
        raise InvalidKey(f"the key of a feed is {KEY_BYTES} bytes (`bytes.fromhex` of its text), not {key!r:.80}")
    return PublicKey(bytes(key))


def _secret_key(key: bytes) -> bytes:
    """Return a secret key that was given, whatever kind of bytes it is. Raises: InvalidKey."""
    if not isinstance(key, bytes | bytearray | memoryview):  # what it is may be secret
        raise InvalidKey(f"a secret key is bytes (`bytes.fromhex` of its text), not of type {type(key).__name__}")
    return bytes(key)


def _hook(feed: StandaloneFeed, on_write: OnWrite) -> Callable[[int, Buffer], None]:
    """Return what the feed calls before it writes a block."""

    def told(index: int, block: Buffer) -> None:
        peer = feed.giver
        try:
            on_write(index, bytes(block), peer)
        except Exception as error:
            if peer is None:
                raise
            raise WriteRefused(str(error)) from error

    return told


async def _look_after(feed: StandaloneFeed) -> None:
    """Let the exchange look after what takes too long, and make blocks durable, for ever."""
    flushed_at = trio.current_time()
    while True:
        await trio.sleep(TICK_S)
        now = trio.current_time()
        try:
            feed.session.tick(now)
            if now - flushed_at >= FLUSH_S:
                await feed.feed.flush()
                flushed_at = now
        except (OSError, DriveError) as error:
            logger.error("cannot save feed=%s error=%s", short(feed.key), error)
        except Exception:
            logger.exception("tick failed feed=%s", short(feed.key))
