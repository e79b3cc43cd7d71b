"""Measure a local mount and a cold remote read beside npm `hyperdrive-fuse` and an in-memory pyfuse3 file system.

`python scripts/bench/mount.py [--size-mib 1024] [--files 10000] [--rounds 3] [--write docs/benchmarks]`

All systems serve the same tree on the same machine in the same run, one after the other, each freshly mounted with a
cold kernel cache. The result is a JSON file and a Markdown table of medians and ratios. Needs root (to drop the kernel
cache), libfuse 2 and Node for the npm side; `npm ci` runs in scripts/bench/npm when it has not been run.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DDRIVE = [sys.executable, "-m", "mountd.cli"]
NPM = HERE / "npm"
MIB = 1024 * 1024

Row = dict[str, list[float]]


def main() -> None:
    """Run every scenario on every system and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=1024, help="size of the large file in MiB")
    parser.add_argument("--remote-mib", type=int, default=64, help="size of the file read over loopback in MiB")
    parser.add_argument("--files", type=int, default=10_000, help="number of small files of 1 KiB in one directory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="write FILE.json and FILE.md")
    options = parser.parse_args()
    if not (NPM / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NPM, check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="ddrive-bench-") as work:
        results = run(Path(work), options)
    table = render(results, options)
    print(table)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        options.write.with_suffix(".md").write_text(table)


def run(work: Path, options: argparse.Namespace) -> dict[str, Row]:
    """Return metric -> system -> one value per round."""
    tree = make_tree(work / "tree", options)
    results: dict[str, Row] = {}
    for number in range(options.rounds):
        for system in (Memory, Npm, Ours):
            place = work / f"{system.name}-{number}"
            place.mkdir()
            with system(place, tree) as peer:
                for metric, value in peer.measure():
                    results.setdefault(metric, {}).setdefault(system.name, []).append(value)
                    print(f"round {number} {system.name:15} {metric:32} {value:12.2f}", file=sys.stderr, flush=True)
            shutil.rmtree(place)
    return results


def make_tree(tree: Path, options: argparse.Namespace) -> Path:
    """Write the sample tree: one large file, one middle one, one directory of small files; return its path."""
    (tree / "many").mkdir(parents=True)
    for name, size in (("big", options.size_mib), ("remote", options.remote_mib)):
        with (tree / name).open("wb") as file:
            for _ in range(size):
                file.write(os.urandom(MIB))
    for number in range(options.files):
        (tree / "many" / f"file-{number:06}.txt").write_bytes(os.urandom(1024))
    return tree


def drop_caches() -> None:
    """Empty the kernel's page, dentry and inode caches."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def timed(command: list[str] | Callable[[], object]) -> float:
    """Return the seconds that `command` takes; a list runs as a process and must succeed."""
    started = time.perf_counter()
    if callable(command):
        command()
    else:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def peak_mib(pids: list[int]) -> float:
    """Return the summed peak resident memory of the processes, in MiB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1])
    return total / 1024


STAT_ALL = """import os, sys, time
place, count = sys.argv[1], int(sys.argv[2])
names = [f"{place}/file-{number:06}.txt" for number in range(count)]
started = time.perf_counter()
for name in names:
    os.stat(name)
print(count / (time.perf_counter() - started))
"""


class System:
    """One file system under test: a place for its state, a mountpoint and the metrics common to all."""

    name = ""

    def __init__(self, place: Path, tree: Path) -> None:
        self.place, self.tree = place, tree
        self.mountpoint = place / "mnt"
        self.mountpoint.mkdir()
        self.count = len(os.listdir(tree / "many"))

    def __enter__(self) -> "System":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def mounted(self) -> Iterator[list[int]]:
        """Mount the whole tree afresh; yields the pids that serve it."""
        raise NotImplementedError(f"{self.name} cannot mount")

    def measure(self) -> Iterator[tuple[str, float]]:
        """Yield (metric, value) of the local scenarios."""
        with self.mounted() as pids:
            drop_caches()
            seconds = timed(["dd", f"if={self.mountpoint}/big", "of=/dev/null", "bs=1M", "status=none"])
            yield "sequential read cold, MB/s", (self.tree / "big").stat().st_size / 1e6 / seconds
            yield "peak memory after it, MiB", peak_mib(pids)
            again = timed(["dd", f"if={self.mountpoint}/big", "of=/dev/null", "bs=1M", "status=none"])
            yield "sequential read again, MB/s", (self.tree / "big").stat().st_size / 1e6 / again
        with self.mounted():
            drop_caches()
            command = [sys.executable, "-c", STAT_ALL, f"{self.mountpoint}/many", str(self.count)]
            yield "stat cold, files/s", float(subprocess.run(command, check=True, capture_output=True).stdout)
        with self.mounted():
            drop_caches()
            yield "ls -la, ms", 1000 * timed(["ls", "-la", f"{self.mountpoint}/many"])
        with self.mounted():
            drop_caches()
            yield "grep -r, ms", 1000 * timed(["grep", "-rc", "-m1", "^", f"{self.mountpoint}/many"])


class Child:
    """A background process that says when it is ready in one line of JSON and ends when its stdin is closed."""

    def __init__(self, command: list[str], cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.ready: dict[str, Any] = json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """Ask the process to end and wait for it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)


class Memory(System):
    """The in-memory pyfuse3 file system: what a mount in Python can reach at best."""

    name = "pyfuse3-memory"

    @contextmanager
    def mounted(self) -> Iterator[list[int]]:
        child = Child([sys.executable, str(HERE / "memfs.py"), str(self.tree), str(self.mountpoint)])
        try:
            yield [child.process.pid]
        finally:
            subprocess.run(["umount", str(self.mountpoint)], check=True)
            child.end()


class Npm(System):
    """npm `hyperdrive-fuse` over a store that npm `hyperdrive` imported."""

    name = "hyperdrive-fuse"

    def __enter__(self) -> "Npm":
        self.store = self.place / "store"
        self.key, _ = self.imported(self.store, self.tree)
        return self

    def imported(self, store: Path, tree: Path) -> tuple[str, float]:
        """Import `tree` into a new drive in `store`; returns its key and the seconds spent."""
        done = subprocess.run(
            ["node", "peer.js", "import", str(store), str(tree)], cwd=NPM, check=True, stdout=subprocess.PIPE
        )
        value = json.loads(done.stdout)
        return value["key"], value["seconds"]

    @contextmanager
    def mounted(self) -> Iterator[list[int]]:
        with self.mount(self.store) as pids:
            yield pids

    @contextmanager
    def mount(self, store: Path, *port: str) -> Iterator[list[int]]:
        """Mount the drive from `store`, with a peer at `port` on loopback when given."""
        child = Child(["node", "peer.js", "mount", str(store), self.key, str(self.mountpoint), *port], cwd=NPM)
        try:
            yield [child.process.pid]
        finally:
            child.end()

    def measure(self) -> Iterator[tuple[str, float]]:
        _, seconds = self.imported(self.place / "many", self.tree / "many")
        yield "import of small files, files/s", self.count / seconds
        yield from super().measure()
        server = Child(["node", "peer.js", "serve", str(self.store), self.key], cwd=NPM)
        try:
            with self.mount(self.place / "remote", str(server.ready["port"])):
                seconds = timed(["dd", f"if={self.mountpoint}/remote", "of=/dev/null", "bs=1M", "status=none"])
                yield "remote cat cold, MB/s", (self.tree / "remote").stat().st_size / 1e6 / seconds
        finally:
            server.end()


class Ours(System):
    """ddrive itself: engine, worker and command line as a user runs them."""

    name = "ddrive"

    def __enter__(self) -> "Ours":
        self.daemon("a")
        self.key = self.command("a", "import", str(self.tree))["key"]
        return self

    def __exit__(self, *_: object) -> None:
        for state in ("a", "b"):
            if (self.place / state).is_dir():
                self.command(state, "stop")

    def daemon(self, state: str) -> dict[str, Any]:
        """Start the engine of `state` with a listener on loopback; returns its status."""
        command = [*DDRIVE, "daemon", "--state", str(self.place / state), "--listen", "127.0.0.1:0", "--no-discovery"]
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        deadline = time.monotonic() + 15
        while True:
            try:
                return self.command(state, "status", "--no-start")
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def command(self, state: str, verb: str, *arguments: str) -> dict[str, Any]:
        """Run one verb of the command line and return its JSON value."""
        command = [*DDRIVE, verb, "--state", str(self.place / state), "--json", *arguments]
        value: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
        return value

    @contextmanager
    def mounted(self) -> Iterator[list[int]]:
        self.command("a", "stop")
        engine = self.daemon("a")
        with self.mount("a") as worker:
            yield [engine["pid"], worker]

    @contextmanager
    def mount(self, state: str, *arguments: str) -> Iterator[int]:
        """Mount the drive in `state`; yields the worker's pid."""
        mounted = self.command(state, "mount", self.key, str(self.mountpoint), *arguments)
        try:
            yield mounted["pid"]
        finally:
            self.command(state, "unmount", str(self.mountpoint))

    def measure(self) -> Iterator[tuple[str, float]]:
        yield (
            "import of small files, files/s",
            self.count / timed(lambda: self.command("a", "import", f"{self.tree}/many")),
        )
        yield from super().measure()
        address = self.command("a", "status")["listen"][0]
        self.daemon("b")
        with self.mount("b", "--peer", address):
            seconds = timed(["dd", f"if={self.mountpoint}/remote", "of=/dev/null", "bs=1M", "status=none"])
            yield "remote cat cold, MB/s", (self.tree / "remote").stat().st_size / 1e6 / seconds


def render(results: dict[str, Row], options: argparse.Namespace) -> str:
    """Return the Markdown table: median per system, and how many times better than npm ours is."""
    lines = [
        f"Medians of {options.rounds} rounds, {os.cpu_count()} cores, {options.size_mib} MiB file, "
        f"{options.files} files of 1 KiB. Ratio above 1: ddrive is better.",
        "",
        "| metric | pyfuse3-memory | hyperdrive-fuse | ddrive | ratio to npm |",
        "|---|---|---|---|---|",
    ]
    for metric, row in results.items():
        middle = {system: statistics.median(values) for system, values in row.items()}
        smaller_is_better = metric.endswith(("ms", "MiB"))
        ours, npm = middle["ddrive"], middle.get(Npm.name, 0)
        ratio = (npm / ours if smaller_is_better else ours / npm) if npm else 0
        cells = [f"{middle[name]:.1f}" if name in middle else "-" for name in (Memory.name, Npm.name, "ddrive")]
        lines.append(f"| {metric} | {' | '.join(cells)} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
