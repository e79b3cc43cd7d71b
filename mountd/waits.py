"""Operations that wait for data: each has a deadline, and a caller who may lose interest.

Most operations answer from what is held and never wait; registering one costs about a microsecond. A single task
looks every quarter of a second at those that do wait, and sleeps when there are none.

While there is no engine, nobody knows whether a peer is there: operations wait for the next one, up to their deadline.
"""

import errno
import logging
import math
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import trio

from ddrive.errors import NoPeers, TimedOut
from mountd.inodes import Inode, to_bytes

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25  # an interrupted caller has to be free within a second
LOOK_AFTER_S = 0.2  # an operation younger than this is not looked at
IN_VAIN_S = 1.0  # after one operation waited in vain: enough for a peer that is just being found
IDLE_LOOKS = 8  # looks without a waiting operation before the task sleeps: saves waking it for each operation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long operations may wait, in seconds, and how many reads may wait at once."""

    read_timeout_s: float = 30.0
    meta_timeout_s: float = 5.0  # for anything but reads while no peer is connected
    max_waiting_reads: int = 768

    @property
    def deadline_s(self) -> float:
        """Return a deadline that leaves time to answer: the kernel must not wait longer than `read_timeout_s`."""
        return self.read_timeout_s - min(0.5, self.read_timeout_s / 10)


class Callers(Protocol):
    """What is known about the processes that call; see `callers.ProcessTable`."""

    def is_ending(self, thread: int) -> bool: ...
    def is_gone(self, thread: int) -> bool: ...
    def mount_is_gone(self) -> bool: ...
    async def ending_files(self, files: Mapping[int, bytes], orphans: frozenset[int]) -> set[int]: ...


class Givers:
    """Who can end a waiting: the peers of the mounted drive, or those of a drive that is nested in it."""

    def __init__(self, connected: Callable[[], bool], stranded: Callable[[], bool]) -> None:
        """`connected` tells whether a peer is there, `stranded` whether blocks are wished for that nobody can send."""
        self.connected = connected
        self.stranded = stranded
        self.in_vain_since = math.inf  # when an operation had waited for nobody; no peer was seen from then on

    def look(self) -> bool:
        """Tell whether a peer is there; then nothing was in vain."""
        is_connected = self.connected()
        if is_connected:
            self.in_vain_since = math.inf
        return is_connected


class Wait:
    """One operation in progress. `shared` means that others than `caller` may wait for it: a read.

    `givers` None: the peers of the mounted drive.
    """

    __slots__ = (
        "caller",
        "error",
        "givers",
        "inode",
        "scope",
        "shared",
        "since",
        "started",
        "stranded",
        "unconnected_limit_s",
    )

    def __init__(self, caller: int, inode: Inode, *, shared: bool, givers: Givers | None = None) -> None:
        self.caller = caller
        self.inode = inode
        self.shared = shared
        self.givers = givers
        self.error: Exception | None = None
        self.started = 0.0
        self.since = 0.0  # when its waiting for peers began: not while there was no engine
        self.unconnected_limit_s = math.inf
        self.stranded = False  # when it was looked at last, nobody could have ended the waiting
        self.scope = trio.CancelScope()

    def give_up(self, error: Exception) -> None:
        """End the operation with `error`."""
        if self.error is None:
            self.error = error
            self.scope.cancel()


def interrupted() -> OSError:
    """Return the error of a call whose caller got a signal."""
    return OSError(errno.EINTR, os.strerror(errno.EINTR))


class Waits:
    """All operations in progress of one mount."""

    def __init__(self, callers: Callers, *, connected: Callable[[], bool], stranded: Callable[[], bool]) -> None:
        """`connected` tells whether a peer is there, `stranded` whether blocks are wished for that nobody can send."""
        self._callers = callers
        self.awaited: Callable[[], bool] = lambda: False  # whether an engine has to come first, or the mount itself
        self._givers = Givers(connected, stranded)
        self._alone_since = math.inf  # when an operation had waited for that in vain; it was so from then on
        self._waits: set[Wait] = set()
        self._wake = trio.Event()
        self._asleep = False
        self._closed: Exception | None = None
        self._drained = trio.Event()

    def __len__(self) -> int:
        return len(self._waits)

    async def bounded(
        self, work: Coroutine[Any, Any, T], wait: Wait, *, limit_s: float, unconnected_limit_s: float = math.inf
    ) -> T:
        """Return what `work` returns, within `limit_s` seconds, or `unconnected_limit_s` while there is no peer.

        That one is infinite for what needs no peer. Others are short after one that has waited in vain.
        Raises: TimedOut or NoPeers at the deadline; OSError (EINTR) when the caller was interrupted.
        """
        if self._closed is not None:
            work.close()
            raise self._closed
        wait.started = wait.since = now = trio.current_time()
        wait.scope.deadline = now + limit_s
        wait.unconnected_limit_s = unconnected_limit_s
        givers = wait.givers or self._givers
        if givers.in_vain_since < math.inf:
            givers.look()
        if self._alone_since < math.inf:
            self._is_alone()
        self._waits.add(wait)
        if self._asleep:
            self._asleep = False
            self._wake.set()
        try:
            with wait.scope:
                return await work
        finally:
            self._waits.discard(wait)
            if self._closed is not None and not self._waits:
                self._drained.set()
        if wait.error is not None:
            raise wait.error
        if self._is_alone():
            self._alone_since = min(self._alone_since, trio.current_time())
        else:
            self._note_vain(wait)
        raise self.late(wait)

    def late(self, wait: Wait) -> Exception:
        """Return the error of a deadline that has passed."""
        if self.awaited():
            return TimedOut("the engine does not answer: `ddrive status` tells of it, and starts one")
        if (wait.givers or self._givers).connected():
            return TimedOut("no peer has sent the data in time: try again")
        return NoPeers("no connected peer has the data: try again when one is there")

    def close(self, error: Exception) -> None:
        """End all operations, and all that would wait from now on, with `error`."""
        self._closed = error
        for wait in list(self._waits):
            wait.give_up(error)

    async def aclose(self, error: Exception) -> None:
        """Like `close`, and return when every operation has ended."""
        self.close(error)
        if self._waits:
            await self._drained.wait()

    async def watch(self) -> None:
        """Release operations whose caller is interrupted, whose mount is gone or that have no peer; never ends."""
        idle = 0
        while True:
            waiting = self._waiting()
            idle = 0 if waiting else idle + 1
            if waiting:
                await self._look(waiting)
            if idle > IDLE_LOOKS and not self._waits:
                self._wake = trio.Event()
                self._asleep = True
                await self._wake.wait()
                idle = 0
            await trio.sleep(LOOK_EVERY_S)

    def is_interrupted(self, wait: Wait) -> bool:
        """Tell at once whether the caller itself of an operation has an ending signal pending."""
        return self._callers.is_ending(wait.caller)

    def _waiting(self) -> list[Wait]:
        before = trio.current_time() - LOOK_AFTER_S
        return [wait for wait in self._waits if wait.started <= before]

    async def _look(self, waiting: list[Wait]) -> None:
        if self._callers.mount_is_gone():
            self.close(OSError(errno.ENODEV, "the file system is not mounted any more"))
            return
        now = trio.current_time()
        is_alone = self._is_alone()
        states: dict[Givers, tuple[bool, bool]] = {}
        for wait in waiting:
            givers = wait.givers or self._givers
            if givers not in states:
                is_connected = givers.look()
                states[givers] = is_connected, not is_connected and givers.stranded()
            connected, wait.stranded = states[givers]
            if self._callers.is_ending(wait.caller):
                wait.give_up(interrupted())
            elif is_alone:
                wait.since, wait.stranded = now, False
                if wait.started >= self._alone_since and wait.unconnected_limit_s < math.inf:
                    wait.scope.deadline = min(wait.scope.deadline, wait.started + IN_VAIN_S)
            elif not connected and wait.since + self._unconnected_limit_s(wait) <= now:
                self._note_vain(wait)
                wait.give_up(self.late(wait))
        await self._look_for_others([wait for wait in waiting if wait.shared and wait.error is None])

    def _is_alone(self) -> bool:
        """Tell whether nobody knows of peers now, as there is no engine, or none that has answered."""
        is_alone = self.awaited()
        if not is_alone:
            self._alone_since = math.inf
        return is_alone

    def _unconnected_limit_s(self, wait: Wait) -> float:
        """Return how long an operation may last while no peer is there."""
        limit_s = wait.unconnected_limit_s
        in_vain = wait.stranded and wait.started >= (wait.givers or self._givers).in_vain_since
        return min(limit_s, IN_VAIN_S) if in_vain and limit_s < math.inf else limit_s

    def _note_vain(self, wait: Wait) -> None:
        givers = wait.givers or self._givers
        if wait.stranded:
            givers.in_vain_since = min(givers.in_vain_since, trio.current_time())

    async def _look_for_others(self, waiting: list[Wait]) -> None:
        """Release reads that were asked for by others than the one who opened the file."""
        files = {wait.inode.number: to_bytes(wait.inode.name) for wait in waiting}
        if not files:
            return
        opener_lives = {wait.inode.number for wait in waiting if not self._callers.is_gone(wait.caller)}
        orphans = frozenset(files) - opener_lives
        ending = await self._callers.ending_files(files, orphans)
        for wait in waiting:
            if wait.inode.number in ending:
                wait.give_up(interrupted())
