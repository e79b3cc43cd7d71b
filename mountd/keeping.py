"""The verbs `rm` and `gc`: forget a drive with its bytes, and free what no known drive needs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import trio

from ddrive.drive.address import parse_key
from ddrive.errors import LocalProtocolError, NotFound, NotWritable
from ddrive.feed import Feed
from ddrive.ids import PublicKey, short
from ddrive.store.runs import without
from ddrive.store.shelf import FeedFolder, feed_folder_at, feed_folders
from ddrive.store.store import OwnedStore
from mountd.collection import Collection
from mountd.control import Params, Tell, Verb
from mountd.keeping_reach import Reach, content_key
from mountd.mounts import MountTable
from mountd.space import Space
from mountd.space_pins import Pin, blocks_of
from mountd.unmounting import Busy

LEAVING_S = 8.0  # a program that has ended may still be connected so long
_PER_TURN = 64  # runs of blocks that are dropped before other tasks get their turn


class Keeping:
    """What of the stores is kept. `kept_feeds` names feeds that are needed for other reasons than drives."""

    def __init__(
        self,
        collection: Collection,
        stores: Mapping[str, OwnedStore],
        mounts: MountTable,
        kept_feeds: Callable[[], Iterable[PublicKey]],
        space: Space,
    ) -> None:
        self._collection = collection
        self._stores = stores
        self._mounts = mounts
        self._kept_feeds = kept_feeds
        self._space = space

    def table(self) -> dict[str, Verb]:
        """Return the methods by name."""
        return {"rm": self.rm, "gc": self.gc, "pin": self.pin}

    async def pin(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Keep the content of a path, which lies in these blocks, whatever else is dropped. Raises: NotFound."""
        known = self._collection.table.find(parse_key(str(params["key"])).key)
        try:
            pin = Pin(known.key, str(params["path"]), int(params["version"]), blocks_of(params["blocks"]))
        except (AttributeError, TypeError, ValueError) as error:
            raise LocalProtocolError(f"pin: {error}") from error
        self._space.pins.add(pin)
        await self._space.recount(pin.blocks)
        return {"key": known.key.hex(), "path": pin.path}

    async def rm(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Forget a drive and delete what is held of it; one of our own only with `own`, as its secret key goes too.

        With `dry_run` only tell what would go.
        Raises: NotFound, NotWritable without `own`, Busy while it is mounted or read by a program.
        """
        key = parse_key(str(params["key"])).key
        if key in self._kept_feeds():
            raise Busy(f"{short(key)} belongs to a database or graph: ddrive db list and ddrive graph list show them")
        known = self._collection.table.get(key)
        if mounts := self._mounts.of(key):
            raise Busy(f"drive {short(key)} is mounted at {mounts[0].mountpoint}: ddrive unmount it first")
        found = [(store, stored) for store in self._stores.values() for stored in await _parts(store, key)]
        if known is None and not found:
            raise NotFound(f"drive {key.hex()} is not known here: ddrive list shows the known drives")
        own = any(stored.own for _, stored in found)
        value = {
            "key": key.hex(),
            "writable": own,
            "feeds": len(found),
            "bytes": sum(stored.disk_bytes for _, stored in found),
            "name": known.name if known else None,
        }
        if params.get("dry_run"):
            return value
        if own and not params.get("own"):
            raise NotWritable(f"drive {short(key)} is our own, its secret key would go too: say so with --yes")
        if known is not None:
            await self._collection.leave(known)
        if not await _unused(found):
            if known is not None:
                self._collection.keep(known)
            raise Busy(f"drive {short(key)} is read by a program or nested in a mounted drive: end that first")
        for store, stored in found:
            await self._forget(store, stored.key)
        self._space.pins.drop(key, "/", {})
        if known is not None:
            self._collection.forget(known)
        return value

    async def gc(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Free feeds that nothing known uses, and of others' drives what their newest version does not need.

        What is mounted counts as needed at the version that is shown; our own feeds are left alone altogether.
        """
        dry = bool(params.get("dry_run"))
        value: dict[str, Any] = {"feeds": [], "drives": [], "blocks": 0, "bytes": 0}
        for store in self._stores.values():
            reach = Reach(store)
            kept = set(self._kept_feeds())
            for known in self._collection.table:
                if known.dialect is None:
                    kept.add(known.key)
                elif known.dialect is store.dialect:
                    versions = {None, *(mount.version for mount in self._mounts.of(known.key))}
                    versions |= {pin.version for pin in self._space.pins.of(known.key)}
                    if not await reach.add(known.key, versions, history=known.writable):
                        tell(f"not all of drive {short(known.key)} can be seen: nothing of its content is freed")
            for stored in await trio.to_thread.run_sync(lambda path: list(feed_folders(path)), store.path):
                if stored.own or stored.key in kept:
                    continue
                if stored.key not in reach.feeds:
                    await self._free_feed(store, stored, value, dry=dry)
                else:
                    await self._free_blocks(store, stored.key, reach, value, dry=dry)
        return value

    async def _free_feed(self, store: OwnedStore, stored: FeedFolder, value: dict[str, Any], *, dry: bool) -> None:
        if store.users(stored.key):
            return
        value["feeds"].append({"key": stored.key.hex(), "dialect": store.dialect.name, "bytes": stored.disk_bytes})
        value["bytes"] += stored.disk_bytes
        if not dry:
            await self._forget(store, stored.key)

    async def _forget(self, store: OwnedStore, key: PublicKey) -> None:
        await store.forget(key)
        self._space.forget(store.discovery_key(key))

    async def _free_blocks(
        self, store: OwnedStore, key: PublicKey, reach: Reach, value: dict[str, Any], *, dry: bool
    ) -> None:
        feed = await store.open_feed(key=key)
        try:
            runs = list(without(reach.spare(feed), self._space.pins.runs(key)))
            if not runs:
                return
            blocks, size = sum(end - start for start, end in runs), run_bytes(feed, runs)
            value["drives"].append({"content": key.hex(), "blocks": blocks, "bytes": size})
            value["blocks"] += blocks
            value["bytes"] += size
            if dry:
                return
            for number, (start, end) in enumerate(runs):
                feed.clear(start, end)
                if number % _PER_TURN == 0:
                    await trio.lowlevel.checkpoint()
        finally:
            with trio.CancelScope(shield=True):
                await store.release(feed)


def run_bytes(feed: Feed, runs: Iterable[tuple[int, int]]) -> int:
    """Return how many bytes these runs of held blocks have; a run whose place is not known is left out."""
    total = 0
    for start, end in runs:
        first, last = feed.byte_offset(start), feed.byte_offset(end)
        total += last - first if first is not None and last is not None else 0
    return total


async def _unused(found: Sequence[tuple[OwnedStore, FeedFolder]]) -> bool:
    """Tell whether nobody uses these feeds, after giving who has just ended a moment to go."""
    with trio.move_on_after(LEAVING_S):
        while any(store.users(stored.key) for store, stored in found):  # noqa: ASYNC110 - rare
            await trio.sleep(0.05)
        return True
    return False


async def _parts(store: OwnedStore, key: PublicKey) -> list[FeedFolder]:
    """Return the feeds of a drive that lie in a store."""
    if store.known(store.discovery_key(key)) is None:
        return []
    feed = await store.open_feed(key=key)
    content = content_key(feed)
    await store.release(feed)
    folders = [store.folder(each) for each in (key, content) if each is not None]
    return [stored for folder in folders if (stored := feed_folder_at(folder)) is not None]
