"""Drives made and served by the npm packages are mounted here, and look exactly as they were made."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.interop.conftest import MakeStore
from tests.support import npm, tree
from tests.support.program import Program

both = pytest.mark.parametrize("dialect", npm.DIALECTS)


@both
def test_the_awkward_tree_is_mounted_whole(
    dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    with npm.serving(dialect, store, key) as peer:
        made = ddrive.mount(key, mountpoint, "--peer", peer.address)
        assert made["state"] == "ok"
        assert made["key"] == key
        assert tree.differences(tree.observe(mountpoint), tree.expected(tree.nested_steps())) == []
        assert ddrive.run("unmount", mountpoint).code == 0
        assert list(mountpoint.iterdir()) == []


@both
def test_a_deleted_entry_is_proven_absent(
    dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    with npm.serving(dialect, store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address)
        for path in ("deleted", "gone/only-child", "gone", "never/was", "one/below-a-file"):
            with pytest.raises(OSError, match=path) as caught:
                os.lstat(mountpoint / path)
            assert caught.value.errno in (errno.ENOENT, errno.ENOTDIR)


@both
def test_the_command_line_reads_without_mounting(
    dialect: str, npm_store: MakeStore, ddrive: Program, tmp_path: Path
) -> None:
    store, key = npm_store(dialect)
    wanted = tree.expected(tree.nested_steps())
    with npm.serving(dialect, store, key) as peer:
        listed = ddrive.ask("ls", key, "/many", "--peer", peer.address)
        assert [entry["name"] for entry in listed] == [f"file-{number:03}.txt" for number in range(300)]
        assert ddrive.run("cat", key, "/empty-first").out == b""
        big = ddrive.run("cat", key, "big.bin")
        assert big.out == tree.content("/big.bin", "", 5 * tree.MIB), big
        inner = ddrive.run("cat", key, "/nested/middle/inner/changes.txt")
        assert inner.out == tree.content("/changes.txt", "new", 70_000), inner
        exported = ddrive.ask("export", key, tmp_path / "copy")
        assert exported["refused"] == []
        assert tree.differences(tree.observe(tmp_path / "copy"), wanted) == []


@both
def test_a_store_directory_written_by_npm_is_opened(
    dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    ddrive.state.mkdir(mode=0o700)
    shutil.copytree(store, ddrive.state / dialect)
    ddrive.mount(key, mountpoint)
    assert tree.differences(tree.observe(mountpoint), tree.expected(tree.nested_steps())) == []


@both
def test_an_old_version_is_mounted(dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store(dialect)
    with npm.serving(dialect, store, key) as peer:
        made = ddrive.mount(f"{key}+9", mountpoint, "--peer", peer.address)
        assert made["pinned"]
        assert (mountpoint / "deleted").stat().st_size == 4000
        assert (mountpoint / "overwritten").read_bytes() == tree.content("/overwritten", "first", 100_000)
        assert not (mountpoint / "many").exists()
