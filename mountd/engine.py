"""The engine: the one owner of a state directory. It holds the stores, the links to peers, the mounts and the socket.

`run_engine` is its whole life. What it owns ends in the reverse order: mounts first, while their workers can still ask
it for something, then the socket, the drives, the links, the stores; in 10 s at the most. When it is killed, the
workers go on without it, and the next engine finds them.
"""

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, NoReturn

import trio

import mountd
from ddrive.dialect import DIALECTS
from ddrive.drive.helping import help_peers
from ddrive.errors import DriveError
from ddrive.ids import DiscoveryKey
from ddrive.protocol.sharing import Bucket, Share, Slots
from ddrive.store.linked import Replicator
from ddrive.store.store import OwnedStore, open_store
from ddrive.swarm import Swarm, open_swarm
from mountd import owning
from mountd.adopting import Adopting
from mountd.children import Spares
from mountd.collection import Collection
from mountd.config import Config, given_options, load_config
from mountd.control import Control, Params, Tell, Verb
from mountd.databases import Databases
from mountd.drives import DriveTable, KnownDrive
from mountd.errnos import to_exit_code, told
from mountd.files import load_json, remember_json
from mountd.finding import Finder, open_finder
from mountd.identity import Identity
from mountd.interpreter import tune
from mountd.keeping import Keeping
from mountd.keys import Keys
from mountd.keys_guard import Guard
from mountd.lacking import Lacking
from mountd.left import left_changes
from mountd.logs import configure
from mountd.lonely import Lonely
from mountd.mountpoints import Mountpoints
from mountd.mounts import MountTable
from mountd.peers import Peers
from mountd.reserve import Reserve
from mountd.space import Space
from mountd.upkeep import Upkeep
from mountd.verbs import Verbs
from mountd.workers import WorkerPool
from mountd.writing import SPOOLS

MOUNTS_END_S = 7.0  # for all mounts together, when the engine ends; then their workers are left behind
RESTORE_LIMIT_S = 10.0  # for the mounts of the last run, when the engine starts
ALL_ADDRESSES = "0.0.0.0"

_log = logging.getLogger(__name__)


async def run_engine(config: Config, spares: Spares) -> None:
    """Be the engine of `config.state` until SIGTERM, SIGINT or the verb `stop`; `spares` wait for its mounts.

    Raises: StorageLocked when there is one already; StorageError, DriveError when it cannot start.
    """
    owning.prepare(config.state)
    descriptor = await owning.lock(config)
    try:
        async with AsyncExitStack() as stack:
            stores = {
                name: await stack.enter_async_context(open_store(config.state / name, dialect))
                for name, dialect in DIALECTS.items()
            }
            await _serve(config, stores, spares)
    finally:
        os.close(descriptor)
    _log.info("engine ended state=%s", config.state)


async def _serve(config: Config, stores: dict[str, OwnedStore], spares: Spares) -> None:
    drives = DriveTable(config.state / "drives.json")
    mounts = MountTable(config.state / "mounts.json")
    failure: Exception | None = None  # raised below, as it is: not in a group of the nursery
    async with trio.open_nursery() as nursery:
        engine = Engine(config, stores, drives, mounts, nursery, spares)
        try:
            async with _swarm(config, engine.replicator) as swarm, open_finder(config, swarm) as finder:
                remember_json(config.options_file, given_options(os.environ))
                if config.metrics_addr is not None:
                    metrics = mountd.metrics.Metrics(swarm, finder, stores, mounts, engine.space.report)
                    nursery.start_soon(metrics.serve, await metrics.listen(config.metrics_addr))
                peers = Peers(config.state / "peers.json", swarm, engine.replicator, drives)
                await engine.run(peers, finder)
        except (DriveError, OSError) as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class Engine:
    """The parts of a running engine, and its end."""

    def __init__(
        self,
        config: Config,
        stores: dict[str, OwnedStore],
        drives: DriveTable,
        mounts: MountTable,
        nursery: trio.Nursery,
        spares: Spares,
    ) -> None:
        self._config = config
        self._spares = spares
        self._stores = stores
        self._nursery = nursery
        self._stopping = trio.Event()
        self._restored = trio.Event()  # the mounts of the last run are back, or are not waited for any more
        self._mounts_ended = trio.Event()
        self._left: list[dict[str, Any]] = []  # what they could not store
        self._changed: Callable[[], None] = lambda: None  # what is to be looked for among peers
        self.replicator = Replicator(
            list(stores.values()), serves=self._serves, gives=lambda topic: self._collection.gives(topic)
        )
        self._collection = Collection(
            drives,
            stores,
            nursery,
            is_mounted=lambda key: bool(mounts.of(key)),
            reconsider=self.replicator.reconsider,
            on_found=self._found,
            on_change=lambda: self._changed(),
            kind_of=lambda key: self._databases.kind_of(key),
        )
        self._databases = Databases(
            config.state / "databases.json", stores, nursery, self.replicator.reconsider, self._collection.disown
        )
        self.space = Space(
            config.state,
            stores,
            self._databases.feeds,
            cache_size=config.cache_size,
            min_free=config.min_free_space,
        )
        self._guard = Guard(list(stores.values()))
        for store in stores.values():
            help_peers(store)
        self._workers = WorkerPool(
            config, mounts, nursery, spares=spares, on_unmounted=lambda mount: self._mountpoints.forget(mount)
        )
        self._mountpoints = Mountpoints(mounts, self._workers)

    async def run(self, peers: Peers, finder: Finder) -> None:
        """Do the work of an engine until it is told to stop, then end the mounts and the socket."""
        verbs = Verbs(
            self._config, self._stores, self._collection, self._mountpoints, peers, finder, self.space, self._stop
        )
        upkeep = Upkeep(self._collection, self._stores, self.space)
        reserve = Reserve(self._config.state / "reserve")
        await trio.to_thread.run_sync(reserve.keep)
        keeping = Keeping(self._collection, self._stores, self._mountpoints.table, self._databases, self.space, reserve)
        keys = Keys(self._collection, self._databases, self._stores, peers.add_for)
        adopting = Adopting(self._collection, self._stores, self.space, self._config.state)
        lacking = Lacking(self._databases, finder)
        answering = (verbs, upkeep, keeping, keys, adopting, self._databases, lacking)
        table = {name: verb for part in answering for name, verb in part.table().items()}
        held = {name: verb if name == "stop" else self._later(verb) for name, verb in table.items()}
        control = Control(self._config.socket, self._stores, held, self._guard.settled)
        await self._nursery.start(control.serve)
        self._nursery.start_soon(self._stop_on_signal)
        self._nursery.start_soon(self.space.run)
        self._nursery.start_soon(self._guard.run)
        self._collection.start()
        self._databases.start(peers.add)
        self._changed = finder.changed
        lonely = Lonely(self._stores, self._collection.may_ask)
        parts = (lonely, self._databases, self._collection)  # the last one has the last word
        self._nursery.start_soon(finder.follow, lambda: {k: v for part in parts for k, v in part.topics().items()})
        self._nursery.start_soon(self._restore_all)
        with trio.move_on_after(RESTORE_LIMIT_S):
            await self._restored.wait()
        self._restored.set()
        _log.info("engine ready pid=%d state=%s listen=%s", os.getpid(), self._config.state, ",".join(peers.listening))
        owning.notify("READY=1")
        await self._stopping.wait()
        owning.notify("STOPPING=1")
        control.close_door()
        with trio.move_on_after(MOUNTS_END_S) as limit:
            await self._workers.stop_all()
        if limit.cancelled_caught:
            _log.error("mounts did not end in time")
        try:
            self._left = await trio.to_thread.run_sync(left_changes, self._config.state / SPOOLS)
        except OSError as error:
            _log.error("what waits for the next mount cannot be seen error=%s", error)
        for left in self._left:
            _log.warning("changes wait for the next mount drive=%s changes=%d", left["key"][:8], left["changes"])
        self._mounts_ended.set()
        await control.flush()

    def _serves(self, topic: DiscoveryKey) -> bool:
        """Tell whether peers may exchange the feed with this discovery key."""
        return self._collection.serves(topic) and self._databases.serves(topic)

    async def _stop(self) -> list[dict[str, Any]]:
        """Begin the end, and return when the mounts have ended, with what these could not store.

        Who asks for that has done with the options of this engine, too.
        """
        self._config.options_file.unlink(missing_ok=True)
        self._begin_end()
        await self._mounts_ended.wait()
        return self._left

    def _begin_end(self) -> None:
        self._stopping.set()
        self._restored.set()

    async def _stop_on_signal(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                _log.info("engine stops signal=%s", signal.Signals(number).name)
                self._begin_end()

    def _later(self, verb: Verb) -> Verb:
        """Return `verb` as it waits for the mounts of the last run: whoever gets an answer can look into them."""

        async def run(params: Params, tell: Tell) -> Any:
            await self._restored.wait()
            return await verb(params, tell)

        return run

    async def _restore_all(self) -> None:
        """Bring the mounts of the last run back and keep their drives open; verbs wait for that, but not for long."""
        async with trio.open_nursery() as nursery:
            for mount in self._mountpoints.table:
                known = self._collection.table.get(mount.key)
                if known is not None and known.dialect is not None:
                    mount.dialect = known.dialect
                await self._collection.look_up(mount.key, mount.dialect)
                nursery.start_soon(self._mountpoints.restore, mount)
        self._spares.close()
        self._restored.set()

    def _found(self, known: KnownDrive) -> None:
        """Take note of the dialect of a mounted drive; the workers of its mounts have waited for it too."""
        for mount in self._mountpoints.table.of(known.key):
            if mount.dialect is None:
                mount.dialect = known.dialect
                self._mountpoints.table.save()


@asynccontextmanager
async def _swarm(config: Config, replicator: Replicator) -> AsyncIterator[Swarm]:
    """Listen where we are told to; else at the port of the last run, or at a new one when that is taken."""
    remembered = config.state / "listen.json"
    port = load_json(remembered, {}).get("port", 0)
    choices = [config.listen] if config.listen else [f"{ALL_ADDRESSES}:{port}", f"{ALL_ADDRESSES}:0"]
    identity = Identity(config.state)
    share = Share(_bucket(config.up_limit), _bucket(config.down_limit), Slots(config.upload_slots))
    async with AsyncExitStack() as stack:
        for number, choice in enumerate(choices):
            try:
                opening = open_swarm(
                    replicator,
                    listen=choice,
                    ipv6_too=not config.listen,
                    static_secret=identity.secret,
                    admits=lambda key: not config.allowed_peers or key in config.allowed_peers,
                    share=share,
                    copy_met=lambda we_dialled: identity.met(we_dialled=we_dialled),
                )
                swarm = await stack.enter_async_context(opening)
                break
            except (OSError, ValueError) as error:
                if number == len(choices) - 1:
                    raise DriveError(f"cannot listen on {choice} ({error}): use ddrive daemon --listen") from error
        remember_json(remembered, {"port": int(swarm.listen_addresses[0].rpartition(":")[2])})
        yield swarm


def _bucket(rate: int | None) -> Bucket | None:
    return None if rate is None else Bucket(rate)


def run(state: str, spares: Spares) -> NoReturn:
    """Be an engine, which may use `spares`, until its end, and end the process; its log goes to stderr."""
    code = _run(state, spares)
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)  # nothing is left to be kept, and threads of libraries may take long to end


def _run(state: str, spares: Spares) -> int:
    """Return the exit code."""
    try:
        config = load_config({"state": state})
        configure(config.log_level)
        tune(lists=False)
        trio.run(run_engine, config, spares)
    except (DriveError, OSError) as error:
        with suppress(OSError):  # the log may lie on a full disk
            sys.stderr.write(f"ddrive: {told(error, state) if isinstance(error, OSError) else error}\n")
            sys.stderr.flush()
        return to_exit_code(error)
    return 0


if __name__ == "__main__":  # so a program starts us that was loaded before an update
    os.execv(sys.executable, [sys.executable, "-P", "-m", "mountd.engine_start", *sys.argv[1:]])
