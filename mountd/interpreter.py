"""How the interpreter is set in our processes."""

import ctypes
import gc
import os
import resource
import signal
import sys

GC_OBJECTS = 100_000  # made between two searches for cycles (default 700): a listing makes many, and few cycles
SPARE_BYTES = 16 * 1024 * 1024  # of memory that is kept for the next blocks, instead of being given back and asked for
SWITCH_INTERVAL_S = 0.0002  # a thread that has read or checked something waits no longer to go on (default 5 ms)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of <malloc.h>


def become_service() -> None:
    """Take Ctrl-C, hold no directory, and open as many files as we may; what is started afterwards does the same.

    Until it is handled, Ctrl-C ends us as SIGTERM does: without a traceback. `ddrive daemon` has held it back so far.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.chdir("/")  # keeps no file system busy
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each open feed needs several descriptors


def tune(*, lists: bool) -> None:
    """Let threads take turns quickly and keep one heap for all of them; to be called before there are any.

    A process that `lists` directories searches for cycles seldom. An engine does not: it runs for months, and what is
    in a cycle may be large. Each further heap would hold memory of its own; only glibc can be told so, and also not to
    give back at once what the next blocks need: a page that is taken anew costs a microsecond or, in a virtual machine,
    several.
    """
    gc.freeze()  # what the modules brought with them stays
    if lists:
        gc.set_threshold(GC_OBJECTS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, SPARE_BYTES)
        mallopt(_M_MMAP_THRESHOLD, SPARE_BYTES // 2)
