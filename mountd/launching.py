"""Starting an engine in the background, of as little as can be: a verb may do so before it has been loaded itself."""

import os
import socket
import sys
from pathlib import Path

from mountd.config import Config, next_environment
from mountd.locks import STARTING, holder, try_lock
from mountd.logs import open_log
from mountd.processes import is_defunct, start_time


def log_path(config: Config) -> Path:
    """Return where the log of an engine in the background goes."""
    return config.log_directory / "engine.log"


def launch(config: Config, starting: int | None = None) -> tuple[int, int]:
    """Start an engine that outlives us, in a session of its own; return its pid and where its lines in the log begin.

    `starting` is the lock of who starts it, which the engine takes along. Raises: OSError, StorageError.
    """
    descriptor = open_log(log_path(config))
    its_in = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    try:
        since = os.fstat(descriptor).st_size
        engine = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "mountd.engine_start", "--state", str(config.state)],
            next_environment(config),
            file_actions=[
                its_in if starting is None else (os.POSIX_SPAWN_DUP2, starting, 0),
                (os.POSIX_SPAWN_DUP2, descriptor, 1),
                (os.POSIX_SPAWN_DUP2, descriptor, 2),
            ],
            setsid=True,
        )
        return engine, since
    finally:
        os.close(descriptor)


def launch_after_kill(config: Config) -> bool:
    """Start an engine where one was killed, unless somebody else does; tell whether we did.

    It holds the lock of who starts it as long as it lives: whoever finds no answer waits for it, as for another
    starter, and starts one after it. An engine that has ended by itself leaves no socket.
    Raises: OSError, DriveError.
    """
    pid = holder(config.state)
    if pid is None or not (start_time(pid) is None or is_defunct(pid)) or not _was_killed(config):
        return False
    with try_lock(config.state / STARTING) as starting:
        if starting is None or not _was_killed(config):
            return False
        launch(config, starting)
        return True


def _was_killed(config: Config) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as asking:
        try:
            if config.socket.stat().st_uid == os.geteuid():
                asking.connect(str(config.socket))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
