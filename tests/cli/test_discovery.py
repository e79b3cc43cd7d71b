"""Engines on hosts of their own find each other without being told an address."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.hosts import Host, internet, lan
from tests.support.program import Program, program


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two hosts on one network."""
    with lan(2) as made:
        yield made


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Return when `condition()` holds; the time is a safety net only."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def seeded(author: Program, source: Path) -> str:
    """Make a drive with one file and return its key."""
    source.mkdir()
    (source / "greeting.txt").write_text("hello\n")
    key: str = author.ask("import", source)["key"]
    return key


MAINLINE_NODE = """
import sys, time, libtorrent
from ddrive.swarm.mainline import _settings
params = libtorrent.session_params()
params.settings = _settings([], sys.argv[1], map_port=False)
session = libtorrent.session(params)
while not session.is_dht_running() or not session.listen_port():
    time.sleep(0.05)
print("ready", flush=True)
time.sleep(600)
"""


@contextmanager
def mainline_node(host: Host) -> Iterator[str]:
    """Run a node of the Mainline DHT that is no engine, and give its address."""
    address = f"{host.address}:6881"
    command = [*host.prefix, sys.executable, "-c", MAINLINE_NODE, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield address
        finally:
            process.kill()


def test_a_mount_finds_the_drive_on_the_lan(hosts: list[Host], tmp_path: Path) -> None:
    with program(tmp_path / "author", hosts[0]) as author, program(tmp_path / "reader", hosts[1]) as reader:
        key = seeded(author, tmp_path / "source")
        reader.mount(key, tmp_path / "mnt")
        assert (tmp_path / "mnt" / "greeting.txt").read_text() == "hello\n"
        lan_report = reader.ask("status")["discovery"]["lan"]
        assert lan_report["running"]
        assert min(lan_report["asked"], lan_report["answered"], lan_report["found"]) > 0


def test_a_mount_finds_the_drive_through_a_private_dht(tmp_path: Path) -> None:
    with (
        internet(3) as hosts,
        program(tmp_path / "author", hosts[0]) as author,
        program(tmp_path / "reader", hosts[1]) as reader,
        program(tmp_path / "node", hosts[2]) as node,
        node.running("bootstrap", "--listen", f"{hosts[2].address}:4000") as bootstrap,
    ):
        assert bootstrap.stdout is not None
        assert bootstrap.stdout.readline()
        author.settings["DDRIVE_DHT_NODES"] = reader.settings["DDRIVE_DHT_NODES"] = f"{hosts[2].address}:4000"
        key = seeded(author, tmp_path / "source")
        reader.mount(key, tmp_path / "mnt")
        assert (tmp_path / "mnt" / "greeting.txt").read_text() == "hello\n"
        assert reader.ask("status")["discovery"]["dht"]["connected"] == 1


def test_a_mount_finds_the_drive_through_a_private_mainline_dht(tmp_path: Path) -> None:
    with (
        internet(3) as hosts,
        program(tmp_path / "author", hosts[0]) as author,
        program(tmp_path / "reader", hosts[1]) as reader,
        mainline_node(hosts[2]) as node,
    ):
        author.settings["DDRIVE_MAINLINE_NODES"] = reader.settings["DDRIVE_MAINLINE_NODES"] = node
        key = seeded(author, tmp_path / "source")
        until(lambda: author.ask("status")["discovery"]["mainline"]["announced"])
        reader.mount(key, tmp_path / "mnt")
        assert (tmp_path / "mnt" / "greeting.txt").read_text() == "hello\n"
        assert reader.ask("status")["discovery"]["mainline"]["connected"] == 1
