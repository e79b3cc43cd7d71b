"""The walks through the index: which entries stand for a key, and what a new entry has to point at.

A branch of the index (all keys that begin with the same digits) is known by its *live* entries: the newest ones in it,
of which none has seen another. One live entry is the usual case; several mean that writers changed the branch without
having seen each other. Each step goes at least one digit further, and an entry is followed only to where it belongs, so
the work is bounded by the keys' digits times the entries met, whatever the blocks say.

Entries come from the `Load` that is handed in. Source: `hyperdb@3.5.0`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ddrive.appdb.clock import knows, unseen
from ddrive.appdb.node import Entry, digit, parting
from ddrive.appdb.table import EMPTY_ROW, NO_POINTERS, Pointer, Row
from ddrive.trie.path import COMPONENT_DIGITS, END


class Load(Protocol):
    """Where the walks get entries from."""

    def recent(self) -> Mapping[Pointer, Entry]:
        """Return entries that are at hand, none of them wrong, though others may be missing; for a short while."""

    def peek(self, pointer: Pointer) -> Entry | None:
        """Return the entry if its block is held."""

    async def entry(self, pointer: Pointer) -> Entry:
        """Return the entry, waiting for its block."""

    async def give_way(self) -> None:
        """Let other tasks have their turn; called now and then within a long piece of work."""


async def follow(load: Load, parent: Entry, pointer: Pointer, index: int, number: int) -> Entry:
    """Return what `parent` points at in row `index`, digit `number`. Raises: InvalidEntry when it lies elsewhere."""
    child = load.peek(pointer) or await load.entry(pointer)
    if parting(child.hashes, parent.hashes) < index or digit(child.hashes, index) != number:
        raise parent.fault(f"it points to {child.place}, which does not belong there")
    if knows(child, parent):
        raise parent.fault(f"it points to {child.place}, whose clock says that it came later")
    return child


def settle(entries: Iterable[Entry]) -> list[Entry]:
    """Return the live ones. Raises: InvalidEntry when each has seen another, which cannot be."""
    distinct = list({(entry.seq, entry.feed): entry for entry in entries}.values())
    if len(distinct) < 2:
        return distinct
    live = unseen(distinct)
    if not live:
        raise distinct[0].fault(f"its clock and that of {distinct[1].place} each say that the other came first")
    return live


async def narrow(load: Load, live: Sequence[Entry], hashes: tuple[int, ...]) -> list[Entry]:
    """Return the live entries among those at and below the key with these hashes, given the live ones of all.

    This is where a read spends its time: each way is walked on its own, and one comparison with the path that is looked
    for also tells whether an entry lies where its pointer says.
    Raises: InvalidEntry, what the load raises.
    """
    goal = COMPONENT_DIGITS * len(hashes)
    recent, peek = load.recent().get, load.peek
    found: list[Entry] = []
    waiting = list(live)
    seen: set[Pointer] = set()  # ways that join again are walked once
    while waiting:
        entry = waiting.pop()
        stop = parting(entry.hashes, hashes)
        while stop < goal:
            number = hashes[stop >> 5] >> ((stop & 31) << 1) & 3
            row = entry.decoded.get(stop)
            pointers = entry.pointers(stop, number) if row is None else row[number]
            if not pointers:
                break
            pointer = pointers[0]
            if len(pointers) > 1:
                for other in pointers[1:]:
                    if other not in seen:
                        seen.add(other)
                        waiting.append(await follow(load, entry, other, stop, number))
            if pointer in seen:
                break
            seen.add(pointer)
            child = recent(pointer) or peek(pointer) or await load.entry(pointer)
            shared = parting(child.hashes, hashes)
            clock, feed = child.clock, entry.feed
            if shared <= stop or (feed < len(clock) and clock[feed] > entry.seq):
                await follow(load, entry, pointer, stop, number)  # raises
            entry, stop = child, shared
        else:
            found.append(entry)
    return settle(found) if len(found) > 1 else found


async def ending(load: Load, live: Sequence[Entry], index: int) -> dict[str, list[Entry]]:
    """Return the live entries of each key that ends at `index`, given those of the branch up to there.

    There is more than one key when their hashes are equal, or when they differ in a final slash only.
    """
    views: list[tuple[Entry, set[Pointer]]] = []
    found: dict[Pointer, Entry] = {}
    for entry in live:
        view = {entry.pointer: entry} if digit(entry.hashes, index) == END else {}
        for pointer in entry.pointers(index, END):
            view[pointer] = await follow(load, entry, pointer, index, END)
        found |= view
        views.append((entry, set(view)))
    keys: dict[str, list[Entry]] = {}
    for pointer, entry in found.items():
        # who has seen an entry and does not show it any more has seen what came in its place
        if all(pointer in view or not knows(witness, entry) for witness, view in views):
            keys.setdefault(entry.key, []).append(entry)
    return {key: settle(entries) for key, entries in keys.items()}


async def find(load: Load, heads: Sequence[Entry], key: str, hashes: tuple[int, ...]) -> list[Entry]:
    """Return the live entries of one key, deletions included. Raises: as `narrow`."""
    live = await narrow(load, heads, hashes)
    if not live:
        return []
    index = COMPONENT_DIGITS * len(hashes)
    if len(live) == 1 and live[0].key == key:
        return live
    return (await ending(load, live, index)).get(key, [])


async def put_rows(load: Load, heads: Sequence[Entry], key: str, hashes: tuple[int, ...]) -> dict[int, Row]:
    """Return the table of a new entry for `key` whose writer has seen `heads`. Raises: as `narrow`."""
    rows: dict[int, Row] = {}
    last = COMPONENT_DIGITS * len(hashes)
    recent, peek = load.recent().get, load.peek
    waiting: list[tuple[Entry, int]] = [(head, 0) for head in reversed(heads)]
    several = len(heads) > 1
    started: set[tuple[Pointer, int]] = set()  # ways that join again are walked once
    while waiting:
        entry, index = waiting.pop()
        branches: list[tuple[Entry, int]] = []
        stop = parting(entry.hashes, hashes)
        while True:
            if several:
                if (entry.pointer, index) in started:
                    break
                started.add((entry.pointer, index))
            for row, slots in entry.rows.items():
                if row >= stop:
                    break
                if row >= index:
                    _keep(rows, row, slots, skip=hashes[row >> 5] >> ((row & 31) << 1) & 3)
            if stop == last:
                await _keep_ending(load, rows, entry, key, last)
                break
            number = hashes[stop >> 5] >> ((stop & 31) << 1) & 3
            slots = entry.rows.get(stop, EMPTY_ROW)
            _keep(rows, stop, _with(slots, digit(entry.hashes, stop), entry.pointer), skip=number)
            pointers = slots[number]
            if not pointers:
                break
            index = stop + 1
            if len(pointers) > 1:
                several = True
                for pointer in pointers[1:]:
                    branches.append((await follow(load, entry, pointer, stop, number), index))
            child = recent(pointers[0]) or peek(pointers[0]) or await load.entry(pointers[0])
            shared = parting(child.hashes, hashes)
            if shared <= stop or knows(child, entry):
                await follow(load, entry, pointers[0], stop, number)  # raises
            entry, stop = child, shared
        waiting += reversed(branches)
    return dict(sorted(rows.items())) if several else rows


async def _keep_ending(load: Load, rows: dict[int, Row], entry: Entry, key: str, last: int) -> None:
    """Keep what `entry` has at the end of the path: longer keys, and other keys that end there too."""
    slots = entry.rows.get(last, EMPTY_ROW)
    others: tuple[Pointer, ...] = ()
    for pointer in slots[END]:
        if (await follow(load, entry, pointer, last, END)).key != key:
            others += (pointer,)
    slots = (*slots[:END], others)
    if entry.key != key:
        slots = _with(slots, digit(entry.hashes, last), entry.pointer)
    _keep(rows, last, slots, skip=-1)


def _with(slots: Row, number: int, pointer: Pointer) -> Row:
    """Return `slots` with one more pointer."""
    if pointer in slots[number]:
        return slots
    return (*slots[:number], (*slots[number], pointer), *slots[number + 1 :])


def _keep(rows: dict[int, Row], row: int, slots: Row, *, skip: int) -> None:
    """Add to a row of the new table what is not there yet, except under the digit `skip`."""
    if skip >= 0 and slots[skip]:
        slots = (*slots[:skip], NO_POINTERS, *slots[skip + 1 :])
    present = rows.get(row)
    if present is None:
        if slots != EMPTY_ROW:
            rows[row] = slots
    elif present is not slots:
        rows[row] = tuple(
            ours if not theirs else ours + tuple(pointer for pointer in theirs if pointer not in ours)
            for ours, theirs in zip(present, slots, strict=True)
        )
