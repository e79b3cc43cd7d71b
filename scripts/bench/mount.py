"""Measure a local mount and a cold remote read beside npm `hyperdrive-fuse` and an in-memory pyfuse3 file system.

`python scripts/bench/mount.py [--size-mib 1024] [--files 10000] [--rounds 3] [--write docs/benchmarks]`

All systems serve the same tree on the same machine in the same run, one after the other, each freshly mounted with a
cold kernel cache. The result is a JSON file and a Markdown table of medians and ratios. Needs root (to drop the kernel
cache), libfuse 2 and Node for the npm side; `npm ci` runs in scripts/bench/npm when it has not been run.
"""

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from systems import MIB, NPM, Memory, Npm, Ours

LIBFUSE = "libfuse.so.2"

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
    if lacking := missing():
        parser.exit(1, f"mount.py: {lacking}\n")
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


def missing() -> str | None:
    """Return in one line what a run would fail for after minutes, and what to do about it; None when all is there."""
    if os.geteuid():
        return "only root can empty the kernel's cache: run it with sudo"
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"{program} is missing, which hyperdrive-fuse runs on: apt-get install nodejs npm"
    try:
        ctypes.CDLL(LIBFUSE)
    except OSError as error:
        return f"libfuse 2 is missing, which npm fuse-native loads ({error}): apt-get install libfuse2 (or libfuse2t64)"
    return None


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
        ours, npm = middle.get("ddrive", 0), middle.get(Npm.name, 0)
        ratio = f"{npm / ours if smaller_is_better else ours / npm:.2f}" if npm and ours else "-"
        cells = [f"{middle[name]:.1f}" if name in middle else "-" for name in (Memory.name, Npm.name, "ddrive")]
        lines.append(f"| {metric} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
