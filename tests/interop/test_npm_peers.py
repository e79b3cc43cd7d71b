"""The npm peers of the interop tests agree among themselves; without that their word is worth nothing."""

from pathlib import Path

import pytest

from tests.support import npm, tree


@pytest.mark.parametrize("dialect", npm.DIALECTS)
def test_npm_reads_what_npm_wrote(dialect: str, tmp_path: Path) -> None:
    steps = tree.nested_steps()
    key = npm.make(dialect, tmp_path / "store", steps)["root"]["key"]
    assert tree.differences(npm.dump(dialect, tmp_path / "store", key)["manifest"], tree.expected(steps)) == []
    with npm.serving(dialect, tmp_path / "store", key) as peer:
        seen = npm.read(dialect, key, peer.address, tmp_path / "reader")
        assert tree.differences(seen, tree.expected(steps)) == []
        assert peer.content_blocks()


def test_the_local_tree_is_the_one_that_is_expected(tmp_path: Path) -> None:
    steps = tree.plain_steps()
    root = tree.build(tmp_path / "tree", steps)
    assert tree.differences(tree.observe(root), tree.expected(steps)) == []
