"""`rm` and `gc`: drives are forgotten with their bytes, and what nothing needs is freed; nothing else is touched."""

import json
import select
from pathlib import Path

import pytest

from tests.support.program import Program, mounted, program


def tree(place: Path, **files: int) -> Path:
    """Return a directory with files of these sizes."""
    place.mkdir(parents=True, exist_ok=True)
    for number, (name, size) in enumerate(files.items()):
        (place / name).write_bytes(bytes([number + 1]) * size)
    return place


def disk(state: Path) -> int:
    """Return how much disk the feeds of an engine take."""
    return sum(path.stat().st_blocks * 512 for path in state.glob("*/*/*/*/*"))


def folders(state: Path) -> int:
    """Return how many feeds an engine has on disk."""
    return len(list(state.glob("*/*/*/*")))


def test_a_drive_of_others_is_forgotten_with_its_bytes(ddrive: Program, tmp_path: Path) -> None:
    key = ddrive.ask("import", tree(tmp_path / "tree", a=400_000))["key"]
    with program(tmp_path / "other" / "state") as other:
        other.ask("download", key, "--peer", ddrive.address)
        mount = tmp_path / "mount"
        other.mount(key, mount)
        busy = other.run("rm", key, "--yes")
        assert (busy.code, str(mount) in busy.err, mounted(mount)) == (1, True, True)
        other.ask("unmount", mount)
        assert other.run("rm", key).code == 2
        planned = other.ask("rm", key, "--dry-run")
        assert planned["bytes"] >= 400_000
        assert (planned["feeds"], planned["writable"]) == (2, False)
        assert [drive["key"] for drive in other.ask("list")] == [key]
        done = other.ask("rm", key, "--yes")
        assert (done["feeds"], other.ask("list"), folders(other.state)) == (2, [], 0)
        assert other.run("rm", key, "--yes").code == 3
        assert len(other.run("cat", key, "a", "--peer", ddrive.address).out) == 400_000  # it can be fetched again


def test_a_drive_of_our_own_is_never_signed_twice(ddrive: Program, tmp_path: Path) -> None:
    key = ddrive.ask("import", tree(tmp_path / "tree", a=1000), "--name", "mine")["key"]
    refused = ddrive.run("rm", key)
    assert (refused.code, f"this would forget {key} and delete its bytes: add --yes" in refused.err) == (2, True)
    assert ddrive.ask("rm", key, "--yes")["writable"]
    assert (ddrive.ask("list"), folders(ddrive.state)) == ([], 0)
    again = ddrive.run("create", "--name", "mine")
    assert (again.code, "another name" in again.err) == (6, True)
    assert ddrive.ask("create", "--name", "yours")["writable"]


def test_garbage_is_freed_and_nothing_else(ddrive: Program, tmp_path: Path) -> None:
    source = tree(tmp_path / "tree", kept=300_000, old=500_000)
    key = ddrive.ask("import", source)["key"]
    inner = ddrive.ask("import", tree(tmp_path / "inner", nested=200_000))["key"]
    lost = ddrive.ask("import", tree(tmp_path / "lost", lost=100_000))["key"]
    ddrive.mount(key, tmp_path / "writing")
    ddrive.ask("link", tmp_path / "writing" / "in", inner)
    with program(tmp_path / "other" / "state") as other:
        other.ask("download", key, "--peer", ddrive.address)
        other.ask("download", lost, "--peer", ddrive.address)
        assert len(other.run("cat", key, "in/nested").out) == 200_000
        (source / "old").write_bytes(b"n" * 150_000)
        version = ddrive.ask("import", source, key)["version"]
        while other.ask("info", key)["version"] < version:
            pass
        other.ask("download", key)
        other.ask("stop")
        drives = other.state / "drives.json"
        drives.write_text(json.dumps([row for row in json.loads(drives.read_text()) if row["key"] != lost]))
        before = disk(other.state)
        planned = other.ask("gc", "--dry-run")
        assert disk(other.state) >= before
        assert [feed["key"] for feed in planned["feeds"]].count(lost) == 1
        done = other.ask("gc")
        assert done == planned
        assert (done["blocks"], len(done["feeds"])) == (8, 2)  # 500,000 bytes are 8 blocks
        assert disk(other.state) <= before - 500_000 + 65_536
        address = ddrive.address
        ddrive.ask("stop")
        other.ask("peer", "rm", address)
        for name, size in (("kept", 300_000), ("old", 150_000), ("in/nested", 200_000)):
            assert len(other.run("cat", key, name).out) == size
        assert other.ask("gc")["bytes"] == 0


@pytest.mark.parametrize("dialect", ["dweb", "hypercore"])
def test_our_own_feeds_are_never_garbage(dialect: str, ddrive: Program, tmp_path: Path) -> None:
    source = tree(tmp_path / "tree", a=300_000)
    made = ddrive.ask("import", source, "--dialect", dialect)
    (source / "a").write_bytes(b"new")
    ddrive.ask("import", source, made["key"])
    database = ddrive.ask("db", "create")["key"]
    ddrive.ask("db", "put", database, "name", "value")
    before = folders(ddrive.state)
    assert ddrive.ask("gc") == {"feeds": [], "drives": [], "blocks": 0, "bytes": 0}
    assert folders(ddrive.state) == before
    assert len(ddrive.run("cat", f"{made['url']}+{made['version']}", "a").out) == 300_000
    assert ddrive.ask("db", "get", database, "name")[0]["value"] == "value"


@pytest.mark.parametrize("kind", ["db", "graph"])
def test_a_database_of_others_is_forgotten_with_its_feeds(kind: str, ddrive: Program, tmp_path: Path) -> None:
    key, kept = (ddrive.ask(kind, "create")["key"] for _ in range(2))
    put = ("put", key, "name", "value") if kind == "db" else ("put", key, "a", "b", "label")
    look = "ls" if kind == "db" else "info"
    ddrive.ask(kind, *put)
    with program(tmp_path / "other" / "state") as other:
        for each in (key, kept):
            other.ask(kind, look, each, "--peer", ddrive.address)
        before, of_both = folders(other.state), other.ask(kind, "list")
        planned = other.ask("rm", key, "--dry-run")
        assert (planned["kind"], planned["writable"]) == (kind, kind == "db")  # we would write with a feed of our own
        assert other.run("rm", key).code == 2
        assert (other.ask(kind, "list"), folders(other.state)) == (of_both, before)
        done = other.ask("rm", key, "--yes")
        assert done["feeds"] == before // 2
        assert [known["key"] for known in other.ask(kind, "list")] == [kept]
        assert folders(other.state) == before // 2
        other.ask("stop")
        assert [known["key"] for known in other.ask(kind, "list")] == [kept]
        assert other.run("rm", key, "--yes").code == 3
        assert other.ask(kind, look, key, "--peer", ddrive.address), "it can be fetched again"


def test_a_database_of_our_own_is_never_signed_twice(ddrive: Program) -> None:
    key = ddrive.ask("db", "create", "--name", "mine")["key"]
    with ddrive.running("db", "watch", key, "--json") as watching:
        assert watching.stdout is not None
        while not select.select([watching.stdout], [], [], 0.5)[0]:
            ddrive.ask("db", "put", key, "name", "value")
        busy = ddrive.run("rm", key, "--yes")
        assert (busy.code, "read by a program" in busy.err) == (1, True)
        assert ddrive.run("db", "get", key, "name").out == b"value\n", "all is as it was"
        watching.terminate()
    assert ddrive.ask("rm", key, "--yes")["name"] == "mine"
    assert (ddrive.ask("db", "list"), folders(ddrive.state)) == ([], 0)
    refused = ddrive.run("db", "create", "--name", "mine")
    assert (refused.code, "blocks of it were signed" in refused.err) == (6, True)


def test_a_database_to_which_we_have_written_is_read_again(ddrive: Program, tmp_path: Path) -> None:
    key = ddrive.ask("db", "create")["key"]
    ddrive.ask("db", "put", key, "name", "value")
    with program(tmp_path / "other" / "state") as other:
        other.ask("db", "info", key, "--peer", ddrive.address)
        other.ask("db", "put", key, "ours", "unheard")  # we are no writer, so that no peer has this
        other.ask("rm", key, "--yes")
        assert other.run("db", "get", key, "name", "--peer", ddrive.address).out == b"value\n"
        assert other.run("db", "put", key, "again", "x").code == 6
