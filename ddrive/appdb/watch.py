"""Waiting for changes below a prefix. An iterator of its own, so that leaving it early needs no clean-up."""

from collections.abc import Awaitable, Callable, Sequence

from ddrive.appdb.node import Entry
from ddrive.appdb.writers import Writers


class Watch:
    """Asynchronous iterator over the newest nodes at and below a prefix, each time they have changed, for ever.

    `read` gives them, or None when they cannot be read now, which is waited over. A step raises Closed when
    the database or its store is closed meanwhile.
    """

    def __init__(self, writers: Writers, read: Callable[[], Awaitable[Sequence[Entry] | None]]) -> None:
        self._writers = writers
        self._read = read
        self._seen: set[int] | None = None

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> Sequence[Entry]:
        while True:
            news = self._writers.news
            nodes = await self._read()
            if nodes is not None:
                before, self._seen = self._seen, {node.pointer for node in nodes}
                if before is not None and self._seen != before:
                    return nodes
            await self._writers.until(news)
