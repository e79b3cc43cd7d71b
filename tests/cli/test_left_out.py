"""What an import or export had to leave out makes another exit code, and takes nothing along."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_holdings import damage
from tests.cli.test_space import MIB, content
from tests.support.disk import fill, small_disk
from tests.support.program import Program, program
from tests.support.tree import differences, observe

AS_OTHERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # modes count for root too then


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Program]:
    """The command line of somebody who may not do all."""
    with program(tmp_path / "state") as made:
        made.command = [*AS_OTHERS, *made.command]
        yield made


def test_what_cannot_be_read_is_told_and_stays_in_the_drive(plain: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for name in ("locked/in", "open/in", "file", "large"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * (1 if name != "large" else 4 * MIB))
    key = plain.ask("import", root)["key"]
    before = plain.run("ls", key, "-R").out
    (root / "locked" / "in").write_text("newer")
    (root / "open" / "in").write_text("newer")
    for name in ("file", "large"):
        (root / name).write_bytes(b"newer" * (root / name).stat().st_size)
        (root / name).chmod(0)
    (root / "new").mkdir(mode=0)
    (root / "locked").chmod(0)
    done = plain.run("import", root, key, "--delete", "--yes", "--json")
    assert done.code == 6, done
    assert sorted(each["path"] for each in done.json()["refused"]) == ["file", "large", "locked", "new"]
    assert done.json()["removed"] == 0
    assert plain.run("cat", key, "open/in").out == b"newer"
    assert plain.run("cat", key, "locked/in").out == b"locked/in"
    assert set(plain.run("ls", key, "-R").out.split()) - set(before.split()) == {b"new"}
    for name in ("file", "large", "locked", "new"):
        (root / name).chmod(0o700)
    (root / "locked" / "in").unlink()
    done = plain.run("import", root, key, "--delete", "--yes", "--json")
    assert (done.code, done.json()["removed"]) == (0, 1), done


def test_what_cannot_be_written_is_told(plain: Program, tmp_path: Path) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    for name in ("locked/in", "open/in"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    key = plain.ask("import", root)["key"]
    out.mkdir()
    (out / "open").mkdir()
    (out / "more").write_text("other")
    out.chmod(0o555)
    done = plain.run("export", key, out, "--delete", "--yes", "--json")
    assert done.code == 6, done
    assert sorted(each["path"] for each in done.json()["refused"]) == ["locked", "more"]
    assert (out / "open" / "in").read_text() == "open/in"
    out.chmod(0o755)
    assert plain.run("export", key, out, "--delete", "--yes").code == 0
    assert differences(observe(out), observe(root)) == []


@pytest.mark.parametrize("size", [3000, 3 * MIB])
def test_what_does_not_verify_is_told(ddrive: Program, tmp_path: Path, size: int) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    root.mkdir()
    for number in range(3):
        (root / f"{number}").write_bytes(content(size, number))
    key = ddrive.ask("import", root)["key"]
    assert ddrive.run("stop").code == 0
    damage(ddrive.state, content(size, 1)[-500:])
    done = ddrive.run("export", key, out, "--json")
    assert (done.code, [each["path"] for each in done.json()["refused"]]) == (4, ["1"]), done
    assert sorted(path.name for path in out.iterdir()) == ["0", "2"]


@pytest.mark.parametrize("size", [3000, 3 * MIB])
@pytest.mark.parametrize("nested", [False, True])
def test_what_is_damaged_of_a_drive_of_others_is_told_and_the_rest_exported(
    ddrive: Program, tmp_path: Path, size: int, nested: bool
) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    root.mkdir()
    for number in range(5):
        (root / f"{number}").write_bytes(content(size, number))
    with program(tmp_path / "author" / "state") as author:
        key = author.ask("import", root)["key"]
        ddrive.ask("download", key, "--peer", author.address)
    exported, below = key, ""
    if nested:
        exported, below = ddrive.ask("create")["key"], "in/"
        ddrive.ask("link", f"{exported}/in", key)
    assert ddrive.run("stop").code == 0
    for number in (1, 2, 3):
        damage(ddrive.state, content(size, number)[-500:])
    began = time.monotonic()
    done = ddrive.run("export", exported, out, "--timeout", "3s", "--json")
    assert time.monotonic() - began < 8.5  # each by itself: more than 9
    assert done.code == 4, done
    refused = done.json()["refused"]
    assert [each["path"] for each in refused] == [f"{below}{number}" for number in (1, 2, 3)]
    assert all("damaged" in each["why"] for each in refused)
    assert sorted(path.name for path in (out / below).iterdir()) == ["0", "4"]
    again = ddrive.run("export", exported, tmp_path / "again", "--timeout", "1s", "--json")
    assert again.code in (4, 5), again  # the engine may know by now that it does not have them
    assert sorted(path.name for path in (tmp_path / "again" / below).iterdir()) == ["0", "4"]


def test_damage_in_an_own_nested_drive_is_told(ddrive: Program, tmp_path: Path) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    root.mkdir()
    for number in range(3):
        (root / f"{number}").write_bytes(content(3000, number))
    outer = ddrive.ask("create")["key"]
    ddrive.ask("link", f"{outer}/in", ddrive.ask("import", root)["key"])
    assert ddrive.run("stop").code == 0
    damage(ddrive.state, content(3000, 1)[-500:])
    done = ddrive.run("export", outer, out, "--json")
    assert (done.code, [each["path"] for each in done.json()["refused"]]) == (4, ["in/1"]), done
    assert sorted(path.name for path in (out / "in").iterdir()) == ["0", "2"]


@pytest.mark.parametrize("verb", [("ls", "-R"), ("du",), ("download",)])
def test_damaged_entries_of_a_nested_drive_are_told_by_what_walks_it(
    ddrive: Program, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("a", "name-of-the-entry", "z"):
        (root / name).write_bytes(b"x")
    outer = ddrive.ask("create")["key"]
    ddrive.ask("link", f"{outer}/in", ddrive.ask("import", root)["key"])
    assert ddrive.run(*verb, outer).code == 0
    assert ddrive.run("stop").code == 0
    damage(ddrive.state, b"name-of-the-entry")
    done = ddrive.run(*verb, outer)
    assert done.code == 4, done
    assert "in" in done.err


@pytest.mark.parametrize("size", [MIB // 2, 3 * MIB])
def test_an_export_to_a_disk_that_is_full_ends_there(ddrive: Program, tmp_path: Path, size: int) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(12 * MIB // size):
        (root / f"{number:02}").write_bytes(content(size, number))
    key = ddrive.ask("import", root)["key"]
    with small_disk(tmp_path / "small", 24 * MIB) as disk:
        filler, out = fill(disk), disk / "out"
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - 6 * MIB)
        done = ddrive.run("export", key, out, "--json")
        assert (done.code, done.json()["error"]["code"]) == (7, "DiskFull"), done
        assert f"({out}): free some space there, then export again" in done.err
        filler.unlink()
        assert ddrive.ask("export", key, out)["refused"] == []
        assert differences(observe(out), observe(root)) == []
