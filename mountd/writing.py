"""What a writable mount has besides a readable one: its spool, the changes over the drive, and the task that commits.

Changes that dead workers of the same drive have left are taken over first.
"""

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from ddrive.drive import Drive
from ddrive.errors import DriveError
from mountd.committing import Committer
from mountd.entries import split
from mountd.merging import owner_of
from mountd.spool import Spool, open_spools
from mountd.staged import StagedDrive

log = logging.getLogger(__name__)

SPOOLS = "spool"  # below the state directory
FINISH_S = 2.8  # for the last commit of a mount that has ended; the engine waits a little longer
OTHERS_S = 3.0  # for committing what several dead workers have left


@dataclass(frozen=True, slots=True)
class Writing:
    """The changes of one mount, and who commits them."""

    staged: StagedDrive
    committer: Committer


async def serve_writing(
    drive: Drive, state: Path, place: str, others: Collection[str], *, task_status: trio.TaskStatus[Writing]
) -> None:
    """Give what is needed to change `drive` at `place`, and commit changes until cancelled; then those that are left.

    `others` are the places of other mounts of the drive. Raises: OSError when there can be no spool, and what
    reading the drive raises; then nothing was committed, and no spool stays locked.
    """
    owner = {"key": drive.key.hex(), "dialect": drive.dialect_name}
    spools = open_spools(state / SPOOLS, owner, place, others)
    try:
        while len(spools) > 1:
            await _commit_left(drive, spools.pop())
        staged = StagedDrive(drive, spools[0])
        committer = Committer(staged)
        await _settle(drive, spools[0])
        await committer.resolve()
        staged.known_nested = await drive.nested()
        staged.content_key = await staged.content_of("/")
    except BaseException:
        for spool in spools:
            spool.close(remove=False)
        raise
    task_status.started(Writing(staged, committer))
    is_done = False
    try:
        await committer.run()
    finally:
        is_done = await committer.finish(FINISH_S)
        if not is_done:
            log.warning("changes are left for the next mount: place=%s", staged.spool.directory)
        staged.spool.close(remove=is_done)


async def _settle(drive: Drive, spool: Spool) -> None:
    """Return when nothing that a dead worker has asked for can still come into the drive, however slow the disk is.

    The engine goes on with an append when who asked for it is killed. If that were found later, it would be taken for
    what others have stored, and made a second time: renames of one file to another would be on top of themselves.
    The mount is there meanwhile, and who looks for more than its root waits too.
    """
    paths = [attempt.path for attempt in spool.attempts if attempt.confirmed is None]
    paths += [spool.move.new] if spool.move is not None else []
    with suppress(DriveError):  # whoever looks for them comes across that again
        for directory in {split(path)[0] for path in paths}:
            if (own := await owner_of(drive, directory)) is not None:
                await own.trie.feed.settle()


async def _commit_left(drive: Drive, spool: Spool) -> None:
    """Commit what a dead worker has left, if that is possible now."""
    is_done = False
    try:
        committer = Committer(StagedDrive(drive, spool))
        await _settle(drive, spool)
        await committer.resolve()
        is_done = await committer.finish(OTHERS_S)
    except (DriveError, OSError) as problem:
        log.warning("changes of a dead mount cannot be stored now: place=%s why=%s", spool.directory, problem)
    finally:
        spool.close(remove=is_done)
