"""`log`, links to other drives, and mounts of versions and tags."""

import os
import time
from pathlib import Path

from tests.support.memory_mount import until
from tests.support.program import Program, program


def test_the_log_tells_what_each_version_brought(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "stays").write_text("1")
    (source / "goes").write_text("12")
    key = ddrive.ask("import", source)["key"]
    inner = ddrive.ask("create")["key"]
    ddrive.ask("tag", "add", key, "one")
    ddrive.ask("link", f"{key}:/nested", inner)
    ddrive.ask("unlink-drive", f"{key}:/nested")
    (source / "goes").unlink()
    (source / "stays").write_text("123")
    ddrive.ask("import", source, key)
    shown = ddrive.ask("log", key)
    assert all(event.keys() >= {"version", "type", "path", "size", "mtime"} for event in shown)
    told = [(event["type"], event["path"], event["size"]) for event in shown]
    assert sorted(told[:2]) == [("put", "/goes", 2), ("put", "/stays", 1)]
    assert told[2:5] == [("tag", "one", None), ("mount", "/nested", None), ("unmount", "/nested", None)]
    assert ("put", "/stays", 3) in told[5:]
    versions = [event["version"] for event in shown]
    assert versions == sorted(versions)
    assert ddrive.ask("log", key, "--limit", "1") == shown[-1:]
    ddrive.ask("tag", "rm", key, "one", "--yes")
    assert [(event["type"], event["path"]) for event in ddrive.ask("log", key, "-n", "1")] == [("untag", "one")]
    assert b"/stays" in ddrive.run("log", key).out
    assert ddrive.run("log", "f" * 64, "--timeout", "1s").code == 5


def test_deleted_entries_are_in_the_log(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    key = ddrive.ask("import", source)["key"]
    inner = ddrive.ask("create")["key"]
    ddrive.ask("link", f"{key}/a/nested", inner)
    ddrive.ask("unlink-drive", f"{key}/a/nested")
    assert [event["type"] for event in ddrive.ask("log", key)][:2] == ["mount", "unmount"]


def test_a_drive_is_nested_and_taken_out_again(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "f").write_text("old")
    inner = ddrive.ask("import", source)
    outer = ddrive.ask("create")["key"]
    linked = ddrive.ask("link", f"{outer}:/sub", inner["key"])
    assert (linked["key"], linked["path"], linked["linked"]) == (outer, "/sub", inner["key"])
    ddrive.ask("tag", "add", inner["key"], "first", str(inner["version"]))
    ddrive.ask("link", f"{outer}:/pinned", f"{inner['key']}+first")
    place = tmp_path / "mnt"
    ddrive.mount(outer, place)
    assert (place / "sub" / "f").read_text() == "old"
    (source / "f").write_text("newer")
    ddrive.ask("import", source, inner["key"])
    end = time.monotonic() + 20
    while (place / "sub" / "f").read_text() != "newer":
        assert time.monotonic() < end, "the change in the nested drive is not seen"
    assert (place / "pinned" / "f").read_text() == "old"
    assert os.getxattr(place, "user.ddrive.key").decode() == outer
    assert os.getxattr(place / "sub" / "f", "user.ddrive.key").decode() == inner["key"]
    assert [refused["path"] for refused in ddrive.ask("import", place)["refused"]] == ["pinned", "sub"]
    (place / "sub" / "d").mkdir()
    again = ddrive.ask("import", place / "sub")
    assert (again["files"], again["directories"], again["refused"]) == (1, 1, [])
    (place / "sub" / "d").rmdir()
    assert ddrive.run("link", place / "sub", inner["key"]).code == 1
    ddrive.ask("link", place / "again", inner["key"])
    assert ddrive.run("cat", f"{outer}/again/f").out == b"newer"
    ddrive.ask("unlink-drive", place / "again")
    assert ddrive.run("unlink-drive", f"{outer}:/again").code == 3
    assert [entry["name"] for entry in ddrive.ask("ls", outer)] == ["pinned", "sub"]
    assert ddrive.run("link", outer, inner["key"]).code == 2
    assert ddrive.run("link", f"{outer}:/x", "nonsense").code == 2


def test_a_version_that_no_connected_peer_knows_is_not_nested_and_not_waited_for(
    ddrive: Program, tmp_path: Path
) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "f").write_bytes(b"old")
    with program(tmp_path / "author" / "state") as author:
        inner = author.ask("import", source)["key"]
        outer, address = ddrive.ask("create")["key"], author.address
        assert ddrive.run("cat", inner, "f", "--peer", address).code == 0
        refused = ddrive.run("link", f"{outer}:/never", f"{inner}+999", "--timeout", "2s")
        assert (refused.code, "has no version 999" in refused.err) == (3, True), refused
        (source / "f").write_bytes(b"newer")
        version = author.ask("import", source, inner)["version"]
        ddrive.ask("link", f"{outer}:/fixed", f"{inner}+{version}")
        assert ddrive.run("cat", outer, "fixed/f").out == b"newer"
        port = address.rpartition(":")[2]
        assert author.run("stop").code == 0
        until(lambda: not ddrive.ask("info", inner)["peers"])
        ddrive.ask("link", f"{outer}:/later", f"{inner}+999")  # nobody is here who knows
        assert author.run("status", DDRIVE_LISTEN=f"127.0.0.1:{port}").code == 0
        ddrive.ask("peer", "add", address)
        until(lambda: ddrive.ask("info", inner)["peers"])
        listed = ddrive.run("ls", outer, "-R")  # whoever waited for that version would not know why it does not come
        assert (listed.code, listed.out.split()) == (5, [b"fixed", b"later", b"fixed/f"]), listed
        assert "left out (later)" in listed.err
        assert "has no version 999 that a connected peer knows" in listed.err


def test_a_given_peer_is_asked_for_the_version_that_is_nested(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "f").write_bytes(b"old")
    outer = ddrive.ask("create", "--private")["key"]
    with program(tmp_path / "author" / "state") as author:
        inner, address = author.ask("import", source), author.address
        fixed, never = (f"{inner['key']}+{version}" for version in (inner["version"], 999))
        refused = ddrive.run("link", f"{outer}:/never", never, "--peer", address, "--timeout", "2s")
        assert (refused.code, "has no version 999" in refused.err) == (3, True), refused
        assert ddrive.ask("info", inner["key"])["private"]  # as the drive around it is
        ddrive.ask("link", f"{outer}:/fixed", fixed, "--peer", address)
        assert ddrive.run("cat", outer, "fixed/f").out == b"old"
    told = ddrive.run("link", f"{outer}:/later", never, "--peer", address, "--timeout", "2s")
    assert (told.code, "version 999 is not known" in told.err) == (0, True), told
    other = f"hyper://{inner['key']}"
    assert ddrive.run("link", f"{outer}:/other", other).code == 2  # of the other family: it would never be found
    with program(tmp_path / "author" / "state") as author:
        newest = ddrive.ask("create")["key"]
        ddrive.ask("link", f"{newest}:/sub", inner["key"], "--peer", author.address)
        assert ddrive.run("cat", newest, "sub/f").out == b"old"
        assert author.address in [peer["address"] for peer in ddrive.ask("peer", "ls")]


def test_a_version_that_only_its_author_has_is_waited_for(ddrive: Program, tmp_path: Path) -> None:
    """The peer that is connected is behind: whoever names the version may know better."""
    source = tmp_path / "tree"
    source.mkdir()
    (source / "f").write_bytes(b"old")
    with program(tmp_path / "author" / "state") as author, program(tmp_path / "behind" / "state") as behind:
        inner = author.ask("import", source)["key"]
        assert behind.run("cat", inner, "f", "--peer", author.address).code == 0
        assert author.run("stop").code == 0
        outer = ddrive.ask("create")["key"]
        ddrive.ask("peer", "add", behind.address)
        assert ddrive.run("cat", inner, "f").code == 0
        (source / "f").write_bytes(b"newer")
        version = author.ask("import", source, inner)["version"]
        place = tmp_path / "place"
        place.mkdir()
        for arguments in (("link", f"{outer}:/sub"), ("mount", place), ("ls",)):
            verb, *rest = arguments
            with ddrive.running(verb, *rest, f"{inner}+{version}") as waiting:
                assert waiting.stderr is not None
                assert "waiting 10 s for a peer that has it" in waiting.stderr.readline().decode()
                ddrive.ask("peer", "add", author.address)
                assert waiting.wait(30) == 0, verb
            ddrive.mountpoints.append(place)
            version += 1
            (source / f"{version}").write_bytes(b"more")
            ddrive.ask("peer", "rm", author.address)
            assert author.ask("import", source, inner)["version"] == version


def test_a_version_that_an_own_drive_does_not_have_is_not_nested(ddrive: Program) -> None:
    inner, outer = ddrive.ask("create"), ddrive.ask("create")["key"]
    refused = ddrive.run("link", f"{outer}:/sub", f"{inner['key']}+{inner['version'] + 1}")
    assert (refused.code, refused.out) == (3, b"")
    assert ddrive.ask("ls", outer) == []
    ddrive.ask("link", f"{outer}:/sub", f"{inner['key']}+{inner['version']}")
    ddrive.ask("link", f"{outer}:/theirs", f"{'1f' * 32}+7")  # nobody here knows what versions that has


def test_versions_and_tags_are_mounted(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "f").write_text("old")
    first = ddrive.ask("import", source)
    key = first["key"]
    ddrive.ask("tag", "add", key, "before")
    (source / "g").write_text("new")
    ddrive.ask("import", source, key)
    for number, at in enumerate((str(first["version"]), "before")):
        place = tmp_path / f"mnt{number}"
        made = ddrive.mount(f"{key}+{at}", place)
        assert (made["version"], made["pinned"], made["writable"]) == (first["version"], True, False)
        assert os.listdir(place) == ["f"]
    (tmp_path / "none").mkdir()
    assert ddrive.run("mount", f"{key}+missing", tmp_path / "none").code == 3


def test_verbs_take_the_paths_of_versions_in_a_mount(ddrive: Program, tmp_path: Path) -> None:
    source, place, fixed = tmp_path / "tree", tmp_path / "mnt", tmp_path / "fixed"
    (source / "d").mkdir(parents=True)
    (source / "d/f").write_text("old")
    first = ddrive.ask("import", source)
    key, version = first["key"], first["version"]
    ddrive.ask("tag", "add", key, "before")
    (source / "d/f").write_text("newer")
    newest = ddrive.ask("import", source, key)["version"]
    ddrive.mount(key, place)
    versions = place / ".ddrive/versions"
    for at in (str(version), "before"):
        assert ddrive.run("cat", versions / at / "d/f").out == b"old"
        assert [entry["name"] for entry in ddrive.ask("ls", versions / at)] == ["d"]
        assert ddrive.ask("export", versions / at / "d", tmp_path / at)["files"] == 1
        assert (tmp_path / at / "f").read_text() == "old"
    assert ddrive.run("ls", versions / "missing").code == 3
    assert ddrive.run("ls", versions / "9999").code == 3
    assert ddrive.run("rm", versions / "before", "--yes").code == 2
    for where in (versions, versions.parent):
        refused = ddrive.run("ls", where)
        assert (refused.code, "is in mounts only" in refused.err, refused.err.count("\n")) == (3, True, 1), refused
        assert len(ddrive.ask("log", where)) == len(ddrive.ask("log", key))
    refused = ddrive.run("tag", "add", versions / "before", "again")
    assert (refused.code, "fixed" in refused.err, "who made it" in refused.err) == (6, True, False)
    ddrive.mount(f"{key}+{version}", fixed)
    assert ddrive.run("cat", fixed / f".ddrive/versions/{version}/d/f").out == b"old"
    assert ddrive.run("ls", fixed / f".ddrive/versions/{newest}").code == 3
    own = tmp_path / "own"
    (own / ".ddrive/versions/1").mkdir(parents=True)
    (own / ".ddrive/versions/1/f").write_text("its own")
    ddrive.mount(ddrive.ask("import", own)["key"], tmp_path / "mnt2")
    assert ddrive.run("cat", tmp_path / "mnt2/.ddrive/versions/1/f").out == b"its own"
