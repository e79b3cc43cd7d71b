"""A key/value database in one append-only feed: what the algorithms of this package are for.

Every operation starts from the length the feed has at that moment, so a reader follows the writer by itself. Changes
are computed first and appended as a compare-and-swap: when somebody else appended in between, they are computed again.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final
from weakref import ReferenceType, ref

import trio

from ddrive.dialect import Dialect
from ddrive.errors import InvalidPath, LengthChanged, NameTooLong, NotWritable
from ddrive.feed import Feed
from ddrive.ids import BlockIndex, PublicKey
from ddrive.trie.batch import Condition, Delete, Draft, Put
from ddrive.trie.diff import Diff
from ddrive.trie.extension import PeerAsker
from ddrive.trie.history import History
from ddrive.trie.iterate import Walk
from ddrive.trie.lookup import Load, lookup
from ddrive.trie.node import Header, TrieNode, decode_header, encode_header, encode_varints
from ddrive.trie.nodes import Asker, Helped, Nodes, Prefetch
from ddrive.trie.path import MAX_PATH_BYTES, KeyPath, key_path, writable_path
from ddrive.trie.watch import Watch
from ddrive.trie.writing import WriteStream

MAX_ATTEMPTS: Final = 256  # of a change while others keep appending: each time one of them got through

_HIDDEN_WALK: Final = 1 | 8  # flags of an iteration: recursive, hidden

GETS_PER_TURN: Final = 64  # between two turns of other tasks


class Trie:
    """The database in `feed`, live or at a fixed version. Made by `open_trie`, `checkout` and `snapshot`."""

    def __init__(
        self, nodes: Nodes, dialect: Dialect, header: Header, *, lock: trio.Lock | None = None, version: int = 0
    ) -> None:
        self.feed: Feed = nodes.feed
        self.dialect = dialect
        self.header = header
        self.nodes = nodes
        self._lock = lock or trio.Lock()
        self._version = version
        self._gets = 0

    def __repr__(self) -> str:
        return f"<Trie {self.nodes.origin} version={self.version}{' fixed' if self._version else ''}>"

    @property
    def key(self) -> PublicKey:
        """The public key of the feed, which names the database."""
        return self.feed.key

    @property
    def metadata(self) -> bytes | None:
        """The bytes that the header carries for the user of the trie; a drive's content key."""
        return self.header.metadata

    @property
    def version(self) -> int:
        """Number of blocks this view sees; 1 is the empty database."""
        return self._version or self.feed.length

    @property
    def fixed(self) -> bool:
        """Whether this is a checkout, which never changes."""
        return bool(self._version)

    @property
    def writable(self) -> bool:
        """Whether changes are possible here."""
        return not self._version and self.feed.writable

    def checkout(self, version: int) -> "Trie":
        """Return the view of the first `version` blocks (0 acts as 1); it shares the decoded nodes."""
        return Trie(self.nodes, self.dialect, self.header, lock=self._lock, version=max(1, version))

    def snapshot(self) -> "Trie":
        """Return the view of the present version."""
        return self.checkout(self.version)

    def live(self) -> "Trie":
        """Return the view that follows the feed."""
        return Trie(self.nodes, self.dialect, self.header, lock=self._lock) if self._version else self

    async def refresh(self) -> None:
        """Return when what peers have told of is proven; at once when this version is fixed. None is asked."""
        if not self._version:
            await self.feed.refresh()

    async def get(self, key: str, *, hidden: bool = False) -> TrieNode | None:
        """Return the entry at `key`, None when there is none. Raises: InvalidNode, what the feed raises."""
        self._gets += 1
        if not self._gets % GETS_PER_TURN:
            await self.nodes.give_way()
        path = key_path(key, hidden)
        load = self.nodes if self.nodes.assistant is None else self.helped(path)
        length = self._version or self.feed.length
        head = self.nodes.peek(length - 1) if length > 1 else None
        return await lookup(load, head or await self.head(load), path)

    async def newest(self, prefix: str, *, hidden: bool = False) -> TrieNode | None:
        """Return the newest entry at or below `prefix`, None when there is none."""
        path = key_path(prefix, hidden)
        load = self.helped(path)
        return await lookup(load, await self.head(load), path, prefix=True)

    def helped(self, *paths: KeyPath) -> Load:
        """Return what loads nodes for lookups of `paths`; when it has to wait, the peers are asked for help once."""
        assistant = self.nodes.assistant
        return self.nodes if assistant is None else Helped(self.nodes, partial(self._ask_for_paths, assistant, paths))

    def iterate(
        self,
        prefix: str = "",
        *,
        recursive: bool = True,
        gt: bool = False,
        reverse: bool = False,
        hidden: bool = False,
    ) -> Walk:
        """Return an asynchronous iterator over the entries at and below `prefix`, in the order of their hashes.

        Not recursive: one entry per direct child, the newest at or below it. `gt` leaves out the entry of the prefix
        itself. The version is that of the first step. `rest()` of the result gives all at once.
        """
        load = Prefetch(self.nodes)
        path = key_path(prefix, hidden)
        walk = Walk(load, partial(self.head, load), path, recursive=recursive, after=gt, reverse=reverse)
        if self.nodes.assistant is not None:
            flags = recursive | reverse << 1 | gt << 2 | hidden << 3
            load.ask = partial(_ask_for_walk, self.nodes.assistant, ref(walk), self.version - 1, path.key, flags)
        return walk

    async def list(self, prefix: str = "", *, recursive: bool = True, hidden: bool = False) -> list[TrieNode]:
        """Return the entries at and below `prefix`."""
        return await self.iterate(prefix, recursive=recursive, hidden=hidden).rest()

    def diff(
        self,
        other: "Trie | int" = 1,
        prefix: str = "",
        *,
        hidden: bool = False,
        skip_removed: bool = False,
        skip_added: bool = False,
    ) -> Diff:
        """Return an asynchronous iterator over (key, left, right): left is this view, right is `other`.

        `left` None: gone since `other`; `right` None: new; both: stored again, maybe with an equal value.
        """
        base = self.checkout(other) if isinstance(other, int) else other
        return Diff(
            Prefetch(self.nodes),
            self.head,
            base.head,
            key_path(prefix, hidden),
            skip_removed=skip_removed,
            skip_added=skip_added,
        )

    def history(self, first: int = 1, end: int | None = None, *, reverse: bool = False, live: bool = False) -> History:
        """Return an asynchronous iterator over the nodes of blocks `first` to `end - 1` as they were appended.

        `live` goes on with what is appended later. It ends at a block that emptied the database.
        """
        stop = self.version if end is None else min(end, self.version)
        grown = (lambda length: self.feed.wait_length(length + 1)) if live and not self._version else None
        return History(self.nodes, first, stop, reverse=reverse, grown=grown)

    def watch(self, prefix: str = "", *, hidden: bool = False) -> Watch:
        """Return an asynchronous iterator over what changes at and below `prefix` from now on.

        Each step gives a list of (key, left, right), never an empty one: left is what is there now, right what was
        there. A fixed version has no changes. Raises, from a step: Closed, InvalidNode.
        """

        def between(new: int, old: int) -> Diff:
            return self.checkout(new).diff(old, prefix, hidden=hidden)

        return Watch(self.feed, between, ended=self.fixed)

    async def put(
        self,
        key: str,
        value: bytes | None,
        *,
        flags: int = 0,
        hidden: bool = False,
        condition: Condition | None = None,
        closest: bool = False,
        durable: bool = True,
    ) -> TrieNode | None:
        """Store an entry and return it; None when `condition(old, new)` said no (see `Put`).

        It is durable then; without `durable` it can be read here, and is durable with the next change that is, or
        `feed.flush()`, or about a second later.
        Raises: InvalidPath, NotWritable, LengthChanged when others do not stop appending, what the condition raises.
        """
        done = await self.batch([Put(key, value, flags, hidden, condition, closest)], durable=durable)
        return done[0]

    async def delete(
        self, key: str, *, hidden: bool = False, condition: Condition | None = None, closest: bool = False
    ) -> TrieNode | None:
        """Remove an entry and return it; None when there is none or the condition said no. Raises: as `put`."""
        done = await self.batch([Delete(key, hidden, condition, closest)])
        return done[0]

    async def batch(self, changes: Sequence[Put | Delete], *, durable: bool = True) -> Sequence[TrieNode | None]:
        """Do all changes in one append; return per change the new or removed entry, None where nothing changed.

        `durable`: as for `put`. Raises: as `put`; then nothing was done.
        """

        async def given(_: Trie) -> Sequence[Put | Delete]:
            return changes

        return await self.update(given, durable=durable)

    def write_stream(self) -> WriteStream:
        """Return a channel for `Put` and `Delete`, which are done in batches as they come; use it in `async with`."""
        return WriteStream(self.batch)

    async def update(
        self, decide: Callable[["Trie"], Awaitable[Sequence[Put | Delete]]], *, durable: bool = True
    ) -> Sequence[TrieNode | None]:
        """Do what `decide` answers when it is shown the present version, as one append that nothing comes before.

        When somebody else appends first, `decide` is asked again with the version after that. Raises: as `put`.
        """
        if self.fixed and self.feed.writable:
            raise NotWritable(f"version {self.version} of {self.nodes.origin} is fixed: change the newest one")
        if not self.writable:
            raise NotWritable(f"{self.nodes.origin} cannot be changed here")
        async with self._lock:
            for _ in range(MAX_ATTEMPTS):
                length = self.feed.length
                view = self.checkout(length)
                changes = await decide(view)
                draft = Draft(self.nodes, await view.head(), length, self.nodes.origin)
                done = [await draft.apply(change) for change in changes]
                if not draft.nodes or await self._append(draft, length, durable):
                    return done
        raise LengthChanged(f"{self.nodes.origin}: others keep appending")

    async def rename(self, old: str, new: str) -> int:
        """Move the entry at `old` and all below it to `new` in one append; return how many entries moved.

        Entries in the way are replaced one by one, others below `new` stay. Raises: InvalidPath, NameTooLong.
        """
        source, target = writable_path(old), writable_path(new)
        if target.parts[: len(source.parts)] == source.parts or source.parts[: len(target.parts)] == target.parts:
            raise InvalidPath(f"{old!r} cannot be moved to {new!r}: one contains the other")

        async def moves(view: Trie) -> Sequence[Put | Delete]:
            return move_changes(await view.list(old), source, target)

        return len(await self.update(moves)) // 2

    async def _append(self, draft: Draft, length: int, durable: bool) -> bool:
        """Append the draft unless the feed has grown; tell whether it was appended."""
        try:
            await self.feed.append(draft.blocks(), expected_length=length, durable=durable)
        except LengthChanged:
            await self.feed.wait_length(length + 1)
            return False
        for node in draft.nodes:
            self.nodes.add(node)
        await self.feed.wait_length(length + len(draft.nodes))  # a view may be told of it a moment later
        return True

    async def head(self, load: Load | None = None) -> TrieNode | None:
        """Return the newest node of this view, None when the database is empty; `load` gets it when it is missing."""
        length = self._version or self.feed.length
        if not length:
            await self.feed.get(BlockIndex(0))
            length = self.feed.length
        if length < 2:
            return None
        return self.nodes.peek(length - 1) or await (load or self.nodes).node(length - 1)

    def _ask_for_paths(self, assistant: Asker, paths: Sequence[KeyPath]) -> bool:
        """Ask the peers what lookups of `paths` need; tell whether all could be asked for.

        A request names no half of the database, so for hidden keys it says where the hidden half begins.
        """
        last = self.version - 1
        head = self.nodes.peek(last) if last > 0 else None
        for path in paths:
            if not path.hidden:
                if last > 0 and path.key:
                    assistant.ask_get(last, path.key)
            elif head is not None and (seq := last if head.hidden else head.pointer(0, 1)):
                assistant.ask_iterator(last, "", _HIDDEN_WALK, encode_varints([1, seq]))
        return head is not None


def _ask_for_walk(assistant: Asker, walk: "ReferenceType[Walk]", head: int, prefix: str, flags: int) -> None:
    """Ask the peers what `walk` needs next, unless it has asked and walked less than `STEPS_PER_REQUEST` since."""
    present = walk()
    if present is not None and present.request_due():
        assistant.ask_iterator(head, prefix, flags, present.checkpoint())


def move_changes(nodes: Sequence[TrieNode], source: KeyPath, target: KeyPath) -> list[Put | Delete]:
    """Return the changes that move `nodes`, all at or below `source`, to the same places below `target`.

    Raises: NameTooLong when one would lie so deep that no path of a drive names it.
    """
    depth = len(source.parts)
    changes: list[Put | Delete] = []
    for node in nodes:
        key = "/".join(target.parts + node.parts[depth:])
        if len(key.encode(errors="replace")) > MAX_PATH_BYTES:
            raise NameTooLong(f"{node.key[:40]!r}… would have a path of more than {MAX_PATH_BYTES} bytes")
        changes.append(Put("/" + key, node.value, node.flags, node.hidden))
    changes += [Delete("/" + node.key, node.hidden) for node in nodes]
    return changes


async def open_trie(feed: Feed, dialect: Dialect, *, metadata: bytes | None = None, subtype: str | None = None) -> Trie:
    """Return the trie in `feed`. An empty feed that is writable gets its header, with `metadata` and `subtype`.

    Waits for block 0 when it is not held. Raises: InvalidNode when block 0 is no header, what the feed raises.
    """
    if feed.unborn:
        written = subtype if dialect.trie_subtype is not None else None
        block = encode_header(Header(dialect.trie_type, metadata, written))
        try:
            await feed.append([block], expected_length=0)
        except LengthChanged:
            await feed.wait_length(1)
    nodes = Nodes(feed)
    if not feed.writable:
        nodes.assistant = PeerAsker(feed, dialect.trie_type)
    block = feed.get_held(BlockIndex(0)) or await feed.get(BlockIndex(0))
    return Trie(nodes, dialect, decode_header(block, nodes.origin))
