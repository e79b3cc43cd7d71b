"""Waiting for drives that are nested in the one that a verb reads: each once, and all that are missing together.

A drive of which nothing is here takes as long as the verb has patience, and there may be many: so while the first one
is waited for the others below the same path are asked for as well, and those that have not come by then are given up.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import trio

from ddrive.drive.drive import Drive
from ddrive.drive.walks import Inside
from ddrive.errors import DriveError, TimedOut
from ddrive.ids import BlockIndex, PublicKey, short
from ddrive.store.attached import AttachedStore

TOGETHER = 64  # drives that are asked for at the same time
LOOK_S = 2.0  # for the list of nested drives, of which a part may have to come from peers

Waiting = Callable[[str, PublicKey], AbstractAsyncContextManager[None]]
Late = Callable[[str], TimedOut]


def nested_name(inside: Inside) -> str:
    """Return a nested drive, or with an empty path the outer one, as messages name it."""
    return f"drive {short(inside.key)}" + (f", nested at /{inside.path}" if inside.path else "")


class NestedWaits:
    """What was waited for in vain of the drives nested in `drive` at or below `path`."""

    def __init__(self, drive: Drive, path: str, store: AttachedStore, waiting: Waiting, late: Late) -> None:
        """`waiting` ends what takes too long with TimedOut, which names what it is given; `late` makes that error."""
        self._drive = drive
        self._base = path.strip("/")
        self._store = store
        self._waiting = waiting
        self._late = late
        self._given_up: set[PublicKey] = set()
        self._here: set[PublicKey] = set()  # of these something was found

    @asynccontextmanager
    async def __call__(self, inside: Inside) -> AsyncIterator[None]:
        """Give up on the block when it waits too long for a nested drive. Raises: TimedOut."""
        name = nested_name(inside)
        async with AsyncExitStack() as stack:
            missing = set()
            if inside.path and inside.key not in self._here:  # the outer drive was opened, so it is here
                if await self._is_missing(inside.key, stack):
                    missing.add(inside.key)
                else:
                    self._here.add(inside.key)
            if missing & self._given_up:
                raise self._late(name)
            if missing:
                for key in await self._others():
                    with suppress(DriveError):  # whoever looks into it comes across that again
                        if len(missing) < TOGETHER and await self._is_missing(key, stack):
                            missing.add(key)
            try:
                async with self._waiting(name, inside.key):
                    yield
            except TimedOut:
                async with AsyncExitStack() as looking:
                    self._given_up |= {key for key in missing if await self._is_missing(key, looking)}
                raise

    async def _is_missing(self, key: PublicKey, stack: AsyncExitStack) -> bool:
        """Tell whether nothing of a drive is here; it is asked for then until `stack` is left."""
        feed = await self._store.open_feed(key=key, live=True)
        stack.push_async_callback(self._store.release, feed)
        if feed.length:
            return False
        stack.enter_context(feed.want(BlockIndex(0), BlockIndex(1), urgent=True))
        return True

    async def _others(self) -> list[PublicKey]:
        """Return the drives that are known to be nested at or below the path."""
        below = f"{self._base}/" if self._base else ""
        with trio.move_on_after(LOOK_S), suppress(DriveError):
            found = await (await self._drive.trie()).mounts(recursive=True, opened_only=True)
            return list(dict.fromkeys(mount.key for path, mount, _ in found if f"{path}/".startswith(below)))
        return []
