"""The databases and graphs of an engine: made, found among peers, kept open so that they stay live and shared.

They are kept in `databases.json`. Each has a task of its own, which holds its feeds open and fetches all that is
appended to them; reading and writing is done by the programs attached to the engine.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError

from ddrive.appdb import open_appdb
from ddrive.appdb.node import check_header
from ddrive.dialect import DIALECTS, DWEB, Dialect
from ddrive.drive.address import parse_key
from ddrive.errors import AlreadyExists, DriveError, InvalidKey, InvalidProof, NoPeers, StorageError
from ddrive.feed import MAX_LENGTH
from ddrive.ids import BlockIndex, PublicKey, short
from ddrive.store.store import OwnedStore
from ddrive.trie import open_trie
from ddrive.trie.node import decode_header
from mountd.collection import dialect_named
from mountd.control import Params, Tell, Verb
from mountd.files import load_json, save_json

DATABASE: Final = "db"
GRAPH: Final = "graph"
WAIT_S: Final = 30.0  # for the first block of something that was never seen before

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """One database or graph."""

    key: PublicKey
    dialect: Dialect
    kind: str
    name: str | None = None

    @property
    def url(self) -> str:
        """The address to give to others."""
        return f"{self.dialect.url_scheme}://{self.key.hex()}/"

    def to_json(self) -> dict[str, Any]:
        """Return what is kept on disk."""
        return {"key": self.key.hex(), "dialect": self.dialect.name, "kind": self.kind, "name": self.name}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Known":
        """Return what `to_json` was given. Raises: KeyError, TypeError, ValueError."""
        if value["kind"] not in (DATABASE, GRAPH):
            raise ValueError(f"no such kind: {value['kind']}")
        key = PublicKey(bytes.fromhex(value["key"]))
        return cls(key, DIALECTS[value["dialect"]], value["kind"], value.get("name"))


class Databases:
    """All databases and graphs that an engine knows. Its tasks run in `nursery`; `add_peer` dials and remembers."""

    def __init__(
        self,
        path: Path,
        stores: Mapping[str, OwnedStore],
        nursery: trio.Nursery,
        add_peer: Callable[[str], object],
    ) -> None:
        self._path = path
        self._stores = stores
        self._nursery = nursery
        self._add_peer = add_peer
        try:
            self._known = {known.key: known for known in map(Known.from_json, load_json(path, []))}
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error!r}): move it away to start anew") from error

    def start(self) -> None:
        """Keep all known ones open."""
        for known in self._known.values():
            self._nursery.start_soon(self._keep, known)

    def table(self) -> dict[str, Verb]:
        """Return the methods of the control socket by name."""
        return {"db.create": self.create, "db.open": self.open, "db.list": self.listing}

    async def create(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Make a new one of our own. Raises: AlreadyExists when something is called so."""
        dialect, kind, name = dialect_named(params.get("dialect")) or DWEB, str(params["kind"]), params.get("name")
        store = self._stores[dialect.name]
        feed = await store.open_feed(name=name or os.urandom(32).hex())
        try:
            if feed.length:
                raise AlreadyExists(f"there is something called {name!r} already: {feed.key.hex()}")
            if kind == GRAPH:
                await open_trie(feed, dialect)
            else:
                async with open_appdb(store, key=feed.key):
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
            self._add_peer(str(address))
        known = self._known.get(key)
        if known is not None:
            if known.kind != kind:
                raise InvalidKey(f"{short(key)} is no {_called(kind)} but a {_called(known.kind)}")
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
        return self._add(Known(key, dialect, kind))

    async def listing(self, params: Params, tell: Tell) -> list[dict[str, Any]]:
        """Describe all known ones of a kind."""
        return [_shown(known) for known in self._known.values() if known.kind == params["kind"]]

    def _add(self, known: Known) -> dict[str, Any]:
        if known.key not in self._known:
            self._known[known.key] = known
            save_json(self._path, [each.to_json() for each in self._known.values()])
            self._nursery.start_soon(self._keep, known)
        return _shown(known)

    async def _find(self, key: PublicKey, dialects: list[Dialect], wait_s: float) -> tuple[Dialect, bytes] | None:
        """Return the dialect in which somebody has the feed, and its first block; None when nobody has it in time."""
        found: list[tuple[Dialect, bytes]] = []
        with trio.move_on_after(wait_s):
            async with trio.open_nursery() as nursery:

                async def ask(dialect: Dialect) -> None:
                    store = self._stores[dialect.name]
                    feed = await store.open_feed(key=key, live=True)
                    try:
                        found.append((dialect, await feed.get(BlockIndex(0))))
                        nursery.cancel_scope.cancel()
                    finally:
                        with trio.CancelScope(shield=True):
                            await store.release(feed)
                            if not feed.length and not feed.writable:
                                await store.forget(key)

                for dialect in dialects:
                    nursery.start_soon(ask, dialect)
        return found[0] if found else None

    async def _keep(self, known: Known) -> None:
        store = self._stores[known.dialect.name]
        try:
            if known.kind == DATABASE:
                async with open_appdb(store, key=known.key) as db:
                    await db.follow()
            else:
                feed = await store.open_feed(key=known.key, live=True)
                with feed.want(0, MAX_LENGTH):
                    await trio.sleep_forever()
        except (DriveError, OSError) as error:
            _log.error("not kept open %s=%s error=%s", known.kind, short(known.key), error)


def _kind_of(block: bytes, name: str) -> str | None:
    """Return what block 0 begins, None when it is neither a database nor a plain trie."""
    try:
        check_header(block, name)
        return DATABASE
    except InvalidProof:
        pass
    try:
        header = decode_header(block, name)
    except (InvalidProof, DecodeError):
        return None
    return GRAPH if header.type in {dialect.trie_type for dialect in DIALECTS.values()} else None


def _called(kind: str) -> str:
    return {DATABASE: "database", GRAPH: "graph"}.get(kind, kind)


def _shown(known: Known) -> dict[str, Any]:
    return known.to_json() | {"url": known.url}
