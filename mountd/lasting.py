"""Work that goes on to its end although who asked for it gives up, as it cannot be taken back."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from ddrive.errors import Closed

log = logging.getLogger(__name__)

Work = Callable[[Callable[[], None]], Awaitable[None]]  # calls what it is given when it must not be given up any more


class Lasting:
    """Does such work while it is open."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Do work; what is not done at the end is given up."""
        async with trio.open_nursery() as self._nursery:
            yield
            self._nursery.cancel_scope.cancel()

    async def see_through(self, work: Work) -> None:
        """Return when `work` is done; once it has called what it is given, it goes on although its caller gives up.

        Raises: what it raises; Closed when the mount ends before.
        """
        done, scope = trio.Event(), trio.CancelScope()
        failure: Exception | None = Closed("the mount is ending")
        has_begun = is_alone = False

        def begin() -> None:
            nonlocal has_begun
            has_begun = True

        async def run() -> None:
            nonlocal failure
            try:
                with scope:
                    await work(begin)
                    failure = None
            except Exception as problem:
                failure = problem
                if is_alone:
                    log.warning("what nobody waited for any more has failed: why=%s", problem)
            finally:
                done.set()

        self._nursery.start_soon(run)
        try:
            await done.wait()
        except trio.Cancelled:
            is_alone = True
            if not has_begun:
                scope.cancel()
            raise
        if failure is not None:
            raise failure
