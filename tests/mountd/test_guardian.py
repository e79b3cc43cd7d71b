"""A test run that is killed takes everything along that it has started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MARK
from tests.mountd.engines import mounts_below, workers_below
from tests.support.guardian import started_by
from tests.support.until import until

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import time
from pathlib import Path
from tests.conftest import MARK
from tests.support.program import program
import os

def test_waits(tmp_path: Path) -> None:
    with program(tmp_path / "state") as ddrive:
        ddrive.mount(ddrive.ask("create")["key"], tmp_path / "mnt")
        Path({told!r}).write_text(os.environ[MARK])
        time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_nothing_outlives_a_killed_run(tmp_path: Path, number: int) -> None:
    told = tmp_path / "told"
    script = tmp_path / "test_waits.py"
    script.write_text(RUN.format(told=str(told)))
    command = [sys.executable, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "--confcutdir", tmp_path]
    command += ["-p", "tests.conftest", "--basetemp", tmp_path / "base", script]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}) as run:  # noqa: ASYNC220
        await until(lambda: told.exists() and bool(told.read_text()), timeout_s=60)
        mark = f"{MARK}={told.read_text()}"
        assert len(started_by(mark)) >= 2, "engine and worker"
        run.send_signal(number)
    await until(lambda: not started_by(mark), timeout_s=30)
    assert workers_below(tmp_path) == []
    assert mounts_below(tmp_path) == []
