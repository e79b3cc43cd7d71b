"""Store directories that are not whole are taken over as far as they go."""

import fcntl
from pathlib import Path

import pytest

from tests.support.program import Program, program


@pytest.mark.parametrize(("lacks", "lost"), [("bitfield", 0), ("signatures", 0), ("data", 3), ("tree", 0)])
def test_a_feed_that_lacks_a_file_is_taken_over_with_all_others(
    ddrive: Program, tmp_path: Path, lacks: str, lost: int
) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    for number in range(3):
        (source / f"{number}").write_bytes(f"{number}".encode() * 1000)
    key = ddrive.ask("import", source)["key"]
    other_key = ddrive.ask("create")["key"]
    assert ddrive.run("stop").code == 0
    content = max(ddrive.state.glob("dweb/*/*/*/data"), key=lambda data: data.stat().st_size).parent
    (content / lacks).unlink()
    with program(tmp_path / "other" / "state") as other:
        done = other.run("adopt", ddrive.state / "dweb")
        assert (done.code, f"has no file {lacks} ({content})" in done.err) == (0, True), done
        assert {drive["key"] for drive in other.ask("list")} == {key, other_key}
        verified = other.run("verify", key, "--json")
        found = verified.json()
        assert (verified.code, found["cut_off"]) == (
            0 if lacks in ("bitfield", "signatures") else 4,
            ["content"] if lacks == "tree" else [],
        )
        assert [bad["path"] for bad in found["bad"]] == [f"/{number}" for number in range(lost)]
        again = other.run("adopt", ddrive.state / "dweb")
        assert again.out.endswith(b"of them were here already\n")


def folders(ddrive: Program) -> list[Path]:
    """Return the folders of all feeds, the largest last."""
    return [data.parent for data in sorted(ddrive.state.glob("dweb/*/*/*/data"), key=lambda data: data.stat().st_size)]


def test_a_feed_without_the_file_key_is_found_or_told(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "large").write_bytes(bytes(range(250)) * 400)
    key = ddrive.ask("import", root)["key"]
    assert ddrive.run("stop").code == 0
    metadata, content = folders(ddrive)
    for folder in (metadata, content):
        (folder / "key").unlink()
    with program(tmp_path / "other" / "state") as other:  # their names, or secret keys, tell
        done = other.ask("adopt", ddrive.state / "dweb")
        assert ([drive["key"] for drive in done["drives"]], done["own"], done["refused"]) == ([key], 2, [])
        assert other.run("cat", key, "large").out == (root / "large").read_bytes()
    for name in ("name", "secret_key"):
        (content / name).unlink(missing_ok=True)
    with program(tmp_path / "third" / "state") as third:
        for _ in range(2):
            done = third.run("adopt", ddrive.state / "dweb", "--json")
            assert (done.code, done.json()["feeds"]) == (4, 1), done
            assert [refused["path"] for refused in done.json()["refused"]] == [str(content)]
        assert f"left out ({content}): it has no file key" in third.run("adopt", ddrive.state / "dweb").err
        assert [drive["key"] for drive in third.ask("list")] == [key]
    (content / "key").write_bytes(bytes(32))
    for name in ("name", "secret_key"):
        (metadata / name).unlink(missing_ok=True)
    with program(tmp_path / "fourth" / "state") as fourth:
        done = fourth.run("adopt", ddrive.state / "dweb", "--json")
        assert (done.code, done.json()["feeds"], len(done.json()["refused"])) == (4, 0, 2), done


def test_nothing_is_taken_over_while_another_program_uses_a_feed(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "large").write_bytes(bytes(100_000))
    key = ddrive.ask("import", root)["key"]
    assert ddrive.run("stop").code == 0
    with program(tmp_path / "other" / "state") as other:
        for folder in folders(ddrive):
            with (folder / "bitfield").open("rb") as used:
                fcntl.flock(used, fcntl.LOCK_EX)
                for more in ([], ["--dry-run"]):
                    done = other.run("adopt", ddrive.state / "dweb", *more)
                    assert (done.code, f"{folder} is in use: end the program" in done.err) == (7, True), done
            assert not list((tmp_path / "other" / "state").glob("dweb/*/*/*/data"))
        assert [drive["key"] for drive in other.ask("adopt", ddrive.state / "dweb")["drives"]] == [key]
