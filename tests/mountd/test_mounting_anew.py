"""A mount that is asked for again in another way, which then fails: what was there stays."""

import sys
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.errors import MountFailed
from ddrive.ids import PublicKey
from mountd.config import Config
from mountd.mountpoints import Mountpoints
from mountd.mounts import Mount, MountOptions, MountTable
from mountd.workers import WorkerPool
from tests.mountd.engines import engine, mounts_below, workers_below
from tests.mountd.test_mounting import TEXT, read, write_drive
from tests.support.until import until

# The real worker, as a user meets it whom /etc/fuse.conf does not allow `allow_other`.
WORKER = """
import io, json, sys
from mountd.worker import main
line = sys.stdin.readline()
if json.loads(line)["allow_other"]:
    print(json.dumps({"error": {"code": "MountFailed", "message": "allow_other is not allowed"}}), flush=True)
    sys.exit(1)
sys.stdin = io.StringIO(line)
sys.exit(main())
"""


async def test_a_mount_stays_when_it_cannot_be_made_in_another_way(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    async with engine(tmp_path / "state") as running, trio.open_nursery() as nursery:
        key = PublicKey(bytes.fromhex(await write_drive(running, file=TEXT)))
        table = MountTable(tmp_path / "mounts.json")
        pool = WorkerPool(Config(running.state), table, nursery, command=(sys.executable, "-P", "-c", WORKER))
        mountpoints = Mountpoints(table, pool)
        first = await mountpoints.mount(Mount(str(place), key, DWEB))
        with pytest.raises(MountFailed, match="allow_other is not allowed"):
            await mountpoints.mount(Mount(str(place), key, DWEB, options=MountOptions(allow_other=True)))
        assert list(table) == [first]
        assert first.state == "ok"
        assert await read(place / "file") == TEXT
        other = await mountpoints.mount(Mount(str(place), key, DWEB, options=MountOptions(timeout_s=5.0)))
        assert list(table) == [other]
        assert await read(place / "file") == TEXT
        await mountpoints.unmount(str(place), force=False)
        assert (list(table), mounts_below(tmp_path)) == ([], [])
        await until(lambda: not workers_below(tmp_path))
        nursery.cancel_scope.cancel()
