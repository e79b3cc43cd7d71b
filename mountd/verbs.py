"""The methods of the control socket that are no feed methods: parameters in, the command line's JSON shapes out."""

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from ddrive.dialect import DWEB
from ddrive.drive.address import parse_key
from ddrive.errors import NotFound
from ddrive.ids import PublicKey, short
from ddrive.protocol.link import Link
from ddrive.replication.peer import PeerStats
from ddrive.replication.session import FeedSession
from ddrive.store.store import OwnedStore
from ddrive.version import VERSION
from mountd.collection import Collection, dialect_named
from mountd.config import Config, given_options
from mountd.control import Params, Tell, Verb
from mountd.describing import Describer
from mountd.drives import KnownDrive
from mountd.finding import Finder
from mountd.left import left_changes
from mountd.mountpoints import Mountpoints, wanted_mount
from mountd.mounts import Mount
from mountd.peers import Peers
from mountd.space import Space
from mountd.writing import SPOOLS

OPENING_S = 0.3  # is enough to read the first block of a drive that is held here
SILENT_S = 10.0  # somebody who waits longer is told why
MOUNT_WAIT_S = 10.0  # a mount waits so long for the first block of a drive, or a version, never seen before


class Verbs:
    """What an engine can be asked to do."""

    def __init__(
        self,
        config: Config,
        stores: Mapping[str, OwnedStore],
        collection: Collection,
        mountpoints: Mountpoints,
        peers: Peers,
        finder: Finder,
        space: Space,
        stop: Callable[[], Awaitable[list[dict[str, Any]]]],
    ) -> None:
        self._config = config
        self._stores = stores
        self._collection = collection
        self._describer = Describer(collection)
        self._mountpoints = mountpoints
        self._peers = peers
        self._finder = finder
        self._space = space
        self._stop = stop
        self._started = trio.current_time()
        self._new: Counter[PublicKey] = Counter()  # drives that were not known before, by how many verbs try them

    def table(self) -> dict[str, Verb]:
        """Return the methods by name."""
        return {
            "status": self.status,
            "stop": self.stop,
            "list": self.list_drives,
            "create": self.create,
            "drive.open": self.open_drive,
            "drive.why": self.why,
            "mount": self.mount,
            "unmount": self.unmount,
            "info": self.info,
            "stats": self.stats,
            "seed": self.seed,
            "unseed": self.unseed,
            "peer.add": self.add_peer,
            "peer.rm": self.remove_peer,
            "peer.ls": self.list_peers,
        }

    async def status(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Describe the engine."""
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "state": str(self._config.state),
            "listen": self._peers.listening,
            "uptime_s": round(trio.current_time() - self._started, 3),
            "drives": len(self._collection.table),
            "mounts": [await self._shown(mount) for mount in self._mountpoints.table],
            "peers": self._peers.connected,
            "peer_key": self._peers.own_key.hex(),
            "discovery": self._finder.report(),
            "space": self._space.report(),
            "options": {name.removeprefix("DDRIVE_").lower(): text for name, text in given_options(os.environ).items()},
        }

    async def stop(self, params: Params, tell: Tell) -> dict[str, Any]:
        """End the engine; the answer comes when its mounts have ended, and tells what these could not store."""
        return {"left": await self._stop()}

    # Drives

    async def list_drives(self, params: Params, tell: Tell) -> list[dict[str, Any]]:
        """Describe all known drives."""
        return [await self._describer.line(known) for known in self._collection.table]

    async def create(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Make a new drive of our own."""
        dialect = dialect_named(params.get("dialect")) or DWEB
        known = await self._collection.create(params.get("name"), dialect, private=bool(params.get("private")))
        return {"key": known.key.hex(), "url": known.url} | await self._opened(known)

    async def open_drive(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Make a drive known, dial its peers, and find out its dialect: for that the call may wait `wait_s`.

        Raises: NoPeers when nobody told the dialect in time; the drive is forgotten again if it was new.
        """
        async with self._tried(_key(params), params) as known:
            if known.dialect is None:
                wait_s = params.get("wait_s")
                if not await self._wait_found(known, self._config.timeout_s if wait_s is None else wait_s, tell):
                    raise self._collection.no_peers(known, self._why(known))
        return {"key": known.key.hex(), "url": known.url} | await self._opened(known)

    async def info(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Describe one drive, given by key or by a path in a mount."""
        known = self._find(params)
        mounts = [mount.mountpoint for mount in self._mountpoints.table.of(known.key)]
        value = await self._describer.info(known) | {"mounts": mounts, "private": known.private}
        value["discovery"] = self._finder.about(self._collection.topics_of(known))
        value["why"] = None if value["peers"] else self._why(known)
        return value

    async def why(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Tell how many peers have a drive, and if none, or if nothing of theirs can be taken, why that may be."""
        known = self._find(params)
        async with self._collection.feeds(known) as found:
            peers = found[0].session(found[1][0]).peer_count if found else 0
        if not self._space.report()["free"]:
            return {"peers": peers, "why": f"the disk is full: free some space in {self._config.state}"}
        return {"peers": peers, "why": None if peers else self._why(known)}

    async def seed(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Serve a drive from now on."""
        known = await self._known(_key(params), params)
        await self._collection.set_seeding(known, True)
        return {"key": known.key.hex(), "seeding": True}

    async def unseed(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Serve a drive no longer."""
        known = self._find(params)
        await self._collection.set_seeding(known, False)
        return {"key": known.key.hex(), "seeding": False}

    async def stats(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Count what was exchanged since the engine started: for one drive, or for all."""
        if params.get("key") is None and params.get("path") is None:
            sessions = [store.session(feed) for store in self._stores.values() for feed in store.feeds()]
            return _counted(sessions)
        async with self._collection.feeds(self._find(params)) as found:
            return _counted([found[0].session(feed) for feed in found[1]] if found else [])

    # Mounts

    async def mount(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Mount a drive; one that was never seen is waited for, but mounted all the same unless a peer is required."""
        options = dict(params.get("options") or {})
        place, mount_options = wanted_mount(str(params["mountpoint"]), options)
        key = _key(params)
        cover = bool(options.get("nonempty"))
        await self._mountpoints.check(place, key, cover=cover)
        async with self._tried(key, params) as known:
            patient_s = min(MOUNT_WAIT_S, mount_options.timeout_s or MOUNT_WAIT_S)
            wait_s = patient_s if params.get("wait_s") is None else float(params["wait_s"])
            if not await self._collection.wait_found(known, OPENING_S):
                tell(f"waiting for a peer that has drive {short(key)}")
                if not await self._collection.wait_found(known, wait_s):
                    if options.get("require_peer"):
                        raise self._collection.no_peers(known, self._why(known))
                    tell(f"nobody has it yet ({self._why(known)}): the mount fills in as soon as somebody does")
            number = params.get("version")
            if number is not None:
                await self._collection.require_version(known, int(number), patient_s, tell)
            mount = await self._mountpoints.mount(
                Mount(
                    place,
                    key,
                    known.dialect,
                    version=None if number is None else int(number),
                    options=mount_options,
                    writable=known.writable and number is None and not mount_options.read_only,
                ),
                cover=cover,
            )
        return await self._shown(mount)

    async def unmount(self, params: Params, tell: Tell) -> dict[str, Any]:
        """End a mount; the answer tells what it could not store."""
        place = str(params["mountpoint"])
        key = await self._mountpoints.unmount(place, force=bool(params.get("force")))
        known = None if key is None else self._collection.table.get(key)
        if known and not (known.dialect or known.seeding is not None or self._mountpoints.table.of(known.key)):
            await self._collection.give_up(known)  # nobody ever had it: its key may have been mistyped
        left = [] if key is None else await trio.to_thread.run_sync(left_changes, self._config.state / SPOOLS, key)
        return {"mountpoint": place, "left": left}

    # Peers

    async def add_peer(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Know a peer for all drives."""
        return {"address": self._peers.add(str(params["address"]))}

    async def remove_peer(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Forget a peer."""
        return {"address": self._peers.remove(str(params["address"]))}

    async def list_peers(self, params: Params, tell: Tell) -> list[dict[str, Any]]:
        """Describe all peers."""
        return self._peers.listing()

    # Inside

    async def _wait_found(self, known: KnownDrive, wait_s: float, tell: Tell) -> bool:
        """Return whether somebody has a drive, after waiting up to `wait_s`; say meanwhile why that takes long."""
        patient_s = min(wait_s, SILENT_S)
        if await self._collection.wait_found(known, patient_s):
            return True
        if wait_s > patient_s:
            tell(f"still looking for drive {short(known.key)} ({self._why(known)})")
        return await self._collection.wait_found(known, wait_s - patient_s)

    def _why(self, known: KnownDrive) -> str:
        return self._finder.why(self._collection.topics_of(known))

    @asynccontextmanager
    async def _tried(self, key: PublicKey, params: Params) -> AsyncIterator[KnownDrive]:
        """Make a drive known and dial its peers. One that was new is forgotten after the block if nobody had it.

        Unless it is mounted by then, as the mount fills in when somebody comes, or another verb still tries it.
        """
        if self._collection.table.get(key) is not None and key not in self._new:
            yield await self._known(key, params)
            return
        self._new[key] += 1
        try:
            yield await self._known(key, params)
        finally:
            self._new[key] -= 1
            if not self._new[key]:
                del self._new[key]
                known = self._collection.table.get(key)
                if known is not None and known.dialect is None and not self._mountpoints.table.of(key):
                    with trio.CancelScope(shield=True):
                        await self._collection.give_up(known)

    async def _known(self, key: PublicKey, params: Params) -> KnownDrive:
        private = bool(params.get("private"))
        known = await self._collection.look_up(key, dialect_named(params.get("dialect")), private=private)
        self._peers.add_for(key, params.get("peers") or [])
        return known

    def _find(self, params: Params) -> KnownDrive:
        path = params.get("path")
        if path is None:
            return self._collection.table.find(_key(params))
        mount = self._mountpoints.table.get(path) or self._mountpoints.table.above(path)
        if mount is None:
            raise NotFound(f"{path} is in no mount of this engine: ddrive status shows the mounts")
        return self._collection.table.find(mount.key)

    async def _opened(self, known: KnownDrive) -> dict[str, Any]:
        return {
            "dialect": known.dialect.name if known.dialect else None,
            "version": await self._collection.version(known),
            "writable": known.writable,
        }

    async def _shown(self, mount: Mount) -> dict[str, Any]:
        newest = self._collection.table.get(mount.key)
        number = mount.version
        if number is None and newest is not None:
            number = await self._collection.version(newest)
        return {
            "mountpoint": mount.mountpoint,
            "key": mount.key.hex(),
            "url": mount.url,
            "version": number,
            "pinned": mount.version is not None,
            "writable": mount.writable,
            "state": mount.state,
            "pid": mount.pid,
        }


def _key(params: Params) -> PublicKey:
    return parse_key(str(params["key"])).key


def _counted(sessions: list[FeedSession]) -> dict[str, Any]:
    """Return the sums of what the exchanges counted, in all and per peer."""
    peers: dict[Link, list[PeerStats]] = {}
    for session in sessions:
        for link, stats in session.peer_stats().items():
            peers.setdefault(link, []).append(stats)
    totals = [session.stats for session in sessions]
    return {
        **_exchanged(totals),
        "cache": {
            "hits": sum(stats.cache_hits for stats in totals),
            "misses": sum(stats.cache_misses for stats in totals),
        },
        "timeouts": sum(stats.timeouts for stats in totals),
        "verify_failures": sum(stats.verify_failures for stats in totals),
        "peers": [
            {"key": link.remote_public_key.hex(), "address": link.address, **_exchanged(stats)}
            for link, stats in peers.items()
        ],
    }


def _exchanged(stats: Sequence[PeerStats]) -> dict[str, dict[str, int]]:
    return {
        "uploaded": {
            "bytes": sum(item.uploaded_bytes for item in stats),
            "blocks": sum(item.uploaded_blocks for item in stats),
        },
        "downloaded": {
            "bytes": sum(item.downloaded_bytes for item in stats),
            "blocks": sum(item.downloaded_blocks for item in stats),
        },
    }
