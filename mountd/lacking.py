"""Why a database or graph is not whole here: what is missing of it, and why no peer gives that."""

from typing import Any

from ddrive.drive.address import parse_key
from ddrive.errors import NotFound
from ddrive.feed import Feed, FeedLog
from ddrive.ids import short
from mountd.control import Params, Tell, Verb
from mountd.databases import Databases
from mountd.finding import Finder


class Lacking:
    """`db.why`."""

    def __init__(self, databases: Databases, finder: Finder) -> None:
        self._databases = databases
        self._finder = finder

    def table(self) -> dict[str, Verb]:
        """Return the methods of the control socket by name."""
        return {"db.why": self.why}

    async def why(self, params: Params, tell: Tell) -> dict[str, Any]:
        """Tell what of a database or graph is not here, and that with the reason; None when nothing is known to be.

        Raises: NotFound when it is not known here.
        """
        key = parse_key(str(params["key"])).key
        if self._databases.kind_of(key) is None:
            raise NotFound(f"nothing {short(key)} is kept here")
        store, keys = self._databases.parts(key)
        feeds = [
            feed for feed in store.feeds() if feed.key == key or (feed.key in keys and (feed.length or feed.writable))
        ]
        lacking = [feed for feed in feeds if missing_of(feed)]
        if not lacking:
            return {"missing": None, "why": None}
        missing = missing_of(lacking[0])
        peers = max(store.session(feed).peer_count for feed in lacking)
        nobody = self._finder.why([store.discovery_key(feed.key) for feed in lacking])
        return {
            "missing": missing,
            "why": f"{missing}; {f'of {peers} connected none gives the rest' if peers else nobody}",
        }


def missing_of(feed: Feed) -> str | None:
    """Return in words what is known to be missing here of a feed, None for nothing."""
    length = feed.length
    if feed.writable and isinstance(feed.log, FeedLog):
        length = max(length, feed.log.floor if feed.log.behind else 0, feed.log.claimed())
    held = feed.held(0, length)
    if length and held == length:
        return None
    whose = "it is your own, and " if feed.writable else ""
    if not length:
        return f"{whose}nothing of it is here"
    return f"{whose}{held} of its {length} blocks are here"
