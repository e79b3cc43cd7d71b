"""Processes that are killed leave nothing that the next `ddrive mount` does not put right."""

import os
from pathlib import Path

import pytest

from tests.interop.conftest import MakeStore
from tests.support import npm, tree
from tests.support.program import Program, kill


@pytest.mark.parametrize("victim", ["engine", "worker", "both"])
def test_mounting_again_heals(victim: str, npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store("dweb")
    with npm.serving("dweb", store, key) as peer:
        made = ddrive.mount(key, mountpoint, "--peer", peer.address)
        assert (mountpoint / "overwritten").read_bytes() == tree.content("/overwritten", "second", 50_000)
        engine = ddrive.pid
        if victim in ("worker", "both"):
            kill(made["pid"])
        if victim in ("engine", "both"):
            kill(engine)
        again = ddrive.mount(key, mountpoint)
        assert again["state"] == "ok"
        assert tree.differences(tree.observe(mountpoint), tree.expected(tree.nested_steps())) == []
        assert ddrive.run("unmount", mountpoint).code == 0
        os.listdir(mountpoint)


def test_a_mount_outlives_its_engine(npm_store: MakeStore, ddrive: Program, mountpoint: Path) -> None:
    store, key = npm_store("dweb")
    with npm.serving("dweb", store, key) as peer:
        ddrive.mount(key, mountpoint, "--peer", peer.address)
        wanted = (mountpoint / "overwritten").read_bytes()
        kill(ddrive.pid)
        assert (mountpoint / "overwritten").read_bytes() == wanted
        ddrive.ask("status")
        assert (mountpoint / "odd-chunks.bin").read_bytes() == tree.content("/odd-chunks.bin", "", 300_001)


def test_what_import_acknowledged_is_there_after_a_kill(ddrive: Program, tmp_path: Path) -> None:
    source = tree.build(tmp_path / "tree", tree.plain_steps(many=50, big=tree.MIB))
    made = ddrive.ask("import", source)
    kill(ddrive.pid)
    exported = ddrive.ask("export", made["key"], tmp_path / "copy")
    assert exported["version"] == made["version"]
    assert tree.differences(tree.observe(tmp_path / "copy"), tree.observe(source)) == []


def test_an_import_that_was_killed_is_finished_by_the_next(ddrive: Program, tmp_path: Path) -> None:
    source = tree.build(tmp_path / "tree", tree.plain_steps(many=2000, big=20 * tree.MIB))
    key = ddrive.ask("create")["key"]
    engine = ddrive.pid
    with ddrive.running("import", source, key) as running:
        while ddrive.ask("info", key)["content"]["length"] == 0:
            assert running.poll() is None
        kill(running.pid)
        kill(engine)
    assert ddrive.ask("import", source, key)["refused"] == []
    ddrive.ask("export", key, tmp_path / "copy")
    assert tree.differences(tree.observe(tmp_path / "copy"), tree.observe(source)) == []
