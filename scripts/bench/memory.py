"""Taking the machine's memory in hand before something is measured."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

GIB = 1 << 30
SHARE = Path("/proc/sys/vm/percpu_pagelist_high_fraction")
SMALLEST = 20_000  # of the memory, a part that a CPU may keep for itself
TAKE = "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[2:])); b'x' * int(sys.argv[1])"


def take_memory(size: int = 3 * GIB // 2, *, in_order: bool = False) -> None:
    """Have the host of a virtual machine give back `size` bytes that were idle, so that no system pays for that.

    Linux from 6.7 on leaves up to a sixteenth of the memory with the CPU that freed it, and hands out the last page
    first: who is measured next gets much of it backwards, and copying from there takes up to 1.7 times as long. What is
    taken `in_order` goes back to where all find it by its address. But there the host takes it away within seconds, so
    this is for what is measured at once.
    """
    cpus = os.sched_getaffinity(0)
    with _short_lists() if in_order else nullcontext():
        _take(size, cpus)
        for cpu in cpus if in_order else ():  # each gives its own back
            _take(size // 32, {cpu})


def _take(size: int, cpus: set[int]) -> None:
    subprocess.run([sys.executable, "-c", TAKE, str(size), *map(str, cpus)], check=True)


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
