"""Store directories of the npm packages are taken over: their drives are here, can be mounted and written."""

import hashlib
from pathlib import Path

import pytest

from tests.interop.conftest import MakeStore
from tests.support import npm, tree
from tests.support.program import Program, program

both = pytest.mark.parametrize("dialect", npm.DIALECTS)


def fingerprint(directory: Path) -> dict[str, tuple[int, int, str]]:
    """Return size, time and hash of every file in a directory."""
    return {
        path.relative_to(directory).as_posix(): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@both
def test_drives_of_npm_are_taken_over_and_stay_writable(
    dialect: str, npm_store: MakeStore, ddrive: Program, tmp_path: Path, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    before = fingerprint(store)
    planned = ddrive.ask("adopt", store, "--dry-run")
    assert planned["feeds"] == planned["own"] > 2
    assert ddrive.ask("list") == []
    done = ddrive.ask("adopt", store)
    assert key in [drive["key"] for drive in done["drives"]]
    assert all(drive["writable"] for drive in done["drives"])
    assert fingerprint(store) == before
    assert {drive["key"] for drive in ddrive.ask("list")} == {drive["key"] for drive in done["drives"]}
    ddrive.mount(key, mountpoint)
    assert tree.differences(tree.observe(mountpoint), tree.expected(tree.nested_steps())) == []
    (mountpoint / "written-here").write_bytes(b"by ddrive")
    ddrive.ask("unmount", mountpoint)
    seen = npm.read(dialect, key, ddrive.address, tmp_path / "reader")
    assert seen["/written-here"]["sha256"] == npm.sha256(b"by ddrive")
    again = ddrive.ask("adopt", store)
    assert len(again["present"]) == again["feeds"]
    assert ddrive.run("cat", key, "written-here").out == b"by ddrive"


@both
def test_drives_are_taken_over_beside_others_of_our_own(
    dialect: str, npm_store: MakeStore, ddrive: Program, tmp_path: Path
) -> None:
    store, key = npm_store(dialect)
    source = tmp_path / "tree"
    source.mkdir()
    (source / "a").write_bytes(b"ours")
    ours = ddrive.ask("import", source, "--dialect", dialect)["key"]
    ddrive.ask("adopt", store)
    ddrive.ask("stop")
    ddrive.ask("import", source, key)  # written after a restart, under a master key that is not its own
    assert ddrive.run("cat", key, "a").out == b"ours"
    assert ddrive.run("cat", ours, "a").out == b"ours"
    (source / "b").write_bytes(b"more")
    ddrive.ask("import", source, ours)
    assert ddrive.run("adopt", source).code == 3
    with npm.serving(dialect, store, key), program(tmp_path / "late" / "state") as late:
        assert late.run("adopt", store).code == 7  # in use
