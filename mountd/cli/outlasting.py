"""A verb that goes on when its engine ends and another one comes: `import --watch`.

An engine that was killed is started again, as any verb would start it. One that was ended on purpose is not, as who did
that may be copying its state directory: then somebody else has to start the next one.
"""

import math
import signal
from collections.abc import Awaitable, Callable

import trio
import typer

from ddrive.errors import Closed, EngineError, StorageError, TimedOut, first_cause
from ddrive.store.attached import Attached
from mountd.cli import report
from mountd.cli.options import Common
from mountd.cli.session import Session, run_here
from mountd.cli.starting import EXIT_INTERRUPTED
from mountd.client import connect_engine
from mountd.config import load_config
from mountd.interpreter import tune

PATIENCE_S = 300.0  # without an engine, or with engines that end at once; `--timeout` changes it
OTHERS_S = 2.0  # so long the start of an engine is left to others: a service manager does it after a second
LASTED_S = 60.0  # an engine that was there for so long is one that lasted, whatever the verb has reached with it
PAUSE_S = 0.2  # between two attempts, at first
PAUSE_MAX_S = 2.0


class Outlasting:
    """What the verb tells of itself, and how long there has been no engine that lasted."""

    def __init__(self, common: Common, patience_s: float) -> None:
        self._common = common
        self._config = load_config({"state": common.state})
        self._patience_s = patience_s
        self._since = math.inf
        self._pause_s = PAUSE_S
        self.has_begun = False
        self.has_caught_up = False

    def begun(self) -> None:
        """Take note that the verb knows from now on how to go on with another engine."""
        self.has_begun = True

    def lost(self, lasted_s: float) -> None:
        """Take note that the engine has ended after so long."""
        if lasted_s >= LASTED_S:
            self._since, self._pause_s = math.inf, PAUSE_S

    def caught_up(self) -> None:
        """Take note that the verb has done with an engine what it came for."""
        self.has_caught_up = True
        self._since, self._pause_s = math.inf, PAUSE_S

    async def wait(self) -> None:
        """Return when there is an engine again. Raises: TimedOut."""
        if self._since == math.inf:
            self._since = trio.current_time()
            start = "starting another one" if self._may_start() else "start it with ddrive daemon"
            report.note(f"the engine in {self._config.state} has ended: {start}; waiting for {self._patience_s:g} s")
        why = "none answers"
        with trio.move_on_at(self._since + self._patience_s):
            while True:
                await trio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
                others_s = trio.current_time() - self._since
                try:
                    async with connect_engine(self._common.state, start=self._may_start() and others_s > OTHERS_S):
                        return
                except (EngineError, StorageError) as error:
                    why = str(error).partition(": ")[0]
        raise TimedOut(
            f"no engine in {self._config.state} for {self._patience_s:g} s ({why}): "
            "start one with ddrive daemon, then import again"
        )

    def _may_start(self) -> bool:
        """Tell whether the engine was killed: one that ends by itself takes its socket away."""
        return self._common.start and self._config.socket.exists()


Verb = Callable[[Session, Outlasting], Awaitable[None]]


def run(common: Common, verb: Verb, patience_s: float | None) -> None:
    """Run `verb`; from when it has begun, again each time that the engine ended and there is one again."""
    tune(lists=True)
    if code := trio.run(_run, common, verb, PATIENCE_S if patience_s is None else patience_s):
        raise typer.Exit(code)


async def _run(common: Common, verb: Verb, patience_s: float) -> int:
    outlasting = Outlasting(common, patience_s)

    async def watched(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_lost, session.engine)
            await verb(session, outlasting)
            nursery.cancel_scope.cancel()

    while True:
        began = trio.current_time()
        try:
            return await run_here(common, watched)
        except Exception as error:
            if not (outlasting.has_begun and isinstance(first_cause(error), EngineError | Closed)):
                raise
        outlasting.lost(trio.current_time() - began)
        if not await _unless_told_to_end(outlasting.wait):
            return 0 if outlasting.has_caught_up else EXIT_INTERRUPTED


async def _until_lost(engine: Attached) -> None:
    await engine.calling.ended.wait()
    raise EngineError("the engine went away")


async def _unless_told_to_end(wait: Callable[[], Awaitable[None]]) -> bool:
    """Return true when `wait` is over, false when SIGINT or SIGTERM came before."""
    is_over = False
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

            async def end() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(end)
            await wait()
            is_over = True
            nursery.cancel_scope.cancel()
    return is_over
