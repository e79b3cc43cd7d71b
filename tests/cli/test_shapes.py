"""The JSON that scripts rely on, and what a person sees instead."""

from pathlib import Path

import pytest

from tests.support.program import Program


def test_status(ddrive: Program) -> None:
    status = ddrive.ask("status")
    assert status.keys() >= {"version", "pid", "state", "listen", "uptime_s", "drives", "mounts", "peers", "discovery"}
    assert status["state"] == str(ddrive.state)
    assert status["listen"][0].rpartition(":")[2].isdigit()
    assert status["discovery"].keys() >= {"lan", "dht", "mainline"}
    assert status["mounts"] == []
    assert str(status["pid"]).encode() in ddrive.run("status").out


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
