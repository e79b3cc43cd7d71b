"""npm `hyperswarm@2` and `dswarm@1` peers and ours find each other on a network by multicast DNS, both ways."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import npm
from tests.support.hosts import Host, lan
from tests.support.program import program
from tests.support.tree import Step, content, file

STEPS: list[Step] = [file("/data.bin", 200_000)]


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """One host for npm and one for us."""
    with lan(2) as made:
        yield made


@pytest.mark.parametrize("dialect", npm.DIALECTS)
def test_a_mount_finds_an_npm_peer(dialect: str, hosts: list[Host], tmp_path: Path) -> None:
    key = npm.make(dialect, tmp_path / "npm", STEPS)["root"]["key"]
    with (
        npm.serving(dialect, tmp_path / "npm", key, npm.SWARM, hosts[0]),
        program(tmp_path / "state", hosts[1]) as reader,
    ):
        reader.mount(key, tmp_path / "mnt")
        assert (tmp_path / "mnt" / "data.bin").read_bytes() == content("/data.bin", "", 200_000)


@pytest.mark.parametrize("dialect", npm.DIALECTS)
def test_an_npm_peer_finds_us(dialect: str, hosts: list[Host], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "greeting.txt").write_text("hello\n")
    with program(tmp_path / "state", hosts[0]) as author:
        key = author.ask("import", tmp_path / "source", "--dialect", dialect)["key"]
        manifest = npm.read(dialect, key, npm.SWARM, tmp_path / "npm", hosts[1])
        assert manifest["/greeting.txt"]["size"] == 6
        asked = author.ask("status")["discovery"]["lan"]
        assert (asked["dialled"], asked["announced"] > 0) == (0, True)  # it found us, not we it
