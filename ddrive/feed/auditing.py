"""What a feed says and does about damage of its files: what was lost is told, what is there is found again.

Damage that a look at the sizes of the files shows is told when the feed is opened, the rest by an audit or by the read
that meets it.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from logging import getLogger
from typing import NamedTuple

from ddrive.errors import DriveError, InvalidProof
from ddrive.feed import flat
from ddrive.feed.bitfield import BLOCKS_PER_PAGE
from ddrive.feed.hashing import signed_by
from ddrive.feed.losing import lost_error, shown_runs
from ddrive.feed.mending import mended_roots
from ddrive.feed.owned import OwnedFeed
from ddrive.feed.placing import placed_leaf
from ddrive.feed.rebuilding import Restored, behind_end, nodes_without_proof, restore
from ddrive.feed.recovery import Recovered, signed_roots
from ddrive.ids import Node, NodeIndex, short

AUDITED_BLOCKS = 8  # read and checked together
MENDED_ENDS = 64  # blocks for which nodes are mended, when a feed is opened that seems to be cut off
ROOT_TRIES = 4  # signatures checked for the roots of an older length: mostly one of them is damaged

_log = getLogger(__name__)


class Audited(NamedTuple):
    """How many blocks are good, which are not, and which are held although the bitfield did not say so."""

    good: int
    bad: list[int]
    restored: list[int]


class AuditedFeed(OwnedFeed):
    """A feed of files that may be damaged."""

    def _settle(self, recovered: Recovered) -> None:
        """Say what opening the feed has found out about its files, and look for blocks behind their end."""
        self._unsure = recovered.unsure
        self._unfit: set[int] = set()  # nodes of a feed of ours that are damaged
        self.distrusted = 0  # how often a stored node turned out to be damaged, so that it does not count any more
        name = f"feed {short(self.key)}"
        if self._damaged:
            gone = range(self.length, max(recovered.marked, self.length))
            _log.warning(
                "%s is damaged: its files prove %d blocks, and more were signed (%s): %s",
                name,
                self.length,
                shown_runs(gone) or "how many is not known",
                "nothing can be appended before its tree and signatures are restored from a backup"
                if self.writable
                else "they are fetched again from peers",
            )
        if (rebuilt := recovered.rebuilt) is not None and any(rebuilt):
            _log.warning(
                "the bitfield of %s was damaged and is made anew from its other files: %d blocks are held "
                "that it did not list, %d that it listed are not",
                name,
                rebuilt.found,
                len(rebuilt.dropped),
            )
            self._count_lost(rebuilt.dropped if self.writable else ())
        lost = behind_end(self._files, self._bits, self.length, self._end_by_sound_nodes())
        for index in lost:
            self._lost.add_block(index)
            self._bits.set_blocks(index, index + 1, False)
        if lost:
            _log.warning(
                "a file of %s is cut off or missing: %d of %d blocks are lost here (%s): "
                "fetch them from peers, `ddrive verify --repair` does",
                name,
                len(lost),
                self.length,
                shown_runs(lost),
            )

    def _end_by_sound_nodes(self) -> Callable[[int], int | None]:
        """Return a function that tells where blocks end, and mends nodes by which that is behind the end of the data.

        Not for ever so many blocks: where the data were cut off there is nothing to be mended.
        """
        size, tries = self._files.data.size(), iter(range(MENDED_ENDS))

        def end_of(index: int) -> int | None:
            end = self.end_offset(index)
            if (end is None or end > size) and next(tries, None) is not None and self._mend(index):
                return self.end_offset(index)
            return end

        return end_of

    def _sort_out_unsure(self) -> None:
        """Count as lost what is not here of a feed of ours where bits were lost: maybe it was not cleared.

        But not while the feed is being fetched from peers: then it may never have been here.
        """
        if not self.writable or self.behind:
            return
        runs, self._unsure = self._unsure, ()
        for start, end in runs:
            blocks = range(start, min(end, self.length))
            if all(self._files.node(2 * index) for index in blocks):  # some are missing of what was fetched in parts
                self._count_lost(index for index in blocks if not self.has(index))

    def _count_lost(self, blocks: Iterable[int]) -> None:
        """Count blocks of a feed of ours as lost, and see to it that their bits will say so."""
        for index in blocks:
            self._lost.add_block(index)
            self._bits.mark_dirty([index // BLOCKS_PER_PAGE])
            self._unsynced = True

    def _forget_lost(self, start: int, end: int) -> None:
        """Take note that blocks are not to be kept, so that what was lost of them is no loss."""
        self._sort_out_unsure()
        lost = self._lost.runs(start, end)
        self._lost.set_blocks(start, end, False)
        self._gone_bad.set_blocks(start, end, False)
        for first, last in lost:
            with suppress(OSError):
                self._files.drop_bits(first, last)

    def lost_own(self, start: int, end: int) -> list[int]:
        """Return `lost` for a feed of ours; what a copy has lost it fetches as if it never had it."""
        return self.lost(start, end) if self.any_lost else []

    @property
    def any_lost(self) -> bool:
        """Whether this is a feed of ours that has ever lost a block since it was opened."""
        return self.writable and (self._lost.dirty or bool(self._unsure))

    def begin_audit(self) -> list[tuple[int, int]]:
        """Forget what is remembered of the tree on disk, and return where the file of the blocks is no hole."""
        self._files.forget_nodes()
        self._sort_out_unsure()
        return self._files.data.extents()

    def lost(self, start: int, end: int) -> list[int]:
        """Return which blocks from `start` up to `end` are lost: they were held, and neither cleared nor come again.

        Of a feed of ours that is remembered, as their bits stay on the disk; a copy forgets what it does not hold.
        """
        self._sort_out_unsure()
        return [index for run in self._lost.runs(start, end) for index in range(*run) if not self.has(index)]

    def audit(self, start: int = 0, end: int | None = None, extents: list[tuple[int, int]] | None = None) -> Audited:
        """Check the tree and the held blocks from `start` up to `end` again; a bad block does not count as held then.

        Nodes that the disk has changed are made again from what is below them, and a block of a copy that nothing
        proves is bad. `extents` comes from `begin_audit`, for who calls this for one piece after the other.
        """
        end = self.length if end is None else min(end, self.length)
        restored, bad = self._check_tree(start, end, self.begin_audit() if extents is None else extents)
        good = 0
        used, self.used = self.used, None
        ahead, self._ahead = self._ahead, None  # what it holds is not read again
        for first, last in self._bits.runs(start, end):
            self._verified.set_blocks(first, last, False)
            for low in range(first, last, AUDITED_BLOCKS):
                together = range(low, min(last, low + AUDITED_BLOCKS))
                if self.blocks(together.start, together.stop) is not None:
                    good += len(together)
                    continue
                for index in together:
                    if self._stored_block(index) is not None:
                        good += 1
                    else:  # all that can be mended of the tree is
                        self._miss(index)
                        bad.append(index)
        self.used, self._ahead = used, ahead
        return Audited(good, sorted(bad), restored)

    def _check_tree(self, start: int, end: int, extents: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
        """Check nodes for the blocks `start` up to `end`; returns which blocks are held after all, and which not."""
        if start >= end:
            return [], []
        restored = self._restore(start, end, extents)
        bad = [] if self.writable else restored.unproven
        for index in bad:
            super()._lose(index)
        if self.writable:
            self._count_lost(restored.spoiled)
        return restored.found, bad

    def show_roots(self) -> None:
        """Make sure that another process which reads the files finds the roots, without which it can prove nothing."""
        if stray := self._write_roots():
            self._unsynced = True
            _log.warning("roots of feed %s were damaged and are written again: %s", short(self.key), shown_runs(stray))

    def _write_roots(self) -> list[int]:
        stray = [root for root in self.roots if not self._files.on_disk(root)]
        self._files.write_nodes(stray)
        return [root.number for root in stray]

    def _mend(self, index: int) -> bool:
        self._files.forget_nodes()
        return index < self.length and bool(self._restore(index, index + 1, []).mended)

    def _restore(self, start: int, end: int, extents: list[tuple[int, int]]) -> Restored:
        stray = self._write_roots()
        restored = restore(self._files, self._bits, self.roots, self._signed, start, end, extents, mend=True)
        restored.mended.extend(stray)
        self._unfit.difference_update(restored.mended)
        if restored.mended:
            _log.warning(
                "nodes of the tree of feed %s were damaged and are made anew: %s",
                short(self.key),
                shown_runs(sorted(restored.mended)),
            )
        self._unfit -= {*range(2 * start, 2 * end)}
        self._distrust_all(restored.unproven_nodes)
        if self._bits.dirty or restored.mended:
            self._starts.clear()
            self._pairs.clear()
            self._unsynced = True
        return restored

    def _forget_unproven(self, index: int) -> None:
        """Trust no node at or beside the way from block `index` up to its root that nothing proves.

        They may be damaged: a proof that is held against them would fail for ever. What is lost comes with the next.
        """
        spans = [(root.number, flat.span(root.number)) for root in self.roots]
        number = next((number for number, (first, end) in spans if first <= index < end), None)
        way: list[NodeIndex] = []
        while number is not None and (pair := flat.children(number)) is not None:
            way += pair
            number = pair[index >= flat.span(pair[0])[1]]
        known = [number for number in way if self._bits.known(number)]
        self._distrust_all(nodes_without_proof(self._files, self.roots, self._signed, known))
        self._pairs.clear()
        self._starts.clear()

    def _distrust_all(self, numbers: Iterable[int]) -> None:
        """Give nodes to no peer any more; in a copy they count as missing, so that they come again."""
        for number in numbers:
            self.distrusted += 1
            if self.writable:  # its size may still tell where blocks are
                self._unfit.add(number)
            else:
                self._bits.forget_node(number)

    def _believed(self, number: int) -> Node | None:
        """Return a stored node, None also when it is known to be damaged."""
        return None if number in self._unfit else self._node(number)

    def _certain_offset(self, index: int, *, at_end: bool = False) -> int | None:
        """Return where block `index` starts, or ends, by nodes that fit their parents, None when there are no such.

        Below roots that nothing ties to the newest ones, stored sizes are believed.
        """
        for attempt in range(2):
            try:
                placed = placed_leaf(index, self.roots, self._node, self._pairs)
            except InvalidProof:
                if attempt or not self._mend(index):
                    return None
            else:
                if placed is None:
                    return self.end_offset(index) if at_end else self.byte_offset(index)
                return placed[0] + (placed[1].size if at_end else 0)
        return None

    def _is_in_place(self, index: int) -> bool:
        with suppress(InvalidProof):
            if placed_leaf(index, self.roots, self._node, self._pairs) is not None:
                return True
        return not nodes_without_proof(self._files, self.roots, self._signed, [2 * index])

    def _lose(self, index: int) -> DriveError:
        self._forget_unproven(index)  # it may have been looked for, or written, at a false place
        return self._miss(index)

    def _miss(self, index: int) -> DriveError:
        """Count block `index` as lost, and return the error that says so."""
        error = super()._lose(index)
        if not self.writable:
            return error
        self._lost.add_block(index)
        return lost_error(self.key, [index])

    def _not_held(self, index: int) -> DriveError:
        return lost_error(self.key, [index]) if self.writable and self._lost.has(index) else super()._not_held(index)

    def _signed(self, length: int) -> list[Node] | None:
        return signed_roots(self._files, self.key, length, self._verify) or self._with_mended_roots(length)

    def _with_mended_roots(self, length: int) -> list[Node] | None:
        signature = self._files.signature(length)
        if signature is None:
            return None
        return mended_roots(
            self._files, length, lambda roots: signed_by(self.key, roots, length, signature, self._verify), ROOT_TRIES
        )
