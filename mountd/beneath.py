"""Mounting beneath a dead mount: when the dead one is taken off, the new one comes to light, not the directory below.

The mount is made without a place, attached beneath the dead one, and given to libfuse as the descriptor of `/dev/fuse`.
Whatever ends this process on the way leaves a dead mount at the place, two at most, and the directory stays covered.
Linux can do so since 6.5, for those who may mount without `fusermount3`.
Source: move_mount(2), fuse(4), umount(2).
"""

import errno
import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass

from ddrive.errors import MountFailed
from mountd.device import DEVICE
from mountd.mount_calls import ATTRIBUTES, attach_beneath, kept, new_mount, take_off

_ROOT_MODE = "40000"  # a directory, in octal

_log = logging.getLogger(__name__)


@dataclass
class Replacement:
    """A mount that lies beneath a dead one. `device` is our end, `dead` names what is to go; both are descriptors."""

    device: int
    dead: int

    @property
    def target(self) -> str:
        """What libfuse takes for the mountpoint: it then serves our end, and mounts and unmounts nothing."""
        return f"/dev/fd/{self.device}"

    def reveal(self) -> None:
        """Take the dead mount off, and no other, whatever has happened at the place meanwhile. Raises: MountFailed."""
        try:
            take_off(f"/proc/self/fd/{self.dead}")
        except OSError as problem:
            if problem.errno != errno.EINVAL:  # somebody else took it off
                raise MountFailed(f"a dead mount cannot be taken off ({problem.strerror}): unmount it first") from None
        finally:
            os.close(self.dead)

    def drop(self) -> None:
        """Give up before libfuse has our end: it lies dead beneath the dead one."""
        os.close(self.device)
        os.close(self.dead)


def put_beneath(mountpoint: str, options: set[str]) -> Replacement | None:
    """Attach a new mount beneath the dead one at `mountpoint`; None where the kernel refuses.

    `options` are those of libfuse. Asks no file system, so it is safe where a dead mount hangs.
    """
    with ExitStack() as undo:
        try:
            dead = kept(undo, os.open(mountpoint, os.O_PATH | os.O_NOFOLLOW))
            device = kept(undo, os.open(DEVICE, os.O_RDWR))
            with ExitStack() as done:
                told = sorted(_for_kernel(device, options))
                made = kept(done, new_mount("fuse", told, options & ATTRIBUTES.keys()))
                attach_beneath(made, dead)
        except OSError as problem:
            _log.info("not mounted beneath the dead mount: mountpoint=%s why=%s", mountpoint, problem.strerror)
            return None
        undo.pop_all()
        return Replacement(device, dead)


def detach(mountpoint: str) -> None:
    """Take what is mounted at `mountpoint` off the tree; what cannot be taken off is left to the engine."""
    try:
        take_off(mountpoint)
    except OSError as problem:
        _log.warning("mount not taken off: mountpoint=%s why=%s", mountpoint, problem.strerror)


def _for_kernel(device: int, options: set[str]) -> set[str]:
    """Return what the kernel is told for `options` of libfuse."""
    told = {option.replace("fsname=", "source=", 1) for option in options} - {"nosuid", "nodev"}
    return told | {f"fd={device}", f"rootmode={_ROOT_MODE}", f"user_id={os.geteuid()}", f"group_id={os.getegid()}"}
