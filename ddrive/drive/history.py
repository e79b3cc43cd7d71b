"""What each version of a drive brought, oldest first. Nested drives have histories of their own."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import trio

from ddrive.drive.stat import Stat
from ddrive.drive.view import DriveView
from ddrive.drive.walks import stat_or_none
from ddrive.errors import NotFound
from ddrive.feed import Feed
from ddrive.ids import BlockIndex, short
from ddrive.trie import Trie
from ddrive.trie.mountpoint import is_mount

NEWER_S = 1.0  # for a peer to tell of a version that was not known yet


class Event(NamedTuple):
    """A change: made by `version`, at `path` (of a tag: its name); `stat` is what was put there."""

    version: int
    kind: Literal["put", "del", "mount", "unmount", "tag", "untag"]
    path: str
    stat: Stat | None


async def require_version(
    feed: Feed, version: int, wait_s: float = NEWER_S, tell: Callable[[str], None] = lambda _: None
) -> None:
    """Return when the drive with the metadata `feed` is known to have a version of this number.

    Waits for the drive's first block; then, unless the drive is our own, for `wait_s` until somebody tells of that
    version, as the peers that are connected may be behind its author: of a long waiting `tell` says why.
    Raises: NotFound, which names the newest version that is known.
    """
    if not feed.length:
        await feed.get(BlockIndex(0))
    if version > feed.length and (feed.behind or not feed.writable):
        deadline = trio.current_time() + wait_s
        with trio.move_on_after(min(NEWER_S, wait_s)):
            await feed.wait_length(version)
        if version > feed.length and wait_s > NEWER_S:
            tell(
                f"drive {short(feed.key)} has no version {version} that is known here, the newest is {feed.length}: "
                f"waiting {wait_s:g} s for a peer that has it"
            )
            with trio.move_on_at(deadline):
                await feed.wait_length(version)
    if version > feed.length:
        raise NotFound(
            f"drive {short(feed.key)} has no version {version} that is known here, the newest is {feed.length}: "
            "choose one of those up to it"
        )


class Log:
    """Asynchronous iterator over the changes of versions `first` to the one of `drive`.

    All blocks of those versions are fetched. A removed entry leaves no block that says so: it is found by comparing.
    """

    def __init__(self, drive: DriveView, tag_prefix: str, first: int = 2) -> None:
        self._drive = drive
        self._tag_prefix = tag_prefix
        self._next = max(2, first)  # version 1 is the empty drive
        self._ready: list[Event] = []  # in reverse

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if not self._drive.version:
            await self._drive.trie()  # even an empty drive has a version: nothing of this one is known yet
        while not self._ready:
            if self._next > self._drive.version:
                raise StopAsyncIteration
            version = self._next
            feed = self._drive.metadata
            with feed.want(BlockIndex(version - 1), BlockIndex(self._drive.version)):
                self._ready = list(reversed(await self._events(version)))
            self._next += 1
        return self._ready.pop()

    async def _events(self, version: int) -> list[Event]:
        trie = (await self._drive.trie()).trie
        node = await trie.nodes.node(version - 1)
        if node.key and not node.hidden:
            before = await trie.checkout(version - 1).get("/" + node.key)
            if before is None or (before.value, before.flags) != (node.value, node.flags):
                return [Event(version, "mount" if is_mount(node) else "put", f"/{node.key}", stat_or_none(node))]
        # what was removed: the block repeats some other entry, of either half, or says that nothing is left
        events = await self._removed(version) or await self._tagged(version, trie)
        if events or node.hidden or not node.key or await self._changes_hidden(version, trie):
            return events
        return [Event(version, "put", f"/{node.key}", stat_or_none(node))]  # stored again as it was

    async def _removed(self, version: int) -> list[Event]:
        events: list[Event] = []
        async for change in self._drive.at(version).diff(version - 1):
            nested = change.previous is not None and change.previous.mount is not None
            events.append(Event(version, "unmount" if nested else "del", f"/{change.path}", None))
        return events

    async def _tagged(self, version: int, trie: Trie) -> list[Event]:
        """Return the tags that were added or removed."""
        now, before = trie.checkout(version), trie.checkout(version - 1)
        return [
            Event(version, "tag" if left is not None else "untag", key.removeprefix(self._tag_prefix), None)
            async for key, left, right in now.diff(before, self._tag_prefix.rstrip("/"), hidden=True)
            if left is None or right is None or left.value != right.value
        ]

    async def _changes_hidden(self, version: int, trie: Trie) -> bool:
        """Tell whether something else in the hidden half changed, as for a nested drive."""
        async for _ in trie.checkout(version).diff(version - 1, hidden=True):
            return True
        return False
