"""Opening directories below another one without following a symbolic link: anybody may put one on the way meanwhile.

Source: openat2(2), of Linux 5.6; where it is not there or not allowed, each directory on the way is opened.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ddrive.drive.deep import fits

_STEP_BYTES = 2048  # opened at once; the kernel takes a path of 4095 bytes
_ON_THE_WAY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_OPENAT2 = 437  # on every architecture
_NO_SYMLINKS = 0x04  # RESOLVE_NO_SYMLINKS
_MISSING = (errno.ENOSYS, errno.EPERM)  # the second one in some containers

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class _How(ctypes.Structure):
    """`struct open_how`."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Here(NamedTuple):
    """An open directory of the tree, by which names in it lead nowhere else, and its path, if that is not too long.

    That may lead elsewhere by now, but is faster: for what is seldom there, and then looked at again by `place`.
    """

    descriptor: int
    path: str | None

    @property
    def place(self) -> str:
        """Return a path of it that leads nowhere else."""
        return f"/proc/self/fd/{self.descriptor}"


@contextmanager
def here_at(root: str, directory: str, flags: int = os.O_PATH) -> Iterator[Here]:
    """Give a directory of the tree. Raises: OSError, also where a link is on the way."""
    descriptor = opened(root, directory, flags)
    try:
        path = f"{root}/{directory}" if directory else root
        yield Here(descriptor, path if fits(path) else None)
    finally:
        os.close(descriptor)


def opened(root: str, directory: str, flags: int = os.O_PATH) -> int:
    """Return a descriptor of a directory below `root`, of that itself for "".

    Raises: OSError, with ENOTDIR where a link is on the way.
    """
    flags |= os.O_DIRECTORY | os.O_CLOEXEC
    if not directory:
        return os.open(root, flags)
    rest = os.fsencode(directory)
    at = os.open(root, _ON_THE_WAY)
    try:
        while len(rest) > _STEP_BYTES and (end := rest.rfind(b"/", 0, _STEP_BYTES)) > 0:
            following = _open(at, rest[:end], _ON_THE_WAY)
            os.close(at)
            at, rest = following, rest[end + 1 :]
        return _open(at, rest, flags)
    finally:
        os.close(at)


def _open(at: int, path: bytes, flags: int) -> int:
    how = _How(flags, 0, _NO_SYMLINKS)
    arguments = ctypes.c_long(at), ctypes.c_char_p(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    while (descriptor := int(_syscall(ctypes.c_long(_OPENAT2), *arguments))) < 0:
        number = ctypes.get_errno()
        if number in _MISSING:
            return _walk(at, path, flags)
        if number == errno.ELOOP:
            number = errno.ENOTDIR
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return descriptor


def _walk(at: int, path: bytes, flags: int) -> int:
    """Open one directory after the other."""
    *above, last = path.split(b"/")
    way = os.dup(at)
    try:
        for name in above:
            following = os.open(name, _ON_THE_WAY | os.O_NOFOLLOW, dir_fd=way)
            os.close(way)
            way = following
        return os.open(last, flags | os.O_NOFOLLOW, dir_fd=way)
    finally:
        os.close(way)
