"""How much of a feed is held here."""

from typing import Final

import trio

from ddrive.feed import Feed

_RUNS_AT_ONCE: Final = 200  # then other tasks get their turn


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
