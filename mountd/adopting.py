"""The verb `adopt`: take over a store directory of the npm packages, with its drives and their secret keys.

The directory itself is left as it is: its feeds are copied, or shared with it where the file system can do that.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from ddrive.errors import DriveError, InvalidPath, StorageLocked
from ddrive.ids import PublicKey, short
from ddrive.store.copying import ForeignFeed, ForeignStore, check_unused, copy_feed, find_store, remove
from ddrive.store.ownkeys import own_feeds
from ddrive.store.shelf import signed_length
from ddrive.store.store import OwnedStore
from mountd.collection import Collection
from mountd.control import Params, Tell, Verb
from mountd.drives import KnownDrive
from mountd.keeping_reach import content_key
from mountd.keys_guard import look_through
from mountd.space import Space

NAMELESS = "it has no file key, and nothing else in it tells of which feed it is"


class Adopting:
    """Takes over directories into the stores of an engine."""

    def __init__(self, collection: Collection, stores: Mapping[str, OwnedStore], space: Space, state: Path) -> None:
        self._collection = collection
        self._stores = stores
        self._space = space
        self._state = state

    def table(self) -> dict[str, Verb]:
        """Return the methods by name."""
        return {"adopt": self.adopt}

    async def adopt(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Copy the feeds of a directory and list the drives in them; with `dry_run` only tell what there is.

        A feed that is here already stays as it is, but becomes our own if its secret key is in the directory. What was
        taken over when another program comes in between stays, and its drives are known.
        Raises: NotFound when it is no store, StorageLocked while another program uses it.
        """
        directory = Path(str(params["path"]))
        if directory.is_relative_to(self._state) or self._state.is_relative_to(directory):
            raise InvalidPath(f"{directory} belongs to this engine itself: name the directory of another program")
        found = await trio.to_thread.run_sync(find_store, directory)
        value: dict[str, Any] = {
            "path": str(found.root),
            "feeds": len(found.feeds),
            "bytes": sum(feed.disk_bytes for feed in found.feeds),
            "own": sum(feed.secret_key is not None for feed in found.feeds),
            "present": [feed.key.hex() for feed in found.feeds if self._is_here(feed)],
            "drives": [],
            "refused": [{"path": str(folder), "why": NAMELESS} for folder in found.nameless],
        }
        await trio.to_thread.run_sync(check_unused, found.feeds)
        if params.get("dry_run"):
            return value
        await self._take_master_keys(found)
        taken: list[ForeignFeed] = []
        try:
            for number, feed in enumerate(found.feeds, 1):
                tell(f"feed {number} of {len(found.feeds)}: {feed.key.hex()}")
                for name in await self._take(feed):
                    lacks = f"feed {short(feed.key)} has no file {name} ({feed.folder})"
                    tell(f"{lacks}: see what it lacks with ddrive verify")
                taken.append(feed)
        except StorageLocked as error:
            so_far = f"{len(taken)} of {len(found.feeds)} feeds were taken over"
            raise StorageLocked(f"{error}, then adopt again, which goes on from there ({so_far})") from None
        finally:
            with trio.CancelScope(shield=True):
                value["drives"] = await self._know(taken)
        return value

    async def _know(self, taken: Sequence[ForeignFeed]) -> list[dict[str, Any]]:
        """Know the drives among feeds that were taken over, and tell of them."""
        rows = []
        await self._space.recount([feed.key for feed in taken])
        for feed in taken:
            known = await self._drive(feed)
            if known is not None:
                row = {"key": known.key.hex(), "url": known.url, "writable": known.writable}
                rows.append(row | {"version": await self._collection.version(known)})
        return rows

    def _is_here(self, feed: ForeignFeed) -> bool:
        """Tell whether something of a feed is here; one that was only opened, as a drive names it, is empty."""
        store = self._stores[feed.dialect.name]
        return store.known(store.discovery_key(feed.key)) is not None and signed_length(store.folder(feed.key)) > 0

    async def _take_master_keys(self, found: ForeignStore) -> None:
        """Derive keys from the master key of the directory from now on, where nothing of ours needs another one."""
        if found.master_key is None:
            return
        for store in self._stores.values():
            named = any(feed.name is not None and feed.dialect is store.dialect for feed in found.feeds)
            own = await trio.to_thread.run_sync(own_feeds, store)
            if named and not own and store.master_key != found.master_key:
                store.take_master_key(found.master_key)

    async def _take(self, feed: ForeignFeed) -> list[str]:
        """Copy one feed, then its secret key; under its name if our master key gives the same.

        Returns the names of the files that it lacks.
        """
        missing: list[str] = []
        store = self._stores[feed.dialect.name]
        target = store.folder(feed.key)
        if not self._is_here(feed):
            await self._make_way(store, feed)
            missing = await trio.to_thread.run_sync(_copy_whole, feed, target)
        if feed.secret_key is not None:
            try:
                await store.become_author(feed.key, name=feed.name, secret_key=feed.secret_key)
            except DriveError:  # its name belongs to another master key
                await store.become_author(feed.key, secret_key=feed.secret_key)
        return missing

    async def _make_way(self, store: OwnedStore, feed: ForeignFeed) -> None:
        """Close and remove the empty feed that a drive of ours has in the place of this one. Raises: StorageLocked."""
        if store.known(store.discovery_key(feed.key)) is None:
            return
        for known in [known for known in self._collection.table if known.content == feed.key]:
            await self._collection.leave(known)
        if store.users(feed.key):
            raise StorageLocked(f"feed {short(feed.key)} is read here, and empty: unmount its drive")
        await store.forget(feed.key)

    async def _drive(self, feed: ForeignFeed) -> KnownDrive | None:
        """Know the drive whose entries are in a feed; None when there are none in it."""
        store = self._stores[feed.dialect.name]
        opened = await store.open_feed(key=feed.key)
        try:
            content: PublicKey | None = content_key(opened)
            if content is None:
                return None
            known = self._collection.table.get(feed.key) or KnownDrive(feed.key, feed.dialect, created=_age(feed))
            known.dialect, known.content, known.writable = feed.dialect, content, opened.writable
            if opened.writable:
                await look_through(store, opened)
            await self._collection.leave(known)
            self._collection.adopt(known)
            return known
        finally:
            with trio.CancelScope(shield=True):
                await store.release(opened)


def _copy_whole(feed: ForeignFeed, target: Path) -> list[str]:
    """Copy a feed so that a crash leaves all of it, or nothing that counts as a feed; return what it lacks."""
    fresh = target.with_name(f"{target.name}.new")
    remove([fresh, target])
    try:
        missing = copy_feed(feed, fresh)
        fresh.rename(target)
    except BaseException:
        remove([fresh])
        raise
    return missing


def _age(feed: ForeignFeed) -> float:
    return min(entry.stat().st_mtime for entry in os.scandir(feed.folder))
