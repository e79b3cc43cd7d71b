"""Measure how time and memory grow with the number of entries: import a huge tree, import it again, walk its mount.

`python scripts/bench/million.py [--files 1000000] [--directories 10] [--write docs/benchmarks/million]`

Seconds are those of each share of the import, so that growth shows; memory is the peak so far, in MiB.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from systems import DDRIVE, Ours, drop_caches, peak_mib, timed

SHARES = 10
LOOK_S = 0.5


class Large(Ours):
    """An engine of its own, without a drive at first."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.mountpoint = place / "mnt"
        self.mountpoint.mkdir()
        self.engine = int(self.daemon("a")["pid"])

    def imported(self, tree: Path, *key: str) -> tuple[list[float], float]:
        """Import a tree; returns how many seconds it had taken at each share of its files, and the peak in MiB."""
        files = sum(len(names) for _, _, names in os.walk(tree))
        state = ["--state", str(self.place / "a"), "--json"]
        started, reached, peak = time.monotonic(), [0.0], 0.0
        process = subprocess.Popen([*DDRIVE, "import", *state, str(tree), *key], stdout=subprocess.PIPE)
        while process.poll() is None:
            try:
                peak = max(peak, peak_mib([process.pid, self.engine]))
            except FileNotFoundError:
                break
            while not key and len(reached) < SHARES and self.entries() >= files * len(reached) // SHARES:
                reached.append(time.monotonic() - started)
            time.sleep(LOOK_S)
        output, _ = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, "import", output)
        self.key = json.loads(output)["key"]
        reached.append(time.monotonic() - started)
        return reached, peak

    def entries(self) -> int:
        """Return how many entries there are: each has a signature of 64 bytes."""
        sizes = [path.stat().st_size // 64 for path in (self.place / "a").rglob("signatures")]
        return max(sizes, default=0)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--directories", type=int, default=10)
    parser.add_argument("--write", type=Path, help="write FILE.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ddrive-bench-") as work:
        table = measured(Path(work), options)
    print(table)
    if options.write:
        options.write.with_suffix(".md").write_text(table)


def measured(work: Path, options: argparse.Namespace) -> str:
    """Return the table."""
    tree = work / "tree"
    for number in range(options.directories):
        (tree / f"{number}").mkdir(parents=True)
    for number in range(options.files):
        os.close(os.open(tree / f"{number % options.directories}" / f"file-{number:07}", os.O_CREAT | os.O_WRONLY))
    large = Large(work)
    try:
        first, first_peak = large.imported(tree)
        again, again_peak = large.imported(tree, large.key)
        with large.mount("a") as worker:
            drop_caches()
            walk = timed(["find", str(large.mountpoint), "-type", "f", "-name", "nothing"])
            walk_peak = peak_mib([worker, large.engine])
    finally:
        large.__exit__()
    shares = " ".join(f"{after - before:.0f}" for before, after in pairwise(first))
    return "\n".join(
        (
            f"# {options.files} files in {options.directories} directories",
            "",
            f"`python scripts/bench/million.py --files {options.files} --directories {options.directories}`; the files",
            "are empty, 2 cores, others at work. Memory: the sum of the peaks of engine and importer or mount.",
            "",
            "| what | seconds | us per file | MiB |",
            "|---|---|---|---|",
            f"| import | {first[-1]:.0f} | {first[-1] / options.files * 1e6:.0f} | {first_peak:.0f} |",
            f"| the same tree again | {again[-1]:.0f} | {again[-1] / options.files * 1e6:.0f} | {again_peak:.0f} |",
            f"| `find -type f` in the mount | {walk:.0f} | {walk / options.files * 1e6:.0f} | {walk_peak:.0f} |",
            "",
            f"Seconds for each tenth of the import: {shares}.",
            "",
        )
    )


if __name__ == "__main__":
    main()
