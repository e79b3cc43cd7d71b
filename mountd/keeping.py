"""The verbs `rm` and `gc`: forget a drive, database or graph with its bytes, and free what nothing known needs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import trio

from ddrive.drive.address import parse_key
from ddrive.errors import LocalProtocolError, NotFound, NotWritable
from ddrive.feed import Feed
from ddrive.ids import PublicKey, short
from ddrive.store.runs import without
from ddrive.store.shelf import FeedFolder, feed_folder_at, feed_folders
from ddrive.store.store import OwnedStore
from mountd.collection import CALLED, Collection
from mountd.control import Params, Tell, Verb
from mountd.databases import DATABASE, Databases
from mountd.drives import KnownDrive
from mountd.keeping_reach import Reach, content_key
from mountd.mounts import MountTable
from mountd.reserve import Reserve
from mountd.space import Space
from mountd.space_pins import Pin, blocks_of
from mountd.unmounting import Busy

DATABASE_HEADER_BLOCKS = 1  # alike in all feeds of databases
LEAVING_S = 8.0  # a program that has ended may still be connected so long
_PER_TURN = 64  # runs of blocks that are dropped before other tasks get their turn


class Keeping:
    """What of the stores is kept."""

    def __init__(
        self,
        collection: Collection,
        stores: Mapping[str, OwnedStore],
        mounts: MountTable,
        databases: Databases,
        space: Space,
        reserve: Reserve,
    ) -> None:
        self._collection = collection
        self._stores = stores
        self._mounts = mounts
        self._databases = databases
        self._space = space
        self._reserve = reserve

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
        """Forget a drive, database or graph and delete what is held of it; with own feeds only if `own` is said.

        The secret keys of those go too. With `dry_run` only tell what would go.
        Raises: NotFound, NotWritable without `own`, Busy while it is mounted or read by a program.
        """
        key = parse_key(str(params["key"])).key
        kind = self._databases.kind_of(key)
        known = None if kind else self._collection.table.get(key)
        if not kind and key in self._databases.feeds():
            raise Busy(f"{short(key)} belongs to a database or graph: ddrive db list and ddrive graph list show them")
        called = f"{CALLED.get(kind, kind) if kind else 'drive'} {short(key)}"
        if mounts := self._mounts.of(key):
            raise Busy(f"{called} is mounted at {mounts[0].mountpoint}: ddrive unmount it first")
        found = await self._found(key)
        if known is None and kind is None and not found:
            raise NotFound(f"{called} is not known here ({key.hex()}): ddrive list shows the known drives")
        own = any(stored.own for _, stored in found)
        value = {
            "key": key.hex(),
            "kind": kind or "drive",
            "writable": own,
            "feeds": len(found),
            "bytes": sum(stored.disk_bytes for _, stored in found),
            "name": self._databases.name_of(key) if kind else known.name if known else None,
        }
        if params.get("dry_run"):
            return value
        if own and not params.get("own"):
            raise NotWritable(f"{called} has feeds of our own, their secret keys would go too: say so with --yes")
        with self._reserve.lent():
            await self._remove(key, kind, called, found)
        return value

    async def _remove(
        self, key: PublicKey, kind: str | None, called: str, found: Sequence[tuple[OwnedStore, FeedFolder]]
    ) -> None:
        """Forget what `rm` was asked for, and delete its feeds."""
        known = None if kind else self._collection.table.get(key)
        await self._leave(key, known, called, found)
        constant = DATABASE_HEADER_BLOCKS if kind == DATABASE else 0
        try:
            for store, stored in reversed(found):  # that of the entries last: it names the other one, if this has to
                await self._forget(store, stored.key, constant=constant)  # be done again when there is room
        except OSError:
            if known is not None:
                self._collection.keep(known)
            raise
        self._space.pins.drop(key, "/", {})
        self._space.pins.save()
        if known is not None:
            self._collection.forget(known)

    async def _found(self, key: PublicKey) -> list[tuple[OwnedStore, FeedFolder]]:
        """Return the feeds on the disk that go with a drive, database or graph."""
        if self._databases.kind_of(key) is None:
            return [(store, stored) for store in self._stores.values() for stored in await _parts(store, key)]
        store, feeds = self._databases.parts(key)
        return [(store, stored) for feed in feeds if (stored := feed_folder_at(store.folder(feed))) is not None]

    async def _leave(
        self, key: PublicKey, known: KnownDrive | None, called: str, found: Sequence[tuple[OwnedStore, FeedFolder]]
    ) -> None:
        """Use these feeds no longer. A database is not known afterwards: without its feeds it would be begun anew.

        Raises: Busy when somebody else uses them; then all is as it was.
        """
        is_drive = self._databases.kind_of(key) is None
        if known is not None:
            await self._collection.leave(known)
        elif not is_drive:
            self._databases.leave(key)
        if not await _unused(found):
            if known is not None:
                self._collection.keep(known)
            elif not is_drive:
                self._databases.keep(key)
            raise Busy(f"{called} is read by a program or nested in a mounted drive: end that first")
        if not is_drive:
            try:
                self._databases.forget(key)
            except OSError:
                self._databases.keep(key)
                raise

    async def gc(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Free feeds that nothing known uses, and of others' drives what their newest version does not need.

        What is mounted counts as needed at the version that is shown; our own feeds are left alone altogether.
        """
        dry = bool(params.get("dry_run"))
        value: dict[str, Any] = {"feeds": [], "drives": [], "blocks": 0, "bytes": 0}
        for store in self._stores.values():
            reach = Reach(store)
            kept = self._databases.feeds()
            for known in self._collection.table:
                if known.dialect is None:
                    kept.add(known.key)
                elif known.dialect is store.dialect:
                    versions = {None, *(mount.version for mount in self._mounts.of(known.key))}
                    versions |= {pin.version for pin in self._space.pins.of(known.key)}
                    for key in await reach.add(known.key, versions, history=known.writable):
                        tell(f"not all of drive {short(key)} can be seen: nothing of its content is freed")
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

    async def _forget(self, store: OwnedStore, key: PublicKey, *, constant: int = 0) -> None:
        await store.forget(key, constant=constant)
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
