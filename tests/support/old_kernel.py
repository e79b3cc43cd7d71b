"""Runs a command where the kernel does not know move_mount(2): `python old_kernel.py COMMAND…`, as root.

Containers often refuse calls in this way. Source: seccomp(2) and linux/filter.h.
"""

import ctypes
import errno
import os
import sys

MOVE_MOUNT = 429
_SET_SECCOMP, _FILTER = 22, 2  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000  # SECCOMP_RET_…


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def refuse(number: int) -> None:
    """Let a system call fail with ENOSYS, in this process and all that it starts. Raises: OSError."""
    steps = (_Instruction * 4)(
        (_LOAD, 0, 0, 0),  # the number of the call
        (_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(_Program(len(steps), steps)), 0, 0):
        raise OSError(ctypes.get_errno(), "the filter is refused")


if __name__ == "__main__":
    refuse(MOVE_MOUNT)
    os.execvp(sys.argv[1], sys.argv[1:])
