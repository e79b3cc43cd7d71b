"""Being the one engine of a state directory: its lock, its directory, and telling a service manager."""

import os
import socket
import stat
from pathlib import Path

import trio

from ddrive.errors import StorageError, StorageLocked
from ddrive.store.sockets import connect
from mountd import locks
from mountd.config import Config
from mountd.errnos import advice_for

LEAVING_S = 12.0  # an engine that answers no more is on its way out, which takes 10 s at most


def prepare(state: Path) -> None:
    """Make the state directory, for its owner alone.

    Raises: StorageError when it is no directory, or somebody else's.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = state.stat()
    except OSError as error:
        raise StorageError(
            f"the state directory {state} cannot be used ({error.strerror}): {advice_for(error)}"
        ) from error
    if status.st_uid != os.geteuid():
        raise StorageError(f"the state directory {state} belongs to another user: choose another one with --state")
    if stat.S_IMODE(status.st_mode) & 0o077:
        state.chmod(0o700)


async def lock(config: Config) -> int:
    """Return a descriptor that holds the lock of the state directory; a lock of a dead engine does not count.

    Raises: StorageLocked, naming the engine that holds it.
    """
    descriptor = os.open(config.state / locks.RUNNING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with trio.move_on_after(LEAVING_S):
            while not locks.lock(descriptor):
                if await _answers(config.socket):
                    break
                await trio.sleep(0.1)
            else:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
                return descriptor
        pid = locks.written_pid(descriptor) or "unknown"
        raise StorageLocked(
            f"another engine (pid {pid}) uses the state directory {config.state}: "
            "stop it with `ddrive stop`, or choose another directory with --state"
        )
    except BaseException:
        os.close(descriptor)
        raise


async def ended(state: Path, engine: int | None) -> bool:
    """Return true when the process `engine` has the lock of `state` no more, false when it should leave and does not.

    Nothing is made in `state`, which may be gone; another engine may be there already.
    """
    with trio.move_on_after(LEAVING_S):
        while True:
            if locks.holder(state) != engine or _is_free(state / locks.RUNNING):
                return True
            await trio.sleep(0.02)
    return False


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return locks.lock(descriptor)
    finally:
        os.close(descriptor)


async def _answers(path: Path) -> bool:
    try:
        await (await connect(path)).aclose()
    except OSError:
        return False
    return True


def notify(text: str) -> None:
    """Tell the service manager, if there is one. Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return
