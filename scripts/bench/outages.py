"""How long links take to come back after an outage that nobody tells of, by how long it lasted.

    .venv/bin/python scripts/bench/outages.py [--seconds 5 9 13 30] [--stop]

Two hosts in network namespaces with a router in between that goes down, while the hosts keep their carrier; needs root.
With `--stop` the engine that is dialled is stopped instead (SIGSTOP). The link is idle, but for a mount that follows
the drive. What is printed counts from the end of the outage until a file of which nothing was held has been read.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.hosts import Host, routed
from tests.support.program import Program, program

STEADY_S = 12.0  # before each outage
GIVEN_UP_S = 400.0
SIZE_BYTES = 100_000


def read_s(file: Path) -> float:
    """Return how long it takes to read a file of which nothing is held."""
    began = time.perf_counter()
    while True:
        try:
            file.read_bytes()
            return time.perf_counter() - began
        except OSError:  # a read ends after a while without a peer
            assert time.perf_counter() < began + GIVEN_UP_S


def outage(router: Host, author: Program, seconds: float, *, stop: bool) -> None:
    """Have an outage, in which nobody can tell anything."""
    pid = author.pid
    if not stop:
        router.ip("link", "set", "net1", "down")
        time.sleep(seconds)
        router.ip("link", "set", "net1", "up")
        return
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 9.0, 13.0, 30.0])
    parser.add_argument("--stop", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="outages-") as name,
        routed(2) as (router, hosts),
        program(Path(name) / "author", hosts[0]) as author,
        program(Path(name) / "reader", hosts[1]) as reader,
    ):
        (Path(name) / "source").mkdir()
        for number in range(len(options.seconds) + 1):
            (Path(name) / "source" / f"{number}.bin").write_bytes(os.urandom(SIZE_BYTES))
        key = author.ask("import", Path(name) / "source")["key"]
        address = author.address.replace("0.0.0.0", hosts[0].address)
        reader.mount(key, Path(name) / "mnt", "-o", f"peer={address}")
        print(f"no outage: {read_s(Path(name) / 'mnt' / '0.bin'):.2f} s", flush=True)
        for number, seconds in enumerate(options.seconds, 1):
            time.sleep(STEADY_S)
            outage(router, author, seconds, stop=options.stop)
            print(f"after {seconds:g} s: {read_s(Path(name) / 'mnt' / f'{number}.bin'):.2f} s", flush=True)


if __name__ == "__main__":
    main()
