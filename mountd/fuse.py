"""One FUSE session: mount, serve, unmount. pyfuse3 allows one per process.

The process that serves a mount must never make a blocking file call on it: that would wait for itself, and outlive
even SIGKILL. What is needed to know about the mount comes from /proc and /sys.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyfuse3

from ddrive.errors import MountFailed
from mountd.operations import Operations

log = logging.getLogger(__name__)

MIN_TASKS = 4  # idle tasks that are kept; each takes one request at a time
MAX_TASKS = 1024  # requests in progress; reads that wait are capped well below (`Limits.max_waiting_reads`)
MAX_BACKGROUND = (
    512  # read-ahead requests in progress; the kernel's default of 12 lets 12 waiting reads stop all others
)
READ_AHEAD_KIB = 512  # the kernel's default is 128; larger requests cost less time each


def mount_options(*, name: str, read_only: bool, allow_other: bool) -> set[str]:
    """Return the mount options; `name` is shown as the source of the mount."""
    options = {f"fsname={name}", "subtype=ddrive", "default_permissions", "nosuid", "nodev"}
    if read_only:
        options.add("ro")
    if allow_other:
        options.add("allow_other")
    return options


@contextmanager
def mounted(operations: Operations, mountpoint: str, options: set[str]) -> Iterator[int]:
    """Mount for the length of the block, and give the descriptor of our end.

    Raises: MountFailed with the reason and the next step.
    """
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        why = "cannot be opened" if os.path.exists("/dev/fuse") else "is missing"
        raise MountFailed(f"/dev/fuse {why}: load the fuse module or install fuse3, and check its permissions")
    before = _fuse_descriptors()
    try:
        pyfuse3.init(operations, mountpoint, options)
    except RuntimeError as problem:
        raise MountFailed(
            f"{mountpoint} cannot be mounted ({problem}): check that it is an empty directory of yours"
        ) from None
    try:
        descriptor = max(_fuse_descriptors() - before)
        _tune(mountpoint)
        yield descriptor
    finally:
        pyfuse3.close(unmount=True)
        log.info("unmounted: mountpoint=%s", mountpoint)


async def serve_fuse() -> None:
    """Answer requests until the mount ends or the task is cancelled."""
    await pyfuse3.main(MIN_TASKS, MAX_TASKS)


class SessionCache:
    """The kernel's memory of the mount of this process; see `follower.KernelCache`."""

    def drop_entry(self, parent: int, name: bytes) -> None:
        """Forget a name, in the background: the kernel may wait for a lookup in progress there."""
        pyfuse3.invalidate_entry_async(parent, name, ignore_enoent=True)

    def drop_attributes(self, number: int) -> None:
        """Forget attributes; an inode that the kernel does not know is fine."""
        with suppress(OSError):
            pyfuse3.invalidate_inode(number, attr_only=True)


def device_of(mountpoint: str) -> str | None:
    """Return `major:minor` of the file system mounted at `mountpoint`, None when there is none; asks only /proc."""
    found = None
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        place = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
        if place == os.fsencode(mountpoint):
            found = fields[2]
    return found


def _fuse_descriptors() -> set[int]:
    found: set[int] = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                found.add(int(name))
    return found


def _tune(mountpoint: str) -> None:
    """Raise limits of the kernel where we may; everything works without, a little slower."""
    device = device_of(mountpoint)
    if device is None:
        return
    minor = device.partition(":")[2]
    for path, value in (
        (f"/sys/fs/fuse/connections/{minor}/max_background", MAX_BACKGROUND),
        (f"/sys/fs/fuse/connections/{minor}/congestion_threshold", MAX_BACKGROUND * 3 // 4),
        (f"/sys/class/bdi/{device}/read_ahead_kb", READ_AHEAD_KIB),
    ):
        try:
            Path(path).write_text(str(value))
        except OSError as problem:
            log.debug("kernel limit left as it is: path=%s why=%s", path, problem)
