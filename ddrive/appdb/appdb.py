"""A key/value database that several writers share, each in a feed of its own: what this package is for.

Readers merge the feeds. Writers who did not know of each other's change of a key leave both values: a conflict, which
lasts until somebody who has seen both writes again. The source, whose key names the database, and whoever was
authorised by an authorised writer are listened to; nobody else.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from logging import getLogger
from typing import Final, Protocol, TypeVar, runtime_checkable

import trio

from ddrive.appdb.batch import AnyChange, Delete, Draft, Put
from ddrive.appdb.history import History, KeyHistory
from ddrive.appdb.iterate import Diff, Walk
from ddrive.appdb.merge import find, narrow
from ddrive.appdb.node import Entry, InvalidEntry, check_header, hashes_of
from ddrive.appdb.table import pointer_to
from ddrive.appdb.version import decode_version, encode_version
from ddrive.appdb.watch import Watch
from ddrive.appdb.writers import SOURCE, View, Writers
from ddrive.crypto import KEY_BYTES, discovery_key
from ddrive.errors import InvalidKey, LengthChanged, NotHeld, NotWritable
from ddrive.feed import Feed
from ddrive.ids import DiscoveryKey, PublicKey, short
from ddrive.trie.path import normalize

MAX_ATTEMPTS: Final = 16  # of a change while another process appends to our feed
WRITE_CHANGES: Final = 256  # of a stream of changes go into one append

Nodes = list[Entry]  # of one key
Mapped = TypeVar("Mapped")

_log = getLogger(__name__)


@runtime_checkable
class Releasing(Protocol):
    """A store that takes feeds back."""

    async def release(self, feed: Feed) -> None: ...


class AppDB:
    """A database, live or at a fixed version. Made by `open_appdb`, `checkout` and `snapshot`."""

    def __init__(self, writers: Writers, *, waits: bool = True, fixed: View | None = None) -> None:
        self._writers = writers
        self._waits = waits
        self._fixed = fixed
        self._lock = trio.Lock()

    def __repr__(self) -> str:
        return f"<AppDB {self._writers.origin(SOURCE)}{' fixed' if self._fixed is not None else ''}>"

    # About it

    @property
    def key(self) -> PublicKey:
        """The key of the source, which names the database."""
        return self._writers.source.key

    @property
    def discovery_key(self) -> DiscoveryKey:
        """The name under which peers look for it."""
        return discovery_key(self.key, self._writers.store.dialect.discovery_ns)

    @property
    def source(self) -> Feed:
        """The feed of the author of the database."""
        return self._writers.source

    @property
    def local(self) -> Feed:
        """The feed we write to; the source when we own it."""
        return self._writers.own

    @property
    def writable(self) -> bool:
        """Whether changes are possible here. Others see them once our feed is authorised."""
        return self._fixed is None and self.local.writable

    @property
    def feeds(self) -> list[PublicKey]:
        """The keys of all known feeds by their number, which entries and clocks refer to."""
        return list(self._writers.keys)

    @property
    def forked(self) -> list[PublicKey]:
        """The feeds with which two histories were signed, as by a copied state directory; the first one seen counts."""
        return [feed.key for feed in self._writers.feeds if feed is not None and feed.forked]

    def writer(self, node: Entry) -> PublicKey:
        """Return the key of the feed in which a node stands."""
        return self._writers.keys[node.feed]

    async def refresh(self) -> None:
        """Ask the peers for news of all feeds."""
        for feed in self._writers.feeds:
            if feed is not None:
                await feed.refresh()

    async def heads(self) -> Nodes:
        """Return the last entries that no other entry has seen: one, unless writers did not know of each other."""
        return list((await self._view()).heads)

    # Reading

    async def get(self, key: str, *, deletes: bool = False) -> Nodes:
        """Return the nodes of a key: none when there is nothing, several when writers conflict.

        Deletions show only when they conflict with a value, or with `deletes`. Raises: InvalidEntry.
        """
        stored = normalize(key)
        nodes = await find(self._writers, await self._heads(), stored, hashes_of(stored))
        return [] if not deletes and all(node.deleted for node in nodes) else nodes

    async def get_mapped(self, key: str, change: Callable[[Entry], Mapped]) -> list[Mapped]:
        """Return what `change` makes of each node of a key."""
        return [change(node) for node in await self.get(key)]

    async def get_reduced(self, key: str, choose: Callable[[Entry, Entry], Entry]) -> Entry | None:
        """Return one node of a key: `choose` says which of two; None when there is nothing."""
        chosen: Entry | None = None
        for node in self._sorted(await self.get(key)):
            chosen = node if chosen is None else choose(chosen, node)
        return chosen

    async def first(self, key: str) -> Entry | None:
        """Return one node of a key, the same for every peer: a value rather than a deletion, of the lowest feed key."""
        return await self.get_reduced(key, lambda left, right: right if left.deleted and not right.deleted else left)

    async def newest(self, prefix: str) -> Nodes:
        """Return the newest nodes at and below a prefix, deletions included."""
        stored = normalize(prefix)
        live = await narrow(self._writers, await self._heads(), hashes_of(stored))
        return [node for node in live if node.key.startswith(stored)]

    def iterate(
        self,
        prefix: str = "",
        *,
        recursive: bool = True,
        reverse: bool = False,
        gt: bool = False,
        deletes: bool = False,
    ) -> Walk:
        """Return an asynchronous iterator over lists of nodes, one per key, in the order of their hashes.

        Not recursive: one list per direct child. `gt` leaves out the key `prefix` itself, `deletes` shows deleted keys.
        The version is that of the first step.
        """
        return Walk(
            self._writers,
            self._heads,
            normalize(prefix),
            recursive=recursive,
            reverse=reverse,
            after=gt,
            deletes=deletes,
        )

    async def list(
        self,
        prefix: str = "",
        *,
        recursive: bool = True,
        reverse: bool = False,
        gt: bool = False,
        deletes: bool = False,
    ) -> Sequence[Nodes]:
        """Return all that `iterate` gives."""
        return await self.iterate(prefix, recursive=recursive, reverse=reverse, gt=gt, deletes=deletes).rest()

    def diff(self, other: "AppDB | None" = None, prefix: str = "") -> Diff:
        """Return an asynchronous iterator over (key, left, right): left is this view, right `other` (None: empty)."""
        return Diff(self._writers, self._heads, other._heads if other is not None else _nothing, normalize(prefix))

    def history(self, *, reverse: bool = False, strict: bool = False) -> History:
        """Return an asynchronous iterator over every entry of every writer, each after those its writer had seen.

        The last block seen of another feed does not count for that, as with the npm peers, unless `strict`.
        """
        return History(self._writers, self._view, reverse=reverse, strict=strict)

    def key_history(self, key: str) -> KeyHistory:
        """Return an asynchronous iterator over all nodes that a key ever had, newest first, deletions included."""
        return KeyHistory(self._writers, self._heads, normalize(key))

    def watch(self, prefix: str = "") -> Watch:
        """Return an asynchronous iterator over the newest nodes at and below a prefix, each time they have changed.

        What is there at the first step is not given. What cannot be understood, or is not here yet, is waited over.
        """
        return Watch(self._writers, lambda: self._if_readable(lambda: self.newest(prefix)))

    async def follow(self) -> None:
        """Open the feed of every writer as soon as he is authorised, for ever.

        Each read does so too; this is for a program that only keeps a database for others.
        """
        while True:
            news = self._writers.news
            await self._if_readable(self.heads)
            await news.wait()

    # Versions

    async def version(self) -> bytes:
        """Return the version that is seen now, for `checkout` here or by anybody else."""
        return encode_version([(self.writer(head), head.seq) for head in await self._heads()])

    async def checkout(self, version: bytes | Sequence[Entry]) -> "AppDB":
        """Return the database as it was: at a version, or as the writers of the given nodes saw it then.

        Raises: InvalidKey when `version` is none of this database, NotHeld.
        """
        heads: Nodes = []
        if isinstance(version, bytes):
            await self._view()  # so that all feeds are known
            for key, seq in decode_version(version):
                number = self._writers.known(key)
                if number is None:
                    raise InvalidKey(f"the version names feed {key.hex()[:8]}, which is not in this database")
                heads.append(await self._writers.entry(pointer_to(number, seq)))
        else:
            heads = list(version)
        lengths = [0] * len(self._writers.keys)
        for head in heads:
            for number, seen in enumerate(head.clock):
                lengths[number] = max(lengths[number], seen)
        return AppDB(self._writers, waits=False, fixed=View(tuple(heads), tuple(lengths)))

    async def snapshot(self) -> "AppDB":
        """Return the database as it is now."""
        return AppDB(self._writers, waits=False, fixed=await self._view())

    # Writing

    async def put(self, key: str, value: bytes | None, *, if_not_exists: bool = False) -> Entry:
        """Store a value; return the new node, or with `if_not_exists` the one that is there.

        It takes the place of all nodes of the key that are seen here. Raises: InvalidPath, NotWritable, InvalidEntry.
        """
        return self._sorted((await self.batch([Put(key, value, if_not_exists)]))[0])[0]

    async def delete(self, key: str) -> Entry:
        """Remove a key and return the node that says so. Raises: as `put`."""
        return (await self.batch([Delete(key)]))[0][0]

    async def batch(self, changes: Sequence[AnyChange]) -> Sequence[Sequence[Entry]]:
        """Do all changes in one append; return per change the new node, or those that were not to be replaced.

        Raises: as `put`; then nothing was done.
        """

        async def work(draft: Draft) -> Sequence[Sequence[Entry]]:
            return [await draft.apply(change) for change in changes]

        return await self._change(work)

    async def write(self, changes: AsyncIterable[AnyChange] | Iterable[AnyChange]) -> int:
        """Do a stream of changes, some hundred per append, and return how many. Raises: as `put`; some may be done."""
        waiting: list[AnyChange] = []
        total = 0
        async for change in _asynchronous(changes):
            waiting.append(change)
            if len(waiting) >= WRITE_CHANGES:
                total += len(await self.batch(waiting))
                waiting = []
        return total + (len(await self.batch(waiting)) if waiting else 0)

    async def authorize(self, key: PublicKey) -> bool:
        """Let the owner of a feed write; tell whether that was news. It takes effect for whoever sees our feed.

        Raises: InvalidKey, also when the feed is known here and is no writer's, NotWritable.
        """
        if len(key) != KEY_BYTES:
            raise InvalidKey(f"a writer is named by the key of his local feed, which has {KEY_BYTES} bytes")
        if await self.authorized(key):
            return False
        self._require_writable()
        await self._require_writer(key)

        async def work(draft: Draft) -> None:
            await draft.add("", None)

        await self._change(work, invited=self._writers.number(key, "the new writer"))
        return True

    async def authorized(self, key: PublicKey | None = None) -> bool:
        """Tell whether everybody listens to the feed with this key; by default to our own."""
        await self._view()
        number = self._writers.known(self.local.key if key is None else key)
        return number is not None and number in self._writers.authorized

    async def authorizes(self, node: Entry) -> Sequence[PublicKey]:
        """Return the writers whom a node of `history` lets write, as the writer of it had not named them before."""
        if node.listed.block != node.seq or node.key:
            return []
        before = await self._writers.entry(pointer_to(node.feed, node.seq - 1)) if node.seq > 1 else None
        named = {SOURCE, node.feed, *(before.listed.numbers if before is not None else ())}
        return [self._writers.keys[number] for number in node.listed.numbers if number not in named]

    async def _require_writer(self, key: PublicKey) -> None:
        """Make sure that a feed does not begin something else, as far as it is known here. Raises: InvalidKey."""
        feed = await self._writers.store.open_feed(key=key)
        try:
            header = feed.get_held(0)
            if header is not None:
                check_header(header, f"feed {short(key)}")
        except InvalidEntry as error:
            raise InvalidKey(f'{error}: a writer is named by the key that ddrive db info shows as "our key"') from None
        finally:
            if isinstance(self._writers.store, Releasing):
                with trio.CancelScope(shield=True):
                    await self._writers.store.release(feed)

    def _require_writable(self) -> None:
        if not self.writable:
            what = "a view of a fixed version" if self._fixed is not None else self._writers.origin(self._writers.local)
            raise NotWritable(f"database {short(self.key)} cannot be changed here ({what})")

    async def _change(self, work: Callable[[Draft], Awaitable[Mapped]], invited: int | None = None) -> Mapped:
        """Let `work` add entries to a draft of the present version, append them, and return its result."""
        self._require_writable()
        async with self._lock:
            for _ in range(MAX_ATTEMPTS):
                view = await self._view()
                draft = Draft(self._writers, view, await self._last(view), invited)
                done = await work(draft)
                if not draft.entries or await self._append(draft):
                    return done
        raise LengthChanged(f"others keep appending to {self._writers.origin(self._writers.local)}")

    async def _last(self, view: View) -> Entry | None:
        seq = view.lengths[self._writers.local] - 1
        return await self._writers.entry(pointer_to(self._writers.local, seq)) if seq > 0 else None

    async def _append(self, draft: Draft) -> bool:
        """Append the draft unless our feed has grown; tell whether it was appended."""
        try:
            await self.local.append(draft.blocks(), expected_length=draft.length)
        except LengthChanged:
            await self.local.wait_length(draft.length + 1)
            return False
        for entry in draft.entries:
            self._writers.add(entry)
        return True

    # Inside

    async def _view(self) -> View:
        if self._fixed is not None:
            return self._fixed
        source = self._writers.source
        if not source.length and self._waits:
            await source.get(0)
        return await self._writers.view()

    async def _heads(self) -> Sequence[Entry]:
        return (await self._view()).heads

    def _sorted(self, nodes: Sequence[Entry]) -> Nodes:
        """Return nodes in an order that every peer shares."""
        return sorted(nodes, key=lambda node: (self.writer(node), node.seq))

    async def _if_readable(self, read: Callable[[], Awaitable[Mapped]]) -> Mapped | None:
        try:
            return await read()
        except (InvalidEntry, NotHeld) as error:
            _log.warning("database not readable now database=%s error=%s", self._writers.origin(SOURCE), error)
            return None

    async def close(self) -> None:
        """Let go of the feeds. Checkouts end with it."""
        self._writers.close()
        store = self._writers.store
        if isinstance(store, Releasing):
            for feed in self._writers.feeds:
                if feed is not None:
                    await store.release(feed)


async def _nothing() -> Sequence[Entry]:
    return ()


async def _asynchronous(changes: AsyncIterable[AnyChange] | Iterable[AnyChange]) -> AsyncIterator[AnyChange]:
    if isinstance(changes, AsyncIterable):
        async for change in changes:
            yield change
    else:
        for change in changes:
            yield change
