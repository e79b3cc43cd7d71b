"""Our side of the feed benchmark: one task per process, one line of JSON as the result; the verbs of npm-feed/peer.js.

`python feed_peer.py append|durable|disk|read|open|serve|fetch DIR …` uses the public interface of `ddrive`; `disk` does
not use feeds at all.
"""

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import trio

from ddrive import open_feed
from ddrive.feed.uncached import write_pieces

FLIGHTS = 16  # durable appends under way at a time


def say(value: object) -> None:
    """Print one line of JSON."""
    print(json.dumps(value), flush=True)


def meter() -> Callable[[], dict[str, float]]:
    """Return a function that tells what was spent since this call."""
    started, cpu = time.perf_counter(), time.process_time()

    def spent() -> dict[str, float]:
        return {
            "seconds": time.perf_counter() - started,
            "cpu": time.process_time() - cpu,
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    return spent


async def append(place: Path, size: int, count: int, batch: int) -> None:
    """Append without waiting for the disk; `flushed` includes the wait at the end."""
    content = os.urandom(size * batch)
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    async with open_feed(place) as feed:
        spent = meter()
        for start in range(0, count, batch):
            await feed.append_blocks(blocks[: count - start], durable=False)
        found = spent()
        await feed.flush()
        say({**found, "flushed_seconds": spent()["seconds"]})


async def durable(place: Path, size: int, count: int, batch: int) -> None:
    """Append durably, several at a time."""
    content = os.urandom(size * batch)
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    starts = iter(range(0, count, batch))

    async def worker() -> None:
        for start in starts:
            await feed.append_blocks(blocks[: count - start])

    async with open_feed(place) as feed:
        spent = meter()
        async with trio.open_nursery() as nursery:
            for _ in range(FLIGHTS):
                nursery.start_soon(worker)
        say(spent())


async def disk(place: Path, size: int, count: int, batch: int) -> None:
    """Write as many bytes as `durable` and sync them as often, in the quickest way known, and do nothing else."""
    content = os.urandom(size * batch)
    await trio.Path(place).mkdir()
    descriptor = os.open(place / "data", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    spent = meter()
    for start in range(0, count, batch):
        write_pieces(descriptor, [content], start * size)
        os.fdatasync(descriptor)
    say(spent())


async def read(place: Path, order: str, rounds: int) -> None:
    """Read every block; the first round verifies each, later ones what was verified before."""
    async with open_feed(place) as feed:
        indexes = list(range(len(feed)))
        if order == "random":
            random.Random(1).shuffle(indexes)
        found = []
        for _ in range(rounds):
            spent = meter()
            for index in indexes:
                await feed.get(index)
            found.append(spent())
        say(found)


async def open_only(place: Path) -> None:
    """Open and close."""
    spent = meter()
    async with open_feed(place) as feed:
        say({**spent(), "length": len(feed)})


async def serve(place: Path) -> None:
    """Serve one peer after the other; after a line on stdin, say what serving has cost since the last one came."""
    spent = meter()

    async def carry(stream: trio.SocketStream) -> None:
        nonlocal spent
        spent = meter()
        await feed.replicate(stream, initiator=False).wait()

    async with open_feed(place) as feed, trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, carry, 0)
        say({"port": listeners[0].socket.getsockname()[1], "key": feed.key.hex()})
        await trio.to_thread.run_sync(sys.stdin.readline)
        say(spent())
        nursery.cancel_scope.cancel()


async def fetch(place: Path, key: str, port: int, count: int) -> None:
    """Fetch all blocks of a feed from a peer."""
    async with open_feed(place, bytes.fromhex(key), sparse=True) as feed:
        spent = meter()
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        feed.replicate(stream, initiator=True)
        await feed.download(0, count).wait()
        say(spent())


VERBS = {
    "append": append,
    "durable": durable,
    "disk": disk,
    "read": read,
    "open": open_only,
    "serve": serve,
    "fetch": fetch,
}

if __name__ == "__main__":
    verb, directory, *rest = sys.argv[1:]
    trio.run(VERBS[verb], Path(directory), *(int(word) if word.isdigit() and len(word) < 20 else word for word in rest))
