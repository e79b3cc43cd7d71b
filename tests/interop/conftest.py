"""Drives made by the npm packages, and the command line that reads them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import npm, tree
from tests.support.program import Program, program

MakeStore = Callable[[str], tuple[Path, str]]


@pytest.fixture(scope="session")
def npm_originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, str]]:
    """Give, per dialect, a store directory with the awkward tree and the key of its root drive; not to be changed."""
    made: dict[str, tuple[Path, str]] = {}

    def get(dialect: str) -> tuple[Path, str]:
        if dialect not in made:
            store = tmp_path_factory.mktemp(f"npm-{dialect}") / "store"
            made[dialect] = store, npm.make(dialect, store, tree.nested_steps())["root"]["key"]
        return made[dialect]

    return get


@pytest.fixture
def npm_store(npm_originals: MakeStore, tmp_path: Path) -> MakeStore:
    """Give a copy of the store directory of a dialect, for this test alone, and the key of its root drive."""

    def get(dialect: str) -> tuple[Path, str]:
        original, key = npm_originals(dialect)
        copies = len(list(tmp_path.glob(f"npm-{dialect}-*")))
        copy = tmp_path / f"npm-{dialect}-{copies}"
        shutil.copytree(original, copy)
        return copy, key

    return get


@pytest.fixture
def ddrive(tmp_path: Path) -> Iterator[Program]:
    """The command line with a fresh state directory."""
    with program(tmp_path / "state") as made:
        yield made


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    """A place to mount at."""
    place = tmp_path / "mnt"
    place.mkdir()
    return place
