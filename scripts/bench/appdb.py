#!/usr/bin/env python3
"""Measure a database with three writers beside npm `hyperdb`: put, replicate, get, memory.

Each writer puts a third of the keys in batches while it is offline; then they meet and one of them reads keys in a
scattered order, first while there are three heads, then after one put that has seen them all. Needs node; the npm
package is installed below `scripts/bench/npm-appdb` when it is missing. Prints one line per measure: ours, npm, ratio;
with `--output` the same as JSON and Markdown. Rates are by CPU time, which other work on the machine changes least.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

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


@asynccontextmanager
async def timed(found: dict[str, Any], measure: str) -> AsyncIterator[None]:
    """Note the seconds of a piece of work, by the clock and of CPU time."""
    started, before = time.perf_counter(), time.process_time()
    yield
    found[measure] = {"s": time.perf_counter() - started, "cpu_s": time.process_time() - before}


async def put_all(dbs: list[AppDB], keys: int, batch: int) -> None:
    """Let every writer put its share."""
    for writer, db in enumerate(dbs):
        share = range(writer, keys, len(dbs))
        for start in range(0, len(share), batch):
            await db.batch([Put(name(number), value(number)) for number in share[start : start + batch]])


async def meet(stores: list[OwnedStore], dbs: list[AppDB]) -> None:
    """Connect the writers until each holds every block of the others."""
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


async def read(db: AppDB, keys: int, gets: int) -> None:
    """Read scattered keys."""
    for count in range(gets):
        number = count * 104729 % keys
        nodes = await db.get(name(number))
        assert len(nodes) == 1, nodes
        assert nodes[0].value == value(number)


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


async def ours(root: Path, keys: int, batch: int, gets: int) -> dict[str, Any]:
    """Measure our side."""
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(open_store(root / str(number), HYPERCORE)) for number in range(WRITERS)
        ]
        dbs = [await stack.enter_async_context(open_appdb(stores[0], name="bench"))]
        for store in stores[1:]:
            dbs.append(await stack.enter_async_context(open_appdb(store, key=dbs[0].key)))
        await authorized(stores, dbs)
        found: dict[str, Any] = {}
        async with timed(found, "put"):
            await put_all(dbs, keys, batch)
        async with timed(found, "replicate"):
            await meet(stores, dbs)
        async with timed(found, "get"):
            await read(dbs[0], keys, gets)
        await dbs[0].put("merged", value(0))
        async with timed(found, "get_merged"):
            await read(dbs[0], keys, gets)
        found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return found


def theirs(root: Path, keys: int, batch: int, gets: int) -> dict[str, Any]:
    """Measure the npm side."""
    if not (NPM / "node_modules").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=NPM, check=True)
    command = ["node", str(NPM / "peer.js"), str(root), str(keys), str(batch), str(gets)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(mine: dict[str, Any], npm: dict[str, Any], keys: int, gets: int) -> str:
    """Return the results as Markdown."""
    lines = ["| measure | ours | npm hyperdb | ratio, CPU | ratio, clock |", "|---|---:|---:|---:|---:|"]
    for measure, count, text in (
        ("put", keys, "put, 1/s of CPU"),
        ("get", gets, "get with three heads, each entry for the first time, 1/s of CPU"),
        ("get_merged", gets, "the same gets again, one head, 1/s of CPU"),
        ("replicate", 0, "replicate to all, CPU s"),
    ):
        left, right = mine[measure], npm[measure]
        shown = [f"{count / side['cpu_s']:.0f}" if count else f"{side['cpu_s']:.2f}" for side in (left, right)]
        ratios = [f"{right[unit] / left[unit]:.2f}" for unit in ("cpu_s", "s")]
        lines.append(f"| {text} | {' | '.join(shown + ratios)} |")
    peaks = mine["peak_mb"], npm["peak_mb"]
    lines.append(f"| peak memory of the process, MB | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[1] / peaks[0]:.2f} | |")
    return "\n".join(lines)


def main() -> None:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--gets", type=int, default=10_000)
    parser.add_argument("--dir", type=Path, help="where to put the files (default: the temporary directory)")
    parser.add_argument("--output", type=Path, help="where to write the results, without .json and .md")
    options = parser.parse_args()
    sizes = options.keys, options.batch, min(options.gets, options.keys)
    with tempfile.TemporaryDirectory(dir=options.dir) as root:
        mine = trio.run(ours, Path(root) / "ours", *sizes)
        npm = theirs(Path(root) / "npm", *sizes)
    title = f"{options.keys} keys of {WRITERS} writers, {options.batch} per batch, {sizes[2]} gets"
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} meanwhile"
    text = f"# Databases beside npm `hyperdb`\n\n{title}; {machine}.\n\n{table(mine, npm, sizes[0], sizes[2])}\n"
    print(text)
    if options.output is not None:
        found = {"title": title, "machine": machine, "ours": mine, "npm": npm}
        options.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(f"{text}\nMade by `scripts/bench/appdb.py`.\n")


if __name__ == "__main__":
    main()
