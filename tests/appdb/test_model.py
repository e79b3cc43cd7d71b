"""Several writers who change, authorise, go offline and meet in any order end up with the same nodes.

What they must end up with is computed without any index: of all entries of a key, those that no other one has seen.
"""

from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ddrive.appdb import AppDB, Entry
from ddrive.appdb.clock import knows
from ddrive.appdb.table import pointer_to
from ddrive.crypto import KeyPair
from tests.appdb.stores import copy_feed, memory_db, sync

KEYS = ("a", "b", "a/1", "a/2", "a/1/x", "idgcmnmna", "mpomeiehc", "mpomeiehc/1", "idgcmnmna/1", "foo", "foo/")
WRITERS = st.integers(0, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), WRITERS, st.sampled_from(KEYS)),
        st.tuples(st.just("delete"), WRITERS, st.sampled_from(KEYS)),
        st.tuples(st.just("authorize"), WRITERS, WRITERS),
        st.tuples(st.just("sync"), WRITERS, WRITERS),
        st.tuples(st.just("part"), WRITERS, WRITERS, st.integers(0, 4), st.integers(1, 6)),
    ),
    max_size=40,
)


class World:
    """Writers 0 (the source) to `count` - 1, who meet when a step says so."""

    def __init__(self, dbs: list[AppDB]) -> None:
        self.dbs = dbs

    @classmethod
    async def begin(cls, count: int) -> "World":
        pairs = [KeyPair.from_seed(bytes([number + 1] * 32)) for number in range(count)]
        return cls([await memory_db(pairs[0], None if number == 0 else pair) for number, pair in enumerate(pairs)])

    async def do(self, number: int, step: tuple[Any, ...]) -> None:
        """Do one step; who does not exist is left out."""
        verb, who = step[0], step[1]
        whom = step[2] if verb in ("authorize", "sync", "part") else who
        if who >= len(self.dbs) or whom >= len(self.dbs):
            return
        db = self.dbs[who]
        if verb == "put":
            await db.put(step[2], f"{number}".encode())
        elif verb == "delete":
            await db.delete(step[2])
        elif verb == "authorize" and await db.authorized():
            await db.authorize(self.dbs[whom].local.key)
        elif verb == "sync" and who != whom:
            await sync(db, self.dbs[whom])
        elif verb == "part":
            await self.copy_part(db, self.dbs[whom], step[3], step[4])

    async def copy_part(self, giver: AppDB, taker: AppDB, which: int, more: int) -> None:
        """Copy a few blocks of one feed: the link broke then."""
        await taker.heads()
        key = self.dbs[which % len(self.dbs)].local.key
        origin = giver._writers.store.feeds.get(key)  # type: ignore[attr-defined]
        target = taker._writers.store.feeds.get(key)  # type: ignore[attr-defined]
        if origin is not None and target is not None and not target.writable:
            copy_feed(origin, target, target.held(0, target.length) + more)

    async def end(self) -> None:
        """Let everybody be authorised, and meet until nobody has news."""
        for db in self.dbs[1:]:
            await self.dbs[0].authorize(db.local.key)
        for _ in range(2):
            for db in self.dbs[1:]:
                await sync(self.dbs[0], db)


async def entries(db: AppDB) -> list[Entry]:
    """Return every entry that a database knows."""
    found: list[Entry] = []
    for number, length in enumerate((await db._view()).lengths):
        found += [await db._writers.entry(pointer_to(number, seq)) for seq in range(1, length)]
    return found


def expected(present: list[Entry]) -> dict[str, list[Entry]]:
    """Return the nodes of each key: those that no other entry of it has seen."""
    keys: dict[str, list[Entry]] = {}
    for entry in present:
        if entry.key:
            keys.setdefault(entry.key, []).append(entry)
    return {
        key: [entry for entry in nodes if not any(other is not entry and knows(other, entry) for other in nodes)]
        for key, nodes in keys.items()
    }


def places(db: AppDB, nodes: Any) -> list[tuple[bytes, int]]:
    return sorted((db.writer(node), node.seq) for node in nodes)


async def agrees(db: AppDB) -> dict[str, list[tuple[bytes, int]]]:
    """Check every way to read against the plain computation; return the nodes of each key."""
    wanted = expected(await entries(db))
    found = {}
    for key in KEYS:
        nodes = await db.get(key, deletes=True)
        assert places(db, nodes) == places(db, wanted.get(key, [])), key
        assert len({node.pointer for node in nodes}) == len(nodes)
        found[key] = places(db, nodes)
    alive = {key: nodes for key, nodes in wanted.items() if not all(node.deleted for node in nodes)}
    for reverse in (False, True):
        listed = await db.list(reverse=reverse)
        assert sorted(nodes[0].key for nodes in listed) == sorted(alive)
        assert all(places(db, nodes) == places(db, alive[nodes[0].key]) for nodes in listed)
    below = {nodes[0].key for nodes in await db.list("a")}
    assert below == {key for key in alive if key == "a" or key.startswith("a/")}
    children = {nodes[0].key.split("/")[0] for nodes in await db.list(recursive=False)}
    assert children <= {key.split("/")[0] for key in alive}
    assert len(children) >= len({key.split("/")[0] for key in alive} - {"idgcmnmna", "mpomeiehc"})
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(count=st.integers(2, 5), steps=STEPS)
def test_all_writers_end_up_with_the_same_nodes(count: int, steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        world = await World.begin(count)
        for number, step in enumerate(steps):
            await world.do(number, step)
        await world.end()
        first = await agrees(world.dbs[0])
        version = places(world.dbs[0], await world.dbs[0].heads())
        for db in world.dbs[1:]:
            assert await agrees(db) == first
            assert places(db, await db.heads()) == version
        await world.dbs[0].put("settled", b"")
        await sync(world.dbs[0], world.dbs[1])
        assert len(await world.dbs[1].heads()) == 1

    trio.run(run)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(count=st.integers(2, 4), before=STEPS, after=STEPS)
def test_diff_gives_the_keys_whose_nodes_changed(
    count: int, before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    async def run() -> None:
        world = await World.begin(count)
        for number, step in enumerate(before):
            await world.do(number, step)
        db = world.dbs[0]
        old = await db.checkout(await db.version())
        was = {key: places(db, await old.get(key)) for key in KEYS}
        for number, step in enumerate(after):
            await world.do(100 + number, step)
        await world.end()
        now = {key: places(db, await db.get(key)) for key in KEYS}
        assert {key: places(db, await old.get(key)) for key in KEYS} == was
        found = {change.key: (places(db, change.left), places(db, change.right)) async for change in db.diff(old)}
        assert found == {key: (now[key], was[key]) for key in KEYS if now[key] != was[key]}

    trio.run(run)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(count=st.integers(2, 4), steps=STEPS)
def test_history_is_complete_and_in_causal_order(count: int, steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        world = await World.begin(count)
        for number, step in enumerate(steps):
            await world.do(number, step)
        await world.end()
        db = world.dbs[-1]
        made = [entry async for entry in db.history(strict=True)]
        assert {entry.pointer for entry in made} == {entry.pointer for entry in await entries(db)}
        for place, entry in enumerate(made):
            assert not any(knows(entry, later) for later in made[place + 1 :])
        for key in KEYS:
            past = [entry async for entry in db.key_history(key)]
            assert {entry.pointer for entry in past} == {entry.pointer for entry in made if entry.key == key}
            for place, entry in enumerate(past):
                assert not any(knows(later, entry) for later in past[place + 1 :])

    trio.run(run)
