"""An engine and a worker that were killed together."""

from pathlib import Path

from tests.support.memory_mount import until
from tests.support.program import alive, kill
from tests.support.writing import writable_mount


def test_the_next_engine_starts_one_worker_for_a_mount(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        (mount.path / "a").write_bytes(b"kept")
        before = mount.pids()
        for pid in before.values():
            kill(pid)
        until(lambda: not any(map(alive, before.values())))
        mount.heal()
        after = mount.pids()
        assert (mount.path / "a").read_bytes() == b"kept"
        children = Path(f"/proc/{after['engine']}/task/{after['engine']}/children").read_text().split()
        assert children == [str(after["worker"])]
        kill(after["worker"])
        mount.heal()
        assert mount.logged().count("mounted: ") == 3
