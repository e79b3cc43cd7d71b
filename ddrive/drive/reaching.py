"""Going through a drive although a nested one cannot be reached: that one is left out, and listed.

How long to wait is the caller's decision, so it says around what the waiting is done.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar

from ddrive.drive.paths import DrivePath
from ddrive.drive.report import Refused
from ddrive.drive.walks import Inside
from ddrive.errors import (
    CorruptStorage,
    InvalidProof,
    NoPeers,
    NotFound,
    NotHeld,
    TimedOut,
    TooManyLinks,
    Unsupported,
)

T = TypeVar("T")
Waiting = Callable[[Inside], AbstractAsyncContextManager[object]]  # ends what waits too long with NoPeers or TimedOut

UNREACHED = (NoPeers, NotHeld, TimedOut)
UNUSABLE = (CorruptStorage, InvalidProof, NotFound, TooManyLinks, Unsupported)


class Reach:
    """What was left out because it could not be reached in nested drives, or cannot be true."""

    def __init__(self, waiting: Waiting = lambda _: nullcontext()) -> None:
        self.complete = True  # whether all could be reached
        self._lost: set[tuple[Inside, bool]] = set()  # nested drives, and whether of their content or their entries
        self._refused: dict[DrivePath, str] = {}
        self._waiting = waiting

    @property
    def refused(self) -> list[Refused]:
        """What was left out, and why."""
        return [Refused(path, why) for path, why in self._refused.items()]

    async def attempt(
        self, inside: Inside | None, path: DrivePath, call: Callable[[], Awaitable[T]], *, held: bool | None = None
    ) -> T | None:
        """Return what `call` gives, which concerns `path` in the drive `inside` (None: the outer one).

        `held`: whether the content of a file is here, None for entries. None as an answer: it could not be had, and is
        listed. The entries, or the content, of a drive that were waited for in vain are not waited for again.
        Raises: what `call` raises for the outer drive, and what is no fault of a nested one.
        """
        if inside is None:
            return await call()
        lost = inside, held is not None
        if lost in self._lost and not held:
            self.refuse(path, f"the drive nested at /{inside.path} cannot be reached")
            return None
        try:
            async with self._waiting(inside):
                return await call()
        except UNREACHED as error:
            self.complete = False
            self._lost.add(lost)
            self.refuse(path, str(error))
        except UNUSABLE as error:
            self.refuse(path, str(error))
        return None

    def refuse(self, path: DrivePath, why: str) -> None:
        """List something that is left out."""
        self._refused.setdefault(path, why)
