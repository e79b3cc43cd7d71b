"""What the author appends appears in the mount by itself; an open file keeps what it was opened with."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.conftest import MakeStore
from tests.support import npm, tree
from tests.support.program import Program

both = pytest.mark.parametrize("dialect", npm.DIALECTS)


def eventually(holds: Callable[[], bool], what: str, patience_s: float = 10) -> None:
    """Wait until `holds`; the promise is 2 s, a busy machine gets more."""
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, f"not seen within {patience_s} s: {what}"
        time.sleep(0.05)


@both
def test_an_appended_entry_is_seen(dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store(dialect)
    with npm.serving(dialect, store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address)
        assert not (mountpoint / "fresh.txt").exists()
        names = set(os.listdir(mountpoint))
        peer.play(tree.file("/fresh.txt", 1234))
        eventually(lambda: (mountpoint / "fresh.txt").exists(), "a new file")
        assert (mountpoint / "fresh.txt").read_bytes() == tree.content("/fresh.txt", "", 1234)
        assert set(os.listdir(mountpoint)) == names | {"fresh.txt"}
        peer.play({"do": "unlink", "path": "/fresh.txt", "drive": "root"})
        eventually(lambda: not (mountpoint / "fresh.txt").exists(), "a deleted file is gone")


@both
def test_an_overwritten_file_changes_for_new_readers_only(
    dialect: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path
) -> None:
    store, key = npm_store(dialect)
    old = tree.content("/big.bin", "", 5 * tree.MIB)
    new = tree.content("/big.bin", "second", 3 * tree.MIB)
    with npm.serving(dialect, store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address)
        with (mountpoint / "big.bin").open("rb", buffering=0) as opened:
            assert os.pread(opened.fileno(), 1000, 0) == old[:1000]
            peer.play(tree.file("/big.bin", 3 * tree.MIB, seed="second", chunk=64 * tree.KIB))
            eventually(lambda: (mountpoint / "big.bin").stat().st_size == len(new), "the new size")
            assert (mountpoint / "big.bin").read_bytes() == new
            assert os.pread(opened.fileno(), 1000, 4 * tree.MIB) == old[4 * tree.MIB : 4 * tree.MIB + 1000]


def test_a_pinned_mount_never_changes(npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store("dweb")
    with npm.serving("dweb", store, key) as peer:
        newest = ddrive.mount(key, mountpoint.with_name("newest"), "--peer", peer.address)
        pinned = ddrive.mount(f"{key}+{newest['version']}", mountpoint)
        assert pinned["version"] == newest["version"]
        names = set(os.listdir(mountpoint))
        peer.play(tree.file("/fresh.txt", 10))
        eventually(lambda: (mountpoint.with_name("newest") / "fresh.txt").exists(), "a new file in the live mount")
        assert set(os.listdir(mountpoint)) == names
