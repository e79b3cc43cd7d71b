"""Reading a feed: blocks that are held at once, others from peers, for as long as the program wants to wait."""

from collections.abc import Callable, Sequence
from typing import Any

import trio

from ddrive.errors import Closed, Forked, NoPeers, NotHeld, NotWritable
from ddrive.feed.log import FeedLog
from ddrive.feed.storage import Directory
from ddrive.ids import BlockIndex
from ddrive.replication.asking import ENDLESS
from ddrive.standalone.arguments import check_blocks, check_kind, check_number, shown
from ddrive.standalone.downloads import Download, pieces_of
from ddrive.standalone.encodings import Encoding, decode, encoding_of
from ddrive.standalone.hooks import check_hooks
from ddrive.standalone.host import FeedHost, FeedOptions

NOWHERE = -1  # of a wait that is not for a certain block, so that `cancel` does not end it


def _listed(blocks: Sequence[int]) -> list[int]:
    """Return the numbers of blocks. Raises: TypeError, ValueError."""
    if isinstance(blocks, str | bytes) or not hasattr(blocks, "__iter__"):
        raise TypeError(f"blocks are a list of their numbers, not {shown(blocks)}")
    listed = list(blocks)
    for index in listed:
        check_blocks(index)
    return listed


class Readable(FeedHost):
    """The reading half of a feed that stands alone."""

    def __init__(self, log: FeedLog, directory: Directory, options: FeedOptions, nursery: trio.Nursery) -> None:
        super().__init__(log, directory, options, nursery)
        self._downloads: list[Download] = []

    # -- blocks ----------------------------------------------------------------------------------------------------

    async def get(
        self,
        index: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
        on_wait: Callable[[int], object] | None = None,
        if_available: bool | None = None,
        value_encoding: str | Encoding | None = None,
    ) -> Any:
        """Return block `index`, from a peer when it is not held; a block that does not exist yet is waited for.

        `wait` false: fail rather than wait. `timeout`: seconds. `on_wait(index)` is called once before a wait.
        `if_available`: fail as soon as every connected peer has said that it does not have the block; the default is
        that of `open_feed`, as is that of `value_encoding`.
        Raises: NotHeld, TimedOut, NoPeers, Withdrawn after `cancel`, Closed, Forked, UndecodableBlock, CorruptStorage
        for a held block that does not verify any more, ValueError for what is not the index of a block.
        """
        block = await self._block(index, wait, timeout, on_wait, self._only_available(if_available))
        return self._decode(block, index, value_encoding)

    async def get_range(
        self,
        start: int,
        end: int,
        *,
        wait: bool = True,
        timeout: float | None = None,
        if_available: bool | None = None,
        value_encoding: str | Encoding | None = None,
    ) -> list[Any]:
        """Return the blocks `start` up to `end`, asking peers for all that are missing at once.

        `wait`, `timeout` (of all together), `if_available`, `value_encoding`: as for `get`. Raises: as `get`.
        """
        self._check_open()
        check_number("the end of a range", end)
        check_blocks(start, end)
        missing = max(end - start, 0) - self.feed.held(start, max(start, end))
        if missing:
            self.feed.check_lost(start, end)
        if missing and not wait:
            raise NotHeld(f"{missing} of the blocks {start} to {end} of feed {self.feed.name} are not held")
        if missing:
            self._check_growing(end)
            what = f"blocks {start} to {end} of feed {self.feed.name}"
            with self._waits.wait(start, end, timeout, what), self.feed.want(start, end):
                if self._only_available(if_available):
                    for index in range(start, end):
                        await self._until_held(index)
                else:
                    await self.feed.download(start, end)
        blocks = []
        for index in range(start, end):
            try:
                block = await self.feed.get(index, wait=False)
            except NotHeld:  # it was held until it was read
                block = await self._block(index, wait, timeout, None, self._only_available(if_available))
            blocks.append(self._decode(block, index, value_encoding))
        self.session.stats.cache_misses += missing
        self.session.stats.cache_hits += len(blocks) - missing
        return blocks

    async def head(
        self,
        *,
        update: bool = False,
        wait: bool = True,
        timeout: float | None = None,
        if_available: bool | None = None,
        value_encoding: str | Encoding | None = None,
    ) -> Any:
        """Return the last block; with `update` peers are first asked for a newer one.

        `wait`, `timeout` (of both together), `if_available`, `value_encoding`: as for `get`.
        Raises: NotHeld when the feed is empty, and as `get`.
        """
        self._check_open()
        with self._waits.wait(NOWHERE, NOWHERE, timeout, f"the last block of feed {self.feed.name}"):
            if update:
                await self.refresh()
            if not self.length:
                raise NotHeld(f"feed {self.feed.name} is empty")
            return await self.get(self.length - 1, wait=wait, if_available=if_available, value_encoding=value_encoding)

    def has(self, start: int, end: int | None = None) -> bool:
        """Tell whether block `start`, or every block from `start` up to `end`, is held; when closed: was."""
        check_blocks(start, end)
        return self.feed.has(start) if end is None else self.feed.held(start, end) == max(end - start, 0)

    def downloaded_count(self, start: int = 0, end: int | None = None) -> int:
        """Return how many of the blocks `start` up to `end`, by default the end of the feed, are held; closed: were."""
        check_blocks(start, end)
        return self.feed.held(start, self.length if end is None else end)

    async def seek(
        self,
        byte_offset: int,
        *,
        start: int = 0,
        end: int | None = None,
        wait: bool = True,
        timeout: float | None = None,
        if_available: bool | None = None,
    ) -> tuple[int, int]:
        """Return the block that holds the byte at `byte_offset`, and the place in it; the end is (length, 0).

        `start` and `end` tell where to look, when the program knows: a peer is asked about less. Bytes beyond the end
        are waited for; `timeout` and `if_available` are as for `get`. Raises: NotHeld when `wait` is false and nodes
        are missing, TimedOut, NoPeers, Closed.
        """
        self._check_open()
        check_blocks(start, end)
        check_number("the place of a byte", byte_offset)
        if byte_offset < 0:
            raise ValueError(f"bytes are numbered from 0: there is no byte {byte_offset}")
        found = self.feed.locate(byte_offset)
        if found is not None and (not wait or self._log.size_proven(found[0])):
            await trio.lowlevel.checkpoint()
            return found
        if not wait:
            raise NotHeld(f"where byte {byte_offset} of feed {self.feed.name} lies is not known here")
        with self._waits.wait(NOWHERE, NOWHERE, timeout, f"the place of byte {byte_offset}"):
            if self._only_available(if_available):
                await self._until_located(byte_offset, start, end)
            return await self.feed.seek(byte_offset, start=start, end=end)

    async def update(
        self,
        min_length: int | None = None,
        *,
        timeout: float | None = None,
        if_available: bool | None = None,
        hash: bool = True,
        force: bool = False,
    ) -> int:
        """Return the length when it is proven to be at least `min_length`, by default one more than now.

        Only a proof is fetched; with `hash` false the last of the `min_length` blocks as well. With `if_available` it
        is an error when no peer has as much, and on a feed of our own always, unless with `force`. `timeout`: seconds.
        Raises: NoPeers, TimedOut, Forked, Closed.
        """
        self._check_open()
        wanted = self.length + 1 if min_length is None else min_length
        check_number("a length", wanted)
        if wanted < 0:
            raise ValueError(f"a length is at least 0, not {wanted}")
        check_blocks(0, wanted)
        only_available = self._only_available(if_available)
        if self.length < wanted and only_available and self.writable and not force:
            raise NoPeers(f"feed {self.feed.name} is our own: no peer has more of it")
        self._check_growing(wanted)
        with self._waits.wait(NOWHERE, NOWHERE, timeout, f"a length of {wanted} of feed {self.feed.name}"):
            if only_available:
                await self._until_long(wanted)
            length = await self.feed.wait_length(wanted)
            if not hash and wanted > 0:
                await self.feed.get(wanted - 1)
        return length

    async def refresh(self) -> None:
        """Return when all that connected peers announce is proven, or at once without peers.

        Links whose handshake is under way are waited for; peers that do not prove what they announce, for 5 seconds.
        """
        self._check_open()
        while self._is_connecting() and not self.writable:
            self._check_open()
            await self.session.news()
        await self.feed.refresh()

    def cancel(self, start: int, end: int | None = None) -> None:
        """Give up the waits for block `start`, or for any block from `start` up to `end`, and downloads within them.

        Who waits, be it for more blocks than these (`get_range`), gets `Withdrawn`. (Cancelling the waiting task has
        the same effect on peers.) Raises: Closed.
        """
        self._check_open()
        check_blocks(start, end)
        last = start + 1 if end is None else end
        self._waits.cancel(start, last)
        for download in list(self._downloads):
            if start <= download.start and download.end <= last:
                download.cancel()

    # -- downloads -------------------------------------------------------------------------------------------------

    def download(
        self,
        start: int = 0,
        end: int | None = None,
        *,
        linear: bool = False,
        blocks: Sequence[int] | None = None,
    ) -> Download:
        """Start to download the blocks `start` up to `end`, or the listed `blocks`; the result can be awaited.

        Without `end` it goes on for ever: whatever is announced later is fetched too. `linear`: in order.
        """
        self._check_open()
        check_blocks(start, end)
        if blocks is not None:
            blocks = _listed(blocks)
        pieces = pieces_of(start, end, blocks, linear=linear)
        for first, last in pieces:
            check_blocks(first, None if last == ENDLESS else last)
        download = Download(self.feed, self.session, pieces, self._forget_download)
        if not download.done:
            self._downloads.append(download)
        return download

    def undownload(self, download: Download | tuple[int, int | None]) -> None:
        """Take a download back, given as such or by the same range; who awaits it gets `Withdrawn`. Raises: Closed."""
        self._check_open()
        if isinstance(download, Download):
            download.cancel()
            return
        check_kind("a download is given as such, or as its start and end", download, tuple)
        first, end = download
        check_blocks(first, end)
        last = ENDLESS if end is None else end
        for other in list(self._downloads):
            if (other.start, other.end) == (first, last):
                other.cancel()

    @property
    def downloads(self) -> list[Download]:
        """The downloads that are not complete."""
        return list(self._downloads)

    def _forget_download(self, download: Download) -> None:
        if download in self._downloads:
            self._downloads.remove(download)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _only_available(self, chosen: bool | None) -> bool:
        return self._options.if_available if chosen is None else chosen

    def _decode(self, block: bytes, index: int, chosen: str | Encoding | None) -> Any:
        encoding = self._options.encoding if chosen is None else encoding_of(chosen)
        return decode(encoding, block, f"block {index} of feed {self.feed.name}")

    def _check_open(self) -> None:
        if self.feed.closed:
            raise Closed(f"feed {self.feed.name} is closed")

    def _check_growing(self, length: int) -> None:
        """Raise Forked for a length that the feed will never have here."""
        if self.feed.forked and length > self.length:
            raise Forked(
                f"feed {self.feed.name} is forked, two histories are signed with its key: "
                f"it stays at the {self.length} blocks that came first"
            )

    async def _block(
        self,
        index: int,
        wait: bool,
        timeout: float | None,
        on_wait: Callable[[int], object] | None,
        only_available: bool,
    ) -> bytes:
        check_blocks(index)
        if on_wait is not None:
            check_hooks(on_wait=on_wait)
        if self.feed.closed or self.feed.has(index) or not wait:
            try:
                block = await self.feed.get(index, wait=False)
                self.session.stats.cache_hits += 1
                return block
            except NotHeld:  # of a copy's block that turned out to be damaged: from a peer, then
                if not wait:
                    raise
        self._check_growing(index + 1)
        if on_wait is not None:
            on_wait(index)
        with self._waits.wait(index, index + 1, timeout, f"block {index} of feed {self.feed.name}"):
            if only_available:
                with self.feed.want(index, index + 1, urgent=True):
                    await self._until_held(index)
            block = await self.feed.get(index)
        self.session.stats.cache_misses += 1
        return block

    async def _until_held(self, index: int) -> None:
        while not self.feed.has(index):
            self._check_open()
            if not self._is_connecting() and self.session.availability(index) is False:
                raise NoPeers(f"no connected peer has block {index} of feed {self.feed.name}")
            await self.session.news()

    async def _until_located(self, byte_offset: int, start: int, end: int | None) -> None:
        last = BlockIndex(1 << 36 if end is None else end)
        withdraw = self.session.want_offset(byte_offset, BlockIndex(start), last)
        try:
            while self.feed.locate(byte_offset) is None:
                self._check_open()
                needed = self.length + 1 if byte_offset > self.byte_length else 1
                if not self._is_connecting() and self.session.may_have_length(needed) is False:
                    raise NoPeers(f"no connected peer knows where byte {byte_offset} of feed {self.feed.name} lies")
                await self.session.news()
        finally:
            withdraw()

    async def _until_long(self, wanted: int) -> None:
        withdraw = self.session.want_length(wanted)
        try:
            while self.length < wanted:
                self._check_open()
                if not self._is_connecting() and self.session.may_have_length(wanted) is False:
                    raise NoPeers(f"no connected peer has {wanted} blocks of feed {self.feed.name}")
                await self.session.news()
        finally:
            withdraw()

    def _check_writable(self) -> None:
        if not self.writable:
            raise NotWritable(f"feed {self.feed.name} is not ours, or its secret key is not here")
