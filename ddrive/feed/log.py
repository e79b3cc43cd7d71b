"""The rules of a feed for the owner of its files: verify, then write, then mark as held.

Nothing is written before it is verified, nothing is announced before it is durable. Everything here is synchronous and
therefore atomic between tasks; the parts that wait for a disk (`secure`, `sync_files`) touch only files, so that they
can run in a thread. Source: feed.md sections 4.4, 4.5, 5 and 7.
"""

import errno
import json
from collections.abc import Sequence
from contextlib import suppress
from logging import getLogger
from typing import NamedTuple

from ddrive import crypto
from ddrive.errors import (
    AlreadyExists,
    Closed,
    CorruptStorage,
    DriveError,
    Forked,
    InvalidProof,
    NotHeld,
    NotWritable,
    StorageError,
    TooLarge,
    WrongKey,
)
from ddrive.feed import flat, merkle
from ddrive.feed.bitfield import Bitfield
from ddrive.feed.hashing import Buffer, signable
from ddrive.feed.layout import FeedFiles
from ddrive.feed.merkle import MAX_BLOCK_BYTES, MAX_BYTES, MAX_LENGTH, Checked, Proof, RemoteTree
from ddrive.feed.reading import StoredFeed
from ddrive.feed.recovery import author_signed, recover, stored_roots
from ddrive.feed.storage import FORKED, KEY, SECRET_KEY, Directory
from ddrive.ids import BlockIndex, Node, PublicKey, short

MAX_DOUBTS = 1024  # blocks remembered for a proof that failed

_log = getLogger(__name__)


class Stored(NamedTuple):
    """What a block or proof from a peer changed: a new block, the length now, whether the feed grew."""

    block: bool
    length: int
    grew: bool


class Staged(NamedTuple):
    """An append whose data and nodes are written and whose signature is not."""

    start: BlockIndex
    length: int
    byte_length: int
    roots: list[Node]


class FeedLog(StoredFeed):
    """One feed whose files this process owns."""

    def __init__(self, directory: Directory, files: FeedFiles, key: PublicKey, secret_key: bytes | None) -> None:
        bits = Bitfield.load(files.read_pages(), files.page_bytes)
        super().__init__(directory, files, bits, key)
        self._secret_key = secret_key
        self.writable = secret_key is not None
        self.length, self.roots, self._damaged = recover(files, bits, key, secret_key)
        self.byte_length = merkle.total_size(self.roots)
        self.forked = directory.exists(FORKED)
        self._staged: Staged | None = None
        self._doubts: dict[int, None] = {}
        self._unsynced = bits.dirty
        if self._damaged:
            _log.warning("feed damaged key=%s length=%d", short(key), self.length)

    @classmethod
    def create(
        cls, directory: Directory, *, key: PublicKey, secret_key: bytes | None = None, store_secret_key: bool = True
    ) -> "FeedLog":
        """Return a new empty feed in `directory`; `store_secret_key` is false where the key can be derived again.

        Raises: AlreadyExists, StorageLocked, WrongKey when the secret key belongs to another feed.
        """
        _check_secret_key(key, secret_key)
        directory.lock()
        try:
            if directory.exists(KEY):
                raise AlreadyExists(f"a feed is stored here already, not {short(key)}")
            FeedFiles(directory).close()
            if secret_key is not None and store_secret_key:
                _write_file(directory, SECRET_KEY, secret_key)
            _write_file(directory, KEY, key)
            directory.sync()
        finally:
            directory.close()
        return cls.open(directory, key=key, secret_key=secret_key)

    @classmethod
    def open(cls, directory: Directory, *, key: PublicKey | None = None, secret_key: bytes | None = None) -> "FeedLog":
        """Return the feed stored in `directory`; `secret_key` makes it writable where none is stored.

        Raises: StorageError when none is there, StorageLocked, WrongKey, CorruptStorage.
        """
        if not directory.exists(KEY):
            raise StorageError("no feed is stored here")
        directory.lock()
        try:
            stored = PublicKey(_read_file(directory, KEY, crypto.KEY_BYTES))
            if len(stored) != crypto.KEY_BYTES:
                raise CorruptStorage("the file with the key of the feed is cut off")
            if key is not None and key != stored:
                raise WrongKey(f"feed {short(stored)} is stored here, not {short(key)}")
            if secret_key is None and directory.exists(SECRET_KEY):
                secret_key = _read_file(directory, SECRET_KEY, crypto.SECRET_KEY_BYTES) or None
            _check_secret_key(stored, secret_key)
            files = FeedFiles(directory)
            try:
                return cls(directory, files, stored, secret_key)
            except BaseException:
                files.close()
                raise
        except BaseException:
            directory.close()
            raise

    def close(self) -> None:
        """Make everything durable and give the files back; further calls do nothing."""
        if self.closed:
            return
        try:
            self.flush()
        finally:
            self.closed = True
            self._files.close()
            self._directory.close()

    # -- our own blocks

    def append(self, blocks: Sequence[Buffer]) -> BlockIndex:
        """Append blocks under one signature and return the index of the first; durable only after `sync`.

        Raises: NotWritable, TooLarge, Forked, CorruptStorage.
        """
        staged = self.stage(blocks)
        self._sign(staged)
        self.publish(staged)
        return staged.start

    def stage(self, blocks: Sequence[Buffer]) -> Staged:
        """Write blocks and their nodes beyond the end of the feed, without signing or announcing them.

        `secure` has to follow, then `publish` or, when it failed, `abandon`.
        """
        self._check_appendable(blocks)
        grown = merkle.grow(self.roots, self.length, blocks)
        length, byte_length = self.length + len(blocks), self.byte_length + grown.size
        if length > MAX_LENGTH or byte_length >= MAX_BYTES:
            raise TooLarge(f"feed {short(self.key)} would become too long")
        if grown.size:
            self._files.data.write(self.byte_length, blocks[0] if len(blocks) == 1 else b"".join(blocks))
        if blocks:
            self._files.write_tail(2 * self.length, grown.tail)
            self._files.write_nodes(grown.parents)
        self._staged = Staged(BlockIndex(self.length), length, byte_length, grown.roots)
        return self._staged

    def secure(self, staged: Staged) -> None:
        """Make a staged append durable, its signature last. May run in a thread.

        A signature is written only when what it covers is on disk, so after a crash a signed length is complete.
        """
        self._files.sync_content()
        self._sign(staged)
        self._files.sync_signatures()

    def publish(self, staged: Staged) -> None:
        """Count a staged append as part of the feed."""
        self._staged = None
        if staged.length == staged.start:
            return
        self._bits.set_blocks(staged.start, staged.length, True)
        self._bits.add_complete(staged.start, staged.length)
        self._verified.set_blocks(staged.start, staged.length, True)
        self._unsynced = True
        self.length, self.byte_length, self.roots = staged.length, staged.byte_length, staged.roots

    def abandon(self) -> None:
        """Give up a staged append whose `secure` failed: whether it was signed shows only when opened again."""
        self._staged = None
        self._damaged = True

    # -- blocks from peers

    def digest(self, index: int) -> int:
        """Return `Request.nodes` for block `index`: which of the nodes that prove it are held."""
        return 0 if index in self._doubts else merkle.digest(self._bits.known, index, self._bits.covers)

    def proof(self, index: int, *, digest: int, hash_only: bool, remote: RemoteTree) -> Proof | None:
        """Return what proves block `index` to a peer, None when it cannot be proven here or the feed is forked."""
        if self.forked or not 0 <= index < MAX_LENGTH:
            return None
        planned = merkle.plan(self._bits.known, index, digest, hash_only=hash_only, remote=remote)
        if planned is None:
            return None
        nodes: list[Node] = []
        for number in planned.nodes:
            node = self._node(number)
            if node is None:
                return None
            nodes.append(node)
        if not planned.signed_length:
            return Proof(tuple(nodes))
        signature = self._files.signature(planned.signed_length)
        return None if signature is None else Proof(tuple(nodes), signature)

    def put(self, index: int, value: Buffer | None, proof: Proof) -> Stored:
        """Verify block `index` (or, without `value`, its leaf) and store what is new.

        Raises: InvalidProof, Forked; in both cases nothing of the block was written.
        """
        self._check_open()
        try:
            checked = merkle.check(index, value, proof, self._node, self.key)
        except InvalidProof:
            self._doubt(index)
            raise
        if checked.length and self.forked:
            raise Forked(f"feed {short(self.key)} has two histories: nothing new is accepted")
        if checked.contradicted:
            self._judge(checked)
        grew = checked.length > self.length
        if grew and self._staged is not None:
            raise InvalidProof(f"feed {short(self.key)} grew elsewhere during an append")
        new_block = value is not None and (bool(checked.contradicted) or not self._bits.has(index))
        self._write(index, value if new_block else None, checked)
        if new_block:
            self._bits.add_block(index)
            self._verified.add_block(index)
        if grew:
            self.length, self.roots = checked.length, checked.roots
            self.byte_length = merkle.total_size(checked.roots)
        return Stored(new_block, self.length, grew)

    def clear(self, start: int, end: int) -> list[tuple[int, int]]:
        """Drop the held blocks from `start` up to `end` and free their space; returns the runs that were held.

        Their nodes stay, so they can be fetched again.
        """
        self._check_open()
        runs = self._bits.runs(start, min(end, self.length))
        for first, last in runs:
            before, after = self._bits.held_before(first), self._bits.held_from(last)
            low = 0 if before is None else self._end_of(before)
            high = self.byte_length if after is None else self.byte_offset(after)
            self._bits.set_blocks(first, last, False)
            self._verified.set_blocks(first, last, False)
            if low is None or high is None:
                continue
            if after is None and self._staged is None and self._files.data.size() <= high:
                self._files.data.truncate(min(low, self._files.data.size()))
            else:
                self._files.data.punch(low, high - low)
        self._unsynced = self._unsynced or bool(runs)
        return runs

    def audit(self, start: int = 0, end: int | None = None) -> tuple[int, list[int]]:
        """Read the held blocks from `start` up to `end` again; returns how many are good, and which are not.

        A bad block counts as not held afterwards.
        """
        good, bad = 0, []
        for first, last in self._bits.runs(start, self.length if end is None else end):
            self._verified.set_blocks(first, last, False)
            for index in range(first, last):
                try:
                    self.block(index)
                    good += 1
                except (NotHeld, CorruptStorage):
                    bad.append(index)
        return good, bad

    def bitfield_bytes(self, start: int, length: int) -> bytes:
        """Return which of `length` blocks from `start` on are held, first one in the highest bit; may be shorter."""
        return self._bits.block_bytes(start, length)

    # -- making it durable

    def sync(self) -> None:
        """Return when everything is durable."""
        self.flush()
        self._files.sync_bitfield()

    def flush(self) -> None:
        """Make received blocks durable, then write the bits that say so."""
        pages = self.begin_flush()
        if pages is not None:
            self.sync_files()
            self.end_flush(pages)

    def begin_flush(self) -> list[tuple[int, bytes]] | None:
        """Return the pages of bits to be written when what they stand for is durable, None when there is nothing."""
        if not self._unsynced:
            return None
        self._unsynced = False
        return self._bits.take_dirty()

    def sync_files(self) -> None:
        """Make data, tree and signatures durable. May run in a thread."""
        self._files.sync_content()
        self._files.sync_signatures()

    def end_flush(self, pages: list[tuple[int, bytes]]) -> None:
        """Write the pages that `begin_flush` returned."""
        self._files.write_pages(pages)

    def cancel_flush(self, pages: list[tuple[int, bytes]]) -> None:
        """Take back `begin_flush`, because the files could not be made durable."""
        self._bits.mark_dirty(number for number, _ in pages)
        self._unsynced = True

    # -- inside

    def _node(self, number: int) -> Node | None:
        return self._files.node(number) if self._bits.known(number) else None

    def _note_verified(self, index: int) -> None:
        self._verified.add_block(index)

    def _lose(self, index: int) -> DriveError:
        error = super()._lose(index)
        self._unsynced = True
        return CorruptStorage(str(error)) if self.writable else error

    def _distrust(self, left: Node, right: Node) -> None:
        if self.writable:
            raise CorruptStorage(f"nodes {left.number} and {right.number} of feed {short(self.key)} do not verify")
        self._bits.forget_node(left.number)
        self._bits.forget_node(right.number)

    def _end_of(self, index: int) -> int | None:
        start, leaf = self.byte_offset(index), self._node(2 * index)
        return None if start is None or leaf is None else start + leaf.size

    def _sign(self, staged: Staged) -> None:
        if staged.length > staged.start and self._secret_key is not None:
            text = signable(staged.roots, staged.length)
            self._files.write_signature(staged.length, crypto.sign(text, self._secret_key))

    def _write(self, index: int, value: Buffer | None, checked: Checked) -> None:
        """Write a verified block, then nodes, then the signature."""
        if value is not None:
            start = self._start_of(index, checked)
            self._remember_start(index + 1, start + len(value))
            if len(value):
                self._write_data(start, value)
            self._unsynced = True
        if checked.nodes:
            self._files.write_nodes(checked.nodes)
            for node in checked.nodes:
                self._bits.add_node(node.number)
            self._unsynced = True
        if checked.signature is not None:
            self._files.write_signature(checked.length, checked.signature)

    def _write_data(self, start: int, value: Buffer) -> None:
        try:
            self._files.data.write(start, value)
        except OSError as error:
            if error.errno in (errno.EFBIG, errno.EINVAL):
                raise InvalidProof(f"feed {short(self.key)} is larger than files can be here") from error
            raise

    def _start_of(self, index: int, checked: Checked) -> int:
        """Return where a block starts, by nodes that are new or held."""
        if (known := self._starts.get(index)) is not None and not checked.contradicted:
            return known
        fresh = {node.number: node for node in (*checked.roots, *checked.nodes)}
        start = 0
        for number in flat.full_roots(index):
            node = fresh.get(number) or self._node(number)
            if node is None:
                raise InvalidProof(f"block {index}: the place of its bytes is not proven")
            start += node.size
        return start

    def _judge(self, checked: Checked) -> None:
        """Decide whether stored nodes that a verified proof contradicts are the author's own, or damage on our disk.

        Raises: Forked when they are the author's: the stored history is kept, the evidence recorded.
        """
        for node in checked.contradicted:
            length = author_signed(self._files, self.key, self._bits, node)
            if length:
                self._record_fork(node, length, checked)
                raise Forked(f"feed {short(self.key)} has two signed histories, they differ at node {node.number}")
        _log.warning("stored nodes replaced key=%s nodes=%d", short(self.key), len(checked.contradicted))
        self._starts.clear()
        self._pairs.clear()
        for node in checked.contradicted:
            self._verified.set_blocks(*flat.span(node.number), False)

    def _record_fork(self, node: Node, length: int, checked: Checked) -> None:
        """Write both signed histories to the file `forked`; from then on nothing of this feed is proven to peers."""
        ours = stored_roots(self._files, length) or []
        evidence = {
            "stored": _signed(length, ours, self._files.signature(length)),
            "received": _signed(checked.length, checked.roots, checked.signature),
            "received_nodes": [_plain(fresh) for fresh in checked.nodes],
            "differ_at": node.number,
        }
        self.forked = True
        _write_file(self._directory, FORKED, json.dumps(evidence, indent=1).encode())
        self._directory.sync()
        _log.error("feed forked key=%s node=%d", short(self.key), node.number)

    def _doubt(self, index: int) -> None:
        """Ask for a complete proof of block `index` next time: what is stored may contradict what peers hold."""
        if len(self._doubts) >= MAX_DOUBTS:
            self._doubts.clear()
        self._doubts[index] = None

    def _check_open(self) -> None:
        if self.closed:
            raise Closed(f"feed {short(self.key)} is closed")

    def _check_appendable(self, blocks: Sequence[Buffer]) -> None:
        self._check_open()
        if not self.writable:
            raise NotWritable(f"feed {short(self.key)} belongs to somebody else")
        if self.forked:
            raise Forked(f"feed {short(self.key)} has two histories: nothing can be appended")
        if self._damaged:
            raise CorruptStorage(f"feed {short(self.key)} was signed further than its files show; restore or reopen it")
        if self._staged is not None:
            raise StorageError(f"another append to feed {short(self.key)} is under way")
        for block in blocks:
            if len(block) > MAX_BLOCK_BYTES:
                raise TooLarge(f"a block of {len(block)} bytes is over the limit of {MAX_BLOCK_BYTES}")


def _check_secret_key(key: PublicKey, secret_key: bytes | None) -> None:
    if secret_key is not None and crypto.KeyPair.from_secret_key(secret_key).public_key != key:
        raise WrongKey(f"the secret key is not the one of feed {short(key)}")


def _read_file(directory: Directory, name: str, size: int) -> bytes:
    with suppress(FileNotFoundError):
        storage = directory.open(name, create=False)
        try:
            return storage.read(0, size)
        finally:
            storage.close()
    return b""


def _write_file(directory: Directory, name: str, content: bytes) -> None:
    storage = directory.open(name, create=True)
    try:
        storage.write(0, content)
        storage.truncate(len(content))
        storage.sync()
    finally:
        storage.close()


def _plain(node: Node) -> list[object]:
    return [node.number, node.hash.hex(), node.size]


def _signed(length: int, roots: Sequence[Node], signature: bytes | None) -> dict[str, object]:
    return {
        "length": length,
        "roots": [_plain(root) for root in roots],
        "signature": signature.hex() if signature else None,
    }
