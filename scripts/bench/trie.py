#!/usr/bin/env python3
"""Measure the trie and the listing of a drive beside the npm packages `dwebtrie`/`hypertrie` and `ddrive`/`hyperdrive`.

Each part runs in a process of its own, ours and npm's by turns, some rounds; the median of the ratios counts, of CPU
time, which other work on the machine changes least. Needs node and the packages of the interop tests (`npm ci` in
`tests/interop/<dialect>`). Prints one line per measure; with `--output` the same as JSON and Markdown.

Our appends are durable when they return, those of npm are never synced; "put, not synced" is what compares.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import ddrive
from ddrive.drive.stat import FILE_MODE

PEER = Path(__file__).resolve().parent / "trie_peer.js"
MEASURES = {  # by name: how it is called in the table, and which npm measure it stands beside
    "put": ("put, one at a time, durable", "put"),
    "put_unsynced": ("put, one at a time, not synced", "put"),
    "batch": ("put, in batches", "batch"),
    "get": ("get, each entry for the first time", "get"),
    "get_again": ("get, again", "get_again"),
    "iterate": ("list all entries", "iterate"),
    "diff": ("changes since half of them", "diff"),
    "names": ("names in a directory, first time", "names"),
    "stats": ("names and attributes, first time", "stats"),
    "stats_again": ("names and attributes, again", "stats_again"),
}


def name(number: int) -> str:
    """Return the key of an entry; the npm side uses the same."""
    return f"user/{number * 7919 % 1000003}/name"


def value(number: int) -> bytes:
    """Return the value of an entry."""
    return f"value {number}".encode()


@asynccontextmanager
async def timed(found: dict[str, Any], measure: str) -> AsyncIterator[None]:
    """Note the seconds of a piece of work, by the clock and of CPU time."""
    started, before = time.perf_counter(), time.process_time()
    yield
    found[measure] = {"s": time.perf_counter() - started, "cpu_s": time.process_time() - before}


async def write(root: Path, dialect: ddrive.Dialect, keys: int, singles: int, batch: int) -> dict[str, Any]:
    """Measure puts."""
    found: dict[str, Any] = {}
    for measure, durable in (("put", True), ("put_unsynced", False)):
        async with ddrive.open_feed(root / measure, dialect=dialect) as feed:
            trie = await ddrive.open_trie(feed)
            async with timed(found, measure):
                for number in range(singles):
                    await trie.put(name(number), value(number), durable=durable)
            if not durable:
                await feed.flush()
                async with timed(found, "batch"):
                    for start in range(singles, keys, batch):
                        end = min(start + batch, keys)
                        await trie.batch([ddrive.Put(name(number), value(number)) for number in range(start, end)])
    return found


async def read(root: Path, dialect: ddrive.Dialect, keys: int) -> dict[str, Any]:
    """Measure gets, a listing and a comparison."""
    found: dict[str, Any] = {}
    async with ddrive.open_feed(root / "put_unsynced", dialect=dialect) as feed:
        trie = await ddrive.open_trie(feed)
        for measure in ("get", "get_again"):
            async with timed(found, measure):
                for count in range(keys):
                    number = count * 104729 % keys
                    node = await trie.get(name(number))
                    assert node is not None
                    assert node.value == value(number)
        async with timed(found, "iterate"):
            assert len(await trie.list()) == keys
        async with timed(found, "diff"):
            assert len([change async for change in trie.diff(keys // 2)]) >= keys // 2
    return found


async def fill(root: Path, dialect: ddrive.Dialect, files: int) -> dict[str, Any]:
    """Make a drive with one directory."""
    async with ddrive.open_store(root / "drive", dialect) as store:
        drive = await ddrive.open_drive(store, create=True)
        for start in range(0, files, 1000):
            numbers = range(start, min(start + 1000, files))
            await drive.batch([ddrive.NewEntry(f"many/file-{number}", ddrive.Stat(FILE_MODE)) for number in numbers])
    return {}


async def names(root: Path, dialect: ddrive.Dialect) -> dict[str, Any]:
    """Measure the names in a directory."""
    found: dict[str, Any] = {}
    async with (
        ddrive.open_store(root / "drive", dialect) as store,
        await ddrive.open_drive(store) as drive,
        timed(found, "names"),
    ):
        assert await drive.names("many")
    return found


async def stats(root: Path, dialect: ddrive.Dialect) -> dict[str, Any]:
    """Measure the names and attributes in a directory."""
    found: dict[str, Any] = {}
    async with ddrive.open_store(root / "drive", dialect) as store, await ddrive.open_drive(store) as drive:
        for measure in ("stats", "stats_again"):
            async with timed(found, measure):
                assert await drive.list("many")
    return found


PARTS = {"write": write, "read": read, "fill": fill, "names": names, "stats": stats}


def run(side: str, dialect: str, part: str, root: Path, *numbers: int) -> dict[str, Any]:
    """Return what a process of one side measures."""
    command = [sys.executable, __file__, "--part"] if side == "ours" else ["node", str(PEER)]
    arguments = [dialect, part, str(root / side), *map(str, numbers)]
    done = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def round_of(dialect: str, keys: int, singles: int, batch: int, files: int, where: Path | None) -> dict[str, Any]:
    """Measure everything once on both sides."""
    found: dict[str, Any] = {"ours": {}, "npm": {}}
    with tempfile.TemporaryDirectory(dir=where) as directory:
        parts = (("write", (keys, singles, batch)), ("read", (keys,)), ("fill", (files,)), ("names", ()), ("stats", ()))
        for part, numbers in parts:
            for side, measured in found.items():
                (Path(directory) / side).mkdir(exist_ok=True)
                result = run(side, dialect, part, Path(directory), *numbers)
                result["peak_mb"] = max(result["peak_mb"], measured.get("peak_mb", 0))
                measured.update(result)
    return found


def table(rounds: list[dict[str, Any]], counts: dict[str, int], packages: str) -> str:
    """Return the medians as Markdown."""
    lines = [f"| measure | ours, 1/s of CPU | {packages} | ratio, CPU | ratio, clock |", "|---|---:|---:|---:|---:|"]
    for measure, (text, other) in MEASURES.items():
        pairs = [(one["ours"][measure], one["npm"][other]) for one in rounds]
        rates = [statistics.median(counts[measure] / pair[side]["cpu_s"] for pair in pairs) for side in (0, 1)]
        ratios = [statistics.median(right[unit] / left[unit] for left, right in pairs) for unit in ("cpu_s", "s")]
        lines.append(f"| {text} | {rates[0]:.0f} | {rates[1]:.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    peaks = [statistics.median(one[side]["peak_mb"] for one in rounds) for side in ("ours", "npm")]
    lines.append(f"| peak memory, MB | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[1] / peaks[0]:.2f} | |")
    return "\n".join(lines)


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialect", choices=list(ddrive.DIALECTS), default="dweb")
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--singles", type=int, default=2_000, help="of the keys, put one at a time")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where to put the files (default: the temporary directory)")
    parser.add_argument("--output", type=Path, help="where to write the results, without .json and .md")
    options = parser.parse_args()
    sizes = options.keys, options.singles, options.batch, options.files
    rounds = [round_of(options.dialect, *sizes, options.dir) for _ in range(options.rounds)]
    counts = dict.fromkeys(MEASURES, options.keys) | dict.fromkeys(("names", "stats", "stats_again"), options.files)
    counts |= {"put": options.singles, "put_unsynced": options.singles, "batch": options.keys - options.singles}
    packages = {"dweb": "npm dwebtrie, ddrive", "hypercore": "npm hypertrie, hyperdrive"}[options.dialect]
    title = f"{options.keys} keys, batches of {options.batch}, a directory of {options.files}; {options.rounds} rounds"
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} meanwhile"
    text = f"# The trie beside npm ({options.dialect})\n\n{title}; {machine}.\n\n{table(rounds, counts, packages)}\n"
    print(text)
    if options.output is not None:
        found = {"title": title, "machine": machine, "rounds": rounds}
        options.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(f"{text}\nMade by `scripts/bench/trie.py`.\n")


def measure_part(dialect: str, part: str, root: str, *numbers: str) -> None:
    """Run one part of ours and print what it measured."""
    found = trio.run(PARTS[part], Path(root), ddrive.DIALECTS[dialect], *map(int, numbers))
    print(json.dumps(found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        measure_part(*sys.argv[2:])
    else:
        main()
