"""Walks through a mount that are quicker than the kernel forgets what it was told before."""

import trio

from mountd.inodes import InodeTable

PATIENCE_S = 0.25  # of one listing; it may be that what the kernel is to forget is in use, and stays
LOOK_EVERY_S = 0.002


class Crowding:
    """Holds listings back while the kernel is behind with forgetting: each brings hundreds of entries."""

    def __init__(self, inodes: InodeTable) -> None:
        self._inodes = inodes
        self._is_patient = True  # False: the last wait was in vain, and nothing has changed since

    async def room(self) -> None:
        """Return when there is room for more entries, or after `PATIENCE_S`.

        Only for calls during which the kernel holds no directory: it locks the one that it forgets an entry of.
        """
        if not self._inodes.is_crowded:
            self._is_patient = True
        elif self._is_patient:
            with trio.move_on_after(PATIENCE_S) as scope:
                while self._inodes.is_crowded:  # noqa: ASYNC110 - rare
                    await trio.sleep(LOOK_EVERY_S)
            self._is_patient = not scope.cancelled_caught
