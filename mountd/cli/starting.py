"""The first thing that the `ddrive` command does: from then on Ctrl-C ends it without a traceback, while it is loaded.

Loading takes about half a second, in which there is nothing to be undone; so this module loads nothing of that itself.
An engine that was killed comes back meanwhile.
"""

import gc
import os
import signal
import sys
from collections.abc import Sequence

import mountd.cli

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the command line, run it and end the process with its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(EXIT_INTERRUPTED))
    gc.disable()  # what is loaded stays: looking for cycles in it takes a tenth of the time
    arguments = sys.argv[1:] if arguments is None else arguments
    mountd.cli.ahead.bring_back_engine(arguments)
    mountd.cli.app.main(arguments)


def loaded() -> None:
    """Let Ctrl-C be the business of the verb from now on."""
    gc.enable()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
