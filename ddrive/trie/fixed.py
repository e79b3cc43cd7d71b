"""Whether there is the fixed version of a trie that a mount shows: its author may have named one that never was."""

import trio

from ddrive.errors import NoPeers, NotFound
from ddrive.feed import Feed
from ddrive.ids import short

NEWER_S = 1.0  # for a peer to tell of more than it has announced so far


async def check_version(feed: Feed, version: int) -> None:
    """Return when the trie in `feed` has this version, or may have it, as nobody who could tell is connected.

    Raises: NotFound when it is our own and has no such version; NoPeers when all who are connected know of none.
    """
    if version <= feed.length:
        return
    is_own = feed.writable and not feed.behind
    if not (is_own or feed.peer_count):
        return
    await feed.refresh()
    with trio.move_on_after(NEWER_S):  # a view of our own may be told late, too
        await feed.wait_length(version)
    if version <= feed.length:
        return
    what = f"drive {short(feed.key)} has no version {version}"
    if is_own:
        raise NotFound(f"{what}, its newest is {feed.length}: nest a version that there is")
    if feed.peer_count:
        raise NoPeers(
            f"{what} that a connected peer knows, the newest is {feed.length}: try again when its author is there"
        )
