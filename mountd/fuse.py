"""One FUSE session: mount, serve, unmount. pyfuse3 allows one per process.

The process that serves a mount must never make a blocking file call on it: that would wait for itself, and outlive
even SIGKILL. What is needed to know about the mount comes from /proc and /sys.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyfuse3
import trio

from ddrive.errors import MountFailed
from mountd.awake import Awake, Turn, interrupting
from mountd.beneath import Replacement, detach
from mountd.connections import open_control, write_control
from mountd.device import DEVICE, check_device
from mountd.mountinfo import mounted_at
from mountd.operations import Operations

log = logging.getLogger(__name__)

MIN_TASKS = 4  # idle tasks that are kept; each takes one request at a time
MAX_TASKS = 1024  # requests in progress; reads that wait are capped well below (`waits.Limits.max_waiting_reads`)
MAX_BACKGROUND = (
    512  # read-ahead requests in progress; the kernel's default of 12 lets 12 waiting reads stop all others
)
READ_AHEAD_KIB = 1024  # the kernel's default is 128; larger requests cost less time each: 1.5 to 3 times the throughput


def mount_options(*, name: str, read_only: bool, allow_other: bool) -> set[str]:
    """Return the mount options; `name` is shown as the source of the mount."""
    options = {f"fsname={name}", "subtype=ddrive", "default_permissions", "nosuid", "nodev"}
    if read_only:
        options.add("ro")
    if allow_other:
        options.add("allow_other")
    return options


@contextmanager
def mounted(
    operations: Operations, mountpoint: str, options: set[str], beneath: Replacement | None = None
) -> Iterator[int]:
    """Mount for the length of the block, and give the descriptor of our end.

    `beneath` is a mount that was made already, and comes to light now.
    Raises: MountFailed with the reason and the next step.
    """
    check_device()
    before = _fuse_descriptors() - ({beneath.device} if beneath else set())
    try:
        pyfuse3.init(operations, beneath.target if beneath else mountpoint, options)
    except RuntimeError as problem:
        if beneath:
            beneath.drop()
        remedy = "check that it is an empty directory of yours"
        if "allow_other" in options and os.geteuid() != 0:
            remedy += ", and that /etc/fuse.conf has a line user_allow_other"
        raise MountFailed(f"{mountpoint} cannot be mounted ({problem}): {remedy}") from None
    place = None
    try:
        if beneath:
            beneath.reveal()
        place = mounted_at(mountpoint)
        yield max(_fuse_descriptors() - before)
    finally:
        is_there = place is not None and mounted_at(mountpoint) == place  # never what came after us
        pyfuse3.close(unmount=is_there)
        if beneath and is_there:  # of which libfuse does not know
            detach(mountpoint)
        log.info("unmounted: mountpoint=%s", mountpoint)


async def serve_fuse(awake: Awake) -> None:
    """Answer requests until the mount ends or the task is cancelled."""
    pyfuse3.trio = Loop(awake)  # type: ignore[attr-defined]  # as `pyfuse3.asyncio.enable` does it
    try:
        with interrupting():
            await pyfuse3.main(MIN_TASKS, MAX_TASKS)
    finally:
        pyfuse3.trio = trio  # type: ignore[attr-defined]


class Loop:
    """What pyfuse3 takes for the module `trio`: it waits for requests, and for its turn to do so, in our way."""

    Lock = Turn

    def __init__(self, awake: Awake) -> None:
        self.lowlevel = _Lowlevel(awake)

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


class _Lowlevel:
    def __init__(self, awake: Awake) -> None:
        self.wait_readable = awake.wait_readable

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)


class SessionCache:
    """The kernel's memory of the mount of this process; see `follower.KernelCache`."""

    def drop_entry(self, parent: int, name: bytes) -> None:
        """Forget a name, in the background: the kernel may wait for a lookup in progress there."""
        pyfuse3.invalidate_entry_async(parent, name, ignore_enoent=True)

    def drop_attributes(self, number: int) -> None:
        """Forget attributes; an inode that the kernel does not know is fine."""
        with suppress(OSError):
            pyfuse3.invalidate_inode(number, attr_only=True)


def _fuse_descriptors() -> set[int]:
    found: set[int] = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == DEVICE:
                found.add(int(name))
    return found


def tune(mountpoint: str) -> None:
    """Raise limits of the kernel where we may; everything works without, but reads that wait may stop others."""
    place = mounted_at(mountpoint)
    if place is None:
        return
    limits = {"max_background": MAX_BACKGROUND, "congestion_threshold": MAX_BACKGROUND * 3 // 4}
    try:
        for name, value in limits.items():
            descriptor = open_control(place.device, name)
            try:
                write_control(descriptor, value)
            finally:
                os.close(descriptor)
    except OSError as problem:
        log.info("limits of the kernel left as they are: mountpoint=%s why=%s", mountpoint, problem)
    with suppress(OSError):  # root's alone
        Path(f"/sys/class/bdi/{place.device}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
