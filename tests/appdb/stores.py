"""Stores in memory with feeds of given keys, and copying between them: what a link does, without the link."""

from hashlib import sha256

import trio

from ddrive.appdb import AppDB
from ddrive.appdb.node import encode_header
from ddrive.appdb.writers import Writers
from ddrive.crypto import KeyPair
from ddrive.dialect import HYPERCORE, Dialect
from ddrive.feed import Feed, FeedLog, MemoryDirectory, RemoteTree
from ddrive.ids import PublicKey


def recorded_pair(tag: str) -> KeyPair:
    """Return the key pair that the recorded run used under this name."""
    return KeyPair.from_seed(sha256(f"vector:{tag}".encode()).digest())


class MemoryStore:
    """A store of feeds in memory. `pairs` are those that can be written here."""

    default_name = "default"
    owner = None

    def __init__(self, *pairs: KeyPair, dialect: Dialect = HYPERCORE) -> None:
        self.dialect = dialect
        self.feeds: dict[PublicKey, Feed] = {}
        self._pairs = {pair.public_key: pair for pair in pairs}

    async def open_feed(
        self, *, key: PublicKey | None = None, name: bytes | str | None = None, live: bool = False
    ) -> Feed:
        await trio.lowlevel.checkpoint()
        if key is None:
            assert name is not None
            text = name if isinstance(name, bytes) else name.encode()
            pair = KeyPair.from_seed(sha256(text + bytes([len(self._pairs)])).digest())
            self._pairs[pair.public_key] = pair
            key = pair.public_key
        if key not in self.feeds:
            found = self._pairs.get(key)
            secret = found.secret_key if found else None
            self.feeds[key] = Feed(FeedLog.create(MemoryDirectory(), key=key, secret_key=secret))
        return self.feeds[key]


async def memory_db(source: KeyPair, local: KeyPair | None = None, *, wait: bool = False) -> AppDB:
    """Return the database of `source` as the owner of `local` sees it, in a store of its own."""
    store = MemoryStore(source if local is None else local)
    feeds = [await store.open_feed(key=pair.public_key) for pair in (source, local or source)]
    if not feeds[1].length:
        await feeds[1].append([encode_header(store.dialect)])
    return AppDB(Writers(store, feeds[0], feeds[1]), waits=wait)


def copy_feed(origin: Feed, target: Feed, end: int | None = None) -> bool:
    """Copy what `target` lacks of the first `end` blocks; tell whether there was anything."""
    assert isinstance(origin.log, FeedLog)
    stop = origin.length if end is None else min(end, origin.length)
    copied = False
    for index in range(stop):
        if target.has(index) or not origin.has(index):
            continue
        proof = origin.log.proof(index, digest=0, hash_only=False, remote=RemoteTree())
        assert proof is not None
        target.put(index, origin.log.block(index), proof)
        copied = True
    return copied


async def sync(left: AppDB, right: AppDB) -> None:
    """Copy in both directions what is authorised on the receiving side, until there is nothing left."""
    while True:
        copied = False
        for giver, taker in ((left, right), (right, left)):
            await taker.heads()
            for key, feed in taker._writers.store.feeds.items():  # type: ignore[attr-defined]
                origin = giver._writers.store.feeds.get(key)  # type: ignore[attr-defined]
                if origin is not None and not feed.writable:
                    copied |= copy_feed(origin, feed)
        if not copied:
            return
