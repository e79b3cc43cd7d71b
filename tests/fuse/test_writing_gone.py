"""A directory that was removed, and in which a program still is: as on a local disk."""

from pathlib import Path

from tests.support.writing import sh, writable_mount

SCRIPT = """
mkdir gone moved; cd gone; rmdir ../gone
ls -a; find .; touch inner || true; test -d . && test -d ..
mkdir ../gone; touch ../gone/other
ls -a; find .; ls ../gone || true
"""


def test_a_removed_directory_is_empty_for_who_is_in_it(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    with writable_mount(tmp_path) as mount:
        told = [sh(SCRIPT, place).replace(str(place), "") for place in (mount.path, local)]
        assert told[0] == told[1]
        assert sorted(path.name for path in mount.path.rglob("*")) == ["gone", "moved", "other"]
