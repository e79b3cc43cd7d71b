"""What an idle engine costs: its share of a core and its memory while it seeds many drives and nobody asks.

    .venv/bin/python scripts/bench/idle.py [--drives 100] [--seconds 60]

The engine is in a network namespace of its own with one network on which nobody else is, and discovery is on: it asks
and announces on that LAN, and in DHTs of one node each that never answers. Needs root. Memory is resident, in MiB.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.hosts import lan
from tests.support.program import program


def spent_s(pid: int) -> float:
    """Return the CPU time of a process in seconds."""
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return the memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--drives", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="idle-") as name,
        lan(2) as hosts,
        program(Path(name) / "state", hosts[0]) as engine,
    ):
        engine.settings |= dict.fromkeys(("DDRIVE_DHT_NODES", "DDRIVE_MAINLINE_NODES"), f"{hosts[1].address}:1")
        pid = engine.pid
        print(f"no drive: {resident_mib(pid):.0f} MiB", flush=True)
        for number in range(options.drives):
            engine.ask("create", "--name", f"drive-{number}")
        print(f"{options.drives} drives, just made: {resident_mib(pid):.0f} MiB", flush=True)
        engine.ask("stop")
        pid = engine.pid
        time.sleep(10)
        before = spent_s(pid)
        time.sleep(options.seconds)
        share = (spent_s(pid) - before) / options.seconds
        print(f"{options.drives} drives, engine started anew: {resident_mib(pid):.0f} MiB, {share:.2%} of a core")


if __name__ == "__main__":
    main()
