"""The JSON that scripts rely on, and what a person sees instead."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.program import Program, mounted, program


def test_status(ddrive: Program) -> None:
    status = ddrive.ask("status")
    assert status.keys() >= {"version", "pid", "state", "listen", "uptime_s", "drives", "mounts", "peers", "discovery"}
    assert status["state"] == str(ddrive.state)
    assert status["listen"][0].rpartition(":")[2].isdigit()
    assert status["discovery"].keys() >= {"lan", "dht", "mainline"}
    assert status["mounts"] == []
    assert str(status["pid"]).encode() in ddrive.run("status").out


def test_common_options_go_before_everything(ddrive: Program) -> None:
    state = ["--state", ddrive.state, "--json", "--no-start"]
    assert ddrive.run(*state, "--version").out.startswith(b"ddrive ")
    assert b"Usage" in ddrive.run(*state, "--help").out
    assert ddrive.run(*state, "status").code == 1
    listening = ddrive.ask("status")["listen"][0]
    assert json.loads(ddrive.run(*state, "status").out)["state"] == str(ddrive.state)
    before = json.loads((ddrive.state / "listen.json").read_text())["port"]
    assert json.loads(ddrive.run(*state, "stop").out)["stopped"]
    assert not json.loads(ddrive.run(*state, "stop").out)["stopped"]
    assert listening.endswith(f":{before}")


@pytest.mark.parametrize("dialect", ["dweb", "hypercore"])
def test_create_list_info(dialect: str, ddrive: Program) -> None:
    made = ddrive.ask("create", "--name", "mine", "--dialect", dialect)
    assert made.keys() >= {"key", "url", "dialect", "version", "writable"}
    assert (len(made["key"]), made["dialect"], made["version"], made["writable"]) == (64, dialect, 1, True)
    assert made["key"] in made["url"]
    (listed,) = ddrive.ask("list")
    wanted = {"key", "url", "name", "dialect", "writable", "version", "seeding", "byte_length", "held"}
    assert listed.keys() >= wanted
    assert (listed["key"], listed["name"], listed["seeding"]) == (made["key"], "mine", True)
    info = ddrive.ask("info", made["key"])
    assert info.keys() >= {"key", "url", "dialect", "version", "writable", "peers", "mounts", "forked"}
    assert info["metadata"].keys() >= {"length", "downloaded", "byte_length"}
    assert info["content"].keys() >= {"length", "downloaded", "byte_length"}
    assert made["key"].encode() in ddrive.run("list").out


def test_create_prints_the_key_alone(ddrive: Program) -> None:
    shown = ddrive.run("create")
    assert len(shown.out.decode().strip()) == 64
    assert shown.err == ""


def test_import_export_ls_cat(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("hello\n")
    (source / "sub" / "b").write_bytes(b"\0\xff\n")
    (source / "ln").symlink_to("a.txt")
    made = ddrive.ask("import", source)
    wanted = {"key", "url", "version", "files", "directories", "links", "bytes", "refused"}
    assert made.keys() >= wanted
    assert (made["files"], made["links"], made["bytes"], made["refused"]) == (2, 1, 9, [])
    listed = ddrive.ask("ls", made["key"])
    assert [(entry["name"], entry["type"]) for entry in listed] == [
        ("a.txt", "file"),
        ("ln", "link"),
        ("sub", "directory"),
    ]
    assert listed[0].keys() >= {"name", "type", "size", "mode", "mtime"}
    assert ddrive.run("ls", made["key"]).out == b"a.txt\nln\nsub\n"
    assert b"a.txt" in ddrive.run("ls", "-l", made["url"]).out
    assert ddrive.run("ls", "-R", made["key"]).out.split() == [b"a.txt", b"ln", b"sub", b"sub/b"]
    assert ddrive.run("cat", made["key"], "sub/b").out == b"\0\xff\n"
    assert ddrive.run("cat", f"dweb://{made['key']}/sub/b").out == b"\0\xff\n"
    exported = ddrive.ask("export", made["key"], tmp_path / "out")
    assert exported.keys() >= wanted
    assert exported["files"] == 2
    assert (tmp_path / "out" / "sub" / "b").read_bytes() == b"\0\xff\n"
    assert (tmp_path / "out" / "ln").readlink() == Path("a.txt")


def test_import_prints_the_key_alone_on_stdout(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "x").write_text("x")
    shown = ddrive.run("import", tmp_path / "tree")
    assert len(shown.out.decode().strip()) == 64
    assert "1 file" in shown.err
    assert "1 of them new" in shown.err
    again = ddrive.run("import", tmp_path / "tree", shown.out.decode().strip())
    assert "none of them new" in again.err


def test_common_options_may_stand_before_the_verb(ddrive: Program, tmp_path: Path) -> None:
    assert ddrive.run("--json", "status").json()["state"] == str(ddrive.state)
    elsewhere = tmp_path / "elsewhere"
    assert ddrive.run("--no-start", "--state", elsewhere, "--json", "peer", "ls").code == 1
    assert not elsewhere.exists()


@pytest.mark.parametrize("turned", [False, True])
def test_mount_and_unmount(turned: bool, ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "x").write_text("content")
    key = ddrive.ask("import", tmp_path / "tree")["key"]
    place = tmp_path / "mnt with space"
    place.mkdir()
    ddrive.mountpoints.append(place)
    made = ddrive.ask("mount", place, key) if turned else ddrive.ask("mount", key, place)
    assert made.keys() >= {"mountpoint", "key", "url", "version", "pinned", "writable", "state", "pid"}
    assert (made["mountpoint"], made["key"], made["state"], made["pinned"]) == (str(place), key, "ok", False)
    assert (place / "x").read_text() == "content"
    assert ddrive.ask("status")["mounts"][0]["mountpoint"] == str(place)
    assert ddrive.run("cat", place / "x").out == b"content"
    assert ddrive.ask("info", place / "x")["mounts"]
    assert ddrive.run("umount", place).code == 0
    assert list(place.iterdir()) == []
    assert ddrive.ask("status")["mounts"] == []


def test_peers(ddrive: Program) -> None:
    assert ddrive.ask("peer", "ls") == []
    ddrive.ask("peer", "add", "127.0.0.1:9")
    (peer,) = ddrive.ask("peer", "ls")
    assert peer.keys() >= {"address", "key", "connected", "dialects", "drives", "last_error"}
    assert (peer["address"], peer["connected"]) == ("127.0.0.1:9", False)
    ddrive.ask("peer", "rm", "127.0.0.1:9")
    assert ddrive.ask("peer", "ls") == []


def test_stats(ddrive: Program) -> None:
    ddrive.ask("create")
    stats = ddrive.ask("stats")
    assert stats.keys() >= {"uploaded", "downloaded", "cache", "timeouts", "verify_failures", "peers"}
    assert stats["uploaded"] == {"bytes": 0, "blocks": 0}
    assert stats["cache"].keys() >= {"hits", "misses"}


def test_options_come_from_the_environment_too(ddrive: Program) -> None:
    made = ddrive.run("create", DDRIVE_DIALECT="hypercore", DDRIVE_JSON="1")
    assert made.json()["dialect"] == "hypercore"


def test_options_come_from_the_configuration_file(ddrive: Program, tmp_path: Path) -> None:
    home = Path(ddrive.environment()["XDG_CONFIG_HOME"]) / "ddrive"
    home.mkdir(parents=True)
    (home / "config.toml").write_text('listen = "127.0.0.2:0"\n')
    status = ddrive.run("status", "--json", DDRIVE_LISTEN="").json()
    assert status["listen"][0].startswith("127.0.0.2:")


def test_versions_have_names_and_differences(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "stays").write_text("1")
    (source / "changes").write_text("1")
    first = ddrive.ask("import", source)
    key = first["key"]
    assert ddrive.ask("tag", "add", key, "release") == {"name": "release", "version": first["version"]}
    (source / "changes").write_text("12")
    (source / "new").write_text("123")
    ddrive.ask("import", source, key)
    assert ddrive.ask("tag", "ls", key) == [{"name": "release", "version": first["version"]}]
    changes = ddrive.ask("diff", key, str(first["version"]))
    assert [(change["type"], change["path"], change["size"]) for change in changes] == [
        ("put", "/changes", 2),
        ("put", "/new", 3),
    ]
    assert changes[0].keys() >= {"type", "path", "previous_version", "version", "size"}
    assert ddrive.ask("diff", key, "release") == changes
    assert ddrive.run("diff", key, "no-such-tag").code == 3
    assert ddrive.run("diff", key, "0").code == 2
    shown = ddrive.run("diff", key, str(first["version"])).out.decode().split()
    assert (shown[0], shown[3], shown[4], shown[7]) == ("M", "/changes", "A", "/new")
    assert ddrive.run("cat", f"{key}+release", "/changes").out == b"1"
    assert ddrive.run("cat", key, "/changes").out == b"12"
    assert ddrive.run("tag", "rm", key, "release").code == 2
    assert ddrive.ask("tag", "rm", key, "release", "--dry-run")["version"] == first["version"]
    ddrive.ask("tag", "rm", key, "release", "--yes")
    assert ddrive.ask("tag", "ls", key) == []
    assert ddrive.run("cat", f"{key}+release", "/changes").code == 3


def test_what_is_held_is_counted_and_fetched(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "big").write_bytes(bytes(300_000))
    (source / "sub" / "small").write_bytes(bytes(1000))
    (source / "sub" / "empty").write_bytes(b"")
    key = ddrive.ask("import", source)["key"]
    with program(tmp_path / "other" / "state") as other:
        empty = other.ask("du", key, "--peer", ddrive.address)
        assert (empty["files"], empty["bytes"], empty["held"]) == (3, 301_000, 0)
        assert other.ask("download", key, "sub")["held"] == 1000
        assert other.ask("du", key)["held"] == 1000
        assert other.ask("download", key)["held"] == 301_000
        assert ddrive.run("stop").code == 0
        assert len(other.run("cat", key, "big").out) == 300_000


def test_the_engine_runs_in_the_foreground(ddrive: Program) -> None:
    with ddrive.running("daemon", "--listen", "127.0.0.1:0", "--json") as running:
        assert running.stdout is not None
        status = json.loads(running.stdout.readline())
        assert ddrive.pid == status["pid"]
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
    assert running.returncode == 0
    assert ddrive.run("status", "--no-start").code == 1


def test_a_mount_in_the_foreground_ends_with_a_signal(ddrive: Program, tmp_path: Path) -> None:
    key = ddrive.ask("create")["key"]
    place = tmp_path / "mnt"
    place.mkdir()
    ddrive.mountpoints.append(place)
    with ddrive.running("mount", key, place, "--foreground", "--json") as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["state"] == "ok"
        assert mounted(place)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    assert running.returncode == 0
    assert not mounted(place)


def test_a_slow_reader_is_no_missing_peer(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    content = os.urandom(3_000_000)
    (tmp_path / "tree" / "file").write_bytes(content)
    key = ddrive.ask("import", tmp_path / "tree")["key"]
    with ddrive.running("cat", key, "file", "--timeout", "1s") as process:
        assert process.stdout is not None
        time.sleep(2.5)  # the pipe is full for longer than the verb would wait for a peer
        assert process.stdout.read() == content
        assert process.wait() == 0
