"""Drives made here are read completely by the npm packages, over TCP and from the store directory."""

import shutil
from pathlib import Path

import pytest

from tests.support import author, npm, tree
from tests.support.program import Program, program

both = pytest.mark.parametrize("dialect", npm.DIALECTS)


@both
def test_npm_reads_an_imported_tree(dialect: str, ddrive: Program, tmp_path: Path) -> None:
    steps = tree.plain_steps()
    source = tree.build(tmp_path / "tree", steps)
    made = ddrive.ask("import", source, "--dialect", dialect)
    assert made["dialect"] == dialect
    wanted = tree.expected(steps)
    assert made["files"] == sum(entry["type"] == "file" for entry in wanted.values())
    assert made["refused"] == []
    seen = npm.read(dialect, made["key"], ddrive.address, tmp_path / "npm")
    assert tree.differences(seen, wanted) == []


@both
async def test_npm_reads_nested_drives(dialect: str, ddrive: Program, tmp_path: Path) -> None:
    steps = tree.nested_steps()
    wanted = tree.expected(steps) | {"/gone": {"type": "directory"}}  # we keep a directory whose last entry is removed
    ddrive.state.mkdir(mode=0o700)
    made = await author.make(dialect, ddrive.state / dialect, steps)
    shutil.copytree(ddrive.state / dialect, tmp_path / "copy")
    key = made["root"]["key"]
    assert tree.differences(npm.dump(dialect, tmp_path / "copy", key)["manifest"], wanted) == []
    seen = npm.read(dialect, key, ddrive.address, tmp_path / "npm")
    assert tree.differences(seen, wanted) == []


@both
def test_npm_opens_the_store_directory(dialect: str, ddrive: Program, tmp_path: Path) -> None:
    steps = tree.plain_steps()
    made = ddrive.ask("import", tree.build(tmp_path / "tree", steps), "--dialect", dialect)
    assert ddrive.run("stop").code == 0
    shutil.copytree(ddrive.state / dialect, tmp_path / "copy")
    opened = npm.dump(dialect, tmp_path / "copy", made["key"])
    assert opened["version"] == made["version"]
    assert tree.differences(opened["manifest"], tree.expected(steps)) == []


@both
def test_a_second_import_appends_only_what_changed(dialect: str, ddrive: Program, tmp_path: Path) -> None:
    steps = tree.plain_steps(many=20, big=tree.MIB)
    source = tree.build(tmp_path / "tree", steps)
    first = ddrive.ask("import", source, "--dialect", dialect)
    again = ddrive.ask("import", source, first["key"])
    assert again["version"] == first["version"]
    (source / "one").write_bytes(b"changed")
    third = ddrive.ask("import", source, first["key"])
    assert third["version"] == first["version"] + 1
    seen = npm.read(dialect, first["key"], ddrive.address, tmp_path / "npm")
    assert seen["/one"]["size"] == 7


@both
def test_two_hosts(dialect: str, ddrive: Program, mountpoint: Path, tmp_path: Path) -> None:
    """The README's quick start: one host imports, the other mounts by key."""
    steps = tree.plain_steps()
    made = ddrive.ask("import", tree.build(tmp_path / "tree", steps), "--dialect", dialect)
    with program(tmp_path / "other" / "state") as other:
        other.mount(made["key"], mountpoint, "--peer", ddrive.address)
        assert tree.differences(tree.observe(mountpoint), tree.expected(steps)) == []
        assert other.ask("info", made["key"])["version"] == made["version"]
        (tmp_path / "tree" / "added.txt").write_text("later")
        assert ddrive.ask("import", tmp_path / "tree", made["key"])["version"] == made["version"] + 1
        assert "added.txt" in [entry["name"] for entry in other.ask("ls", made["key"])]
