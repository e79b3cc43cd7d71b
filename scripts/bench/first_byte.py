"""How long it takes from `ddrive mount KEY` to the first byte, on a LAN with nothing but the key; what takes it.

    .venv/bin/python scripts/bench/first_byte.py [--rounds 5] [--cold]

Two hosts in network namespaces on one bridge; needs root. Every round is a reader with a fresh state directory whose
engine runs already; with `--cold` it does not, and `found` holds its start. `command` is a verb that needs nobody, so
what any verb costs; `found` is what `mount` takes beyond it until the peer is connected, by the reader's log; `mounted`
until it returns; `byte` is the first read.
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.hosts import Host, lan
from tests.support.program import program

STEPS = ("command", "found", "mounted", "byte", "together")


def took_s(action: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def connected_at(log: Path) -> float:
    """Return when the first peer was connected, in seconds since 1970, by the engine's log."""
    line = next(line for line in log.read_text().splitlines() if "peer connected" in line)
    stamp = re.match(r"\S+( [\d:.,]+)?", line)
    assert stamp is not None
    return datetime.fromisoformat(stamp[0].replace(",", ".").replace("Z", "+00:00")).timestamp()


def one_round(place: Path, host: Host, key: str, *, cold: bool) -> dict[str, float]:
    """Mount and read once."""
    with program(place / "reader", host) as reader:
        reader.ask("status")
        if cold:
            reader.ask("stop")
            next(reader.state.rglob("engine.log")).unlink()
        command = 0.0 if cold else took_s(lambda: reader.ask("status"))
        began = time.time()
        mounted = took_s(lambda: reader.mount(key, place / "mnt"))
        byte = took_s(lambda: (place / "mnt" / "greeting.txt").open("rb").read(1))
        found = connected_at(next(reader.state.rglob("engine.log"))) - began
        return {
            "command": command,
            "found": found - command,
            "mounted": mounted - found,
            "byte": byte,
            "together": mounted + byte,
        }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    found: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="first-") as name,
        lan(2) as hosts,
        program(Path(name) / "author", hosts[0]) as author,
    ):
        source = Path(name) / "source"
        source.mkdir()
        (source / "greeting.txt").write_text("hello\n")
        key = author.ask("import", source)["key"]
        for number in range(options.rounds):
            place = Path(name) / str(number)
            place.mkdir()
            found.append(one_round(place, hosts[1], key, cold=options.cold))
            print("  ".join(f"{step} {found[-1][step]:.2f} s" for step in STEPS), flush=True)
    print("median:  " + "  ".join(f"{step} {statistics.median(each[step] for each in found):.2f} s" for step in STEPS))


if __name__ == "__main__":
    main()
