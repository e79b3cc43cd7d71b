"""Waiting for something that tells nobody when it happens."""

from collections.abc import Callable

import trio


async def until(condition: Callable[[], object], *, timeout_s: float = 20.0) -> None:
    """Return when `condition()` is true. Raises: trio.TooSlowError after `timeout_s`, a safety net only."""
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110 - the outside world has no event for it
            await trio.sleep(0.01)
