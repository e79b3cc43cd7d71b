"""Serves a mount of a drive in memory: a process of its own, driven by lines on stdin.

Run as `python -m tests.fuse.serve_memory OPTIONS`; each line is a Python statement over `drive`, `fault`, `errors`,
`ready` and `served`, which has the `Vfs`, answered by the line `ok`, or, after a question mark, an expression, answered
by its value.
"""

import json
import logging
import os
import sys
from collections.abc import AsyncIterator

import trio

from ddrive import errors
from mountd.editing import Editor
from mountd.session import MountOptions, serve_mount
from mountd.vfs import Vfs
from tests.support.memory_drive import MemoryDrive


def fault(drive: MemoryDrive, path: str, error: Exception) -> None:
    """Touching `path` raises `error` from now on."""
    drive.faults[path] = error


def say(text: str) -> None:
    print(text, flush=True)


async def lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[str]:
    """Yield the lines of a stream; unlike a thread that reads a file, this can be cancelled."""
    text = b""
    async for chunk in stream:
        *complete, text = (text + chunk).split(b"\n")
        for line in complete:
            yield line.decode()


async def obey(drive: MemoryDrive, ready: trio.Event, served: list[Vfs]) -> None:
    """Do what stdin says."""
    names = {"drive": drive, "fault": fault, "errors": errors, "ready": ready, "served": served}
    async for line in lines(trio.lowlevel.FdStream(os.dup(0))):
        if line.startswith("?"):
            say(repr(eval(line[1:], names)))
        else:
            exec(line, names)
            say("ok")


async def serve() -> None:
    options = json.loads(sys.argv[1])
    delayed = options.pop("delayed", False)
    drive = MemoryDrive()
    ready = trio.Event()
    served: list[Vfs] = []

    async def opener(vfs: Vfs, editor: Editor) -> MemoryDrive:
        served.append(vfs)
        vfs.stranded = lambda: drive.is_stranded
        if delayed:
            await ready.wait()
        return drive

    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey, drive, ready, served)
        await serve_mount(MountOptions(**options), opener, lambda: say("ready"))
        nursery.cancel_scope.cancel()


logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
logging.getLogger("pyfuse3").setLevel(logging.INFO)
trio.run(serve)
say("left")
sys.stdout.flush()
