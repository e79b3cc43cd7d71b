"""How long cold reads take when the peer is far away: `cat` and `ls` of a new engine through a proxy that delays.

    .venv/bin/python scripts/bench/delay.py [--delay-ms 50] [--files 1000] [--npm KEY HOST:PORT]

Two engines with separate state directories on loopback; each byte arrives `--delay-ms` later, each way. Every figure is
of an engine that has never seen the drive, from the start of the command to its end.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

COMMAND = [sys.executable, "-m", "mountd.cli"]


async def delayed(listener: trio.SocketListener, target: tuple[str, int], delay_s: float) -> None:
    """Pass connections on to `target`, everything `delay_s` late."""

    async def connection(near: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream(*target) as far, near, trio.open_nursery() as nursery:
            for source, sink in ((near, far), (far, near)):
                send, receive = trio.open_memory_channel[tuple[float, bytes]](10_000)
                nursery.start_soon(_take, source, send, delay_s, nursery.cancel_scope)
                nursery.start_soon(_hand_on, receive, sink)

    await trio.serve_listeners(connection, [listener])


async def _take(
    source: trio.SocketStream,
    send: trio.MemorySendChannel[tuple[float, bytes]],
    delay_s: float,
    ends: trio.CancelScope,
) -> None:
    try:
        while data := await source.receive_some(1 << 20):
            await send.send((trio.current_time() + delay_s, bytes(data)))
    except trio.BrokenResourceError:
        pass
    ends.cancel()


async def _hand_on(receive: trio.MemoryReceiveChannel[tuple[float, bytes]], sink: trio.SocketStream) -> None:
    async for due, data in receive:
        await trio.sleep_until(due)
        try:
            await sink.send_all(data)
        except trio.BrokenResourceError:
            return


class Engine:
    """The command line with one state directory."""

    def __init__(self, state: Path) -> None:
        own = {"DDRIVE_STATE": str(state), "DDRIVE_LISTEN": "127.0.0.1:0", "DDRIVE_NO_DISCOVERY": "1"}
        self.environment = os.environ | own

    def run(self, *arguments: str) -> str:
        """Return what a verb writes to stdout."""
        done = subprocess.run([*COMMAND, *arguments], env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{arguments}: {done.stderr}")
        return done.stdout


def make_tree(root: Path, files: int) -> None:
    """Write `files` small files into one directory and as many into a few hundred others."""
    for number in range(files):
        for path in (root / "many" / f"{number:06}", root / f"d{number % 37}" / f"e{number % 11}" / f"f{number}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}\n")


async def measure(options: argparse.Namespace) -> None:
    """Print one line per command."""
    with tempfile.TemporaryDirectory(prefix="delay-") as name:
        here = Path(name)
        author = Engine(here / "author")
        if options.npm:
            key, address = options.npm
        else:
            make_tree(here / "tree", options.files)
            key = author.run("import", str(here / "tree")).strip()
            address = author.run("status", "--json").split('"listen": ["')[1].split('"')[0]
        host, _, port = address.rpartition(":")
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        verbs = [("cat", "many/000017"), ("cat", "d5/e5/f5"), ("ls", "many"), ("ls", "/"), ("ls", "-R", "/")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delayed, listener, (host, int(port)), options.delay_ms / 1000)
            for number, (verb, *path) in enumerate(verbs):
                reader = Engine(here / f"reader{number}")
                await trio.to_thread.run_sync(reader.run, "status")  # the start of the engine is not measured
                began = time.perf_counter()
                words = [verb, *path[:-1], key, path[-1], "--peer", proxy]
                await trio.to_thread.run_sync(lambda words=words, reader=reader: reader.run(*words))
                spent_ms = (time.perf_counter() - began) * 1000
                trips = spent_ms / (2 * options.delay_ms)
                print(f"{verb} {' '.join(path):20} {spent_ms:8.0f} ms  {trips:5.1f} round trips", flush=True)
                await trio.to_thread.run_sync(reader.run, "stop")
            nursery.cancel_scope.cancel()
        if not options.npm:
            author.run("stop")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay-ms", type=float, default=50)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--npm", nargs=2, metavar=("KEY", "HOST:PORT"))
    trio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
