"""Following what changes in a directory of this system, until a signal ends it."""

import signal
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from pathlib import Path

import trio
from watchfiles import awatch

from ddrive.drive.ignore import IGNORE_FILES

QUIET_MS = 200  # without a change, then what has changed is told
PATIENCE_MS = 2000  # then it is told though there are still changes
MANY = 5000  # changes at once: the system may have lost some, so anything may have changed
TURN_MS = 1000  # after so long without a change it is certain that the watch has begun

Changed = Callable[[Collection[str] | None], Awaitable[None]]  # these paths below the root; None: anything may have


async def follow(root: Path, changed: Changed) -> None:
    """Tell again and again which paths below `root` have changed, until SIGINT or SIGTERM comes.

    `changed` is called with None first, when the watch has begun.
    """
    root = await trio.to_thread.run_sync(root.resolve)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, stop, nursery.cancel_scope)
        watched = awatch(
            root,
            watch_filter=None,
            debounce=PATIENCE_MS,
            step=QUIET_MS,
            rust_timeout=TURN_MS,
            yield_on_timeout=True,
            stop_event=stop,
            raise_interrupt=False,
        )
        begun = False
        async with aclosing(watched):
            async for changes in watched:
                paths = {str(Path(path).relative_to(root)) for _, path in changes} - {"."}
                if not begun or len(paths) > MANY or any(Path(path).name in IGNORE_FILES for path in paths):
                    await changed(None)
                elif paths:
                    await changed(paths)
                begun = True
        nursery.cancel_scope.cancel()


async def _stop_on_signal(stop: trio.Event, ends: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop.set()
            ends.cancel()
