"""`doctor` finds what is wrong, and says what to do."""

from pathlib import Path

from tests.support.hosts import lan
from tests.support.program import Program, program


def test_a_sound_machine_passes(tmp_path: Path) -> None:
    with lan(1) as hosts, program(tmp_path / "state", hosts[0]) as ddrive:
        ddrive.settings["DDRIVE_LAN_ONLY"] = "1"
        key = ddrive.ask("create")["key"]
        ddrive.mount(key, tmp_path / "mnt")
        found = {item["check"]: item for item in ddrive.ask("doctor")}
    assert [name for name, item in found.items() if item["state"] == "failed"] == []
    assert found.keys() >= {"fuse device", "fusermount3", "disk", "clock", "open files", "engine", "port", "mount"}
    assert found["look on lan"]["detail"].startswith("on eth0")
    assert "--lan-only" in found["look on dht"]["detail"]


def test_what_is_missing_is_named_with_advice(ddrive: Program) -> None:
    result = ddrive.run("doctor", "--no-start", PATH="/nonexistent")
    assert result.code == 1
    assert b"FAILED  fusermount3" in result.out
    assert b"-> install the package fuse3" in result.out
    assert b"no engine runs" in result.out


def test_a_machine_without_a_network_is_told_so(tmp_path: Path) -> None:
    def network() -> tuple[str, str]:
        found = {item["check"]: item for item in ddrive.run("doctor", "--no-start", "--json").json()}["network"]
        return found["state"], found["detail"].partition(",")[0]

    with lan(1) as hosts, program(tmp_path / "state", hosts[0]) as ddrive:
        assert network() == ("ok", "eth0 10.77.0.1")
        hosts[0].ip("link", "set", "eth0", "down")
        assert network() == ("warning", "no connection at eth0")
        hosts[0].ip("link", "delete", "eth0")
        assert network() == ("warning", "there is none")
