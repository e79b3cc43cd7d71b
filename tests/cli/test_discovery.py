"""Engines on hosts of their own find each other without being told an address."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import Host, internet, lan
from tests.support.program import Program, program


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two hosts on one network."""
    with lan(2) as made:
        yield made


def seeded(author: Program, source: Path) -> str:
    """Make a drive with one file and return its key."""
    source.mkdir()
    (source / "greeting.txt").write_text("hello\n")
    key: str = author.ask("import", source)["key"]
    return key


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
