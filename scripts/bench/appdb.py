#!/usr/bin/env python3
"""Measure a database with three writers beside npm `hyperdb`: put, replicate, get, memory.

Each writer puts a third of the keys in batches while it is offline; then they meet and one of them reads keys in a
scattered order, first while there are three heads, then after one put that has seen them all. Needs node; the npm
package is installed below `scripts/bench/npm-appdb` when it is missing. Prints one line per measure: ours, npm, ratio.
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio
import trio.testing

from ddrive.appdb import AppDB, Put, open_appdb
from ddrive.dialect import HYPERCORE
from ddrive.store.linked import replicate
from ddrive.store.store import OwnedStore, open_store

NPM = Path(__file__).resolve().parent / "npm-appdb"
WRITERS = 3


def name(number: int) -> str:
    """Return the key of an entry; the npm side uses the same."""
    return f"user/{number * 7919 % 1000003}/name"


def value(number: int) -> bytes:
    """Return the value of an entry."""
    return f"value {number}".encode()


async def link(nursery: trio.Nursery, left: OwnedStore, right: OwnedStore) -> None:
    """Connect two stores."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def run(store: OwnedStore, stream: trio.abc.Stream, initiator: bool) -> None:
        await replicate(store, stream, initiator=initiator)

    nursery.start_soon(run, left, ours, True)
    nursery.start_soon(run, right, theirs, False)


async def put_all(dbs: list[AppDB], keys: int, batch: int) -> float:
    """Let every writer put its share; return the seconds."""
    started = time.perf_counter()
    for writer, db in enumerate(dbs):
        share = range(writer, keys, len(dbs))
        for start in range(0, len(share), batch):
            await db.batch([Put(name(number), value(number)) for number in share[start : start + batch]])
    return time.perf_counter() - started


async def meet(stores: list[OwnedStore], dbs: list[AppDB]) -> float:
    """Connect the writers until each holds every block of the others; return the seconds."""
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for store in stores[1:]:
            await link(nursery, stores[0], store)
        for db in dbs:
            await db.heads()
        for author in dbs:
            for store in stores:
                feed = await store.open_feed(key=author.local.key)
                await feed.wait_length(author.local.length)
                await feed.download(0, author.local.length)
                await store.release(feed)
        nursery.cancel_scope.cancel()
    return time.perf_counter() - started


async def read(db: AppDB, keys: int, gets: int) -> float:
    """Read scattered keys; return the seconds."""
    started = time.perf_counter()
    for count in range(gets):
        number = count * 104729 % keys
        nodes = await db.get(name(number))
        assert len(nodes) == 1, nodes
        assert nodes[0].value == value(number)
    return time.perf_counter() - started


async def authorized(stores: list[OwnedStore], dbs: list[AppDB]) -> None:
    """Let the first writer authorise the others, and tell them."""
    async with trio.open_nursery() as nursery:
        for store, db in zip(stores[1:], dbs[1:], strict=True):
            await dbs[0].authorize(db.local.key)
            await link(nursery, stores[0], store)
        for db in dbs[1:]:
            while not await db.authorized():
                await db.source.wait_length(db.source.length + 1)
        nursery.cancel_scope.cancel()


async def ours(root: Path, keys: int, batch: int, gets: int) -> dict[str, float]:
    """Measure our side."""
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(open_store(root / str(number), HYPERCORE)) for number in range(WRITERS)
        ]
        dbs = [await stack.enter_async_context(open_appdb(stores[0], name="bench"))]
        for store in stores[1:]:
            dbs.append(await stack.enter_async_context(open_appdb(store, key=dbs[0].key)))
        await authorized(stores, dbs)
        found = {"put_s": await put_all(dbs, keys, batch), "replicate_s": await meet(stores, dbs)}
        found["get_s"] = await read(dbs[0], keys, gets)
        await dbs[0].put("merged", value(0))
        found["get_merged_s"] = await read(dbs[0], keys, gets)
        found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return found


def theirs(root: Path, keys: int, batch: int, gets: int) -> dict[str, float]:
    """Measure the npm side."""
    if not (NPM / "node_modules").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=NPM, check=True)
    command = ["node", str(NPM / "peer.js"), str(root), str(keys), str(batch), str(gets)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--gets", type=int, default=10_000)
    parser.add_argument("--dir", type=Path, help="where to put the files (default: the temporary directory)")
    options = parser.parse_args()
    sizes = options.keys, options.batch, min(options.gets, options.keys)
    with tempfile.TemporaryDirectory(dir=options.dir) as root:
        mine = trio.run(ours, Path(root) / "ours", *sizes)
        npm = theirs(Path(root) / "npm", *sizes)
    print(f"{options.keys} keys of {WRITERS} writers, {options.batch} per batch, {sizes[2]} gets")
    for measure, count, unit in (
        ("put", options.keys, "put_s"),
        ("get, three heads", sizes[2], "get_s"),
        ("get, one head", sizes[2], "get_merged_s"),
    ):
        print(
            f"{measure:18} {count / mine[unit]:9.0f}/s  npm {count / npm[unit]:9.0f}/s  {npm[unit] / mine[unit]:5.2f} x"
        )
    for measure, unit in (("replicate, s", "replicate_s"), ("peak memory, MB", "peak_mb")):
        print(f"{measure:18} {mine[unit]:9.2f}    npm {npm[unit]:9.2f}    {npm[unit] / mine[unit]:5.2f} x")


if __name__ == "__main__":
    main()
