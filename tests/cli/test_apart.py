"""The secret keys of engines stay out of what is imported, and are not written over."""

import json
import shutil
from pathlib import Path

from tests.support.program import Program, program


def test_the_secret_keys_of_the_engine_are_not_imported(ddrive: Program, tmp_path: Path) -> None:
    root = ddrive.state.parent
    (root / "other").write_text("1")
    for _ in range(2):
        key = ddrive.ask("import", root)["key"]
        assert set(ddrive.run("ls", "-R", key).out.split()) <= {b"other", b"home"}
    told = ddrive.run("import", root, key, "--delete", "--yes").err
    assert f"left out ({ddrive.state.name}): the state directory of ddrive" in told
    for source in (ddrive.state, ddrive.state / "dweb"):
        assert ddrive.run("import", source, key).code == 2
        assert ddrive.run("export", key, source).code == 2
    assert ddrive.run("export", key, root, "--delete", "--yes").code == 2
    assert ddrive.run("export", key, root).code == 0
    with ddrive.running("import", root, key, "--watch", "--json") as running:
        assert running.stdout is not None
        running.stdout.readline()
        ddrive.ask("create")
        (root / "new").write_text("2")
        assert json.loads(running.stdout.readline())["changed"] == 1


def test_the_secret_keys_of_another_engine_are_not_imported(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "sub" / "dweb").mkdir(parents=True)
    (root / "sub" / "dweb" / "master_key").write_text("of something else")
    with program(root / "sub" / "state") as other:
        other.ask("create")
        shutil.copytree(other.state, root / "copy", ignore=shutil.ignore_patterns("*.sock", "*.lock"))
        for more in ([], ["--delete", "--yes"], ["--dry-run"]):
            done = ddrive.run("import", root, *([ddrive.run("list").out.split()[0].decode()] if more else []), *more)
            assert done.code == 0, done
            for name in ("copy", "sub/state"):
                why = f"left out ({name}): the state directory of ddrive, with the secret keys of another engine\n"
                assert done.err.count(why) == 1, done
        key = ddrive.ask("list")[0]["key"]
        assert ddrive.run("ls", "-R", key).out.split() == [b"sub", b"sub/dweb", b"sub/dweb/master_key"]
        for place in (other.state, root / "copy" / "dweb"):
            assert ddrive.run("import", place, key).code == 2
            assert ddrive.run("export", key, place).code == 2
