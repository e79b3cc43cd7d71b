"""Following what changes in a directory of this system, until a signal ends it."""

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from pathlib import Path

import trio
from watchfiles import Change, awatch

from ddrive.drive.ignore import IGNORE_FILES
from ddrive.drive.source import Identity, identity_at
from ddrive.errors import NotADirectory, NotFound, first_cause

QUIET_MS = 200  # without a change, then what has changed is told
PATIENCE_MS = 2000  # then it is told though there are still changes
MANY = 5000  # changes at once: the system may have lost some, so anything may have changed
TURN_MS = 1000  # after so long without a change it is certain that the watch has begun
UNDECODABLE = "Unable to decode path"  # so watchfiles tells, as its end, of a name that is not UTF-8

Changed = Callable[[Collection[str] | None], Awaitable[None]]  # these paths below the root; None: anything may have


def may_follow(root: Path) -> bool:
    """Tell whether `root` can be followed, as all names in its path are UTF-8."""
    try:
        str(root.resolve()).encode()
    except UnicodeEncodeError:
        return False
    return True


async def follow(root: Path, changed: Changed) -> None:
    """Tell again and again which paths below `root` have changed, until SIGINT or SIGTERM comes.

    `changed` is called with None first, when the watch has begun. Raises: NotFound when `root` is not there any more:
    what comes to its place later may be something else, such as what lies below a disk that was unmounted.
    """
    root = await trio.to_thread.run_sync(root.resolve)
    identity = await trio.to_thread.run_sync(identity_at, root)

    async def tell(paths: Collection[str] | None) -> None:
        await _check(root, identity)
        try:
            if paths is None or paths:
                await changed(paths)
        except NotADirectory:
            await _check(root, identity)
            raise

    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, stop, nursery.cancel_scope)
        while not stop.is_set():
            async with aclosing(_watch(root, stop)) as watched:
                begun = await _tell(root, watched, tell)
            if not begun and not stop.is_set():  # else the next watch tells of it, unless it ends as early as this one
                await tell(None)
        nursery.cancel_scope.cancel()


async def _tell(root: Path, watched: AsyncGenerator[set[tuple[Change, str]]], changed: Changed) -> bool:
    """Tell what is `watched` until that ends, by paths below `root`; first that anything may have changed.

    Nothing below `root` is told as an empty set: what has changed is `root` itself, which may have gone.
    Returns whether anything was told.
    """
    begun = False
    async for changes in watched:
        paths = {str(Path(path).relative_to(root)) for _, path in changes} - {"."}
        if not begun or len(paths) > MANY or any(Path(path).name in IGNORE_FILES for path in paths):
            await changed(None)
        else:
            await changed(paths)
        begun = True
    return begun


async def _watch(root: Path, stop: trio.Event) -> AsyncGenerator[set[tuple[Change, str]]]:
    """Tell what changes below `root`, nothing at all once a second, until `stop`, or a name that is not UTF-8 changes.

    Such a name makes watchfiles end with an error. It is waited then until `QUIET_MS` have passed.
    """
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
    try:
        async with aclosing(watched):
            async for changes in watched:
                yield changes
    except Exception as error:  # in a group, as anyio has it
        if not str(first_cause(error)).startswith(UNDECODABLE):
            raise
        await trio.sleep(QUIET_MS / 1000)


async def _check(root: Path, identity: Identity | None) -> None:
    """Raise NotFound when another directory than that one, or none, is at `root`."""
    if identity is None or await trio.to_thread.run_sync(identity_at, root) != identity:
        raise NotFound(f"the directory was moved, removed or unmounted ({root}): import it again when it is there")


async def _stop_on_signal(stop: trio.Event, ends: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop.set()
            ends.cancel()
