"""Reaching the engine of a state directory, and starting one in the background when none runs.

Of several starters at once one starts an engine, the others wait for it: `start.lock` is held by whoever starts.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ddrive.errors import EngineError, StorageError, StorageLocked
from ddrive.store.attached import Attached, open_attached
from mountd import locks, owning
from mountd.config import Config, load_config, package_environment
from mountd.launching import launch, log_path
from mountd.logs import last_line

__all__ = ["connect_engine", "package_environment"]

ANSWER_LIMIT_S = 20.0  # for a running engine, which answers at once unless it is stopped or the machine overloaded
START_LIMIT_S = 15.0  # until a new engine answers
STORAGE_EXIT = 7  # of an engine that found another one in its place, or cannot use the directory

_POLL_S = 0.02


@asynccontextmanager
async def connect_engine(state: Path | str | None = None, *, start: bool = True) -> AsyncIterator[Attached]:
    """Give a connection to the engine of `state` (None: the usual directory), which is started if that is wanted.

    Raises: EngineError when there is none and none may be started, or it does not come up; StorageError when the
    directory cannot be used; StorageLocked when an engine uses it that says nothing.
    """
    config = load_config({"state": state})
    if not await _answers(config):
        if not start:
            raise EngineError(f"no engine runs in {config.state}: start it with `ddrive daemon --state {config.state}`")
        await _start(config)
    async with open_attached(config.socket, reconnect=False) as attached:
        yield attached


async def _start(config: Config) -> None:
    """Return when an engine answers that we or somebody else started."""
    owning.prepare(config.state)
    with trio.move_on_after(START_LIMIT_S):
        while True:
            with locks.try_lock(config.state / locks.STARTING) as ours:
                if ours is not None:
                    if await _answers(config) or await _start_here(config):
                        return
                elif await _answers(config):
                    return
            await trio.sleep(_POLL_S)
    why = last_line(log_path(config))
    raise EngineError(f"the engine in {config.state} did not answer within {START_LIMIT_S:g} s: {why or 'no message'}")


async def _start_here(config: Config) -> bool:
    """Return whether the engine that is started here answers; False when another one was in its place.

    Raises: EngineError, StorageError when it ends otherwise, with the last line of its log.
    """
    engine, since = launch(config)
    while (code := _exit_code(engine)) is None:
        if await _answers(config):
            return True
        await trio.sleep(_POLL_S)
    why = last_line(log_path(config), since)
    if code == STORAGE_EXIT:
        if "another engine" in why:
            return False
        raise StorageError(
            why.removeprefix("ddrive: ")
            or f"no room even to log why the engine ended ({config.state}): free some space there"
        )
    raise EngineError(f"the engine in {config.state} ended: {why.removeprefix('ddrive: ') or 'no message'}")


def _exit_code(child: int) -> int | None:
    """Return how a child has ended, None while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


async def _answers(config: Config) -> bool:
    """Tell whether there is an engine. Raises: StorageLocked when there is one that says nothing."""
    try:
        with trio.move_on_after(ANSWER_LIMIT_S):
            async with open_attached(config.socket, reconnect=False) as attached:
                await attached.call("status")
            return True
    except EngineError:
        return False
    pid = locks.holder(config.state) or "unknown"
    raise StorageLocked(f"the engine in {config.state} (pid {pid}) does not answer: if it hangs, kill it and try again")
