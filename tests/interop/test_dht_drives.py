"""Drives found by their key through a private DHT of 20 npm nodes and `ddrive bootstrap`: npm finds us, we find npm."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import npm
from tests.support.hosts import Host, internet
from tests.support.npm_dht import SCRIPT
from tests.support.program import Program, program
from tests.support.tree import Step, content, file

STEPS: list[Step] = [file("/data.bin", 200_000)]
NODES = 20

both = pytest.mark.parametrize("dialect", npm.DIALECTS)


@contextmanager
def network(dialect: str, host: Host, directory: Path) -> Iterator[str]:
    """Run a DHT on a host; give the address of the node at which it began."""
    with Program(directory / "dht", host).running("bootstrap", "--listen", f"{host.address}:49737", "--json") as first:
        assert first.stdout is not None
        address: str = json.loads(first.stdout.readline())["address"]
        with subprocess.Popen(
            [*host.prefix, "node", str(SCRIPT), dialect],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"DHT_HOST": host.address},
            text=True,
        ) as nodes:
            try:
                assert nodes.stdin is not None
                assert nodes.stdout is not None
                nodes.stdin.write(json.dumps({"do": "nodes", "count": NODES, "bootstrap": [address]}) + "\n")
                nodes.stdin.flush()
                assert len(json.loads(nodes.stdout.readline())["ports"]) == NODES
                yield address
            finally:
                nodes.kill()


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """One host for the DHT, one for npm, one for us; no two on one network."""
    with internet(3) as made:
        yield made


@both
def test_a_mount_finds_an_npm_peer(
    dialect: str, hosts: list[Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = npm.make(dialect, tmp_path / "npm", STEPS)["root"]["key"]
    with network(dialect, hosts[0], tmp_path) as address, program(tmp_path / "state", hosts[2]) as reader:
        monkeypatch.setenv("BOOTSTRAP", json.dumps([address]))
        reader.settings["DDRIVE_DHT_NODES"] = address
        with npm.serving(dialect, tmp_path / "npm", key, npm.SWARM, hosts[1]):
            reader.mount(key, tmp_path / "mnt")
            assert (tmp_path / "mnt" / "data.bin").read_bytes() == content("/data.bin", "", 200_000)
        assert reader.ask("status")["discovery"]["dht"]["found"] > 0


@both
def test_an_npm_peer_finds_us(dialect: str, hosts: list[Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "greeting.txt").write_text("hello\n")
    with network(dialect, hosts[0], tmp_path) as address, program(tmp_path / "state", hosts[2]) as author:
        monkeypatch.setenv("BOOTSTRAP", json.dumps([address]))
        author.settings["DDRIVE_DHT_NODES"] = address
        key = author.ask("import", tmp_path / "source", "--dialect", dialect)["key"]
        manifest = npm.read(dialect, key, npm.SWARM, tmp_path / "npm", hosts[1])
        assert manifest["/greeting.txt"]["size"] == 6
