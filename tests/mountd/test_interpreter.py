"""How the interpreter is set: looked at in processes of its own, as it stays so."""

import json
import subprocess
import sys
from typing import Any

import pytest

from mountd.interpreter import GC_OBJECTS, SWITCH_INTERVAL_S

LOOK = """
import ctypes, gc, json, os, resource, sys, threading
import mountd.interpreter
{before}

def heaps():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.fdopen.restype = ctypes.c_void_p
    libc.fdopen.argtypes = ctypes.c_int, ctypes.c_char_p
    libc.malloc_info.argtypes = ctypes.c_int, ctypes.c_void_p
    libc.fclose.argtypes = ctypes.c_void_p,
    together = threading.Barrier(4)

    def take():
        together.wait()
        libc.malloc(1000)
        together.wait()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file = os.memfd_create("heaps")
    stream = libc.fdopen(os.dup(file), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    return os.pread(file, 1 << 20, 0).count(b"<heap nr=")

def fresh_pages():
    zeros = os.open("/dev/zero", os.O_RDONLY)
    for number in range(50):
        if number == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [os.read(zeros, 1 << 19) for _ in range(6)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

frozen = gc.get_freeze_count()
{tune}
found = [gc.get_threshold()[0], gc.get_freeze_count() - frozen, sys.getswitchinterval(), fresh_pages(), heaps()]
print(json.dumps(found))
"""
WITHOUT_MALLOPT = """
class Other:
    def __init__(self, name):
        pass
mountd.interpreter.ctypes = type(sys)("ctypes")
mountd.interpreter.ctypes.CDLL = Other
"""


def seen(tune: str, before: str = "") -> Any:
    """Return what a process has after `tune`.

    Objects between searches, those frozen, the switch interval, pages that were taken anew for memory in use, heaps.
    """
    code = LOOK.format(before=before, tune=tune)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("lists", [True, False])
def test_threads_take_turns_quickly_and_share_a_heap(lists: bool) -> None:
    objects, frozen, interval, fresh, heaps = seen("")
    assert frozen == 0
    assert heaps > 1
    assert fresh > 10_000
    assert objects < GC_OBJECTS
    assert interval > SWITCH_INTERVAL_S
    tuned = seen(f"mountd.interpreter.tune(lists={lists})")
    assert tuned[0] == (GC_OBJECTS if lists else objects)
    assert tuned[1] > 1000
    assert tuned[2] == pytest.approx(SWITCH_INTERVAL_S)
    assert tuned[3] < 100
    assert tuned[4] == 1


def test_a_c_library_without_that_setting_will_do() -> None:
    tuned = seen("mountd.interpreter.tune(lists=True)", WITHOUT_MALLOPT)
    assert tuned[0] == GC_OBJECTS
    assert tuned[4] > 1
