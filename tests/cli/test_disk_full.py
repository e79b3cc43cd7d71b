"""A disk that fills up: readers go on, writers hear of it, and all is well again when there is room."""

import errno
import json
import os
from pathlib import Path

import pytest

from tests.cli.test_space import MIB, content
from tests.support.disk import fill, free_bytes, small_disk
from tests.support.memory_mount import until
from tests.support.program import Program, alive, kill, program


def test_a_tenth_of_the_disk_stays_free_and_nothing_is_read_wrong(ddrive: Program, tmp_path: Path) -> None:
    source, mount = tmp_path / "tree", tmp_path / "mount"
    source.mkdir()
    whole = content(40 * MIB, 3)
    (source / "large").write_bytes(whole)
    key = ddrive.ask("import", source)["key"]
    with small_disk(tmp_path / "small", 32 * MIB) as disk, program(disk / "state") as other:
        other.mount(key, mount, "--peer", ddrive.address)
        assert (mount / "large").read_bytes() == whole
        space = other.ask("status")["space"]
        assert 2 * MIB <= space["min_free"] <= 4 * MIB
        assert free_bytes(disk) >= space["min_free"] - 128 * 1024
        assert space["cached"] >= 16 * MIB
        refused = other.run("download", key)
        assert (refused.code, "room" in refused.err) == (7, True), refused
        other.ask("clear", key, "--yes")
        assert free_bytes(disk) >= 24 * MIB
        other.ask("unmount", mount)


def test_a_full_disk_stops_writers_alone(ddrive: Program, tmp_path: Path) -> None:
    source, mount, own = tmp_path / "tree", tmp_path / "mount", tmp_path / "own"
    source.mkdir()
    files = {name: content(2 * MIB, number) for number, name in enumerate(("pinned", "other"))}
    for name, data in files.items():
        (source / name).write_bytes(data)
    key = ddrive.ask("import", source)["key"]
    with small_disk(tmp_path / "small", 32 * MIB) as disk, program(disk / "state") as other:
        other.ask("download", key, "pinned", "--peer", ddrive.address)
        mine = other.ask("import", source)["key"]
        other.mount(key, mount)
        other.mount(mine, own)
        (own / "many").mkdir()
        for number in range(200):
            (own / "many" / f"{number:0200}").touch()
        other.ask("unmount", own)  # all of them are stored then
        other.mount(mine, own)
        assert sorted(path.name for path in mount.iterdir()) == ["other", "pinned"]
        pid, filler = other.pid, fill(disk)
        for name, data in files.items():
            assert (mount / name).read_bytes() == data
            assert other.run("cat", key, name).out == data
        (source / "more").write_bytes(content(4 * MIB, 9))
        assert other.run("import", source, mine).code == 7
        with pytest.raises(OSError, match="No space left") as error:
            (own / "more").write_bytes(bytes(4 * MIB))
        assert error.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space left"):  # which the engine's disk says
            (own / "many").rename(own / "others")
        refused = other.run("create", "--json")
        assert (refused.code, refused.json()["error"]["code"]) == (7, "DiskFull")
        assert "free some space" in refused.err
        assert (own / "other").read_bytes() == files["other"]
        assert alive(pid)
        filler.unlink()
        until(lambda: other.run("cat", mine, "more").code == 0)  # what found room is stored within seconds of that
        other.ask("import", source, mine)
        (own / "fine").write_bytes(b"fine")
        assert other.run("cat", mine, "fine").out == b"fine"
        assert other.run("cat", mine, "more").out == (source / "more").read_bytes()
        assert (other.pid, other.ask("verify", mine)["bad"]) == (pid, [])
        for place in (mount, own):
            other.ask("unmount", place)


def test_a_full_disk_is_emptied_by_clear_and_rm(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "pinned").write_bytes(content(4 * MIB, 1))
    (source / "other").write_bytes(content(2 * MIB, 2))
    key = ddrive.ask("import", source)["key"]
    with small_disk(tmp_path / "small", 24 * MIB) as disk, program(disk / "state") as other:
        other.ask("download", key, "pinned", "--peer", ddrive.address)
        other.ask("download", key, "other")
        fill(disk)
        assert other.ask("clear", key, "pinned", "--yes")["bytes"] >= 3 * MIB
        assert free_bytes(disk) >= 3 * MIB
        assert [pin["path"] for pin in json.loads((other.state / "pins.json").read_bytes())] == ["/other"]
        fill(disk)
        assert other.ask("rm", key, "--yes")["bytes"] >= MIB
        assert free_bytes(disk) >= MIB
        assert (other.ask("list"), other.ask("status")["space"]["cached"]) == ([], 0)


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_our_own_is_removed_on_a_full_disk(tmp_path: Path, restarted: bool) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "file").write_bytes(content(4 * MIB, 1))
    with small_disk(tmp_path / "small", 24 * MIB) as disk, program(disk / "state") as ddrive:
        key = ddrive.ask("import", source, "--name", "mine")["key"]
        empty, database, graph = (ddrive.ask(*verb, "create")["key"] for verb in ([], ["db"], ["graph"]))
        ddrive.ask("db", "put", database, "a", "1")
        ddrive.ask("graph", "put", graph, "a", "b", "c")
        if restarted:
            ddrive.ask("stop")
        for each in (database, graph, empty, key):
            fill(disk)
            assert free_bytes(disk) == 0
            assert ddrive.run("rm", each, "--yes").code == 0
            assert ddrive.run("rm", each, "--yes").code == 3
        assert free_bytes(disk) >= 4 * MIB
        ddrive.ask("stop")
        assert (ddrive.ask("list"), ddrive.ask("db", "list"), ddrive.ask("graph", "list")) == ([], [], [])
        assert ddrive.run("create", "--name", "mine").code == 6, "it would be signed a second time"


def test_an_engine_that_finds_no_room_says_where(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 12 * MIB) as disk, program(disk / "state") as other:
        kept = other.state / "identity"
        other.ask("create")
        pid = other.pid
        kill(pid)
        until(lambda: not alive(pid))
        kept.unlink()
        fill(disk)
        (tmp_path / "mnt").mkdir()
        advice = "free some space there"
        for arguments in (["status"], ["mount", "ab" * 32, tmp_path / "mnt"], ["daemon"]):
            refused = other.run(*arguments)
            assert (refused.code, refused.err) == (7, f"ddrive: No space left on device ({kept}): {advice}\n")
        log = other.state / "log" / "engine.log"
        os.truncate(log, -(-log.stat().st_size // 4096) * 4096)  # no line has room in it any more
        refused = other.run("status")
        assert (refused.code, f"({other.state}): {advice}" in refused.err) == (7, True), refused
        state, other.state = other.state, disk / "new"
        refused = other.run("status")
        assert (refused.code, refused.err.count("\n"), f": {advice}\n" in refused.err) == (7, 1, True), refused
        assert not list(state.glob(".*"))
        other.state = state
        (disk / "filler").unlink()
        assert len(other.ask("list")) == 1


def test_an_import_says_what_to_do_when_the_disk_is_full(tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    for number in range(4):
        (source / f"{number}").write_bytes(content(4 * MIB, number))
    with small_disk(tmp_path / "small", 12 * MIB) as disk, program(disk / "state") as other:
        assert other.ask("list") == []
        filler = fill(disk)
        refused = other.run("import", source, "--json")
        assert (refused.code, refused.json()["error"]["code"]) == (7, "DiskFull")
        assert "free some space there" in refused.err
        os.truncate(filler, filler.stat().st_size - 512 * 1024)  # room for a drive, but not for what is imported
        refused = other.run("import", source)
        assert (refused.code, f"then import {source} again" in refused.err) == (7, True), refused
        assert other.ask("list") == []
        filler.unlink()
        refused = other.run("import", source)
        [left] = other.ask("list")
        assert (refused.code, f"ddrive import {source} {left['key']}" in refused.err.splitlines()[-1]) == (7, True)
        (source / "3").unlink()
        (source / "2").unlink()
        assert other.ask("import", source, left["key"])["files"] == 2
