"""The databases and graphs of an engine: made, found among peers, kept open so that they stay live and shared.

They are kept in `databases.json`, with the keys of all their feeds, so that no feed of one that is not to be shared is
exchanged before the database is open. Each has a task of its own, which holds its feeds open and fetches all that is
appended to them; reading and writing is done by the programs attached to the engine.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError

import ddrive.appdb  # loaded with the first database that is looked into
from ddrive.dialect import DIALECTS, DWEB, Dialect
from ddrive.drive.address import parse_key
from ddrive.errors import (
    AlreadyExists,
    CorruptStorage,
    DriveError,
    InvalidKey,
    InvalidProof,
    NoPeers,
    NotFound,
    StorageError,
)
from ddrive.feed import MAX_LENGTH, Feed, FeedLog
from ddrive.ids import BlockIndex, DiscoveryKey, PublicKey, short
from ddrive.store.store import OwnedStore
from ddrive.trie import open_trie
from ddrive.trie.node import decode_header
from mountd.collection import CALLED, dialect_named
from mountd.control import Params, Tell, Verb
from mountd.files import load_json, save_json
from mountd.finding import Topic

DATABASE: Final = "db"
GRAPH: Final = "graph"
WAIT_S: Final = 30.0  # for the first block of something that was never seen before
MEET_S: Final = 3.0  # for a peer that was named, before what is held here counts as the newest

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """One database or graph."""

    key: PublicKey
    dialect: Dialect
    kind: str
    name: str | None = None
    seeding: bool = True
    feeds: tuple[PublicKey, ...] = ()  # all that belong to it, as far as they have been seen

    @property
    def url(self) -> str:
        """The address to give to others."""
        return f"{self.dialect.url_scheme}://{self.key.hex()}/"

    def to_json(self) -> dict[str, Any]:
        """Return what is kept on disk."""
        return self.shown() | {"feeds": [key.hex() for key in self.feeds]}

    def shown(self) -> dict[str, Any]:
        """Return what users are told, without the address."""
        return {
            "key": self.key.hex(),
            "dialect": self.dialect.name,
            "kind": self.kind,
            "name": self.name,
            "seeding": self.seeding,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Known":
        """Return what `to_json` was given. Raises: KeyError, TypeError, ValueError."""
        if value["kind"] not in (DATABASE, GRAPH):
            raise ValueError(f"no such kind: {value['kind']}")
        key = PublicKey(bytes.fromhex(value["key"]))
        feeds = tuple(PublicKey(bytes.fromhex(feed)) for feed in value.get("feeds", []))
        seeding = bool(value.get("seeding", True))
        return cls(key, DIALECTS[value["dialect"]], value["kind"], value.get("name"), seeding, feeds)


class _NotingStore:
    """A store as a database uses it, which tells of each feed before peers can ask for it."""

    def __init__(self, store: OwnedStore, note: Callable[[PublicKey], None]) -> None:
        self.dialect = store.dialect
        self.default_name = store.default_name
        self.owner = store
        self._note = note

    async def open_feed(
        self, *, key: PublicKey | None = None, name: bytes | str | None = None, live: bool = False
    ) -> Feed:
        """Open a feed as the store does."""
        if key is not None:
            self._note(key)
        feed = await self.owner.open_feed(key=key, name=name, live=live)
        self._note(feed.key)
        return feed

    async def release(self, feed: Feed) -> None:
        """Give a feed back."""
        await self.owner.release(feed)


class Databases:
    """All databases and graphs that an engine knows. Its tasks run in `nursery`.

    `reconsider` has `serves` asked again about an open feed, `claim` is told what is ours: it may have passed for a
    drive.
    """

    def __init__(
        self,
        path: Path,
        stores: Mapping[str, OwnedStore],
        nursery: trio.Nursery,
        reconsider: Callable[[OwnedStore, Feed], None],
        claim: Callable[[PublicKey], Awaitable[None]],
    ) -> None:
        self._path = path
        self._stores = stores
        self._nursery = nursery
        self._reconsider = reconsider
        self._claim = claim
        self._add_peer: Callable[[str], object] | None = None
        self._topics: dict[DiscoveryKey, set[PublicKey]] = {}  # to which ones a feed belongs
        self._sought: dict[DiscoveryKey, Topic] = {}
        self._keeping: dict[PublicKey, trio.CancelScope] = {}  # which ones are open
        try:
            self._known = {known.key: known for known in map(Known.from_json, load_json(path, []))}
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error!r}): move it away to start anew") from error
        for known in self._known.values():
            for feed in {known.key, *known.feeds}:
                self._topics.setdefault(self._topic(known, feed), set()).add(known.key)

    def start(self, add_peer: Callable[[str], object]) -> None:
        """Keep all known ones open. `add_peer` dials an address and remembers it."""
        self._add_peer = add_peer
        for known in self._known.values():
            self._nursery.start_soon(self._claim, known.key)
            self.keep(known.key)

    def table(self) -> dict[str, Verb]:
        """Return the methods of the control socket by name."""
        return {"db.create": self.create, "db.open": self.open, "db.list": self.listing, "db.seed": self.seed}

    def kind_of(self, key: PublicKey) -> str | None:
        """Return whether a key names a database or a graph, None for all that is not known to be either."""
        known = self._known.get(key)
        return None if known is None else known.kind

    def name_of(self, key: PublicKey) -> str | None:
        """Return the name under which one was made here."""
        return self._known[key].name

    def parts(self, key: PublicKey) -> tuple[OwnedStore, list[PublicKey]]:
        """Return the store of one, and those of its feeds that belong to no other one."""
        known = self._known[key]
        alone = [feed for feed in known.feeds if self._topics[self._topic(known, feed)] == {key}]
        return self._stores[known.dialect.name], alone

    def keep(self, key: PublicKey) -> None:
        """Keep one open."""
        scope = self._keeping[key] = trio.CancelScope()
        self._nursery.start_soon(self._keep, self._known[key], scope)

    def leave(self, key: PublicKey) -> None:
        """Keep one open no longer; its feeds are given back soon."""
        self._keeping.pop(key).cancel()

    def forget(self, key: PublicKey) -> None:
        """Know one no longer, which is not open. Raises: OSError; then it is known as before."""
        save_json(self._path, [each.to_json() for each in self._known.values() if each.key != key])
        known = self._known.pop(key)
        for feed in {key, *known.feeds}:
            owners = self._topics[topic := self._topic(known, feed)]
            owners.discard(key)
            if not owners:
                del self._topics[topic]

    def serves(self, topic: DiscoveryKey) -> bool:
        """Tell whether peers may exchange the feed with this discovery key; what belongs to none of ours they may."""
        owners = self._topics.get(topic)
        return not owners or any(self._known[key].seeding for key in owners)

    def rows(self) -> list[dict[str, Any]]:
        """Return all that is known, in the form in which it is kept."""
        return [known.to_json() for known in self._known.values()]

    def take(self, rows: Sequence[dict[str, Any]]) -> None:
        """Know what `rows` returned elsewhere. Raises: CorruptStorage when it is something else."""
        try:
            found = [Known.from_json(row) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStorage(f"databases that cannot be understood ({error!r})") from error
        for known in found:
            self._add(known)

    def feeds(self) -> set[PublicKey]:
        """Return all feeds that belong to databases and graphs, as far as they have been seen."""
        return {key for known in self._known.values() for key in (known.key, *known.feeds)}

    def topics(self) -> dict[DiscoveryKey, Topic]:
        """Return what to look for among strangers."""
        kept = {self._topic(known, known.key): Topic(known.dialect, known.seeding) for known in self._known.values()}
        return self._sought | kept

    async def create(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Make a new one of our own. Raises: AlreadyExists when something is called so, Behind when it was once."""
        dialect, kind, name = dialect_named(params.get("dialect")) or DWEB, str(params["kind"]), params.get("name")
        store = self._stores[dialect.name]
        feed = await store.open_feed(name=name or os.urandom(32).hex())
        try:
            if feed.length:
                raise AlreadyExists(f"there is something called {name!r} already: {feed.key.hex()}")
            if isinstance(feed.log, FeedLog):
                feed.log.check_appendable(())  # one that was deleted here comes back from a peer, or never
            if kind == GRAPH:
                await open_trie(feed, dialect)
            else:
                async with ddrive.appdb.open_appdb(store, key=feed.key):
                    pass  # its first block is written
        finally:
            await store.release(feed)
        return self._add(Known(feed.key, dialect, kind, name))

    async def open(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Make one known, dial its peers and keep it open; a new one is waited for up to `wait_s`.

        Raises: NoPeers when nobody had it in time, InvalidKey when it is something else.
        """
        key, kind = parse_key(str(params["key"])).key, str(params["kind"])
        for address in params.get("peers") or []:
            if self._add_peer is not None:
                self._add_peer(str(address))
        known = self._known.get(key)
        if known is not None:
            if known.kind != kind:
                raise InvalidKey(
                    f"{short(key)} is no {_called(kind)} but a {_called(known.kind)}: use ddrive {known.kind} …"
                )
            if params.get("peers") and known.seeding:
                await self._meet(known)
            return _shown(known)
        asked = dialect_named(params.get("dialect"))
        wait_s = params.get("wait_s")
        found = await self._find(
            key, [asked] if asked else list(DIALECTS.values()), WAIT_S if wait_s is None else wait_s
        )
        if found is None:
            raise NoPeers(f"no peer has {_called(kind)} {short(key)}: name one with --peer HOST:PORT, or try again")
        dialect, block = found
        if _kind_of(block, short(key)) != kind:
            raise InvalidKey(f"{short(key)} is no {_called(kind)}")
        await self._claim(key)
        return self._add(Known(key, dialect, kind))

    async def listing(self, params: Params, tell: Tell) -> list[dict[str, Any]]:
        """Describe all known ones of a kind."""
        return [_shown(known) for known in self._known.values() if known.kind == params["kind"]]

    async def seed(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Exchange one with peers, or not, from now on; remembered. Raises: NotFound when it is not known here."""
        key, kind, seeding = parse_key(str(params["key"])).key, str(params["kind"]), bool(params["seeding"])
        known = self._known.get(key)
        if known is None or known.kind != kind:
            raise NotFound(f"no {_called(kind)} {short(key)} is kept here: ddrive {kind} list shows those that are")
        self._known[key] = known = replace(known, seeding=seeding)
        self._save()
        self._offer(known, known.feeds)
        return {"key": key.hex(), "seeding": seeding}

    def _offer(self, known: Known, feeds: Sequence[PublicKey]) -> None:
        """Exchange those of these feeds that are open, or no longer."""
        store = self._stores[known.dialect.name]
        for feed in store.feeds():
            if feed.key in feeds:
                self._reconsider(store, feed)

    def _add(self, known: Known) -> dict[str, Any]:
        if known.key not in self._known:
            self._known[known.key] = known
            for feed in known.feeds:  # of one from a backup
                self._topics.setdefault(self._topic(known, feed), set()).add(known.key)
            self._note(known.key, known.key)
            self.keep(known.key)
        return _shown(self._known[known.key])

    def _save(self) -> None:
        save_json(self._path, [each.to_json() for each in self._known.values()])

    def _topic(self, known: Known, feed: PublicKey) -> DiscoveryKey:
        return self._stores[known.dialect.name].discovery_key(feed)

    def _note(self, key: PublicKey, feed: PublicKey) -> None:
        """Remember that a feed belongs to a database or graph."""
        known = self._known[key]
        if feed not in known.feeds:
            self._topics.setdefault(self._topic(known, feed), set()).add(key)
            self._known[key] = replace(known, feeds=(*known.feeds, feed))
            self._save()
            if not known.seeding:
                self._offer(known, [feed])  # a program may have opened it already

    async def _meet(self, known: Known) -> None:
        """Return when some peer that has it is connected, or after a moment."""
        store = self._stores[known.dialect.name]
        feed = await store.open_feed(key=known.key, live=True)
        try:
            with trio.move_on_after(MEET_S):
                while not store.session(feed).peer_count:  # noqa: ASYNC110 - rare
                    await trio.sleep(0.05)
        finally:
            with trio.CancelScope(shield=True):
                await store.release(feed)

    async def _find(self, key: PublicKey, dialects: list[Dialect], wait_s: float) -> tuple[Dialect, bytes] | None:
        """Return the dialect in which somebody has the feed, and its first block; None when nobody has it in time."""
        found: list[tuple[Dialect, bytes]] = []
        with trio.move_on_after(wait_s):
            async with trio.open_nursery() as nursery:

                async def ask(dialect: Dialect) -> None:
                    store = self._stores[dialect.name]
                    feed = await store.open_feed(key=key, live=True)
                    topic = store.discovery_key(key)
                    self._sought[topic] = Topic(dialect, announce=False)
                    try:
                        found.append((dialect, await feed.get(BlockIndex(0))))
                        nursery.cancel_scope.cancel()
                    finally:
                        self._sought.pop(topic, None)
                        with trio.CancelScope(shield=True):
                            await store.release(feed)
                            if not feed.length and not feed.writable and not store.users(key):
                                await store.forget(key)

                for dialect in dialects:
                    nursery.start_soon(ask, dialect)
        return found[0] if found else None

    async def _keep(self, known: Known, scope: trio.CancelScope) -> None:
        store = self._stores[known.dialect.name]
        try:
            with scope:
                if known.kind == DATABASE:
                    noting = _NotingStore(store, lambda feed: self._note(known.key, feed))
                    async with ddrive.appdb.open_appdb(noting, key=known.key) as db:
                        await db.follow()
                else:
                    await _fetch_all(store, known.key)
        except (DriveError, OSError) as error:
            _log.error("not kept open %s=%s error=%s", known.kind, short(known.key), error)


async def _fetch_all(store: OwnedStore, key: PublicKey) -> None:
    """Hold all blocks of a feed, for ever."""
    feed = await store.open_feed(key=key, live=True)
    try:
        with feed.want(0, MAX_LENGTH):
            await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await store.release(feed)


def _kind_of(block: bytes, name: str) -> str | None:
    """Return what block 0 begins, None when it is neither a database nor a plain trie."""
    try:
        ddrive.appdb.check_header(block, name)
        return DATABASE
    except InvalidProof:
        pass
    try:
        header = decode_header(block, name)
    except (InvalidProof, DecodeError):
        return None
    return GRAPH if header.type in {dialect.trie_type for dialect in DIALECTS.values()} else None


def _called(kind: str) -> str:
    return CALLED.get(kind, kind)


def _shown(known: Known) -> dict[str, Any]:
    return known.shown() | {"url": known.url}
