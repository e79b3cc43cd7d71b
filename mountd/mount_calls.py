"""The system calls of Linux that make mounts without a place.

Source: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), and linux/mount.h for the numbers.
"""

import ctypes
import os
from collections.abc import Iterable
from contextlib import ExitStack

# They have the same number on every architecture of this century
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_CLOSE_ON_EXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6  # FSCONFIG_…
_FROM_EMPTY_PATH, _TO_EMPTY_PATH, _BENEATH = 0x04, 0x40, 0x200  # MOVE_MOUNT_…
ATTRIBUTES = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4}  # MOUNT_ATTR_…
_DETACH = 2  # MNT_DETACH

_libc = ctypes.CDLL(None, use_errno=True)


def new_mount(kind: str, options: Iterable[str] = (), attributes: Iterable[str] = ()) -> int:
    """Return the descriptor of a mount that has no place yet; unless it gets one, it ends with that descriptor.

    `kind` names the file system, `options` (`name` or `name=value`) are its own, `attributes` (of ATTRIBUTES)
    those of the mount. Raises: OSError.
    """
    with ExitStack() as done:
        context = kept(done, _call(_FSOPEN, os.fsencode(kind), _CLOSE_ON_EXEC))
        for option in options:
            name, equals, value = option.partition("=")
            of_kind = _SET_STRING if equals else _SET_FLAG
            _call(_FSCONFIG, context, of_kind, os.fsencode(name), os.fsencode(value) if equals else None, 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        return _call(_FSMOUNT, context, _CLOSE_ON_EXEC, sum(ATTRIBUTES[name] for name in attributes))


def attach_beneath(made: int, upper: int) -> None:
    """Attach a mount that has no place beneath another; both are descriptors. Raises: OSError."""
    _call(_MOVE_MOUNT, made, b"", upper, b"", _FROM_EMPTY_PATH | _TO_EMPTY_PATH | _BENEATH)


def take_off(path: str) -> None:
    """Take what is mounted at `path` off the tree, also while it is in use. Raises: OSError."""
    if _libc.umount2(os.fsencode(path), _DETACH):
        raise _problem()


def kept(stack: ExitStack, descriptor: int) -> int:
    """Return `descriptor`, which is closed with `stack`."""
    stack.callback(os.close, descriptor)
    return descriptor


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
