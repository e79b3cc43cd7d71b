"""Getting back what is missing of a feed of ours, after its files were lost, restored or copied.

While more was signed than is held here, nothing may be appended. So every peer of a feed of ours is asked how long the
feed is there, the proof of a greater length is fetched at once, and then all blocks that are missing.
"""

from collections.abc import Callable

from ddrive.feed.feed import Feed
from ddrive.feed.log import FeedLog
from ddrive.ids import BlockIndex
from ddrive.replication.session import FeedSession
from ddrive.store.signed import SignedLengths


class Refill:
    """Watches one feed of ours as long as it is open."""

    def __init__(self, feed: Feed, log: FeedLog, session: FeedSession, signed: SignedLengths) -> None:
        self._log = log
        self._signed = signed
        self._session = session
        self._length = log.length
        self._wished = 0  # blocks that are wished for
        self._withdraw: Callable[[], None] = lambda: None
        log.claimed = session.claimed_length
        session.downloading = True
        session.set_eager_length()
        feed.subscribe(self)
        self._look()

    def grew(self, length: int) -> None:
        """A peer has proven more, or we have appended: then what is new is all here, and what we let go is no gap."""
        if self._log.held(self._length, length) < length - self._length:
            self._log.must_reach(length)
        self._length = length
        self._look()

    def stored(self, start: int, end: int) -> None:
        """Some more is here."""
        if self._wished:
            self._look()

    def cleared(self, start: int, end: int) -> None:
        """Nothing to do: what is ours is never dropped."""

    def nodes_stored(self) -> None:
        """Nothing to do."""

    def _look(self) -> None:
        missing = self._log.floor if self._log.behind else 0
        if missing != self._wished:
            before, self._wished = self._withdraw, missing
            self._withdraw = lambda: None
            if missing:
                self._withdraw = self._session.want_blocks(BlockIndex(0), BlockIndex(missing), urgent=False)
            before()
            if missing:
                self._signed.note({self._log.key: missing})
            else:
                self._signed.forget(self._log.key)
