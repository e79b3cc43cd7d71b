"""Past entries: of the whole database in the order in which they were made, and of one key."""

from collections.abc import AsyncIterator, Sequence

from ddrive.appdb.clock import knows, unseen
from ddrive.appdb.merge import Load, find
from ddrive.appdb.node import Entry, hashes_of
from ddrive.appdb.table import Pointer, pointer_to
from ddrive.appdb.writers import View

_ENTRIES_PER_TURN = 64


async def history(load: Load, view: View, *, strict: bool = False) -> AsyncIterator[Entry]:
    """Give all entries of all writers, each after those its writer had seen.

    As the npm package does it, the very last block that an entry has seen of another feed does not hold it back, unless
    `strict`. Entries that have not seen each other come in the order of their feed numbers.
    Raises: InvalidEntry when clocks contradict each other.
    """
    pending: dict[int, Entry] = {}
    for number, length in enumerate(view.lengths):
        if length > 1:
            pending[number] = await _loaded(load, pointer_to(number, 1))
    given = 0
    while pending:
        number = _next([pending[feed] for feed in sorted(pending)], 0 if strict else 1)
        entry = pending.pop(number)
        if entry.seq + 1 < view.lengths[number]:
            pending[number] = await _loaded(load, pointer_to(number, entry.seq + 1))
        given += 1
        if not given % _ENTRIES_PER_TURN:
            await load.give_way()
        yield entry


async def reversed_history(load: Load, view: View, *, strict: bool = False) -> AsyncIterator[Entry]:
    """Give the entries of `history` from the last to the first."""
    pointers = [entry.pointer async for entry in history(load, view, strict=strict)]
    while pointers:
        yield await _loaded(load, pointers.pop())


async def key_history(load: Load, heads: Sequence[Entry], key: str) -> AsyncIterator[Entry]:
    """Give all nodes of a key, deletions included, each before those that its writer had seen.

    The cost is that of a few gets per node.
    """
    hashes = hashes_of(key)
    pending = {entry.pointer: entry for entry in await find(load, heads, key, hashes)}
    while pending:
        entry = min(unseen(list(pending.values())), key=lambda entry: entry.feed, default=None)
        if entry is None:
            raise next(iter(pending.values())).fault("its clock and that of another block contradict each other")
        del pending[entry.pointer]
        yield entry
        for earlier in await find(load, await seen_by(load, entry), key, hashes):
            pending[earlier.pointer] = earlier


async def seen_by(load: Load, entry: Entry) -> list[Entry]:
    """Return the heads that the writer of `entry` had before it."""
    last: list[Entry] = []
    for number, seen in enumerate(entry.clock):
        seq = entry.seq - 1 if number == entry.feed else seen - 1
        if seq > 0:
            last.append(await _loaded(load, pointer_to(number, seq)))
    return unseen(last)


def _next(pending: list[Entry], slack: int) -> int:
    """Return the feed number of the entry that comes before all others."""
    for entry in pending:
        clock = entry.clock
        if not any(
            other is not entry and other.feed < len(clock) and clock[other.feed] > other.seq + slack
            for other in pending
        ):
            return entry.feed
    waits, blocks = pending[0], next(other for other in pending[1:] if knows(pending[0], other))
    raise waits.fault(f"its clock and that of {blocks.place} say in a circle that each came after the other")


async def _loaded(load: Load, pointer: Pointer) -> Entry:
    return load.peek(pointer) or await load.entry(pointer)
