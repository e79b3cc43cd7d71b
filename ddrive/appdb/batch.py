"""Several changes as one: each sees the ones before it, and all are appended together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ddrive.appdb.merge import Load, find, put_rows
from ddrive.appdb.node import MAX_KEY_BYTES, Entry, FeedList, encode_entry, hashes_of
from ddrive.appdb.table import Pointer, feed_of, seq_of
from ddrive.appdb.writers import View, Writers
from ddrive.errors import InvalidName, InvalidPath, NameTooLong
from ddrive.trie.path import normalize, split

_CHANGES_PER_TURN = 32  # a few milliseconds


@dataclass(frozen=True, slots=True)
class Put:
    """Store `value` under `key`; with `if_not_exists` only when there is nothing."""

    key: str
    value: bytes | None
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove what is stored under `key`; the deletion itself is kept as an entry."""

    key: str


AnyChange = Put | Delete


def stored_key(key: str) -> str:
    """Return the form in which a key is stored. Raises: InvalidPath, InvalidName, NameTooLong, TypeError."""
    if not isinstance(key, str):
        raise TypeError(f"a key is text, not {type(key).__name__}")
    stored = normalize(key)
    if not split(stored) or stored.startswith("/"):
        raise InvalidPath(f"{key!r} names no entry")
    try:
        size = len(stored.encode())
    except UnicodeEncodeError as error:
        raise InvalidName(f"{key!r} is not valid Unicode") from error
    if size > MAX_KEY_BYTES:
        raise NameTooLong(f"a key has at most {MAX_KEY_BYTES} bytes, not {size}")
    return stored


class Draft:
    """Entries of our own feed that are not appended yet. A `Load` that shows them beside all others.

    `last` is our last entry so far, `invited` the number of a feed that the first entry is to authorise.
    """

    def __init__(self, writers: Writers, view: View, last: Entry | None, invited: int | None = None) -> None:
        self.entries: list[Entry] = []
        self.heads: Sequence[Entry] = view.heads
        self._writers = writers
        self._load: Load = writers
        self._local = writers.local
        self._lengths = list(view.lengths)
        self._length = self._lengths[writers.local]
        if last is not None:  # what we have seen once counts, though it may be out of reach now
            for number, seen in enumerate(last.clock):
                self._lengths[number] = max(self._lengths[number], seen)
        self._listed = last.listed if last is not None else None
        self._publishing: set[int] = set()  # blocks that carry the list
        self._changes = 0
        numbers = self._listed.numbers if self._listed is not None else ()
        wanted = sorted({*writers.authorized, writers.local} | ({invited} if invited is not None else set()))
        missing = tuple(number for number in wanted if number not in numbers)
        self._next_list = numbers + missing if missing else None

    def recent(self) -> Mapping[Pointer, Entry]:
        """Return nothing: in place of what is ours here another program may have appended something."""
        return {}

    def peek(self, pointer: Pointer) -> Entry | None:
        """Return an entry, a new one or one that is held."""
        if feed_of(pointer) == self._local and seq_of(pointer) >= self._length:
            return self.entries[seq_of(pointer) - self._length]
        return self._load.peek(pointer)

    async def entry(self, pointer: Pointer) -> Entry:
        """Return an entry, waiting for its block."""
        return await self._load.entry(pointer)

    async def give_way(self) -> None:
        """Let other tasks have their turn."""
        await self._load.give_way()

    @property
    def length(self) -> int:
        """How many blocks our own feed must have when the draft is appended."""
        return self._length

    async def apply(self, change: AnyChange) -> list[Entry]:
        """Do one change; return the new entry, or those that are there already when it was not to replace them."""
        self._changes += 1
        if not self._changes % _CHANGES_PER_TURN:
            await self.give_way()
        key = stored_key(change.key)
        if isinstance(change, Delete):
            return [await self.add(key, None, deleted=True)]
        if not isinstance(change.value, bytes | None):
            raise TypeError(f"the value of {key!r} is bytes or None, not {type(change.value).__name__}")
        if change.if_not_exists:
            present = await find(self, self.heads, key, hashes_of(key))
            if not all(node.deleted for node in present):
                return present
        return [await self.add(key, change.value)]

    async def add(self, key: str, value: bytes | None, *, deleted: bool = False) -> Entry:
        """Make an entry that has seen all there is."""
        seq = self._length + len(self.entries)
        hashes = hashes_of(key)
        rows = await put_rows(self, self.heads, key, hashes)
        if self._next_list is not None:
            self._listed, self._next_list = FeedList(self._next_list, seq), None
            self._publishing.add(seq)
        assert self._listed is not None, "the first entry of a feed publishes its list"
        self._lengths[self._local] = seq + 1
        entry = Entry(
            self._local,
            seq,
            key,
            value,
            deleted=deleted,
            clock=tuple(self._lengths),
            rows=rows,
            listed=self._listed,
            origin=self._writers.origin(self._local),
            hashes=hashes,
        )
        self.entries.append(entry)
        self.heads = [entry]
        return entry

    def blocks(self) -> list[bytes]:
        """Return the blocks to append."""
        found: list[bytes] = []
        places: dict[int, int] = {}
        listed: FeedList | None = None
        for entry in self.entries:
            if entry.listed is not listed:
                listed = entry.listed
                places = {number: place for place, number in enumerate(listed.numbers)}
            keys = [self._writers.keys[number] for number in listed.numbers] if entry.seq in self._publishing else None
            found.append(encode_entry(entry, places, keys))
        return found
