"""The addresses at which peers of a topic were reached, kept in `peers.sqlite`: the next engine dials them at once.

It only saves time: a damaged file is replaced by an empty one.
"""

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import trio

from ddrive.ids import DiscoveryKey
from ddrive.swarm import Address

MAX_PER_TOPIC: Final = 16
MAX_AGE_S: Final = 30 * 86400.0  # since somebody was reached there
AGAIN_S: Final = 3600.0  # somebody who stays is noted again after this long

_SCHEMA: Final = """
create table if not exists met (
    topic blob not null, host text not null, port integer not null, met real not null, primary key (topic, host, port)
) without rowid
"""

_log = logging.getLogger(__name__)


class Remembered:
    """Addresses by topic; `save` keeps what was noted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._met: dict[DiscoveryKey, dict[Address, float]] = {}  # seconds since 1970, the latest last
        self._changed: set[DiscoveryKey] = set()
        try:
            self._load()
        except sqlite3.DatabaseError as error:
            _log.warning("remembered peers lost path=%s reason=%s", path, error)
            path.unlink(missing_ok=True)
            self._load()

    def _load(self) -> None:
        self._path.touch(mode=0o600)  # whom we met is nobody's business; files that sqlite makes beside it are the same
        with closing(sqlite3.connect(self._path)) as database, database:
            database.execute(_SCHEMA)
            database.execute("delete from met where met < ?", (time.time() - MAX_AGE_S,))
            for topic, host, port, met in database.execute("select topic, host, port, met from met order by met"):
                self._met.setdefault(DiscoveryKey(topic), {})[Address(host, port)] = met

    def addresses(self, topic: DiscoveryKey) -> list[Address]:
        """Return where peers of a topic were reached, the latest first."""
        return list(self._met.get(topic, {}))[::-1]

    def note(self, topic: DiscoveryKey, address: Address) -> None:
        """Remember that a peer of a topic is at an address now."""
        met, now = self._met.setdefault(topic, {}), time.time()
        if met.get(address, 0.0) > now - AGAIN_S:
            return
        met.pop(address, None)
        met[address] = now
        if len(met) > MAX_PER_TOPIC:
            del met[next(iter(met))]
        self._changed.add(topic)

    def forget(self, topic: DiscoveryKey) -> None:
        """Forget all peers of a topic."""
        if self._met.pop(topic, None):
            self._changed.add(topic)

    async def save(self) -> None:
        """Keep what has changed; durable on return. A disk that fails is only logged."""
        changed, self._changed = self._changed, set()
        if changed:
            rows = {topic: list(self._met.get(topic, {}).items()) for topic in changed}
            try:
                await trio.to_thread.run_sync(self._write, rows)
            except sqlite3.Error as error:
                self._changed |= changed
                _log.warning("remembered peers not kept path=%s reason=%s", self._path, error)

    def _write(self, rows: dict[DiscoveryKey, list[tuple[Address, float]]]) -> None:
        with closing(sqlite3.connect(self._path)) as database, database:
            for topic, found in rows.items():
                database.execute("delete from met where topic = ?", (topic,))
                values = [(topic, address.host, address.port, met) for address, met in found]
                database.executemany("insert into met values (?, ?, ?, ?)", values)
