"""Limits of an engine: how fast it sends and receives, and how many peers it serves at a time."""

import time
from pathlib import Path

import pytest

from tests.support.program import program

SIZE = 3_000_000
RATE = 1_000_000
SMALL = 64 * 1024  # the file that somebody waits for


def made(directory: Path, size: int = SIZE) -> Path:
    """Make a tree with a large file and a small one."""
    directory.mkdir()
    (directory / "big.bin").write_bytes(bytes(range(250)) * (size // 250))
    (directory / "small.bin").write_bytes(b"s" * SMALL)
    return directory


@pytest.mark.parametrize("limited", ["up", "down"])
def test_the_rate_is_kept(tmp_path: Path, limited: str) -> None:
    with program(tmp_path / "author") as author, program(tmp_path / "reader") as reader:
        engine = author if limited == "up" else reader
        engine.settings[f"DDRIVE_{limited.upper()}_LIMIT"] = str(RATE)
        key = author.ask("import", made(tmp_path / "tree"))["key"]
        reader.ask("status")  # starts it
        began = time.monotonic()
        assert len(reader.run("cat", key, "big.bin", "--peer", author.address).out) == SIZE
        assert time.monotonic() - began > SIZE / RATE * 0.8


def test_a_single_upload_slot_serves_several_readers(tmp_path: Path) -> None:
    with (
        program(tmp_path / "author") as author,
        program(tmp_path / "first") as first,
        program(tmp_path / "second") as second,
    ):
        author.settings |= {"DDRIVE_UPLOAD_SLOTS": "1", "DDRIVE_UP_LIMIT": "2M"}
        key = author.ask("import", made(tmp_path / "tree"))["key"]
        address = author.address
        with first.running("cat", key, "big.bin", "--peer", address) as reading:
            assert second.run("cat", key, "big.bin", "--peer", address).code == 0
            assert len(reading.communicate()[0]) == SIZE


@pytest.mark.parametrize("limited", ["up", "down"])
def test_what_somebody_waits_for_comes_before_a_download(tmp_path: Path, limited: str) -> None:
    with program(tmp_path / "author") as author, program(tmp_path / "reader") as reader:
        engine = author if limited == "up" else reader
        engine.settings[f"DDRIVE_{limited.upper()}_LIMIT"] = "400K"
        key = author.ask("import", made(tmp_path / "tree", 10 * SIZE))["key"]  # the download takes more than a minute
        with reader.running("download", key, "/big.bin", "--peer", author.address):
            read = reader.run("cat", key, "small.bin", "--peer", author.address)
            assert (read.code, len(read.out)) == (0, SMALL), read
            assert reader.ask("info", key)["content"]["bytes_downloaded"] < 3 * SIZE
