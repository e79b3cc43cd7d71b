"""The recorded run of `hyperdb@3.5.0`: every block, every answer."""

from collections.abc import Sequence
from typing import Any

from ddrive.appdb import AppDB, Entry
from tests.appdb.stores import memory_db, recorded_pair, sync
from tests.support.vectors import vector

RECORDED = vector("appdb.json")


def shown(node: Entry) -> dict[str, Any]:
    """Return a node as it was recorded."""
    value = None if node.value is None else node.value.decode()
    clock = list(node.clock)
    while clock and not clock[-1]:
        clock.pop()
    return {
        "key": node.key,
        "value": value,
        "deleted": node.deleted,
        "feed": node.feed,
        "seq": node.seq,
        "clock": clock,
    }


def recorded(node: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded node without the zeros at the end of its clock, which have no meaning."""
    clock = list(node["clock"])
    while clock and not clock[-1]:
        clock.pop()
    return node | {"clock": clock}


def as_set(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(nodes, key=lambda node: (node["feed"], node["seq"]))


def blocks(db: AppDB, number: int = 0) -> list[str]:
    feed = db._writers.feeds[number]
    assert feed is not None
    return [feed.log.block(index).hex() for index in range(feed.length)]


async def single() -> AppDB:
    db = await memory_db(recorded_pair("appdb-single"))
    for step in RECORDED["single"]["ops"]:
        if step["op"] == "put":
            await db.put(step["key"], step["value"].encode())
        else:
            await db.delete(step["key"])
    return db


async def test_one_writer_appends_the_blocks_of_the_npm_package() -> None:
    db = await single()
    assert db.key.hex() == RECORDED["single"]["key"]
    assert blocks(db) == RECORDED["single"]["blocks"]
    assert (await db.version()).hex() == RECORDED["single"]["version"]


async def test_one_writer_gets_what_the_npm_package_gets() -> None:
    db = await single()
    for case in RECORDED["single"]["gets"]:
        found = [shown(node) for node in await db.get(case["key"])]
        assert as_set(found) == as_set([recorded(node) for node in case["nodes"]]), case["key"]


async def test_one_writer_lists_in_the_order_of_the_npm_package() -> None:
    db = await single()
    expected = [[recorded(node) for node in nodes] for nodes in RECORDED["single"]["list"]]
    assert [[shown(node) for node in nodes] for nodes in await db.list()] == expected
    backwards = [[[node.key, node.seq] for node in nodes] for nodes in await db.list(reverse=True)]
    assert backwards == RECORDED["single"]["listReverse"]
    children = [[[node.key, node.seq] for node in nodes] for nodes in await db.list("a", recursive=False)]
    assert children == RECORDED["single"]["listA"]


class Recorded:
    """The three writers of the recorded run."""

    def __init__(self, dbs: list[AppDB]) -> None:
        self.dbs = dbs
        self.conflicted: dict[str, Any] = {}
        self.conflicted_version = b""


async def multi() -> Recorded:
    pairs = [recorded_pair(f"appdb-w{number}") for number in (1, 2, 3)]
    one, two, three = [await memory_db(pairs[0], None if number == 0 else pair) for number, pair in enumerate(pairs)]
    await one.put("shared", b"s1")
    assert await one.authorize(two.local.key)
    await sync(one, two)
    await one.put("conflict", b"from 1")
    await two.put("conflict", b"from 2")
    await two.put("only2", b"x")
    assert await two.authorize(three.local.key)
    await sync(one, two)
    await sync(two, three)
    await three.put("conflict3", b"from 3")
    await sync(one, three)
    run = Recorded([one, two, three])
    run.conflicted = await state(one)
    run.conflicted_version = await one.version()
    await one.put("conflict", b"merged")
    await one.delete("only2")
    await sync(one, two)
    return run


async def state(db: AppDB) -> dict[str, Any]:
    keys = ("shared", "conflict", "only2", "conflict3", "none")
    return {
        "heads": [shown(node) for node in await db.heads()],
        "version": (await db.version()).hex(),
        "gets": {key: as_set([shown(node) for node in await db.get(key)]) for key in keys},
        "list": [as_set([shown(node) for node in nodes]) for nodes in await db.list()],
        "feeds": [key.hex() for key in db.feeds],
        "authorized": await db.authorized(recorded_pair("appdb-w3").public_key),
    }


def expected_state(value: dict[str, Any]) -> dict[str, Any]:
    return value | {
        "heads": [recorded(node) for node in value["heads"]],
        "gets": {key: as_set([recorded(node) for node in nodes]) for key, nodes in value["gets"].items()},
        "list": [as_set([recorded(node) for node in nodes]) for nodes in value["list"]],
    }


async def test_three_writers_append_the_blocks_of_the_npm_package() -> None:
    run = await multi()
    for db, key in zip(run.dbs, RECORDED["multi"]["writers"], strict=True):
        assert db.local.key.hex() == key
        number = 0 if db is run.dbs[0] else 1
        assert blocks(db, number) == RECORDED["multi"]["blocks"][key], key


async def test_three_writers_see_what_the_npm_package_sees() -> None:
    run = await multi()
    assert run.conflicted == expected_state(RECORDED["multi"]["whileConflicted"])
    assert await state(run.dbs[0]) == expected_state(RECORDED["multi"]["finalAt1"])
    assert await state(run.dbs[1]) == expected_state(RECORDED["multi"]["finalAt2"])


async def test_history_has_the_order_of_the_npm_package() -> None:
    db = (await multi()).dbs[0]
    expected = [recorded(node) for node in RECORDED["multi"]["history"]]
    assert [shown(node) async for node in db.history()] == expected
    assert [shown(node) async for node in db.history(reverse=True)] == expected[::-1]


async def test_diff_is_that_of_the_npm_package() -> None:
    run = await multi()
    db = run.dbs[0]

    def places(nodes: list[Entry]) -> list[list[Any]] | None:
        return sorted([node.key, node.feed, node.seq] for node in nodes) or None

    found = [
        {"left": places(change.left), "right": places(change.right)}
        async for change in db.diff(await db.checkout(run.conflicted_version))
    ]
    expected = [
        {side: sorted(nodes) if nodes else None for side, nodes in change.items()}
        for change in RECORDED["multi"]["diff"]
    ]
    assert found == expected
