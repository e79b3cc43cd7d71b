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


def imported(ddrive: Program, root: Path) -> str:
    """Return the key of a drive with one file; its engine has ended."""
    root.mkdir()
    (root / "large").write_bytes(bytes(range(250)) * 400)
    key: str = ddrive.ask("import", root)["key"]
    assert ddrive.run("stop").code == 0
    return key


def test_a_feed_without_the_file_key_is_found_or_told(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    key = imported(ddrive, root)
    metadata, content = folders(ddrive)
    for place, lacking in (("name", (metadata, content)), ("block", (content,))):
        for folder in lacking:
            (folder / "key").unlink(missing_ok=True)
        if place == "block":  # the first one of the drive tells its content
            (metadata / "key").write_bytes(bytes.fromhex(key))
            for name in ("name", "secret_key"):
                (content / name).unlink(missing_ok=True)
        with program(tmp_path / place / "state") as other:
            done = other.ask("adopt", ddrive.state / "dweb")
            assert ([drive["key"] for drive in done["drives"]], done["own"], done["refused"]) == ([key], 2, [])
            assert other.run("cat", key, "large").out == (root / "large").read_bytes()
            (root / place).write_text(place)
            assert other.ask("import", root, key)["changed"] > 0
    for name in ("key", "name", "secret_key"):
        (metadata / name).unlink(missing_ok=True)
    (content / "key").write_bytes(bytes(32))
    with program(tmp_path / "third" / "state") as third:
        for _ in range(2):
            done = third.run("adopt", ddrive.state / "dweb", "--json")
            assert (done.code, done.json()["feeds"]) == (4, 0), done
            assert {refused["path"] for refused in done.json()["refused"]} == {str(content), str(metadata)}
        assert f"left out ({content}): it has no file key" in third.run("adopt", ddrive.state / "dweb").err
        assert third.ask("list") == []


def test_content_that_was_not_taken_over_is_not_written_a_second_time(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    key = imported(ddrive, root)
    _, content = folders(ddrive)
    content.rename(tmp_path / "missing")
    with program(tmp_path / "other" / "state") as other:
        assert other.ask("adopt", ddrive.state / "dweb")["feeds"] == 1
        (root / "more").write_text("more")
        refused = other.run("import", root, key)
        assert refused.code == 6, refused
        (tmp_path / "missing").rename(content)
        done = other.ask("adopt", ddrive.state / "dweb")
        assert (done["feeds"], len(done["present"])) == (2, 1)
        assert other.run("cat", key, "large").out == (root / "large").read_bytes()
        assert other.ask("import", root, key)["changed"] == 1
        assert other.ask("verify", key)["bad"] == []


def test_nothing_is_taken_over_while_another_program_uses_a_feed(ddrive: Program, tmp_path: Path) -> None:
    key = imported(ddrive, tmp_path / "tree")
    with program(tmp_path / "other" / "state") as other:
        for folder in folders(ddrive):
            with (folder / "bitfield").open("rb") as used:
                fcntl.flock(used, fcntl.LOCK_EX)
                for more in ([], ["--dry-run"]):
                    done = other.run("adopt", ddrive.state / "dweb", *more)
                    assert (done.code, f"{folder} is in use: end the program" in done.err) == (7, True), done
            assert not list((tmp_path / "other" / "state").glob("dweb/*/*/*/data"))
        assert [drive["key"] for drive in other.ask("adopt", ddrive.state / "dweb")["drives"]] == [key]
