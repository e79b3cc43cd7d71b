#!/usr/bin/env python3
"""Measure one feed on the local disk: append, verified read, read again, put.

Prints one line per block size with blocks and megabytes (10^6 bytes) a second, the best of a few rounds.
"""

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trio

from ddrive.crypto import KeyPair
from ddrive.feed import Feed, FeedLog, FileDirectory, RemoteTree


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_all(log: FeedLog, order: list[int]) -> None:
    """Read every block in the given order."""
    for index in order:
        log.block(index)


def put_all(writer: FeedLog, reader: FeedLog, blocks: list[bytes], digests: bool) -> float:
    """Fill `reader` from `writer`; returns the seconds spent in `put` alone."""
    remote, spent = RemoteTree(), 0.0
    for index, block in enumerate(blocks):
        digest = reader.digest(index) if digests else 0
        proof = writer.proof(index, digest=digest, hash_only=False, remote=remote if digests else RemoteTree())
        assert proof is not None
        start = time.perf_counter()
        reader.put(index, block, proof)
        spent += time.perf_counter() - start
    return spent


async def append_durably(path: Path, pair: KeyPair, batches: list[list[bytes]]) -> float:
    """Append through `Feed`, each batch on disk before the next; returns the seconds."""
    feed = Feed(FeedLog.create(FileDirectory(path), key=pair.public_key, secret_key=pair.secret_key))
    start = time.perf_counter()
    for batch in batches:
        await feed.append(batch)
    spent = time.perf_counter() - start
    await feed.aclose()
    return spent


def measure(root: Path, size: int, count: int, batch: int) -> dict[str, float]:
    """Return seconds per task for `count` blocks of `size` bytes, appended `batch` at a time."""
    pair = KeyPair.generate()
    blocks = [random.randbytes(size) for _ in range(count)]
    batches = [blocks[start : start + batch] for start in range(0, count, batch)]
    found: dict[str, float] = {}
    writer = FeedLog.create(FileDirectory(root / "writer"), key=pair.public_key, secret_key=pair.secret_key)
    found["append"] = timed(lambda: [writer.append(some) for some in batches])
    found["sync"] = timed(writer.sync)
    writer.close()
    writer = FeedLog.open(FileDirectory(root / "writer"))
    order = list(range(count))
    found["read, verified"] = timed(lambda: read_all(writer, order))
    found["read again"] = timed(lambda: read_all(writer, order))
    random.shuffle(order)
    found["read random"] = timed(lambda: read_all(writer, order))
    for name, digests in (("put, digests", True), ("put, full proofs", False)):
        reader = FeedLog.create(FileDirectory(root / name), key=pair.public_key)
        found[name] = put_all(writer, reader, blocks, digests)
        reader.close()
    writer.close()
    found["append, durable"] = trio.run(append_durably, root / "durable", pair, batches)
    return found


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=32, help="content per block size")
    parser.add_argument("--batch", type=int, default=128, help="blocks per append")
    parser.add_argument("--directory", type=Path, default=None, help="where to write (a temporary directory)")
    arguments = parser.parse_args()
    for size in (512, 16384, 65536):
        count = min(arguments.megabytes * 1_000_000 // size, 20_000)
        best: dict[str, float] = {}
        for _ in range(arguments.rounds):
            root = Path(tempfile.mkdtemp(dir=arguments.directory))
            try:
                for name, seconds in measure(root, size, count, arguments.batch).items():
                    best[name] = min(seconds, best.get(name, seconds))
            finally:
                shutil.rmtree(root)
        for name, seconds in best.items():
            print(f"{size:6} B  {name:18} {count / seconds:12,.0f} blocks/s {count * size / seconds / 1e6:10,.1f} MB/s")


if __name__ == "__main__":
    main()
