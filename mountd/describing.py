"""What is told about a drive: one line of `list`, and all of `info`."""

from typing import Any, Final

import trio

from ddrive.drive.hostile import HostileNames
from ddrive.feed import Feed
from ddrive.ids import PublicKey
from mountd.collection import Collection
from mountd.drives import KnownDrive

HOSTILE_LIMIT_S: Final = 1.0  # of one `info` for the entries that are never shown; the next one goes on

_NOTHING: Final = {"length": 0, "downloaded": 0, "byte_length": 0}
_RUNS_AT_ONCE: Final = 200  # then other tasks get their turn


class Describer:
    """Describes the drives of a collection."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._hostile: dict[PublicKey, HostileNames] = {}

    async def line(self, known: KnownDrive) -> dict[str, Any]:
        """Return the drive as `list` shows it."""
        value: dict[str, Any] = {
            "key": known.key.hex(),
            "url": known.url,
            "name": known.name,
            "dialect": known.dialect.name if known.dialect else None,
            "writable": known.writable,
            "version": 0,
            "seeding": self._collection.is_seeding(known),
            "byte_length": 0,
            "held": 0,
        }
        async with self._collection.feeds(known) as found:
            if found:
                value["version"] = found[1][0].length
                for feed in found[1][1:]:
                    value["byte_length"] = feed.byte_length
                    value["held"] = await held_bytes(feed)
        return value

    async def info(self, known: KnownDrive) -> dict[str, Any]:
        """Return the drive as `info` shows it, without its mounts."""
        value: dict[str, Any] = {
            "key": known.key.hex(),
            "url": known.url,
            "dialect": known.dialect.name if known.dialect else None,
            "version": 0,
            "writable": known.writable,
            "peers": 0,
            "metadata": dict(_NOTHING),
            "content": dict(_NOTHING) | {"bytes_downloaded": 0},
            "forked": False,
            "hostile_names": 0,
        }
        async with self._collection.feeds(known) as found:
            if found:
                store, feeds = found
                hostile = self._hostile.setdefault(known.key, HostileNames())
                value["hostile_names"] = await hostile.look(feeds[0], HOSTILE_LIMIT_S)
                value["version"] = feeds[0].length
                value["peers"] = store.session(feeds[0]).peer_count
                value["forked"] = any(feed.forked for feed in feeds)
                for name, feed in zip(("metadata", "content"), feeds, strict=False):
                    value[name] |= {
                        "length": feed.length,
                        "downloaded": feed.held(0, feed.length),
                        "byte_length": feed.byte_length,
                    }
                for feed in feeds[1:]:
                    value["content"]["bytes_downloaded"] = await held_bytes(feed)
        return value


async def held_bytes(feed: Feed) -> int:
    """Return how many bytes of the feed are held here; runs whose place is not known yet are left out."""
    total = 0
    for number, (start, end) in enumerate(feed.runs(0, feed.length)):
        first, last = feed.byte_offset(start), feed.byte_offset(end)
        if first is not None and last is not None:
            total += last - first
        if number % _RUNS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return total
