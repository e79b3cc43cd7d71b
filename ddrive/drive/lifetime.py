"""Whether a drive is open: once it is closed nothing is done with it any more, and what waits for peers ends.

Feeds are shared by all who use them, so they may outlast a drive; the drive itself has to know. Whoever reads what is
held looks at a flag; only what has to wait is kept track of.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import trio

from ddrive.errors import Closed, NotHeld

T = TypeVar("T")

_may_wait: ContextVar[bool] = ContextVar("may_wait", default=True)


@contextmanager
def at_once() -> Iterator[None]:
    """Let what is read of drives within the block wait for nobody: what is not held raises NotHeld."""
    before = _may_wait.set(False)
    try:
        yield
    finally:
        _may_wait.reset(before)


class Lifetime:
    """The time from opening a drive to closing it, the same for all its views and open files."""

    def __init__(self) -> None:
        self.ended = False
        self._waits: set[trio.CancelScope] = set()

    def check(self) -> None:
        """Raise Closed when the drive is closed."""
        if self.ended:
            raise Closed("the drive is closed: open it again")

    async def wait(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` gives, which may wait for peers.

        Raises: Closed as soon as the drive is closed, NotHeld within `at_once`.
        """
        self.check()
        if not _may_wait.get():
            raise NotHeld("it is not held here, and its drive has been waited for in vain")
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                found = await call()
            finally:
                self._waits.discard(scope)
            self.check()
            return found
        raise Closed("the drive was closed meanwhile")

    def end(self) -> None:
        """The drive is closed: end all waits."""
        self.ended = True
        for scope in self._waits:
            scope.cancel()
