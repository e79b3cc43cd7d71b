"""One feed of a view: what the engine tells of it, what is asked of the engine, and what is appended through it."""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import trio

from ddrive.dialect import Dialect
from ddrive.errors import CorruptStorage, DriveError, EngineError, LengthChanged, LocalProtocolError
from ddrive.feed.feed import Feed
from ddrive.feed.file_blocks import FileBlocks, sizes_of
from ddrive.feed.hashing import Buffer
from ddrive.feed.storage import FileDirectory
from ddrive.feed.view import FeedView
from ddrive.ids import BlockIndex, PublicKey, short
from ddrive.store.calling import Calling, UnderWay
from ddrive.store.cleared import ClearedCount
from ddrive.store.rpc import Failure, Reply, exception

APPEND_BYTES = 32 * 1024 * 1024  # of one call; half the frame limit
PIECE_BYTES = 4 * 1024 * 1024  # of one call when there may be several
PIECES_UNDER_WAY = 4  # the engine makes one durable, writes and reads one each, and receives the fourth
_REFRESH_S = 6.0  # the engine's own limit is 5 s

_log = logging.getLogger(__name__)


class AttachedFeed:
    """What stands behind one feed of a view: its `BlockSource`, its appender, and its share of the connection."""

    def __init__(self, calling: Calling, loader: Executor, dialect: Dialect, handle: int, *, live: bool) -> None:
        self.handle = handle
        self.dialect = dialect
        self.live = live
        self.feed: Feed | None = None
        self.broken: Exception | None = None  # why the feed could not be opened
        self.is_answered = False  # this engine has opened it, or has said why not
        self.users = 0  # calls of `open_feed` without a `release`
        self._calling = calling
        self._loader = loader
        self._peers = self._givers = 0
        self._reserves = False  # the end of the feed, or has asked for it
        self._wish_ids = itertools.count(1)
        self._run_ids = itertools.count(1)
        self._wishes: dict[int, tuple[str, dict[str, Any]]] = {}
        self._is_ready = False  # the engine of this connection has the feed open
        self._news = trio.Event()  # that may have changed

    # BlockSource

    @property
    def peer_count(self) -> int:
        """How many peers the engine has for this feed; 0 while there is no engine."""
        return self._peers

    @property
    def giver_count(self) -> int:
        """How many of them have some of it, or have yet to say what they have."""
        return self._givers

    def want_blocks(self, start: BlockIndex, end: BlockIndex, *, urgent: bool) -> Callable[[], None]:
        """Ask for the blocks [start, end) until the result is called."""
        return self._wish("feed.want", start=start, end=end, urgent=urgent)

    def want_offset(self, byte_offset: int, start: BlockIndex, end: BlockIndex) -> Callable[[], None]:
        """Ask for what is needed to find `byte_offset` within the blocks [start, end) until the result is called."""
        return self._wish("feed.want_offset", byte_offset=byte_offset, start=start, end=end)

    def want_length(self, min_length: int) -> Callable[[], None]:
        """Ask for news until there are `min_length` blocks, or the result is called."""
        return self._wish("feed.want_length", min_length=min_length)

    def ask_peers(self, name: str, payload: bytes) -> None:
        """Let the engine send `payload` to every peer through the extension `name`; it takes the answers."""
        if self._peers:
            self._calling.notice("feed.ask_peers", {"handle": self.handle, "name": name, "payload": payload})

    def availability(self, index: int) -> None:
        """Not known here: the engine tells of what nobody has."""

    async def refresh(self) -> None:
        """Return when the engine knows no newer length; at once when there is no engine or nobody to ask."""
        await self.ends()

    async def ends(self) -> bool:
        """Tell whether a peer of the engine has all blocks of the feed, and nobody tells of more, after `refresh`."""
        if self._peers:
            with trio.move_on_after(_REFRESH_S), suppress(EngineError):
                found = await self._calling.call("feed.refresh", {"handle": self.handle})
                return bool(found.get("ends"))
        return False

    def wishes(self) -> list[int]:
        """Return the numbers of the wishes that stand."""
        return list(self._wishes)

    @property
    def wishes_blocks(self) -> bool:
        """Whether anything is asked for that is there already: not only news."""
        return any(method != "feed.want_length" for method, _ in self._wishes.values())

    def _wish(self, method: str, **params: Any) -> Callable[[], None]:
        wish = next(self._wish_ids)
        self._wishes[wish] = method, params | {"handle": self.handle, "wish": wish}
        self._calling.notice(*self._wishes[wish])

        def withdraw() -> None:
            if self._wishes.pop(wish, None):
                self._calling.notice("feed.drop", {"handle": self.handle, "wish": wish})

        return withdraw

    # Appending

    async def append(self, blocks: Sequence[Buffer], expected_length: int | None, atomic: bool = True) -> BlockIndex:
        """Return the index of the first of `blocks`, which the engine has signed and stored.

        More than `APPEND_BYTES`, or `PIECE_BYTES` of what need not be `atomic`, go in several calls; when somebody
        appends in between, the first of them stay. The engine reads blocks in a file itself.
        Raises: LengthChanged, NotWritable, TooLarge, SourceChanged.
        """
        feed = self._opened()
        pieces = _pieces(blocks, APPEND_BYTES if atomic else PIECE_BYTES)
        if expected_length is not None:
            await self._append_pieces(feed, pieces, expected_length)
            return BlockIndex(expected_length)
        try:
            while True:
                first = feed.length
                try:
                    await self._append_pieces(feed, pieces, first)
                    return BlockIndex(first)
                except LengthChanged:
                    await feed.reserve()
        finally:
            self.unreserve()

    async def reserve(self, took_s: float) -> int:
        """Return the length at which nobody else appends before `unreserve`, unless that takes long.

        Raises: EngineError when there will be no engine any more.
        """
        self._reserves = True
        found = await self._calling.call("feed.reserve", {"handle": self.handle, "took_s": took_s}, lasting=True)
        return int(found["length"])

    async def settle(self) -> int:
        """Return the length when no append is under way that had begun before. Raises: as `reserve`."""
        found = await self._calling.call("feed.settle", {"handle": self.handle}, lasting=True)
        return int(found["length"])

    def unreserve(self) -> None:
        """Let others append."""
        if self._reserves:
            self._calling.notice("feed.unreserve", {"handle": self.handle})
        self._reserves = False

    async def _append_pieces(self, feed: Feed, pieces: list[Sequence[Buffer]], at: int) -> None:
        """Append the pieces in order, with some of them on their way at a time."""
        under_way: deque[_Piece] = deque()
        run = next(self._run_ids)
        try:
            for blocks in pieces:
                while len(under_way) == PIECES_UNDER_WAY or any(piece.has_failed for piece in under_way):
                    await self._until_stored(feed, under_way.popleft(), run)
                under_way.append(self._send_piece(at, blocks, run))
                at += len(blocks)
            while under_way:
                await self._until_stored(feed, under_way.popleft(), run)
        finally:
            for piece in under_way:
                if piece.call is not None:
                    self._calling.abandon(piece.call)

    def _send_piece(self, at: int, blocks: Sequence[Buffer], run: int) -> "_Piece":
        params: dict[str, Any] = {"handle": self.handle, "expected_length": at, "run": run}
        try:
            if isinstance(blocks, FileBlocks):
                return _Piece(
                    at, blocks, self._calling.begin("feed.append", params | {"places": blocks.places}, blocks.file)
                )
            return _Piece(at, blocks, self._calling.begin("feed.append", params | {"blocks": blocks}))
        except EngineError:
            return _Piece(at, blocks, None)

    async def _until_stored(self, feed: Feed, piece: "_Piece", run: int) -> None:
        """Return when a piece is appended, exactly once, whatever happens to the engine meanwhile."""
        at, blocks = piece.at, piece.blocks
        while True:
            try:
                if piece.call is not None:
                    await self._calling.result(piece.call)
                    return
            except EngineError:
                pass
            await self._wait_ready()
            if feed.length >= at + len(blocks) and all(
                feed.get_held(BlockIndex(at + number)) == block for number, block in enumerate(blocks)
            ):
                return
            if feed.length != at:
                raise LengthChanged(f"feed {short(feed.key)} has {feed.length} blocks, not {at}")
            piece = self._send_piece(at, blocks, run)

    # Its share of the connection

    def tell_use(self) -> None:
        """Tell the engine what was read since the last time, so that it knows what to keep."""
        if self.feed is None or not self._is_ready:
            return
        log = self.feed.log
        if log.used or log.misses:
            counts = {"hits": max(0, log.reads - log.misses), "misses": log.misses}
            self._calling.notice("feed.used", {"handle": self.handle, "segments": list(log.used or ()), **counts})
            log.used, log.reads, log.misses = {}, 0, 0

    def tell(self) -> None:
        """Open the feed again at an engine that does not know it, and tell it all wishes."""
        if self.feed is None:
            return  # its first call is still waiting and is sent again
        self._calling.post("feed.open", self.opening(key=self.feed.key), self.answered)
        for method, params in self._wishes.values():
            self._calling.notice(method, params)

    def opening(self, *, key: PublicKey | None = None, name: bytes | str | None = None) -> dict[str, Any]:
        """Return the parameters of `feed.open`."""
        which = {"name": name} if key is None else {"key": key}
        return {"handle": self.handle, "dialect": self.dialect.name, "live": self.live} | which

    def answered(self, answer: Reply | Failure) -> None:
        """Take the answer to `feed.open`."""
        self.is_answered = True
        if isinstance(answer, Failure):
            _log.warning("feed not open at the engine handle=%d error=%s", self.handle, exception(answer))
            return
        facts = answer.result
        try:
            if self.feed is None:
                directory = FileDirectory(Path(facts["path"]), read_only=True)
                view = FeedView(directory, PublicKey(facts["key"]), self._loader)
                view.ask(_count(facts, view.key))
                _adopt(view, facts)
                view.used = {}
                feed = Feed(view)
                _renew(feed, facts["length"], facts["runs"])
                feed.appender, feed.reserving = self.append, self
                feed.set_source(self)
                self.feed = feed
            else:
                view = _view(self.feed)
                view.ask(_count(facts, view.key))
                _renew(self.feed, facts["length"], facts["runs"])
            self._count_peers(facts)
            self._set_ready(True)
        except (DriveError, OSError) as error:
            self.broken = error

    def lost(self) -> None:
        """The engine is gone."""
        self._peers = self._givers = 0
        self.is_answered = False
        self._set_ready(False)

    def changed(self, params: dict[str, Any]) -> None:
        """Take the event `feed.changed`."""
        feed = self.feed
        if feed is None or feed.closed:
            return
        self._count_peers(params)
        _adopt(_view(feed), params)
        try:
            if "runs" in params:
                _renew(feed, params["length"], params["runs"])
            else:
                feed.report_grew(params["length"])
        except (CorruptStorage, OSError) as error:  # what is known already stays readable
            _log.error("view cannot follow its owner feed=%s error=%s", short(feed.key), error)
            return
        for held, start, end in params.get("changes", ()):
            if held:
                feed.report_stored(start, end)
            else:
                feed.report_cleared(start, end)
        for start, end in params.get("lost", ()):
            feed.report_lost(start, end)
        for index, block in params["passed"]:
            feed.report_passed(index, block)
        if params["nodes"]:
            feed.report_nodes()

    def _count_peers(self, facts: Mapping[str, Any]) -> None:
        self._peers = facts["peers"]
        self._givers = facts.get("givers", self._peers)  # an engine of before an upgrade does not tell

    def _set_ready(self, is_ready: bool) -> None:
        self._is_ready = is_ready
        self._news.set()
        self._news = trio.Event()

    async def _wait_ready(self) -> None:
        """Return when an engine has the feed open. Raises: EngineError when there will be none."""
        await self._calling.wait_connected()
        while not self._is_ready:
            await self._news.wait()
            await self._calling.wait_connected()

    def _opened(self) -> Feed:
        if self.feed is None:
            raise LocalProtocolError("the feed is not open")
        return self.feed


def _renew(feed: Feed, length: int, runs: list[tuple[int, int]]) -> None:
    """Replace all that a view knows of its owner, and wake who waits for some of it."""
    feed.report_grew(length)
    _view(feed).adopt(length, runs)
    for start, end in runs:
        feed.report_stored(start, end)
    feed.report_nodes()


def _count(facts: dict[str, Any], key: PublicKey) -> ClearedCount | None:
    """Return what tells how often blocks were cleared; None, and all is checked at each read, where nothing does.

    That is so when somebody has removed the file, and with an engine from before an upgrade.
    """
    try:
        return ClearedCount(Path(facts["cleared"]), key)
    except (KeyError, OSError):
        return None


def _view(feed: Feed) -> FeedView:
    assert isinstance(feed.log, FeedView)
    return feed.log


def _adopt(view: FeedView, facts: Mapping[str, Any]) -> None:
    view.writable, view.behind, view.forked = facts["writable"], facts["behind"], facts["forked"]
    view.clears = facts.get("clears")


class _Piece(NamedTuple):
    """Blocks that are being appended at `at`; without a call when there was no engine to send it to."""

    at: int
    blocks: Sequence[Buffer]
    call: UnderWay | None

    @property
    def has_failed(self) -> bool:
        """Tell whether it has to be sent again, or cannot be appended, so that nothing may follow it yet."""
        return self.call is None or isinstance(self.call.answer, Failure)


def _pieces(blocks: Sequence[Buffer], max_bytes: int) -> list[Sequence[Buffer]]:
    """Return `blocks` in pieces of at most `max_bytes`, at least one block each."""
    pieces: list[Sequence[Buffer]] = []
    begin, room = 0, max_bytes
    for number, size in enumerate(sizes_of(blocks)):
        if size > room and number > begin:
            pieces.append(blocks[begin:number])
            begin, room = number, max_bytes
        room -= size
    if begin < len(blocks):
        pieces.append(blocks[begin:])
    return pieces
