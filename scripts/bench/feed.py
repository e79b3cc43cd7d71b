"""Measure one feed beside npm `ddatabase` and `hypercore`: append, read, open, and exchange between two processes.

`python scripts/bench/feed.py [--rounds 3] [--quick] [--only ours] [--write docs/benchmarks/feed]`

Each task runs in a process of its own, system after system within a round (which begins with another one each time), on
the same files where they are only read.
CPU time is given beside wall time, because it says more where other work runs on the machine. The result is JSON and a
Markdown table of medians, with the ratio to the better npm package. Needs Node; `npm ci` runs in npm-feed when needed.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from memory import GIB, take_memory

HERE = Path(__file__).resolve().parent
NPM = HERE / "npm-feed"
SYSTEMS = {
    "ddrive": [sys.executable, str(HERE / "feed_peer.py")],
    "ddatabase": ["node", str(NPM / "peer.js"), "ddatabase"],
    "hypercore": ["node", str(NPM / "peer.js"), "hypercore"],
}
OURS = "ddrive"
BATCH = 128
GROUP_BYTES = 8 * 1024 * 1024  # of large blocks that are made durable with one sync
LARGE = 65536

Results = dict[str, dict[str, list[float]]]  # metric -> system -> one value per round


class Goal(NamedTuple):
    """What the ratio to the better npm package has to be: at least (a rate) or at most (a cost)."""

    ratio: float
    is_cost: bool = False


GOALS = {
    "append 512 B, blocks/s": Goal(1),
    "append 16384 B, blocks/s": Goal(1.2),
    "append 65536 B, blocks/s": Goal(1.2),
    "read linear 512 B, blocks/s": Goal(1.5),
    "read random 512 B, blocks/s": Goal(1.5),
    "read 65536 B first, blocks/s": Goal(0.7),
    "read 65536 B again, blocks/s": Goal(1.5),
    "replicate 512 B, blocks/s": Goal(3),
    "replicate 16384 B, MB/s": Goal(2.5),
    "replicate 65536 B, MB/s": Goal(2),
    "replicate 65536 B, CPU s/GiB of the giver": Goal(0.5, True),
    "replicate 65536 B, CPU s/GiB of the taker": Goal(0.5, True),
    "replicate 65536 B, peak MiB of the giver": Goal(1, True),
    "replicate 65536 B, peak MiB of the taker": Goal(1, True),
    "open 10^6 blocks, ms": Goal(1, True),
}


def main() -> None:
    """Read the arguments, run every task on every system, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the content: for a look, not for the record")
    parser.add_argument("--only", choices=list(SYSTEMS), help="one system alone")
    parser.add_argument("--tasks", default="append,read,open,replicate", help="some of append,read,open,replicate")
    parser.add_argument("--write", type=Path, help="write FILE.json and FILE.md")
    options = parser.parse_args()
    if not (NPM / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NPM, check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="ddrive-bench-") as work:
        results = Bench(Path(work), options).run()
    table = render(results, options)
    print(table)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        options.write.with_suffix(".md").write_text(table)


def task(system: str, verb: str, place: Path, *words: object) -> Any:
    """Run one task in a process of its own and return what it says."""
    command = [*SYSTEMS[system], verb, str(place), *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=900)
    return json.loads(done.stdout)


class Bench:
    """All tasks, in a directory that is removed afterwards."""

    def __init__(self, work: Path, options: argparse.Namespace) -> None:
        self.work = work
        self.systems = [options.only] if options.only else list(SYSTEMS)
        self.rounds = options.rounds
        self.tasks = options.tasks.split(",")
        self.share = 10 if options.quick else 1

    def run(self) -> Results:
        """Return all values."""
        results: Results = {}
        makers = {"append": self.append, "read": self.read, "open": self.open, "replicate": self.replicate}
        for number in range(self.rounds):
            turn = number % len(self.systems)
            for system in self.systems[turn:] + self.systems[:turn]:
                for name in self.tasks:
                    for metric, value in makers[name](system):
                        results.setdefault(metric, {}).setdefault(system, []).append(value)
                        print(f"round {number} {system:10} {metric:44} {value:14,.1f}", file=sys.stderr, flush=True)
        return results

    def source(self, size: int, count: int) -> Path:
        """Return the feed of `count` blocks that all systems read, made when it is not there.

        It is in the kernel's cache, whatever has taken the memory since it was used last.
        """
        place = self.work / f"source-{size}-{count}"
        if not place.exists():
            task(OURS, "append", place, size, count, BATCH if size > 64 else 8192)
        subprocess.run(["cp", place / "data", "/dev/null"], check=True)
        return place

    def fresh(self) -> Path:
        """Return a place where nothing is."""
        place = self.work / "fresh"
        shutil.rmtree(place, ignore_errors=True)
        return place

    def append(self, system: str) -> Iterator[tuple[str, float]]:
        """Append; our own also durably. A first run that is not counted leaves the memory that the next one fills."""
        for size, total in ((512, 512_000), (16384, 8192), (65536, 4096)):
            count = total // self.share
            for _ in range(2):
                found = task(system, "append", self.fresh(), size, count, BATCH)
            yield f"append {size} B, blocks/s", count / found["seconds"]
            yield f"append {size} B, CPU us/block", found["cpu"] / count * 1e6
            if system == OURS:
                yield f"append {size} B with the sync at the end, blocks/s", count / found["flushed_seconds"]
                durable = task(system, "durable", self.fresh(), size, count, BATCH)
                yield f"append {size} B durably, 16 in flight, blocks/s", count / durable["seconds"]
                yield f"append {size} B durably, share of not durably", found["seconds"] / durable["seconds"]
                if size >= 16384:
                    disk = task(system, "disk", self.fresh(), size, count, GROUP_BYTES // size)
                    yield f"append {size} B durably, share of what the disk takes", disk["seconds"] / durable["seconds"]

    def read(self, system: str) -> Iterator[tuple[str, float]]:
        """Read what is held."""
        count = 51200 // self.share
        for order in ("linear", "random"):
            found = task(system, "read", self.source(512, count), order, 1)[0]
            yield f"read {order} 512 B, blocks/s", count / found["seconds"]
            yield f"read {order} 512 B, CPU us/block", found["cpu"] / count * 1e6
        count = 8192 // self.share
        first, again = task(system, "read", self.source(65536, count), "linear", 2)
        yield "read 65536 B first, blocks/s", count / first["seconds"]
        yield "read 65536 B first, CPU us/block", first["cpu"] / count * 1e6
        yield "read 65536 B again, blocks/s", count / again["seconds"]
        yield "read 65536 B again, CPU us/block", again["cpu"] / count * 1e6

    def open(self, system: str) -> Iterator[tuple[str, float]]:
        """Open a long feed."""
        count = 1_000_000
        found = task(system, "open", self.source(16, count))
        assert found["length"] == count
        yield "open 10^6 blocks, ms", found["seconds"] * 1000
        yield "open 10^6 blocks, CPU ms", found["cpu"] * 1000

    def replicate(self, system: str) -> Iterator[tuple[str, float]]:
        """Fetch a whole feed over loopback TCP."""
        for size, total in ((512, 40960), (16384, 16384), (65536, 16384)):
            count = total // self.share
            take_memory()
            giver, taker = self.exchange(system, self.source(size, count), count)
            seconds, gib = taker["seconds"], count * size / GIB
            yield f"replicate {size} B, blocks/s", count / seconds
            yield f"replicate {size} B, MB/s", count * size / seconds / 1e6
            for side, found in (("giver", giver), ("taker", taker)):
                yield f"replicate {size} B, CPU s/GiB of the {side}", found["cpu"] / gib
                yield f"replicate {size} B, peak MiB of the {side}", found["rss_mib"]

            if size == LARGE:
                giver, _ = self.exchange(system, self.source(size, count), count, takers=2)
                yield f"replicate {size} B, CPU s/GiB of the giver to its next peer", giver["cpu"] / gib

    def exchange(
        self, system: str, source: Path, count: int, takers: int = 1
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return what one exchange has cost each side: the last one of several that follow each other."""
        command = [*SYSTEMS[system], "serve", str(source)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            try:
                ready = json.loads(server.stdout.readline())
                for _ in range(takers):
                    taker = task(system, "fetch", self.fresh(), ready["key"], ready["port"], count)
                server.stdin.write("\n")
                server.stdin.flush()
                return json.loads(server.stdout.readline()), taker
            finally:
                server.kill()


def render(results: Results, options: argparse.Namespace) -> str:
    """Return the table: medians, and the ratio to the better npm package."""
    lines = [
        "# One feed, beside the npm packages",
        "",
        f"`scripts/bench/feed.py --rounds {options.rounds}`: medians of {options.rounds} rounds"
        f"{', a tenth of the content' if options.quick else ''}, {os.cpu_count()} cores, all systems in one run, two"
        " processes over loopback TCP for the exchange. The ratio is to the better npm package (`ddatabase` 10.0.4,"
        " `hypercore` 9.12.0, each with its defaults and 16 reads in flight); of a cost, less is better. CPU time is"
        " the more telling figure where other work ran on the machine. `append` waits for no disk, as the npm packages"
        " never do.",
        f" Load average at the end: {os.getloadavg()[1]:.1f}.",
        "",
        "| | " + " | ".join(SYSTEMS) + " | ratio | goal |",
        "|---|" + "---:|" * (len(SYSTEMS) + 2),
    ]
    for metric, values in results.items():
        medians = {system: statistics.median(found) for system, found in values.items()}
        cells = [f"{medians[system]:,.4g}" if system in medians else "" for system in SYSTEMS]
        is_cost = "CPU" in metric or "peak" in metric or metric.endswith("ms")
        others = [value for system, value in medians.items() if system != OURS]
        ratio = medians[OURS] / (min(others) if is_cost else max(others)) if others and OURS in medians else None
        goal = GOALS.get(metric)
        sign = "" if goal is None else f"≤ {goal.ratio}" if goal.is_cost else f"≥ {goal.ratio}"
        lines.append(f"| {metric} | " + " | ".join(cells) + f" | {'' if ratio is None else f'{ratio:.2f}'} | {sign} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
