"""The engine's part of `keys backup` and `keys restore`: the keys of what is ours, out of the stores and into them."""

from collections.abc import Callable, Mapping
from typing import Any

import trio

from ddrive.errors import AlreadyExists, CorruptStorage
from ddrive.ids import PublicKey
from ddrive.store.ownkeys import OwnFeed, own_feeds
from ddrive.store.store import OwnedStore
from mountd.collection import Collection
from mountd.control import Params, Tell, Verb
from mountd.databases import Databases
from mountd.drives import KnownDrive


class Keys:
    """What we are the author of."""

    def __init__(
        self,
        collection: Collection,
        databases: Databases,
        stores: Mapping[str, OwnedStore],
        dial: Callable[[PublicKey, list[str]], None],
    ) -> None:
        self._collection = collection
        self._dial = dial
        self._databases = databases
        self._stores = stores

    def table(self) -> dict[str, Verb]:
        """Return the methods by name."""
        return {"keys.backup": self.backup, "keys.restore": self.restore}

    async def backup(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Return the secret keys and the tables of our own drives and databases, for a file that nobody can read."""
        stores = {}
        for name, store in self._stores.items():
            feeds = await trio.to_thread.run_sync(own_feeds, store)
            stores[name] = {"master_key": store.master_key.hex(), "feeds": [_to_json(feed) for feed in feeds]}
        drives = [known.to_json() for known in self._collection.table if known.writable]
        return {"stores": stores, "drives": drives, "databases": self._databases.rows()}

    async def restore(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Become the author of all that `backup` returned; peers give back what was written.

        Raises: AlreadyExists when there is something of our own here already, CorruptStorage when it is no backup.
        """
        try:
            keys = {name: bytes.fromhex(params["stores"][name]["master_key"]) for name in self._stores}
            feeds = {name: [_from_json(row) for row in params["stores"][name]["feeds"]] for name in self._stores}
            drives = [KnownDrive.from_json(row) for row in params["drives"]]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStorage(
                f"the backup cannot be understood ({error!r}): was it made by another version?"
            ) from error
        for store in self._stores.values():
            if await trio.to_thread.run_sync(own_feeds, store):
                raise AlreadyExists("there are drives of your own here already: choose a new directory with --state")
        for known in drives:
            if (here := self._collection.table.get(known.key)) is not None:
                await self._collection.leave(here)
        for name, store in self._stores.items():
            if store.master_key != keys[name]:
                store.take_master_key(keys[name])
            for feed in feeds[name]:
                await store.become_author(feed.key, name=feed.name, secret_key=feed.secret_key, length=feed.length)
        for known in drives:
            self._collection.adopt(known)
            self._dial(known.key, known.peers)
        self._databases.take(params.get("databases") or [])
        return {
            "drives": [{"key": known.key.hex(), "url": known.url, "name": known.name} for known in drives],
            "databases": self._databases.rows(),
            "feeds": sum(map(len, feeds.values())),
        }


def _to_json(feed: OwnFeed) -> dict[str, Any]:
    return {
        "key": feed.key.hex(),
        "name": None if feed.name is None else feed.name.hex(),
        "secret_key": None if feed.secret_key is None else feed.secret_key.hex(),
        "length": feed.length,
    }


def _from_json(row: Mapping[str, Any]) -> OwnFeed:
    name, secret_key = row["name"], row["secret_key"]
    return OwnFeed(
        PublicKey(bytes.fromhex(row["key"])),
        None if name is None else bytes.fromhex(name),
        None if secret_key is None else bytes.fromhex(secret_key),
        int(row["length"]),
    )
