"""What an owner does with the blocks of others: verify, then write, then mark as held; and prove them to peers.

Nothing is written before it is verified. Source: feed.md sections 4.5, 5 and 7.
"""

import errno
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from logging import getLogger
from typing import NamedTuple

from ddrive.errors import DISK_FULL, CorruptStorage, Forked, InvalidProof, NotHeld, Untied
from ddrive.feed import flat, merkle
from ddrive.feed.auditing import AuditedFeed
from ddrive.feed.forks import author_signed, record_fork
from ddrive.feed.hashing import Buffer, leaf_hashes, signed_by
from ddrive.feed.layout import FeedFiles
from ddrive.feed.merkle import MAX_LENGTH, Checked, Proof, RemoteTree
from ddrive.feed.placing import placed_leaf
from ddrive.feed.recovery import stored_roots
from ddrive.feed.signing import ED25519, Signing
from ddrive.feed.storage import Directory
from ddrive.ids import BlockIndex, Node, PublicKey, short

MAX_DOUBTS = 1024  # blocks remembered for a proof that failed

_log = getLogger(__name__)


class Stored(NamedTuple):
    """What a block or proof from a peer changed: a new block, the length now, whether the feed grew.

    `proof` is false when nodes that came with it were not kept: there was no room, or another proof came before.
    """

    block: bool
    length: int
    grew: bool
    proof: bool = True


class FeedLog(AuditedFeed):
    """A feed whose files this process owns, with all it can do."""

    def __init__(
        self,
        directory: Directory,
        files: FeedFiles,
        key: PublicKey,
        secret_key: bytes | None,
        signing: Signing = ED25519,
    ) -> None:
        super().__init__(directory, files, key, secret_key, signing)
        self._doubts: dict[int, None] = {}
        self._following: tuple[int, int] | None = None  # the block behind the one written last, and where it starts
        self._doubted_length = -1  # ours when a longer tree did not verify: it may not go on from what is stored

    # -- blocks from peers

    def digest(self, index: int) -> int:
        """Return `Request.nodes` for block `index`: which of the nodes that prove it are held."""
        is_doubted = index in self._doubts or (index >= self.length and self.length == self._doubted_length)
        if is_doubted:
            return 0
        return merkle.digest(self._shown, index, self._bits.covers) if self._unfit else self._bits.digest(index)

    def proof(
        self, index: int, *, digest: int, hash_only: bool, remote: RemoteTree, kept: bool = False
    ) -> Proof | None:
        """Return what proves block `index` to a peer, None when it cannot be proven here or the feed is forked.

        `kept`: `remote` also has all that was sent to the peer.
        """
        if self.forked or not 0 <= index < MAX_LENGTH:
            return None
        known = self._shown if self._unfit or self.signed_length < self.length else self._bits.known
        planned = merkle.plan(known, index, digest, hash_only=hash_only, remote=remote, kept=kept)
        if planned is None:
            return None
        nodes: list[Node] = []
        for number in planned.nodes:
            node = self._believed(number)
            if node is None:
                return None
            nodes.append(node)
        if not planned.signed_length:
            return Proof(tuple(nodes))
        signature = self._files.signature(planned.signed_length)
        return None if signature is None else Proof(tuple(nodes), signature)

    def put(self, index: int, value: Buffer | None, proof: Proof, *, tied: bool = False, soon: bool = True) -> Stored:
        """Verify block `index` (or, without `value`, its leaf) and store what is new.

        A new block that there is no room for is in `passing` afterwards, for a while. With `tied` a longer tree has to
        be shown to go on from ours, as by the proof of the first block that we lack; else of two histories the second
        one would cover the first one unnoticed, until a proof happens to touch both. `soon`: the block is read at once.
        Raises: InvalidProof, Untied, Forked; in all cases nothing of the block was written.
        """
        self._check_open()
        try:
            checked = merkle.check(index, value, proof, self._believed, self.key, self._verify)
            if not checked.contradicted:
                self._check_place(index, value, checked)
        except InvalidProof:
            self._not_proven(index, proof)
            raise
        if checked.length and self.forked:
            raise Forked(f"feed {short(self.key)} has two histories: nothing new is accepted")
        self._doubts.pop(index, None)
        if self.signed_length < self.length and (checked.contradicted or checked.length > self.length):
            raise InvalidProof(f"feed {short(self.key)} grew elsewhere during an append")
        if checked.contradicted:
            self._judge(checked)
        if checked.contradicted or checked.resized:
            self._forget_places()
        if checked.contradicted:  # by what is not the author's: two histories may well have other sizes
            try:
                self._check_place(index, value, checked)
            except InvalidProof:
                self._not_proven(index, proof)
                raise
        grew = checked.length > self.length
        if grew and (self._staged is not None or self._staging):
            raise InvalidProof(f"feed {short(self.key)} grew elsewhere during an append")
        if grew and tied and not checked.contradicted and not checked.goes_on_from(self.roots):
            raise Untied(
                f"{checked.length} blocks of feed {short(self.key)} do not show that they go on from {self.length}"
            )
        new_block = value is not None and (bool(checked.contradicted) or not self._bits.has(index))
        if new_block and value is not None and self.on_write is not None:
            self.on_write(index, value)
        kept = value if new_block and value is not None and self.room(index, len(value)) else None
        if kept is not None:
            with self.clearing() if checked.contradicted else nullcontext():
                if not self._write_blocks(index, [kept], (*checked.roots, *checked.nodes), soon=soon):
                    kept = None
        has_proof = not checked.unused
        try:
            self._write_proof(checked)
        except OSError as error:
            if error.errno not in DISK_FULL or not new_block or grew:
                raise
            kept, has_proof = None, False
        if kept is not None:
            self._bits.add_block(index)
            self.passing.drop(index)
        elif new_block and value is not None:
            self.passing.add(index, bytes(value))
        return Stored(kept is not None, self._grow(checked) if grew else self.length, grew, has_proof)

    def put_all(self, blocks: Mapping[BlockIndex, tuple[Buffer, Proof]], *, soon: bool = True) -> list[tuple[int, int]]:
        """Verify blocks that need no signature and store them, neighbours with one write; returns the runs stored.

        It ends before the first block about which anything is unusual: `put` stores that one, or says what is wrong.
        """
        self._check_open()
        done: list[tuple[int, int]] = []
        try:
            runs, nodes = self._check_all(blocks)
            self._write_proof(Checked(list(nodes.values()), [], False, 0, [], None))
            for start, values in runs:
                if self._start_of(start, nodes.values()) + sum(map(len, values)) > self.byte_length:
                    break
                if not self._write_blocks(start, values, nodes.values(), soon=soon):
                    break
                end = start + len(values)
                self._bits.set_blocks(start, end, True)
                for index in range(start, end):
                    self.passing.drop(index)
                    self._doubts.pop(index, None)
                done.append((start, end))
        except (OSError, InvalidProof) as error:
            _log.debug("blocks are stored one by one key=%s error=%s", short(self.key), error)
        return done

    def _check_all(
        self, blocks: Mapping[BlockIndex, tuple[Buffer, Proof]]
    ) -> tuple[list[tuple[int, list[Buffer]]], dict[int, Node]]:
        """Verify as many of the blocks as are usual, in order; returns the runs to be stored, and the new nodes."""
        runs: list[tuple[int, list[Buffer]]] = []
        nodes: dict[int, Node] = {}
        size = following = 0

        def load(number: int) -> Node | None:
            return nodes.get(number) or self._believed(number)

        if self.on_write is not None:
            return runs, nodes
        digests = leaf_hashes([value for value, _ in blocks.values()])
        for (index, (value, proof)), digest in zip(blocks.items(), digests, strict=True):
            if self._bits.has(index):
                break
            try:
                checked = merkle.check(index, value, proof, load, self.key, self._verify, hashed=digest)
            except InvalidProof:
                break
            size += len(value)
            if checked.length or checked.contradicted or checked.resized or checked.unused:
                break
            if not self.room(index, size):
                break
            nodes.update([(node.number, node) for node in checked.nodes])
            if runs and index == following:
                runs[-1][1].append(value)
            else:
                runs.append((index, [value]))
            following = index + 1
        return runs, nodes

    def clear(self, start: int, end: int) -> list[tuple[int, int]]:
        """Drop the held blocks from `start` up to `end` and free their space; returns the runs that were held.

        Their nodes stay, so they can be fetched again.
        """
        self._check_open()
        runs = self._bits.runs(start, min(end, self.length))
        self._forget_lost(start, end)
        for first, last in runs:
            before, after = self._bits.held_before(first), self._bits.held_from(last)
            low = 0 if before is None else self._certain_offset(before, at_end=True)
            high = self.byte_length if after is None else self._certain_offset(after)
            self._bits.set_blocks(first, last, False)
            self._verified.set_blocks(first, last, False)
            with suppress(OSError):  # a full disk shall not keep anything from being freed
                self._files.drop_bits(first, last)  # first: a kill in between leaves nothing that is not there
            if low is None or high is None:
                continue
            is_end = after is None and self._staged is None and not self._staging
            with self.clearing():
                if is_end and self._files.data.size() <= high:
                    self._files.data.truncate(min(low, self._files.data.size()))
                else:
                    self._files.data.punch(low, high - low)
        self._unsynced = self._unsynced or bool(runs)
        return runs

    def bitfield_bytes(self, start: int, length: int) -> bytes:
        """Return which of `length` blocks from `start` on are held, first one in the highest bit; may be shorter."""
        return self._bits.block_bytes(start, max(0, min(length, self.signed_length - start)))

    # -- signatures

    def signature(self, index: int | None = None) -> tuple[int, bytes]:
        """Return the last block that the first stored signature at or after block `index` covers, and the signature.

        Raises: NotHeld when there is none; a feed has one per append, a copy one per proof that it received.
        """
        first = self.signed_length if index is None else index + 1
        length = self._files.first_signed(first, self.signed_length + 1) if first > 0 else None
        signature = self._files.signature(length) if length is not None else None
        if length is None or signature is None:
            what = "" if index is None else f" for block {index}"
            raise NotHeld(f"no signature of feed {short(self.key)}{what} is held")
        return length - 1, signature

    def root_hashes(self, index: int) -> list[Node]:
        """Return the roots of the tree whose last block is `index`.

        Raises: NotHeld when one is missing.
        """
        roots = stored_roots(self._files, index + 1) if 0 <= index < self.length else None
        if roots is None:
            raise NotHeld(f"the roots for block {index} of feed {short(self.key)} are not held")
        return roots

    def verify(self, index: int, signature: bytes) -> None:
        """Return when `signature` is the author's for the tree whose last block is `index`.

        Raises: InvalidProof when it is not, NotHeld when the roots are not held.
        """
        if not signed_by(self.key, self.root_hashes(index), index + 1, signature, self._verify):
            raise InvalidProof(f"the signature of feed {short(self.key)} up to block {index} does not verify")

    # -- inside

    def _shown(self, number: int) -> bool:
        """Tell whether peers may be given node `number`: it is known, signed, and not known to be damaged."""
        if self.signed_length < self.length and flat.right_span(number) >= 2 * self.signed_length:
            return False
        return self._bits.known(number) and number not in self._unfit

    def _distrust(self, left: Node, right: Node) -> None:
        if self.writable:
            raise CorruptStorage(f"nodes {left.number} and {right.number} of feed {short(self.key)} do not verify")
        self._distrust_all([left.number, right.number])

    def _grow(self, checked: Checked) -> int:
        """Count what a proof shows as part of the feed, and return the length."""
        self.length, self.roots = checked.length, checked.roots
        self.signed_length = checked.length
        self.byte_length = merkle.total_size(checked.roots)
        self._damaged = self._damaged and self.length < self._signed_once
        return self.length

    def _write_blocks(self, index: int, values: Sequence[Buffer], fresh: Iterable[Node], *, soon: bool) -> bool:
        """Write verified blocks that lie side by side from `index` on; tells whether the disk had room for them.

        They are checked again when they are first read: a disk that fails tells the next `sync`, and the kernel keeps
        no copy meanwhile.
        """
        start, size = self._start_of(index, fresh), sum(map(len, values))
        if size:
            try:
                data = self._files.data
                (data.write_all if soon else data.write_through)(start, values)
            except OSError as error:
                if error.errno in (errno.EFBIG, errno.EINVAL):
                    raise InvalidProof(f"feed {short(self.key)} is larger than files can be here") from error
                if error.errno not in DISK_FULL:
                    raise
                self._files.data.punch(start, size)
                return False
        self._remember_start(index + len(values), start + size)
        self._following = index + len(values), start + size
        self._unsynced = True
        return True

    def _write_proof(self, checked: Checked) -> None:
        """Write verified nodes, then the signature; the nodes count only with it, or no proof would bring it again."""
        if checked.nodes:
            self._files.write_nodes(checked.nodes)
        if checked.signature is not None:
            self._files.write_signature(checked.length, checked.signature)
        for node in checked.nodes:
            self._bits.add_node(node.number)
            self._unfit.discard(node.number)
            self._unsynced = True

    def _forget_places(self) -> None:
        self._starts.clear()
        self._pairs.clear()
        self._following = None

    def _start_of(self, index: int, fresh: Iterable[Node]) -> int:
        """Return where a block starts, by nodes that are new or held."""
        if self._following is not None and self._following[0] == index:
            return self._following[1]
        new: dict[int, Node] = {node.number: node for node in fresh}

        def load(number: int) -> Node | None:
            return new[number] if number in new else self._believed(number)

        for attempt in range(2):
            try:
                placed = placed_leaf(index, self.roots if index < self.length else (), load, self._pairs)
            except InvalidProof:
                if attempt:
                    raise
                if not self._mend(index):
                    self._forget_unproven(index)
            else:
                if placed is not None:
                    return placed[0]
                break
        start = 0
        for number in flat.full_roots(index):
            node = load(number)
            if node is None:
                raise InvalidProof(f"block {index}: the place of its bytes is not proven")
            start += node.size
        return start

    def _judge(self, checked: Checked) -> None:
        """Decide whether stored nodes that a verified proof contradicts are the author's own, or damage on our disk.

        Raises: Forked when they are the author's: the stored history is kept, both are recorded, and from then on
        nothing of this feed is proven to peers.
        """
        for node in checked.contradicted:
            length = author_signed(self._files, self.key, self._bits, node, self._verify)
            if length:
                self.forked = True
                record_fork(self._directory, self._files, length, checked)
                _log.error("feed forked key=%s node=%d", short(self.key), node.number)
                raise Forked(f"feed {short(self.key)} has two signed histories, they differ at node {node.number}")
        _log.warning("stored nodes replaced key=%s nodes=%d", short(self.key), len(checked.contradicted))
        for node in checked.contradicted:
            self._verified.set_blocks(*flat.span(node.number), False)

    def _not_proven(self, index: int, proof: Proof) -> None:
        """Have the next proof of block `index` be as complete as can be, and built on nothing that is damaged."""
        self._forget_unproven(index)
        self._doubt(index)
        if proof.signature is not None:
            self._doubted_length = self.length

    def _check_place(self, index: int, value: Buffer | None, checked: Checked) -> None:
        """Raise InvalidProof where nodes to the left of a new block are not here, or cannot have such sizes."""
        if value is None or (self._bits.has(index) and not checked.contradicted):
            return
        start = self._start_of(index, (*checked.roots, *checked.nodes))
        if start + len(value) > max(self.byte_length, merkle.total_size(checked.roots)):
            self._starts.clear()
            raise InvalidProof(f"block {index}: the place of its bytes lies behind the end of the feed")

    def _doubt(self, index: int) -> None:
        """Ask for a complete proof of block `index` next time: what is stored may contradict what peers hold."""
        if len(self._doubts) >= MAX_DOUBTS:
            self._doubts.clear()
        self._doubts[index] = None
