"""Peak memory of a walk through many files, beside npm `hyperdrive-fuse`.

`python scripts/bench/walk.py [--directories 1000] [--files 100] [--write docs/benchmarks/walk]`

Each walk has a mount and a kernel cache of its own. Memory is the peak of all processes of a mount together, in MiB;
the pages of files that several of them have count once. Needs what `mount.py` needs.
"""

import argparse
import tempfile
from pathlib import Path

from mount import Row, missing
from systems import Npm, Ours, drop_caches, peak_mib, timed

WALKS = {
    "find -type f": ["find", "{}", "-type", "f"],
    "find by size and time": ["find", "{}", "-size", "+9", "-newermt", "2020-01-01"],
    "ls -lR": ["ls", "-lR", "{}"],
}


def main() -> None:
    """Walk through the mounts of both systems and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directories", type=int, default=1000)
    parser.add_argument("--files", type=int, default=100, help="number of files of 1 KiB in each directory")
    parser.add_argument("--write", type=Path, help="write FILE.md")
    options = parser.parse_args()
    if lacking := missing():
        parser.exit(1, f"walk.py: {lacking}\n")
    with tempfile.TemporaryDirectory(prefix="ddrive-bench-") as work:
        table = render(measured(Path(work), options))
    print(table)
    if options.write:
        options.write.with_suffix(".md").write_text(table)


def measured(work: Path, options: argparse.Namespace) -> Row:
    """Return what was walked -> the peak of npm, the peak of ours, the seconds of npm, those of ours."""
    tree = work / "tree"
    for number in range(options.directories):
        (tree / "many" / f"{number:04}").mkdir(parents=True)
        for file in range(options.files):
            (tree / "many" / f"{number:04}" / f"file-{file:04}").write_bytes(bytes(1024))
    peaks: Row = {}
    seconds: Row = {}
    for system in (Npm, Ours):
        place = work / system.name
        place.mkdir()
        with system(place, tree) as peer:
            for name, walk in WALKS.items():
                with peer.mounted() as pids:
                    drop_caches()
                    seconds.setdefault(name, []).append(timed([word.format(peer.mountpoint) for word in walk]))
                    peaks.setdefault(name, []).append(peak_mib(pids))
    return {name: [*row, *seconds[name]] for name, row in peaks.items()}


def render(results: Row) -> str:
    """Return the Markdown table."""
    lines = [
        "| walk | hyperdrive-fuse, MiB | ddrive, MiB | ratio | hyperdrive-fuse, s | ddrive, s |",
        "|---|---|---|---|---|---|",
    ]
    for name, (npm, ours, npm_seconds, our_seconds) in results.items():
        lines.append(f"| {name} | {npm:.0f} | {ours:.0f} | {ours / npm:.2f} | {npm_seconds:.1f} | {our_seconds:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
