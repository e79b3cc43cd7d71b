"""The mount workers of an engine: started, watched, restarted, and found again by the next engine.

A worker outlives its engine and serves what is held meanwhile. The next engine knows it by pid, start time and command
line, and watches it through a pidfd like its own children. The engine of a copy of the state directory, which has the
same table of mounts, leaves it alone. A worker that leaves a dead mount behind, or ends with an
error, is replaced; one that ends with its mount gone was unmounted by somebody.
"""

import json
import logging
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from ddrive.errors import DriveError, MountFailed
from ddrive.ids import short
from ddrive.store.rpc import NOTICE, Failure, exception
from mountd.children import COMMAND, Child, Spares, start_worker
from mountd.config import Config
from mountd.connections import way_to_abort, write_control
from mountd.logs import last_line, open_log
from mountd.mountinfo import mounted_at
from mountd.mounts import Mount, MountTable, owner_of
from mountd.processes import is_defunct, is_worker, start_time, writers_of
from mountd.unmounting import Busy, detach_dead, holders, unmount

START_LIMIT_S = 20.0  # a worker's own limit for the first stat is 10 s
END_LIMIT_S = 3.0  # for a worker whose mount has ended, then it is told; as long again, then it is killed
STEADY_S = 1.0  # a worker that has served for so long was no failed start
TRIES = 5  # starts that fail one after the other, then the mount is left dead
PAUSES_S = (0.0, 0.0, 0.5, 1.0, 2.0)  # before each of them
LOOK_S = 1.0  # between looks whether a killed worker cannot go
SETTLE_S = 1.0  # a worker may be told to end just before its engine is: wait before calling that an unmount

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Worker:
    """One running worker process."""

    mount: Mount
    pid: int
    pidfd: int
    child: Child | None  # None: that of an earlier engine
    abort: int | None = None  # descriptor of what ends its mount, once that answers
    is_stopping: bool = False
    ended: trio.Event = field(default_factory=trio.Event)

    def signal(self, number: int) -> None:
        """Send a signal, if it is still alive."""
        if not self.ended.is_set():
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return

    def hold_connection(self) -> None:
        """Take hold of what ends its mount, now that this answers."""
        if not self.ended.is_set():
            self.abort = way_to_abort(self.mount.mountpoint)


class WorkerPool:
    """The workers of all mounts in `table`. Its tasks run in `nursery`."""

    def __init__(
        self,
        config: Config,
        table: MountTable,
        nursery: trio.Nursery,
        *,
        command: tuple[str, ...] = COMMAND,
        spares: Spares | None = None,
        on_unmounted: Callable[[Mount], None] = lambda mount: None,
    ) -> None:
        self._config = config
        self._table = table
        self._nursery = nursery
        self._command = command
        self._spares = spares or Spares()
        self._on_unmounted = on_unmounted
        self._workers: dict[str, Worker] = {}
        self._restarts: dict[str, list[float]] = {}  # when each last start was tried, or had worked
        self._are_ending = False  # all of them: none is started any more
        self._owner = owner_of(config.state)

    def running(self, mountpoint: str) -> bool:
        """Tell whether a worker serves this place."""
        return mountpoint in self._workers

    def is_own(self, mount: Mount) -> bool:
        """Tell whether the worker that `mount` names was started for this state directory, not for its original."""
        return mount.owner == self._owner

    async def start(self, mount: Mount, *, keeps_dead: bool = False) -> None:
        """Start the worker of `mount` and return when the mountpoint answers.

        `keeps_dead`: when that fails, a dead mount stays, so that nobody writes into the directory below.
        Raises: MountFailed, or what else kept the worker from mounting.
        """
        mount.state = "starting"
        worker = await self._spawn(mount)
        if self._are_ending:  # nobody will look after it
            self._discard(worker)
            raise MountFailed(f"{mount.mountpoint}: the engine is ending: try again")
        self._nursery.start_soon(self._watch, worker)
        try:
            with trio.move_on_after(START_LIMIT_S) as limit:
                await self._ready(worker)
            if limit.cancelled_caught:
                raise MountFailed(f"{mount.mountpoint} did not answer within {START_LIMIT_S:g} s: try again")
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._end(worker, keeps_dead=keeps_dead)
            raise
        worker.hold_connection()
        mount.state = "ok"
        self._table.note_workers()

    async def adopt(self, mount: Mount) -> bool:
        """Watch the worker that an earlier engine started for `mount`, if it lives and serves; tell whether it does."""
        worker = self._find(mount)
        if worker is None:
            return False
        self._workers[mount.mountpoint] = worker
        worker.hold_connection()
        self._nursery.start_soon(self._watch, worker)
        if mounted_at(mount.mountpoint) is None or mount.served_as not in (None, mount.dialect and mount.dialect.name):
            await self._end(worker, keeps_dead=True)
            return False
        mount.state = "ok"
        _log.info("worker found mountpoint=%s pid=%d", mount.mountpoint, worker.pid)
        return True

    async def stop(self, mount: Mount, *, force: bool) -> None:
        """End the mount and its worker, in bounded time and without asking the network.

        Without a worker of ours, what lives at the place is another engine's, and stays.
        Raises: Busy, naming who uses it, unless `force`.
        """
        worker = self._workers.get(mount.mountpoint)
        if worker is None:
            await detach_dead(mount.mountpoint)
            return
        worker.is_stopping = True
        try:
            await unmount(mount.mountpoint)
        except Busy as error:
            if not force:
                worker.is_stopping = False
                with trio.move_on_after(END_LIMIT_S):
                    if names := await holders(mount.mountpoint):
                        raise Busy(
                            f"{error} ({', '.join(names)}): close it there, or use ddrive unmount --force"
                        ) from None
                raise Busy(f"{error}: close what uses it, or use ddrive unmount --force") from None
            await unmount(mount.mountpoint, detach=True)
            worker.signal(signal.SIGTERM)
        await self._end(worker)

    async def stop_all(self) -> None:
        """End all mounts and let none begin; they stay in the table, for the next engine."""
        self._are_ending = True
        async with trio.open_nursery() as nursery:
            for worker in list(self._workers.values()):
                nursery.start_soon(self._stop_quietly, worker)
            for mount in self._table:
                if not self.running(mount.mountpoint):
                    nursery.start_soon(_take_off, mount.mountpoint)
        for mount in self._table:
            mount.pid = mount.started = None
        self._table.note_workers()

    async def _stop_quietly(self, worker: Worker) -> None:
        try:
            await self.stop(worker.mount, force=True)
        except DriveError as error:
            _log.warning("mount not ended mountpoint=%s error=%s", worker.mount.mountpoint, error)
            await self._end(worker)

    async def _end(self, worker: Worker, *, keeps_dead: bool = False) -> None:
        """Return when the process has ended and its mount is gone, or dead."""
        worker.is_stopping = True
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                worker.signal(number)
            with trio.move_on_after(END_LIMIT_S if mounted_at(worker.mount.mountpoint) is None else 0.1):
                await worker.ended.wait()
                break
        if not keeps_dead:
            await _take_off(worker.mount.mountpoint)

    # Starting

    async def _spawn(self, mount: Mount) -> Worker:
        child = self._spares.take(mount.mountpoint) or await self._child(mount)
        worker = Worker(mount, child.process.pid, os.pidfd_open(child.process.pid), child)
        self._workers[mount.mountpoint] = worker
        mount.pid, mount.started = worker.pid, start_time(worker.pid)
        mount.served_as = mount.dialect.name if mount.dialect else None
        mount.owner = self._owner
        self._table.note_workers()
        return worker

    async def _child(self, mount: Mount) -> Child:
        log = open_log(self._log_path(mount))
        try:
            return await trio.to_thread.run_sync(start_worker, self._command, mount.mountpoint, log)
        finally:
            os.close(log)

    def _discard(self, worker: Worker) -> None:
        """End a worker that has not been told what to mount, and is not watched."""
        assert worker.child is not None
        del self._workers[worker.mount.mountpoint]
        worker.child.drop()
        os.close(worker.pidfd)

    async def _ready(self, worker: Worker) -> None:
        child = worker.child
        assert child is not None
        line = b""
        with suppress(trio.BrokenResourceError):
            async with trio.lowlevel.FdStream(child.hear) as hear:
                async with trio.lowlevel.FdStream(child.tell) as tell:
                    options = self._options(worker.mount, has_log=child.has_log)
                    await tell.send_all(json.dumps(options).encode() + b"\n")
                while b"\n" not in line and (chunk := await hear.receive_some()):
                    line += chunk
        answer = _parsed(line)
        if "error" in answer:
            error = answer["error"]
            raise exception(Failure(NOTICE, str(error.get("code")), str(error.get("message"))))
        if not answer.get("ready"):
            why = last_line(self._log_path(worker.mount)) or "it left no message"
            raise MountFailed(f"{worker.mount.mountpoint}: the mount process ended: {why}")

    def _options(self, mount: Mount, *, has_log: bool) -> dict[str, Any]:
        options = mount.options
        return {
            "state": str(self._config.state),
            "socket": str(self._config.socket),
            "key": mount.key.hex(),
            "dialect": mount.served_as,
            "version": mount.version,
            "mountpoint": mount.mountpoint,
            "others": [other.mountpoint for other in self._table.of(mount.key) if other is not mount],
            "read_only": options.read_only or not mount.writable,
            "allow_other": options.allow_other,
            "timeout_s": self._config.timeout_s if options.timeout_s is None else options.timeout_s,
            "log": None if has_log else str(self._log_path(mount)),  # None: stderr, which is the log file
            "foreground": False,
        }

    def _log_path(self, mount: Mount) -> Path:
        name = mount.mountpoint.strip("/").replace("/", "-")[-80:] or "root"
        return self._config.log_directory / f"mount-{name}.log"

    def _find(self, mount: Mount) -> Worker | None:
        """Return the worker of `mount` that an earlier engine started.

        The table says which it is, unless there was no room on the disk to write it; then it is the one with our log.
        """
        pid = mount.pid if self.is_own(mount) else None
        if pid is None or mount.started is None or mount.started != start_time(pid):
            pid = next(writers_of(self._log_path(mount)), None)
        if pid is None:
            return None
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None
        if not is_worker(pid, mount.mountpoint) or select.select([pidfd], [], [], 0)[0]:
            os.close(pidfd)  # it has ended, with all its threads, and nobody has asked for its exit status yet
            return None
        mount.pid, mount.started, mount.owner = pid, start_time(pid), self._owner
        return Worker(mount, pid, pidfd, None)

    # Watching

    async def _watch(self, worker: Worker) -> None:
        """Wait for the end of a worker, then do what has to be done about it."""
        try:
            await _gone(worker)
        finally:
            trio.lowlevel.notify_closing(worker.pidfd)
        status = worker.child.process.wait() if worker.child else None
        os.close(worker.pidfd)
        if worker.abort is not None:
            os.close(worker.abort)
        worker.ended.set()
        mount = worker.mount
        if self._workers.get(mount.mountpoint) is worker:
            del self._workers[mount.mountpoint]
        _log.info("worker ended mountpoint=%s pid=%d status=%s", mount.mountpoint, worker.pid, status)
        if worker.is_stopping or mount.state == "starting":
            return
        if mounted_at(mount.mountpoint) is None and not status:
            await trio.sleep(SETTLE_S)
            if self._table.get(mount.mountpoint) is mount and not self.running(mount.mountpoint):
                _log.info("unmounted from outside mountpoint=%s", mount.mountpoint)
                self._on_unmounted(mount)
            return
        await self._restart(mount, is_killed=status == -signal.SIGKILL)

    async def _restart(self, mount: Mount, *, is_killed: bool) -> None:
        """Start the worker of a mount again, unless that fails too often. Who was killed from outside did not fail."""
        times = self._restarts.setdefault(mount.mountpoint, [])
        if times and (is_killed or trio.current_time() - times[-1] > STEADY_S):
            times.clear()
        while self._table.get(mount.mountpoint) is mount and not self.running(mount.mountpoint):
            if len(times) == TRIES:
                _log.error("mount left dead mountpoint=%s log=%s", mount.mountpoint, self._log_path(mount))
                mount.state = "dead"
                return
            mount.state = "starting"
            await trio.sleep(PAUSES_S[len(times)])
            times.append(trio.current_time())
            _log.warning("worker restarts mountpoint=%s drive=%s", mount.mountpoint, short(mount.key))
            try:
                await self.start(mount, keeps_dead=True)
                times[-1] = trio.current_time()
                return
            except (DriveError, OSError) as error:
                _log.error("worker does not start mountpoint=%s error=%s", mount.mountpoint, error)


async def _take_off(mountpoint: str) -> None:
    """Take dead mounts off, if that can be done."""
    try:
        await detach_dead(mountpoint)
    except DriveError as error:
        _log.warning("dead mount stays mountpoint=%s error=%s", mountpoint, error)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def _gone(worker: Worker) -> None:
    """Return when all threads of a worker have ended.

    One that tells the kernel to forget a name waits until a program has done with that directory, even if killed; and
    the program may wait for an answer of the worker, whose mount the kernel ends with its last thread. So we end it.
    """
    while True:
        with trio.move_on_after(LOOK_S):
            await trio.lowlevel.wait_readable(worker.pidfd)
            return
        if worker.abort is not None and is_defunct(worker.pid):
            _log.warning("killed worker cannot go: mountpoint=%s pid=%d", worker.mount.mountpoint, worker.pid)
            with suppress(OSError):
                write_control(worker.abort, 1)
