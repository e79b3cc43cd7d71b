"""A feed whose files this process owns: opening them, appending our own blocks, making things durable.

Nothing is announced before it is durable. Everything here is synchronous and therefore atomic between tasks; the parts
that wait for a disk (`secure`, `sync_files`) touch only files, so that they can run in a thread.
Source: feed.md sections 4.4 and 4.5.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Self

from ddrive.errors import (
    DISK_FULL,
    Behind,
    Closed,
    CorruptStorage,
    DriveError,
    Forked,
    NotWritable,
    StorageError,
    TooLarge,
)
from ddrive.feed import merkle
from ddrive.feed.ahead import LARGE_BYTES, InOrder, LoadAhead
from ddrive.feed.bitfield import Bitfield
from ddrive.feed.hashing import Buffer, signable
from ddrive.feed.layout import FeedFiles
from ddrive.feed.merkle import MAX_BLOCK_BYTES, MAX_BYTES, MAX_LENGTH, Grown
from ddrive.feed.own_files import make_files, open_files
from ddrive.feed.reading import StoredFeed
from ddrive.feed.recovery import UNSYNCED_BATCHES, Recovered, recover
from ddrive.feed.signing import ED25519, Signing
from ddrive.feed.storage import FORKED, Directory
from ddrive.ids import BlockIndex, Node, PublicKey, short

MAX_APPEND_BYTES = MAX_BLOCK_BYTES - 8192  # a longer block and its proof would not fit into a frame of 8 MiB


class Staged(NamedTuple):
    """An append whose data and nodes are written and whose signature is not."""

    start: BlockIndex
    length: int
    byte_length: int
    roots: list[Node]


class OwnedFeed(StoredFeed):
    """One feed whose files this process owns."""

    def __init__(
        self, directory: Directory, files: FeedFiles, key: PublicKey, secret_key: bytes | None, signing: Signing
    ) -> None:
        bits = Bitfield.load(files.read_pages(), files.page_bytes)
        super().__init__(directory, files, bits, key)
        self.on_write: Callable[[int, Buffer], None] | None = None  # told of each block before that is written
        self.room: Callable[[int, int], bool] = lambda index, size: True  # for so many bytes at a block
        self.clearing: Callable[[], AbstractContextManager[None]] = nullcontext  # tells other readers of the files
        self._verify = signing.verify
        self._signer = signing.signer(key, secret_key)
        self.writable = self._signer is not None
        recovered = recover(files, bits, key, self._signer, self._verify)
        self.length, self.roots, self._damaged = recovered.length, recovered.roots, recovered.damaged
        self._signed_once = recovered.signed_once  # what a damaged feed has to have again before it goes on
        self.signed_length = self.length  # what is beyond was appended, is not durable, and no peer hears of it
        self.byte_length = merkle.total_size(self.roots)
        self.floor = 0  # blocks of a feed of ours that were signed for sure, while not all of them are here
        self.claimed: Callable[[], int] = lambda: 0  # the length that a peer says a feed of ours has
        self._order = InOrder()
        self.forked = directory.exists(FORKED)
        self._staged: Staged | None = None  # the last one that is neither published nor abandoned
        self._staging = False  # another one is being written
        self._lost = Bitfield()  # blocks that were held and are damaged or gone, and that were not cleared since
        self._unsynced_batches = UNSYNCED_BATCHES  # appends since the bits were made durable: none known
        self._signing = False  # a signature is on its way to the disk
        self._settle(recovered)
        self._unsynced = bits.dirty

    @classmethod
    def create(
        cls,
        directory: Directory,
        *,
        key: PublicKey,
        secret_key: bytes | None = None,
        store_secret_key: bool = True,
        signing: Signing = ED25519,
        cache_bytes: int | None = None,
    ) -> Self:
        """Return a new empty feed in `directory`; `store_secret_key` is false where the key can be derived again.

        Raises: AlreadyExists, StorageLocked, WrongKey when the secret key belongs to another feed.
        """
        make_files(directory, key, secret_key, signing, store_secret_key=store_secret_key)
        return cls.open(directory, key=key, secret_key=secret_key, signing=signing, cache_bytes=cache_bytes)

    @classmethod
    def open(
        cls,
        directory: Directory,
        *,
        key: PublicKey | None = None,
        secret_key: bytes | None = None,
        signing: Signing = ED25519,
        cache_bytes: int | None = None,
    ) -> Self:
        """Return the feed stored in `directory`; `secret_key` makes it writable where none is stored.

        `cache_bytes` bounds the tree pages kept in memory.

        Raises: StorageError when none is there, StorageLocked, WrongKey, CorruptStorage.
        """
        files, stored, secret_key = open_files(directory, key, secret_key, signing, cache_bytes)
        try:
            return cls(directory, files, stored, secret_key, signing)
        except BaseException:
            files.close()
            directory.close()
            raise

    def load_in(self, executor: Executor) -> None:
        """Read and check large blocks in threads, ahead of whoever reads them one after the other."""
        self._ahead = LoadAhead(executor, unload=False)

    def close(self) -> None:
        """Make everything durable and give the files back; further calls do nothing."""
        if self.closed:
            return
        try:
            self.flush()
        finally:
            self.closed = True
            if self._ahead is not None:
                self._ahead.close()
            self._files.close()
            self._directory.close()

    # -- our own blocks

    @property
    def behind(self) -> bool:
        """Whether more was signed of this feed of ours than is held here, so that nothing may be appended yet."""
        if self.floor and self.length >= self.floor and self._bits.held(0, self.floor) == self.floor:
            self.floor = 0
        return bool(self.floor)

    @property
    def damaged(self) -> bool:
        """Whether more was signed of the feed than its files prove."""
        return self._damaged

    def must_reach(self, length: int) -> None:
        """Take note that `length` blocks were signed: until all of them are held, nothing is appended."""
        if self.writable and self._bits.held(0, length) < length:
            self.floor = max(self.floor, length)

    def append(self, blocks: Sequence[Buffer]) -> BlockIndex:
        """Append blocks under one signature and return the index of the first; durable only after `sync`.

        Raises: NotWritable, TooLarge, Forked, CorruptStorage.
        """
        staged = self.stage(blocks)
        try:
            self._write_signature(staged.length, self._signature_of(staged))
        except BaseException:
            self.abandon()
            raise
        self.publish(staged)
        return staged.start

    def stage(self, blocks: Sequence[Buffer], after: Staged | None = None) -> Staged:
        """Write blocks and their nodes beyond the end of the feed, without signing or announcing them.

        `secure` has to follow, then `publish` or, when it failed, `abandon`. They go behind `after`, the append that
        was staged last: while that is made durable this one can be written. `abandon` gives up both.
        """
        before = self.begin_staging(blocks, after)
        try:
            self.stage_content(before, blocks)
            return self.stage_nodes(before, self.grown(before, blocks))
        except BaseException:
            self.undo_staging(before)
            raise

    def begin_staging(self, blocks: Sequence[Buffer], after: Staged | None = None) -> Staged:
        """Tell who has to know that blocks are about to be written: the first step of `stage`.

        Returns what they follow: `after`, or the feed as it is. `undo_staging` has to be called when a step fails.
        """
        self.check_appendable(blocks)
        if self._staged is not after or self._staging:
            raise StorageError(f"another append to feed {short(self.key)} is under way")
        before = after or Staged(BlockIndex(self.length), self.length, self.byte_length, self.roots)
        size = sum(map(len, blocks))
        if before.length + len(blocks) > MAX_LENGTH or before.byte_length + size >= MAX_BYTES:
            raise TooLarge(f"feed {short(self.key)} would become too long")
        if self.on_write is not None:
            for index, block in enumerate(blocks, before.length):
                self.on_write(index, block)
        self.room(before.length, size)  # our own is written in any case, others' blocks may have to go for it
        self._staging = True
        return before

    def stage_content(self, before: Staged, blocks: Sequence[Buffer], *, through: bool = False) -> None:
        """Write blocks behind `before`, `through` to the disk if they are secured next. Fit for any thread."""
        if any(blocks):
            data = self._files.data
            (data.write_through if through else data.write_all)(before.byte_length, blocks)

    def grown(self, before: Staged, blocks: Sequence[Buffer]) -> Grown:
        """Return the tree that `blocks` make of the one before them. Fit for any thread."""
        return merkle.grow(before.roots, before.length, blocks)

    def stage_nodes(self, before: Staged, grown: Grown) -> Staged:
        """Write the nodes of blocks that `stage_content` has written: the last step of `stage`."""
        length = before.length + grown.added
        if grown.added:
            self._files.write_tail(2 * before.length, grown.tail)
            self._files.write_nodes(grown.parents)
        self._staged = Staged(BlockIndex(before.length), length, before.byte_length + grown.size, grown.roots)
        self._staging = False
        return self._staged

    def secure(self, staged: Staged) -> None:
        """Make a staged append durable, its signature last. May run in a thread.

        A signature is written only when what it covers is on disk, so after a crash a signed length is complete. One
        for which there is no room is taken back, so that another append may have its place.
        """
        if self._unsynced_batches >= UNSYNCED_BATCHES:
            self._files.sync_bitfield()
            self._unsynced_batches = 0
        self._files.sync_content()
        signature = self._signature_of(staged)
        self._signing = True
        try:
            self._write_signature(staged.length, signature)
            self._files.sync_signatures()
        except OSError as error:
            if error.errno in DISK_FULL:
                self._files.cut_signatures(self.signed_length)
                self._signing = False
            raise
        self._signing = False

    def publish(self, staged: Staged, *, signed: bool = True) -> None:
        """Count a staged append as part of the feed; without a signature, until `flush` or the next append makes one.

        Until then peers are neither told of it nor given it, so that nothing is lost with it but itself.
        """
        if self._staged is staged:
            self._staged = None
        self.signed_length = staged.length if signed else self.signed_length
        if staged.length == staged.start:
            return
        self._bits.set_blocks(staged.start, staged.length, True)
        self._bits.add_complete(staged.start, staged.length)
        self._verified.set_blocks(staged.start, staged.length, True)
        self._unsynced = True
        self._unsynced_batches += 1
        self.length, self.byte_length, self.roots = staged.length, staged.byte_length, staged.roots

    def abandon(self) -> None:
        """Give up a staged append whose `secure` failed, and what was staged behind it.

        Once its signature may be on disk nothing else may be signed in its place; opening the feed again shows.
        """
        self._staged = None
        if self._signing:
            self._damaged, self._signed_once = True, MAX_LENGTH + 1

    def undo_staging(self, before: Staged) -> None:
        """Cut off what was written behind `before`, because it could not be completed."""
        self._staging = False
        self._files.data.truncate(min(self._files.data.size(), before.byte_length))

    # -- making it durable

    def sync(self) -> None:
        """Return when everything is durable."""
        self.flush()
        self._files.sync_bitfield()

    def flush(self) -> None:
        """Make received blocks durable, then write the bits that say so."""
        if (pages := self.begin_flush()) is None:
            return
        try:
            self.sync_files()
            self.end_flush(pages)
        except BaseException:
            self.cancel_flush(pages)
            raise

    def begin_flush(self) -> list[tuple[int, bytes]] | None:
        """Return the pages of bits to be written when what they stand for is durable, None when there is nothing."""
        if not self._unsynced:
            return None
        self._unsynced = False
        return self._bits.take_dirty()

    def sync_files(self) -> None:
        """Make data, tree and signatures durable, signing what is not signed yet. May run in a thread."""
        self._files.sync_content()
        unsigned = self.signed_length < self.length
        if unsigned:
            self._write_signature(self.length, self._signature(self.roots, self.length))
        self._files.sync_signatures()
        if unsigned:  # nothing but an append, which waits for us, changes the length then
            self.signed_length = self.length

    def end_flush(self, pages: list[tuple[int, bytes]]) -> None:
        """Write the pages that `begin_flush` returned."""
        # what is lost of our own keeps its bit: it is not told from what was cleared otherwise
        self._files.write_pages(self._bits.held_still(pages, self._lost if self.writable else Bitfield()))

    def cancel_flush(self, pages: list[tuple[int, bytes]]) -> None:
        """Take back `begin_flush`, because the files could not be made durable."""
        self._bits.mark_dirty(number for number, _ in pages)
        self._unsynced, self._verified = True, Bitfield()  # what was read before may have been in memory alone

    # -- inside

    def _settle(self, recovered: Recovered) -> None:
        """Say what opening the feed has found out about its files."""

    def _node(self, number: int) -> Node | None:
        return self._files.node(number) if self._bits.known(number) else None

    def _note_verified(self, blocks: range, stamp: int, content: range) -> None:
        self._verified.set_blocks(blocks.start, blocks.stop, True)

    def note_order(self, index: int) -> None:
        """Take note that a program has read block `index`; when it reads large ones in order, load those behind it."""
        if self._ahead is None or self.byte_length < LARGE_BYTES * self.length:
            return
        if unread := self._order.ahead_of(index):
            self.load_ahead(unread.start, unread.stop)

    def _lose(self, index: int) -> DriveError:
        self._unsynced = True
        return super()._lose(index)

    def _signature_of(self, staged: Staged) -> bytes | None:
        """Return the signature that a staged append needs, None when it adds nothing to what is signed."""
        if staged.length == staged.start and self.signed_length >= staged.length:
            return None
        return self._signature(staged.roots, staged.length)

    def _signature(self, roots: list[Node], length: int) -> bytes | None:
        return None if self._signer is None else self._signer(signable(roots, length))

    def _write_signature(self, length: int, signature: bytes | None) -> None:
        if signature is not None:
            self._files.write_signature(length, signature)

    def _check_open(self) -> None:
        if self.closed:
            raise Closed(f"feed {short(self.key)} is closed")

    def check_appendable(self, blocks: Sequence[Buffer]) -> None:
        """Return when `blocks` may be appended. Raises: NotWritable, TooLarge, Forked, CorruptStorage, Behind."""
        self._check_open()
        if not self.writable:
            raise NotWritable(f"feed {short(self.key)} is not ours, or its secret key is not here")
        if self.forked:
            raise Forked(f"feed {short(self.key)} has two histories: nothing can be appended")
        if self._damaged:
            raise CorruptStorage(f"feed {short(self.key)} was signed further than its files show; restore or reopen it")
        if self.behind:
            raise Behind(
                f"feed {short(self.key)} is ours and {self.floor} blocks of it were signed, of which "
                f"{self._bits.held(0, self.floor)} are here: connect to a peer that has the others"
            )
        if (claimed := self.claimed()) > self.length:
            raise Behind(
                f"feed {short(self.key)} is ours, has {self.length} blocks here and {claimed} at a peer: "
                "wait until they have been fetched"
            )
        if (size := max(map(len, blocks), default=0)) > MAX_APPEND_BYTES:
            raise TooLarge(f"feed {short(self.key)}: a block has at most {MAX_APPEND_BYTES} bytes, not {size}")
