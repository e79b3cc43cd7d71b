"""Mounting beneath a dead mount: when the dead one is taken off, the new one comes to light, not the directory below.

The mount is made without a place, attached beneath the dead one, and given to libfuse as the descriptor of `/dev/fuse`.
Whatever ends this process on the way leaves a dead mount at the place, two at most, and the directory stays covered.
Linux can do so since 6.5, for those who may mount without `fusermount3`.
Source: move_mount(2), fsopen(2), fuse(4), umount(2), and linux/mount.h for the numbers.
"""

import ctypes
import errno
import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass

from ddrive.errors import MountFailed
from mountd.device import DEVICE

# The system calls, which have the same number on every architecture of this century
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_CLOSE_ON_EXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6  # FSCONFIG_…
_FROM_EMPTY_PATH, _TO_EMPTY_PATH, _BENEATH = 0x04, 0x40, 0x200  # MOVE_MOUNT_…
_MOUNT_ATTRIBUTES = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4}  # MOUNT_ATTR_…
_DETACH = 2  # MNT_DETACH
_ROOT_MODE = "40000"  # a directory, in octal

_libc = ctypes.CDLL(None, use_errno=True)
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
            _unmount(f"/proc/self/fd/{self.dead}")
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
            dead = _kept(undo, os.open(mountpoint, os.O_PATH | os.O_NOFOLLOW))
            device = _kept(undo, os.open(DEVICE, os.O_RDWR))
            with ExitStack() as done:
                made = _kept(done, _new_mount(device, options))
                flags = _FROM_EMPTY_PATH | _TO_EMPTY_PATH | _BENEATH
                _call(_MOVE_MOUNT, made, b"", dead, b"", flags)
        except OSError as problem:
            _log.info("not mounted beneath the dead mount: mountpoint=%s why=%s", mountpoint, problem.strerror)
            return None
        undo.pop_all()
        return Replacement(device, dead)


def detach(mountpoint: str) -> None:
    """Take what is mounted at `mountpoint` off the tree; what cannot be taken off is left to the engine."""
    try:
        _unmount(mountpoint)
    except OSError as problem:
        _log.warning("mount not taken off: mountpoint=%s why=%s", mountpoint, problem.strerror)


def _new_mount(device: int, options: set[str]) -> int:
    """Return the descriptor of a mount that has no place yet; unless it gets one, it ends with that descriptor."""
    with ExitStack() as done:
        context = _kept(done, _call(_FSOPEN, b"fuse", _CLOSE_ON_EXEC))
        for option in sorted(_for_kernel(device, options)):
            name, equals, value = option.partition("=")
            kind = _SET_STRING if equals else _SET_FLAG
            _call(_FSCONFIG, context, kind, os.fsencode(name), os.fsencode(value) if equals else None, 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        attributes = sum(number for name, number in _MOUNT_ATTRIBUTES.items() if name in options)
        return _call(_FSMOUNT, context, _CLOSE_ON_EXEC, attributes)


def _for_kernel(device: int, options: set[str]) -> set[str]:
    """Return what the kernel is told for `options` of libfuse."""
    told = {option.replace("fsname=", "source=", 1) for option in options} - {"nosuid", "nodev"}
    return told | {f"fd={device}", f"rootmode={_ROOT_MODE}", f"user_id={os.geteuid()}", f"group_id={os.getegid()}"}


def _kept(stack: ExitStack, descriptor: int) -> int:
    """Return `descriptor`, which is closed with `stack`."""
    stack.callback(os.close, descriptor)
    return descriptor


def _unmount(path: str) -> None:
    if _libc.umount2(os.fsencode(path), _DETACH):
        raise _problem()


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call; numbers go as `long`, as the kernel takes them. Raises: OSError."""
    _libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise _problem()
    return result


def _problem() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
