"""Waiting for drives that are nested in the one that a verb reads: each once, and all that are missing together.

A drive of which nothing is here takes as long as the verb has patience, and there may be many: so while the first one
is waited for the others below the same path are asked for as well, also those that are nested in others that arrive
meanwhile, and those that have not come by then are given up.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from math import inf
from typing import Protocol

import trio

from ddrive.drive.drive import Drive
from ddrive.drive.paths import DrivePath, join
from ddrive.drive.walks import Inside
from ddrive.errors import DriveError, TimedOut
from ddrive.ids import BlockIndex, PublicKey, short
from ddrive.store.attached import AttachedStore
from ddrive.trie import MountTrie
from ddrive.trie.mountpoint import MountPoint

TOGETHER = 64  # drives that are asked for at the same time
IN_VAIN_S = 1.0  # after one was waited for in vain, for others that no connected peer has: as in a mount
ENOUGH = 0.5  # of the time that a verb has patience: who was asked for that long has been waited for


class Patient(Protocol):
    """How long a verb waits: `session.Patience`."""

    limit: float

    def waiting(
        self, waiting_for: str, key: PublicKey | None = None, most_s: float = inf
    ) -> AbstractAsyncContextManager[None]: ...
    def late(self, waiting_for: str) -> TimedOut: ...
    def beside(self, task: Callable[[], Awaitable[None]]) -> AbstractContextManager[None]: ...


def nested_name(inside: Inside) -> str:
    """Return a nested drive, or with an empty path the outer one, as messages name it."""
    return f"drive {short(inside.key)}" + (f", nested at /{inside.path}" if inside.path else "")


class NestedWaits:
    """What was waited for in vain of the drives nested in `drive` at or below `path`."""

    def __init__(self, drive: Drive, path: str, store: AttachedStore, patience: Patient) -> None:
        self._drive = drive
        self._below = path.strip("/")
        self._store = store
        self._patience = patience
        self._given_up: set[PublicKey] = set()
        self._here: set[PublicKey] = set()  # of these something was found
        self._in_vain = False  # one was waited for until the time was up

    @asynccontextmanager
    async def __call__(self, inside: Inside) -> AsyncIterator[None]:
        """Give up on the block when it waits too long for a nested drive. Raises: TimedOut."""
        name = nested_name(inside)
        async with AsyncExitStack() as stack:
            asked: dict[PublicKey, float] = {}
            if inside.path and inside.key not in self._here:  # the outer drive was opened, so it is here
                if not await self._is_missing(inside.key, stack):
                    self._here.add(inside.key)
                elif inside.key in self._given_up:
                    raise self._patience.late(name)
                else:
                    asked[inside.key] = trio.current_time()
                    stack.enter_context(self._patience.beside(_Asking(self._drive, self._below, asked).run))
            most_s = IN_VAIN_S if self._in_vain and await self._is_alone(inside.key, stack) else inf
            try:
                async with self._patience.waiting(name, inside.key, most_s):
                    yield
            except TimedOut:
                self._in_vain = True
                since = trio.current_time() - self._patience.limit * ENOUGH
                async with AsyncExitStack() as looking:
                    waited_for = [key for key, asked_at in asked.items() if asked_at <= since]
                    self._given_up |= {key for key in waited_for if await self._is_missing(key, looking)}
                raise

    async def _is_alone(self, key: PublicKey, stack: AsyncExitStack) -> bool:
        """Tell whether no connected peer is known to have a drive. One that is asked just now can still answer."""
        feed = await self._store.open_feed(key=key, live=True)
        stack.push_async_callback(self._store.release, feed)
        return not feed.peer_count

    async def _is_missing(self, key: PublicKey, stack: AsyncExitStack) -> bool:
        """Tell whether nothing of a drive is here; it is asked for then until `stack` is left."""
        feed = await self._store.open_feed(key=key, live=True)
        stack.push_async_callback(self._store.release, feed)
        if feed.length:
            return False
        stack.enter_context(feed.want(BlockIndex(0), BlockIndex(1), urgent=True))
        return True


class _Asking:
    """Asks for all drives nested in `drive` on the way to a path and below it; notes in `asked` since when.

    Each is looked into as soon as something of it is here.
    """

    def __init__(self, drive: Drive, below: str, asked: dict[PublicKey, float]) -> None:
        self._drive = drive
        self._below = f"{below}/" if below else ""
        self._asked = asked
        self._seen: set[tuple[PublicKey, int | None]] = set()  # none twice, so circles end
        self._room = trio.Semaphore(TOGETHER)

    async def run(self) -> None:
        """Ask until cancelled, or nothing is missing."""
        async with trio.open_nursery() as nursery:
            with suppress(DriveError):  # whoever looks into it comes across that again
                await self._ask_in(await self._drive.trie(), DrivePath(""), nursery)

    async def _ask_in(self, nesting: MountTrie, base: DrivePath, nursery: trio.Nursery) -> None:
        """Ask for what is nested in the drive at `base`."""
        for path, mount, _ in await nesting.mounts():
            where = join(base, path)
            concerned = f"{where}/".startswith(self._below) or self._below.startswith(f"{where}/")
            if concerned and (mount.key, mount.version) not in self._seen:
                self._seen.add((mount.key, mount.version))
                nursery.start_soon(self._ask, where, mount, nursery)

    async def _ask(self, where: DrivePath, mount: MountPoint, nursery: trio.Nursery) -> None:
        with suppress(DriveError):
            async with self._room:
                self._asked.setdefault(mount.key, trio.current_time())
                nested = (await (await self._drive.trie()).owner(where)).trie
            await self._ask_in(nested, where, nursery)
