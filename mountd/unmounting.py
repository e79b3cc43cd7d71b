"""Ending mounts and finding out who holds them, without one file call on the mount itself.

`fusermount3` does the unmounting for users and root alike; it runs as a process of its own, so that a kernel that
waits for a dead file system never holds the engine.
"""

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

import trio

from ddrive.errors import DriveError, MountFailed
from mountd.mountinfo import is_ours, mounted_at, mounts_at

UNMOUNT_LIMIT_S = 5.0
LOOK_LIMIT_S = 1.0  # for a drive whose process has ended: it answers at once
HOLDERS_NAMED = 5
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
_STACKED = 8  # mounts over one another that are taken off one place

_GONE = re.compile(r"not found|not mounted|invalid argument|no such file", re.IGNORECASE)


class Busy(DriveError):
    """The mount is in use; the message says by whom."""


async def unmount(mountpoint: str, *, detach: bool = False) -> None:
    """End the mount at `mountpoint`; nothing happens when there is none.

    `detach` takes it off the tree even while it is used or dead.
    Raises: Busy without names when it is used, MountFailed when it cannot be ended.
    """
    tool = shutil.which("fusermount3") or shutil.which("fusermount")
    command = [tool, "-u", "-z"] if tool and detach else [tool, "-u"] if tool else ["umount", *(["-l"] * detach)]
    with trio.move_on_after(UNMOUNT_LIMIT_S) as limit:
        done = await trio.run_process(
            [*command, "--", mountpoint],
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            cwd="/",
        )
    if limit.cancelled_caught:
        raise Busy(f"{mountpoint}: the kernel did not end the mount within {UNMOUNT_LIMIT_S:g} s")
    if done.returncode == 0:
        return
    why = done.stderr.decode(errors="replace").strip().replace("\n", "; ")
    if "busy" in why.lower():
        raise Busy(f"{mountpoint} is busy")
    if mounted_at(mountpoint) is not None and not (detach and _GONE.search(why)):
        raise MountFailed(f"{mountpoint} cannot be unmounted: {why}")


def is_dead(mountpoint: str) -> bool:
    """Tell whether a drive is mounted at `mountpoint` whose process has gone. Blocks if something there hangs."""
    if not is_ours(mountpoint):
        return False
    try:
        os.statvfs(mountpoint)  # something that the kernel does not remember
    except OSError as error:
        return error.errno in _DEAD
    return False


async def detach_dead(mountpoint: str, *, keeps_last: bool = False) -> bool:
    """Take every dead drive off `mountpoint`; what hangs there counts as dead, what lives or is not ours stays.

    With `keeps_last` what covers the directory stays. Tells whether a dead drive is left.
    """
    for _ in range(_STACKED):
        dead = True
        with trio.move_on_after(LOOK_LIMIT_S):
            dead = await trio.to_thread.run_sync(is_dead, mountpoint, abandon_on_cancel=True)
        if not dead or (keeps_last and len(mounts_at(mountpoint)) == 1):
            return dead
        await unmount(mountpoint, detach=True)
    return True


async def holders(mountpoint: str) -> list[str]:
    """Return who uses the mount, as `name (pid 123)`, at most a few; what /proc does not show us is left out."""
    return await trio.to_thread.run_sync(_holders, mountpoint, abandon_on_cancel=True)


def _holders(mountpoint: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and _uses(process, mountpoint):
            found.append(f"{_name(process)} (pid {process.name})")
            if len(found) == HOLDERS_NAMED:
                break
    return found


def _uses(process: Path, mountpoint: str) -> bool:
    inside = mountpoint.rstrip("/") + "/"
    try:
        links = [process / "cwd", process / "root", process / "exe", *(process / "fd").iterdir()]
    except OSError:
        links = [process / "cwd", process / "root", process / "exe"]
    for link in links:
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target == mountpoint or target.startswith(inside):
            return True
    try:
        return os.fsencode(f" {inside}") in (process / "maps").read_bytes()
    except OSError:
        return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
