"""The kernel's connections to processes that serve mounts, by the control files it has for each.

Source: Documentation/filesystems/fuse.rst of Linux.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import trio

CONTROL = "/sys/fs/fuse/connections"
CHILD_LIMIT_S = 5.0

log = logging.getLogger(__name__)


def connection(device: str) -> str:
    """Return the directory with the control files of the mount that `device` (`0:40`, of mountinfo) is."""
    return f"{CONTROL}/{device.partition(':')[2]}"


async def abort(device: str) -> None:
    """End a mount whose process is dead and cannot go: all that waits for it gets an error."""
    await control({f"{connection(device)}/abort": 1})


async def control(settings: Mapping[str, int]) -> None:
    """Write numbers to control files, as far as we may."""
    missed = {path: value for path, value in settings.items() if not _set(path, value)}
    if missed and os.geteuid() == 0:
        await _set_in_namespace(missed)


def _set(path: str, value: int) -> bool:
    try:
        Path(path).write_text(str(value))
    except OSError as problem:
        log.debug("kernel control file left as it is: path=%s why=%s", path, problem)
        return False
    return True


async def _set_in_namespace(settings: Mapping[str, int]) -> None:
    """Write where the control file system is not mounted: a child mounts it, for itself alone."""
    steps = [f"mount -t fusectl fusectl {CONTROL}", *(f"echo {value} > {path}" for path, value in settings.items())]
    command = ["unshare", "--mount", "sh", "-c", " && ".join(steps)]
    with trio.move_on_after(CHILD_LIMIT_S):
        try:
            done = await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True, cwd="/")
        except OSError as problem:
            log.info("kernel control files left as they are: why=%s", problem)
            return
        if done.returncode:
            log.info("kernel control files left as they are: why=%s", done.stderr.decode(errors="replace").strip())
