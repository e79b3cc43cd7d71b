"""One process for one mountpoint: a view of the engine's feeds, a drive, a mount. Started as `python -m mountd.worker`.

The engine gives the options as one line of JSON on stdin and reads one line of JSON from stdout: `{"ready": true}` once
a stat of the mountpoint is answered, or `{"error": {"code", "message"}}`. The process ends with code 0 when the mount
is gone, whoever ended it; SIGTERM and SIGINT detach it at once, busy or not.
"""

import json
import logging
import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import trio

from ddrive.dialect import DIALECTS
from ddrive.drive import Drive, open_drive
from ddrive.errors import DriveError, MountFailed
from ddrive.ids import PublicKey
from ddrive.store.attached import Attached, open_attached
from ddrive.store.rpc import NOTICE, failure
from mountd.editing import Editor
from mountd.face import DriveFace
from mountd.guarding import Guard, guarded
from mountd.interpreter import tune
from mountd.logs import configure, open_log
from mountd.session import MountOptions, serve_mount
from mountd.versions import VersionedDrive, unlisted
from mountd.vfs import Vfs
from mountd.writing import Writing, serve_writing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions(MountOptions):
    """What the engine asks for. `socket` is where it listens; without `log` or with `foreground` stderr is the log."""

    socket: str
    dialect: str | None  # None: not known yet
    others: tuple[str, ...] = ()  # where the drive is mounted besides
    log: str | None = None
    foreground: bool = False

    @classmethod
    def from_json(cls, text: str) -> "WorkerOptions":
        """Return the options in `text`; names that are not known are left out.

        Raises: MountFailed when one that is needed is absent, ValueError when `text` is no JSON.
        """
        given: dict[str, Any] = json.loads(text)
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in given.items() if name in known})
        except TypeError as problem:
            raise MountFailed(f"the options of the mount are incomplete: {problem}") from None


def main() -> int:
    """Serve the mount that stdin describes; return the exit code."""
    try:
        told = sys.stdin.readline()
        if not told:  # the engine was killed before it could say what to mount
            return 1
        options = WorkerOptions.from_json(told)
        _log_to(options)
        tune(lists=True)
        with guarded() as guard:
            trio.run(run_worker, options, guard)
    except (DriveError, OSError, ValueError) as error:
        log.error("mount failed: why=%s", error)
        told = failure(NOTICE, error)
        _say({"error": {"code": told.code, "message": told.message}})
        return 1
    return 0


async def run_worker(options: WorkerOptions, guard: Guard) -> None:
    """Serve one mount of a drive of the engine until the mount ends, then store what was changed through it."""
    failure: MountFailed | None = None  # raised below, as it is: not in a group of the nursery
    async with open_attached(Path(options.socket)) as attached, trio.open_nursery() as nursery:
        nursery.start_soon(guard.keep)
        writing: list[Writing] = []

        async def opened(vfs: Vfs, editor: Editor) -> DriveFace:
            drive = await _open(options, attached, vfs)
            nursery.start_soon(_open_content, drive)
            vfs.unlisted = unlisted
            if options.read_only:
                return VersionedDrive(drive, drive)
            if not drive.writable:  # restored from its keys: it can be changed once it has begun to come from peers
                await drive.metadata.wait_length(1)
            vfs.waits.awaited = lambda: attached.is_awaited or not writing
            others = frozenset(options.others)
            writing.append(await nursery.start(serve_writing, drive, Path(options.state), options.mountpoint, others))
            editor.set_drive(writing[-1].staged, writing[-1].committer)
            return VersionedDrive(writing[-1].staged, drive)

        def ready() -> None:
            guard.watch(options.mountpoint)
            _say({"ready": True})

        try:
            await serve_mount(options, opened, ready)
        except MountFailed as error:
            failure = error
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _open(options: WorkerOptions, attached: Attached, vfs: Vfs) -> Drive:
    """Return the drive; waits for its first block as long as it takes.

    Raises: NoPeers when the engine does not look for it any more, EngineError when it has gone.
    """
    dialect = options.dialect
    if dialect is None:
        known = await attached.call("drive.open", {"key": options.key, "wait_s": math.inf})
        dialect = str(known["dialect"])
    store = attached.store(DIALECTS[dialect])
    key = PublicKey(bytes.fromhex(options.key))
    vfs.stranded = lambda: attached.is_stranded
    vfs.waits.awaited = lambda: attached.is_awaited
    vfs.supply = store.supply
    vfs.metadata = await store.open_feed(key=key, live=not vfs.fixed)
    return await open_drive(store, key=key, version=options.version)


async def _open_content(drive: Drive) -> None:
    """Open the feed of all bytes as soon as it is known, not with the first file: then there may be no engine."""
    try:
        await drive.content()
    except (DriveError, OSError) as problem:  # whoever opens a file hears of it
        log.info("content is not open: why=%s", problem)


def _log_to(options: WorkerOptions) -> None:
    if options.log is not None and not options.foreground:
        descriptor = open_log(Path(options.log))
        os.dup2(descriptor, sys.stderr.fileno())
        os.close(descriptor)
    configure()


def _say(value: dict[str, Any]) -> None:
    """Tell the engine, unless it has gone meanwhile: then the next one finds out by itself."""
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
