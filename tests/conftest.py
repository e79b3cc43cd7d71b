"""For all tests: what a run starts ends with it, even when the run is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

GUARDIAN = Path(__file__).resolve().parent / "support" / "guardian.py"
MARK = "DRIVE_TESTS"  # not a setting of ddrive: those are kept from the programs under test


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let signals end the programs under test as usual, also where `nohup` or a shell's `&` has them ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def guarded() -> Iterator[None]:
    """Mark everything that is started from now on, and let a process outside of this one end it with us."""
    value = os.environ[MARK] = f"{os.getpid()}-{os.urandom(4).hex()}"
    environment = {name: text for name, text in os.environ.items() if name != MARK}
    guardian = subprocess.Popen(
        [sys.executable, str(GUARDIAN), f"{MARK}={value}"],
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # what ends us does not end it
    )
    yield
    assert guardian.stdin is not None
    guardian.stdin.close()
    guardian.wait()
