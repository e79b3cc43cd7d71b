"""Bringing back an engine that was killed while the verb that needs it is being loaded, which takes as long.

A verb would do so itself. This has to see in the bare words of a call whether it would, and leaves it to the verb when
in doubt: then it takes longer.
"""

import os
from collections.abc import Sequence
from contextlib import suppress

from ddrive.errors import DriveError
from mountd.config import load_config
from mountd.launching import launch_after_kill

STATE = "--state"
NO_ENGINE = {"--no-start", "--help", "-h"}  # in a call that starts none
WITH_ENGINE = {
    *("mount", "unmount", "umount", "status", "list", "create", "import", "export", "info", "stats", "ls", "cat", "du"),
    *("download", "pin", "clear", "free", "verify", "rm", "gc", "log", "diff", "link", "unlink-drive", "seed"),
    *("unseed", "peer", "tag", "db", "graph"),
}


def bring_back_engine(arguments: Sequence[str]) -> bool:
    """Start the engine of a call if it was killed and the call would do that; tell whether we did."""
    is_told, state = _named_state(arguments)
    rest = [word for word in arguments if not word.startswith("-") and word != state]
    if not is_told or not rest or rest[0] not in WITH_ENGINE:
        return False
    if NO_ENGINE.intersection(arguments) or os.environ.get("DDRIVE_NO_START"):
        return False
    with suppress(DriveError, OSError):  # the verb comes across that again
        return launch_after_kill(load_config({"state": state}))
    return False


def _named_state(arguments: Sequence[str]) -> tuple[bool, str | None]:
    """Return whether it is clear which state directory a call names, and which; None for the usual one."""
    named = [number for number, word in enumerate(arguments) if word.partition("=")[0] == STATE]
    if not named:
        return True, None
    _, is_joined, state = arguments[named[0]].partition("=")
    if not is_joined:
        state = "".join(arguments[named[0] + 1 : named[0] + 2])
    return len(named) == 1 and bool(state), state
