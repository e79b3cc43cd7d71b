"""What is told of blocks that a disk has lost."""

from collections.abc import Iterable

from ddrive.errors import CorruptStorage
from ddrive.ids import PublicKey, short

SHOWN_RUNS = 8  # of blocks, in one line


def lost_error(key: PublicKey, blocks: Iterable[int]) -> CorruptStorage:
    """Return what tells that blocks of a feed of ours, given in order, are damaged here, and what to do."""
    return CorruptStorage(
        f"block {shown_runs(blocks)} of our feed {short(key)} is damaged on this disk, and no peer that is asked has "
        "it: connect to one that has it, which ddrive verify --repair then asks, or restore a backup"
    )


def shown_runs(blocks: Iterable[int]) -> str:
    """Return numbers of blocks, given in order, for a message: 3 to 7, 9."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and runs[-1][1] == block - 1:
            runs[-1][1] = block
        else:
            runs.append([block, block])
    shown = [f"{first} to {last}" if last > first else str(first) for first, last in runs[:SHOWN_RUNS]]
    return ", ".join(shown) + (", ..." if len(runs) > SHOWN_RUNS else "")
