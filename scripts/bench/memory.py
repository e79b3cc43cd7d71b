"""Taking the machine's memory in hand before something is measured."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GIB = 1 << 30
SHARE = Path("/proc/sys/vm/percpu_pagelist_high_fraction")
SMALLEST = 20_000  # of the memory, a part that a CPU may keep for itself
TAKE = "import os, sys; os.sched_setaffinity(0, eval(sys.argv[2])); b'x' * int(sys.argv[1])"


def take_memory(size: int = 3 * GIB // 2) -> None:
    """Have the host of a virtual machine give back `size` bytes that were idle, so that no system pays for that.

    All of it goes back to where each system finds it in the order of addresses. Linux from 6.7 on leaves up to a
    sixteenth of the memory with the CPU that gave it back, and hands out the last page first: whoever is measured next
    gets it backwards, and copying from there takes up to 1.7 times as long.
    """
    with _short_lists():
        cpus = os.sched_getaffinity(0)
        for amount, where in [(size, cpus), *((size // 32, {cpu}) for cpu in cpus)]:  # each gives its own back
            subprocess.run([sys.executable, "-c", TAKE, str(amount), str(where)], check=True)


@contextmanager
def _short_lists() -> Iterator[None]:
    try:
        before = SHARE.read_text()
        SHARE.write_text(f"{SMALLEST}\n")
    except OSError:  # root's alone
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            SHARE.write_text(before)
