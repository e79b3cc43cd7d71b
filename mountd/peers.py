"""The addresses of peers that people gave, kept in `peers.json`, and what is known about who is there."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ddrive.errors import DriveError, NotFound, StorageError
from ddrive.ids import PublicKey
from ddrive.protocol.link import Link
from ddrive.store.linked import Replicator
from ddrive.swarm import Address, Swarm
from mountd.drives import DriveTable, KnownDrive
from mountd.files import load_json, save_json


class Peers:
    """The peers of an engine: those given for all drives, and those remembered with a drive."""

    def __init__(self, path: Path, swarm: Swarm, replicator: Replicator, drives: DriveTable) -> None:
        self._path = path
        self._swarm = swarm
        self._replicator = replicator
        self._drives = drives
        self._given: list[str] = load_json(path, [])
        try:
            for address in {*self._given, *(address for drive in drives for address in drive.peers)}:
                swarm.add_peer(address)
        except (AttributeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error}): move it away to start anew") from error

    @property
    def listening(self) -> list[str]:
        """The addresses on which peers are taken in."""
        return self._swarm.listen_addresses

    @property
    def own_key(self) -> bytes:
        """The key by which other peers know us."""
        return self._swarm.public_key

    @property
    def connected(self) -> int:
        """How many peers are connected."""
        return len(self._swarm.links)

    def add(self, address: str) -> str:
        """Dial an address now, keep a link to whoever is there, and remember it; return its usual form.

        Raises: DriveError when it is no address.
        """
        normal = _normal(address)
        self._swarm.add_peer(normal)
        if normal not in self._given:
            self._given.append(normal)
            save_json(self._path, self._given)
        return normal

    def add_for(self, key: PublicKey, addresses: Iterable[str]) -> None:
        """Dial addresses now and remember them with a drive."""
        known = self._drives.find(key)
        for normal in map(_normal, addresses):
            self._swarm.add_peer(normal)
            if normal not in known.peers:
                known.peers.append(normal)
                self._drives.save()

    def remove(self, address: str) -> str:
        """Forget an address, wherever it was given, and end the link to whoever is there. Raises: NotFound."""
        normal = _normal(address)
        users = [drive for drive in self._drives if normal in drive.peers]
        if normal not in self._given and not users:
            raise NotFound(f"{normal} is not a known peer: ddrive peer ls shows the known ones")
        self._swarm.remove_peer(normal)
        if normal in self._given:
            self._given.remove(normal)
            save_json(self._path, self._given)
        for drive in users:
            drive.peers.remove(normal)
        self._drives.save()
        return normal

    def listing(self) -> list[dict[str, Any]]:
        """Return all peers as `peer ls` shows them."""
        found = []
        for peer in self._swarm.peers():
            drives = self._shared(peer.link)
            found.append(
                {
                    "address": peer.address,
                    "key": peer.key.hex() if peer.key else None,
                    "connected": peer.connected,
                    "source": peer.source,
                    "dialects": sorted({drive.dialect.name for drive in drives if drive.dialect}),
                    "drives": [drive.key.hex() for drive in drives],
                    "last_error": peer.last_error,
                }
            )
        return found

    def _shared(self, link: Link | None) -> list[KnownDrive]:
        """Return the known drives that are exchanged on a link."""
        if link is None:
            return []
        keys = {session.feed.key for session in self._replicator.sessions(link) if link in session.links()}
        return [drive for drive in self._drives if drive.key in keys]


def _normal(address: str) -> str:
    try:
        return str(Address.parse(address))
    except ValueError as error:
        raise DriveError(str(error)) from error
