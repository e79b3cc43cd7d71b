"""The workers of an engine that is ending."""
# ruff: noqa: ASYNC240 - /proc does not block

import sys
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.errors import MountFailed
from ddrive.ids import PublicKey
from mountd.config import Config
from mountd.mounts import Mount, MountTable
from mountd.workers import WorkerPool

WORKER = "import time; time.sleep(600)"


async def test_a_mount_that_begins_while_all_end_is_not_waited_for(tmp_path: Path) -> None:
    config = Config(tmp_path / "state")
    config.log_directory.mkdir(parents=True)
    mount = Mount(str(tmp_path / "place"), PublicKey(bytes(32)), DWEB)
    async with trio.open_nursery() as nursery:
        pool = WorkerPool(config, MountTable(tmp_path / "mounts.json"), nursery, command=(sys.executable, "-c", WORKER))
        await pool.stop_all()
        with trio.fail_after(10), pytest.raises(MountFailed, match="the engine is ending"):
            await pool.start(mount)
    assert mount.pid is not None
    assert not Path(f"/proc/{mount.pid}").exists()
