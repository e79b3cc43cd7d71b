"""Verbs that go through a whole drive although something in it cannot be had."""

from pathlib import Path

from tests.support.program import Program

GHOST = "cd" * 32  # a drive that nobody has


def test_a_nested_drive_that_nobody_has_holds_up_nothing_else(ddrive: Program, tmp_path: Path) -> None:
    source, inner = tmp_path / "tree", tmp_path / "inner"
    (source / "mo").mkdir(parents=True)
    inner.mkdir()
    for directory, size in ((source, 100), (source / "mo", 2_000_000), (inner, 30)):
        (directory / "f").write_bytes(b"x" * size)
    outer = ddrive.ask("import", source)["key"]
    ddrive.ask("link", f"{outer}/mo/ghost", GHOST)
    ddrive.ask("link", f"{outer}/z", ddrive.ask("import", inner)["key"])
    waiting = ("--timeout", "1s")

    copy = tmp_path / "copy"
    exported = ddrive.run("export", outer, copy, *waiting, "--json")
    assert exported.code == 5, exported
    [refused] = exported.json()["refused"]
    assert refused["path"] == "mo/ghost"
    assert "cdcdcdcd" in refused["why"]
    assert [(copy / name).stat().st_size for name in ("f", "mo/f", "z/f")] == [100, 2_000_000, 30]
    told = ddrive.run("export", outer, copy, *waiting)
    assert told.code == 5
    assert "left out (mo/ghost): nothing arrived for 1 s (drive cdcdcdcd, nested at /mo/ghost" in told.err

    listed = ddrive.run("ls", outer, "-R", *waiting)
    assert (listed.code, listed.out.split()) == (5, [b"f", b"mo", b"z", b"mo/f", b"mo/ghost", b"z/f"])
    assert "left out (mo/ghost)" in listed.err
    for verb in ("du", "download"):
        counted = ddrive.run(verb, outer, *waiting, "--json")
        assert counted.code == 5
        value = counted.json()
        assert (value["files"], value["bytes"], value["held"]) == (3, 2_000_130, 2_000_130)
        assert [one["path"] for one in value["refused"]] == ["mo/ghost"]
    assert ddrive.run("du", outer, "z").code == 0
