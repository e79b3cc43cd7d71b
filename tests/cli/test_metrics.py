"""What an engine tells Prometheus."""

import os
import socket
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tests.support.program import Program, program
from tests.support.until import until


def free_address() -> str:
    """Return an address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def metrics(address: str) -> dict[str, float]:
    """Return all samples by name and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_metrics_count_what_happens(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.bin").write_bytes(bytes(100_000))
    ddrive.settings["DDRIVE_METRICS_ADDR"] = address = free_address()
    with program(tmp_path / "author") as author:
        key = author.ask("import", tmp_path / "tree")["key"]
        assert ddrive.run("status").code == 0
        before = metrics(address)
        assert before["ddrive_downloaded_bytes_total"] == 0
        assert before['ddrive_discovery_running{mechanism="lan"}'] == 0
        assert len(ddrive.run("cat", key, "a.bin", "--peer", author.address).out) == 100_000
        after = metrics(address)
        assert after["ddrive_downloaded_bytes_total"] > 100_000
        assert after['ddrive_received_bytes_total{source="given"}'] > 100_000
        assert after['ddrive_peers{source="given"}'] == 1
        assert any(name.startswith("ddrive_peer_round_trip_seconds{") for name in after)
        assert after["ddrive_cache_bytes"] > 100_000
        assert after["ddrive_evicted_bytes_total"] == 0
        assert after["ddrive_cache_misses_total"] > 0
        missed = ddrive.ask("stats", key)["cache"]["misses"]
        assert missed == after["ddrive_cache_misses_total"]
        ddrive.run("cat", key, "a.bin")
        again = metrics(address)
        assert again["ddrive_cache_hits_total"] >= after["ddrive_cache_hits_total"] + 2
        assert again["ddrive_cache_misses_total"] == missed
        assert after["ddrive_verify_failures_total"] == 0


async def test_reads_of_a_mount_are_counted_while_it_stays(ddrive: Program, tmp_path: Path) -> None:
    source, mount = tmp_path / "tree", tmp_path / "mount"
    source.mkdir()
    (source / "a.bin").write_bytes(bytes(100_000))
    with program(tmp_path / "author") as author:
        key = author.ask("import", source)["key"]
        ddrive.mount(key, mount, "--peer", author.address)
        assert len((mount / "a.bin").read_bytes()) == 100_000
        await until(lambda: ddrive.ask("stats", key)["cache"]["misses"] > 0)
        assert ddrive.ask("status")["mounts"][0]["state"] == "ok"


def test_many_that_ask_nothing_are_in_nobodys_way(ddrive: Program) -> None:
    ddrive.settings["DDRIVE_METRICS_ADDR"] = address = free_address()
    pid = ddrive.pid
    host, _, port = address.rpartition(":")
    files = len(os.listdir(f"/proc/{pid}/fd"))
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
        assert metrics(address)['ddrive_mounts{state="dead"}'] == 0
        assert len(os.listdir(f"/proc/{pid}/fd")) < files + 50


def test_an_address_in_use_is_named(ddrive: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        result = ddrive.run("status", DDRIVE_METRICS_ADDR=address)
    assert result.code == 1
    assert address in result.err
    assert "--metrics-addr" in result.err
