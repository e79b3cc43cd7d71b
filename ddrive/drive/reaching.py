"""Going through a drive although a nested one cannot be reached: that one is left out, and listed.

How long to wait is the caller's decision, so it says around what the waiting is done.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar

from ddrive.drive.lifetime import at_once
from ddrive.drive.paths import DrivePath
from ddrive.drive.report import Refused
from ddrive.drive.walks import Inside
from ddrive.errors import (
    CorruptStorage,
    ImpossibleEntry,
    InvalidProof,
    NoPeers,
    NotFound,
    NotHeld,
    TimedOut,
    TooManyLinks,
    Unsupported,
)
from ddrive.ids import PublicKey, short

T = TypeVar("T")
Waiting = Callable[[Inside], AbstractAsyncContextManager[object]]  # ends what waits too long with NoPeers or TimedOut

UNREACHED = (NoPeers, NotHeld, TimedOut)
UNUSABLE = (CorruptStorage, InvalidProof, NotFound, TooManyLinks, Unsupported)


class Reach:
    """What was left out because it could not be reached in nested drives, or cannot be true."""

    def __init__(self, waiting: Waiting = lambda _: nullcontext()) -> None:
        self.complete = True  # whether all could be reached
        self._unverified: set[DrivePath] = set()
        self._lost: set[tuple[PublicKey, int | None, bool]] = set()  # see `_waited_for`
        self._refused: dict[DrivePath, str] = {}
        self._waiting = waiting

    @property
    def refused(self) -> list[Refused]:
        """What was left out, and why."""
        return [Refused(path, why) for path, why in self._refused.items()]

    @property
    def unverified(self) -> int:
        """How many of these are not here as their author signed them, but damaged."""
        return len(self._unverified)

    async def attempt(
        self, inside: Inside | None, path: DrivePath, call: Callable[[], Awaitable[T]], *, held: bool | None = None
    ) -> T | None:
        """Return what `call` gives, which concerns `path` in the drive `inside` (None: the outer one).

        `held`: whether the content of a file is here, None for entries; what is held and waits all the same turned out
        to be damaged. None as an answer: it could not be had, and is listed. The entries, or the content, of a drive
        that were waited for in vain are not waited for again, wherever it is nested: what is held of them is still
        given.
        Raises: what `call` raises for the outer drive, and what is no fault of a nested one.
        """
        if inside is None:
            return await call()
        lost = _waited_for(inside, is_content=held is not None)
        try:
            if lost not in self._lost:
                async with self._waiting(inside):
                    return await call()
            if held is not False:
                with at_once():
                    return await call()
            self.refuse(path, _unreachable(inside))
        except UNREACHED as error:
            self.complete = False
            why = _unreachable(inside) if lost in self._lost else str(error)
            self._lost.add(lost)
            if held:
                self._unverified.add(path)
                why = f"what is held of it is damaged, and nobody gives it again: {why}"
            self.refuse(path, why)
        except UNUSABLE as error:
            if isinstance(error, CorruptStorage | InvalidProof) and not isinstance(error, ImpossibleEntry):
                self._unverified.add(path)
            self.refuse(path, str(error))
        return None

    def refuse(self, path: DrivePath, why: str) -> None:
        """List something that is left out."""
        self._refused.setdefault(path, why)


def _unreachable(inside: Inside) -> str:
    which = f"the drive nested at /{inside.path}" if inside.path else f"drive {short(inside.key)}"
    return f"{which} cannot be reached"


def _waited_for(inside: Inside, *, is_content: bool) -> tuple[PublicKey, int | None, bool]:
    """Return what is waited for once: the entries of one version of a drive, or the content, which all share."""
    return inside.key, None if is_content else inside.version, is_content
