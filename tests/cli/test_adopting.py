"""Store directories that are not whole are taken over as far as they go."""

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
