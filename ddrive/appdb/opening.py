"""Opening a database in a store: which feeds it begins with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from ddrive.appdb.appdb import AppDB
from ddrive.appdb.node import encode_header
from ddrive.appdb.writers import CACHE_BYTES, Writers
from ddrive.errors import Behind, Closed, InvalidKey, LengthChanged
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from ddrive.store.interface import Store

LOCAL_SUFFIX: Final = "-appdb-local"  # the feed we write to is called by the key of the source and this


@asynccontextmanager
async def open_appdb(
    store: Store,
    *,
    key: PublicKey | None = None,
    name: str | None = None,
    wait: bool = True,
    cache_bytes: int = CACHE_BYTES,
) -> AsyncIterator[AppDB]:
    """Give the database with this key, or our own one called `name`, which is made when it is new.

    Somebody else's database of which nothing has arrived yet is waited for when it is first read, unless `wait` is
    false; then it is empty. Raises: InvalidKey without key or name, what the store raises.
    """
    if key is None and name is None:
        raise InvalidKey("a database is opened by its key or by the name of our own")
    source = await store.open_feed(name=name, live=True) if key is None else await store.open_feed(key=key, live=True)
    local = source
    if not source.writable:
        local = await store.open_feed(name=source.key.hex() + LOCAL_SUFFIX, live=True)
    await _begin(local, encode_header(store.dialect))
    db = AppDB(Writers(store, source, local, limit_bytes=cache_bytes), waits=wait)
    try:
        yield db
    finally:
        with trio.CancelScope(shield=True):
            await db.close()


async def _begin(feed: Feed, header: bytes) -> None:
    """Write block 0 of our own feed, unless it is there. Raises: Closed, what the feed raises."""
    if feed.closed:
        raise Closed(f"feed {feed.name} is closed")
    if not feed.length:
        try:
            await feed.append([header], expected_length=0)
        except LengthChanged:
            await feed.wait_length(1)
        except Behind:  # it was deleted here: until a peer has given it back, the database can only be read
            return
