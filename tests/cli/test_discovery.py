"""Engines on hosts of their own find each other without being told an address."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.hosts import Host, capture, lan
from tests.support.program import Program, Result, program


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


def shown(result: Result) -> bytes:
    """Return what a run wrote, which must have succeeded."""
    assert result.code == 0, result
    return result.out


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


def test_a_drive_nested_in_another_is_found_where_only_somebody_else_has_it(tmp_path: Path) -> None:
    with (
        lan(3) as hosts,
        program(tmp_path / "outer", hosts[0]) as outer,
        program(tmp_path / "inner", hosts[1]) as inner,
        program(tmp_path / "reader", hosts[2]) as reader,
    ):
        key = seeded(outer, tmp_path / "source")
        outer.ask("link", f"{key}:/inner", seeded(inner, tmp_path / "other"))
        reader.mount(key, tmp_path / "mnt")
        assert (tmp_path / "mnt" / "inner" / "greeting.txt").read_text() == "hello\n"


def connected(engine: Program) -> bool:
    """Tell whether any peer is connected."""
    return bool(engine.ask("status")["peers"])


def test_links_come_back_when_an_address_changes(hosts: list[Host], tmp_path: Path) -> None:
    with program(tmp_path / "author", hosts[0]) as author, program(tmp_path / "reader", hosts[1]) as reader:
        key = seeded(author, tmp_path / "source")
        reader.mount(key, tmp_path / "mnt")
        (peer,) = reader.ask("peer", "ls")
        assert peer["address"].startswith("10.77.0.1:")
        hosts[0].ip("address", "del", "10.77.0.1/24", "dev", "eth0")
        hosts[0].ip("address", "add", "10.77.0.7/24", "dev", "eth0")
        until(
            lambda: any(
                peer["connected"] and peer["address"].startswith("10.77.0.7:") for peer in reader.ask("peer", "ls")
            )
        )
        hosts[1].ip("link", "set", "eth0", "down")
        until(lambda: not connected(reader))
        hosts[1].ip("link", "set", "eth0", "up")
        until(lambda: connected(reader))


def test_links_come_back_after_a_sleep(hosts: list[Host], tmp_path: Path) -> None:
    with program(tmp_path / "author", hosts[0]) as author, program(tmp_path / "reader", hosts[1]) as reader:
        reader.mount(seeded(author, tmp_path / "source"), tmp_path / "mnt")
        pid = reader.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: not connected(author))  # it gives a silent peer up after 20 s
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: connected(author) and connected(reader))


def test_peers_are_remembered(hosts: list[Host], tmp_path: Path) -> None:
    with program(tmp_path / "author", hosts[0]) as author, program(tmp_path / "reader", hosts[1]) as reader:
        key = seeded(author, tmp_path / "source")
        assert shown(reader.run("cat", key, "greeting.txt")) == b"hello\n"
        reader.ask("stop")
        author.settings["DDRIVE_NO_ANNOUNCE"] = "1"
        author.settings["DDRIVE_LISTEN"] = author.address.replace("0.0.0.0", hosts[0].address)
        author.ask("stop")
        assert "--no-announce" in author.ask("status")["discovery"]["lan"]["detail"]
        reader.run("seed", key)
        until(lambda: connected(reader))
        (peer,) = reader.ask("peer", "ls")
        assert peer["source"] == "remembered"


def test_a_private_drive_is_shown_to_nobody_but_served(hosts: list[Host], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "secret.txt").write_text("psst\n")
    with program(tmp_path / "author", hosts[0]) as author, program(tmp_path / "reader", hosts[1]) as reader:
        key = author.ask("import", tmp_path / "source", "--private")["key"]
        refused = reader.run("cat", key, "secret.txt", "--timeout", "11s")
        assert refused.code == 5
        assert "still looking for drive" in refused.err  # after 10 s
        assert "local network: no answer" in refused.err
        assert author.ask("status")["discovery"]["lan"]["announced"] == 0
        address = author.address.replace("0.0.0.0", hosts[0].address)
        asked = reader.ask("status")["discovery"]["lan"]["asked"]
        reader.mount(key, tmp_path / "mnt", "-o", f"private,peer={address}")
        assert (tmp_path / "mnt" / "secret.txt").read_text() == "psst\n"
        assert reader.ask("info", key)["private"]
        assert reader.ask("status")["discovery"]["lan"]["asked"] == asked


def test_only_allowed_peers_are_let_in(hosts: list[Host], tmp_path: Path) -> None:
    with program(tmp_path / "author", hosts[0]) as author, program(tmp_path / "reader", hosts[1]) as reader:
        friend = reader.ask("status")["peer_key"]
        author.settings["DDRIVE_ALLOWED_PEERS"] = "00" * 32
        key = seeded(author, tmp_path / "source")
        assert reader.run("cat", key, "greeting.txt", "--timeout", "2s").code == 5
        assert not connected(author)
        reader.run("seed", key)
        until(lambda: f"peer refused key={friend}" in (author.state / "log" / "engine.log").read_text())
        address = reader.address.replace("0.0.0.0", hosts[1].address)
        author.ask("peer", "add", address)
        until(lambda: "is not among the allowed peers" in str(author.ask("peer", "ls")))
        author.ask("stop")
        author.settings["DDRIVE_ALLOWED_PEERS"] = friend
        until(lambda: connected(author))


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [("DDRIVE_NO_DISCOVERY", set()), ("DDRIVE_LAN_ONLY", {"224.0.0.251:5353"})],
)
def test_nothing_leaves_but_what_is_allowed(hosts: list[Host], tmp_path: Path, setting: str, allowed: set[str]) -> None:
    with (
        program(tmp_path / "author", hosts[0]) as author,
        program(tmp_path / "reader", hosts[1]) as reader,
        capture(hosts[1]) as sent,
    ):
        address = author.address.replace("0.0.0.0", hosts[0].address)
        key = seeded(author, tmp_path / "source")
        reader.settings[setting] = "1"
        made = seeded(reader, tmp_path / "other")
        assert reader.run("cat", "00" * 32, "x", "--timeout", "2s").code == 5
        assert shown(reader.run("cat", key, "greeting.txt", "--peer", address)) == b"hello\n"
        assert reader.ask("info", made)["discovery"]["asked"].keys() == ({"lan"} if allowed else set())
        assert sent.end() == {address, *allowed}
