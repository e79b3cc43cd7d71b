"""Waiting for changes below a path, in a drive and in those nested in it that were looked into."""

from functools import partial
from typing import NamedTuple, Self

import trio

from ddrive.drive.lifetime import Lifetime
from ddrive.drive.nested import NestedDrive, NestedDrives
from ddrive.drive.paths import DrivePath, join
from ddrive.drive.view import DriveView
from ddrive.drive.walks import Change, Changes
from ddrive.errors import DriveError
from ddrive.feed import Feed
from ddrive.trie import MountTrie


class _Followed(NamedTuple):
    """A trie to follow: its root is at `base`, below its `inner` lies what is watched."""

    base: DrivePath
    trie: MountTrie
    inner: DrivePath


class Watch:
    """Asynchronous iterator over what happens at and below `path` from the first step on: the changes, never none.

    A nested drive is followed once a path led into it. One of a fixed version ends at once: nothing can change.
    """

    def __init__(self, drive: DriveView, path: DrivePath, lifetime: Lifetime) -> None:
        self._drive = drive
        self._lifetime = lifetime
        self._path = path
        self._seen: dict[str, int] = {}  # versions that were looked at, by the path of the nested drive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Change]:
        if self._drive.fixed:
            raise StopAsyncIteration
        nested = await self._drive.nested()
        if not self._seen:
            await (await self._drive.trie()).owner(self._path)  # from here on it is among the nested ones
        while True:
            known = nested.drives()
            followed = await self._followed(known)
            for one in followed:
                if changes := await self._changes(one):
                    return changes
            if len(nested.drives()) == len(known):
                await self._lifetime.wait(partial(self._growth, followed, nested))

    async def _followed(self, nested: list[NestedDrive]) -> list[_Followed]:
        found = [_Followed(DrivePath(""), await self._drive.trie(), self._path)]
        for drive in nested:
            if not self._path or f"{drive.path}/".startswith(f"{self._path}/"):
                found.append(_Followed(drive.path, drive.trie, DrivePath("")))
            elif self._path.startswith(f"{drive.path}/"):
                found.append(_Followed(drive.path, drive.trie, DrivePath(self._path.removeprefix(f"{drive.path}/"))))
        for one in found:
            self._seen.setdefault(one.base, one.trie.version)
        return found

    async def _changes(self, one: _Followed) -> list[Change]:
        """Return what is new in one trie."""
        version, seen = one.trie.version, self._seen[one.base]
        if version == seen:
            return []
        view = one.trie.checkout(version)

        async def fixed() -> MountTrie:
            return view

        found = [change async for change in Changes(fixed, seen, one.inner)]
        self._seen[one.base] = version
        return [change._replace(path=join(one.base, change.path)) for change in found] if one.base else found

    async def _growth(self, followed: list[_Followed], nested: NestedDrives) -> None:
        """Return when one of them has grown, or another one is to be followed. Raises: what the feeds raise."""
        failure: DriveError | None = None
        async with trio.open_nursery() as nursery:

            async def grown(feed: Feed, length: int) -> None:
                nonlocal failure
                try:
                    await feed.wait_length(length)
                except DriveError as error:
                    failure = error
                nursery.cancel_scope.cancel()

            async def more() -> None:
                await nested.more()
                nursery.cancel_scope.cancel()

            nursery.start_soon(more)
            for one in followed:
                nursery.start_soon(grown, one.trie.feed, self._seen[one.base] + 1)
        if failure is not None:
            raise failure
