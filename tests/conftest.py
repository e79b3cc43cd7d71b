"""For all tests: what a run starts ends with it, even when the run is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

GUARDIAN = Path(__file__).resolve().parent / "support" / "guardian.py"
MARK = "DRIVE_TESTS"  # not a setting of ddrive: those are kept from the programs under test


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
