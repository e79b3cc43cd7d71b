"""`keys backup` and `keys restore`: drives can be written again elsewhere, and nothing is ever signed twice."""

import json
import shutil
import stat
from pathlib import Path

import pytest

from ddrive.errors import CorruptStorage
from mountd.keys_file import seal, unseal
from tests.support.program import Program, program

SECRET = "open sesame"


def test_a_lost_state_comes_back_from_the_keys_and_from_peers(ddrive: Program, tmp_path: Path) -> None:
    source, file = tmp_path / "tree", tmp_path / "keys"
    source.mkdir()
    (source / "a").write_bytes(b"a" * 200_000)
    made = ddrive.ask("import", source, "--name", "mine")
    key = made["key"]
    database = ddrive.ask("db", "create")["key"]
    ddrive.ask("db", "put", database, "name", "value")
    graph = ddrive.ask("graph", "create")["key"]
    assert ddrive.run("keys", "backup", file).code == 2
    saved = ddrive.run("keys", "backup", file, "--json", DDRIVE_PASSPHRASE=SECRET)
    assert (saved.code, saved.json()["drives"]) == (0, [{"key": key, "name": "mine"}]), saved
    others = [{"key": each, "kind": kind, "name": None} for each, kind in ((database, "db"), (graph, "graph"))]
    assert saved.json()["databases"] == others
    told = ddrive.run("keys", "backup", file, "--yes", DDRIVE_PASSPHRASE=SECRET).out
    assert told.startswith(b"saved the keys of 1 drive, 1 database, 1 graph in ")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ddrive.run("keys", "backup", file, DDRIVE_PASSPHRASE=SECRET).code == 1
    (source / "b").write_bytes(b"b" * 100_000)
    version = ddrive.ask("import", source, key)["version"]  # written after the backup
    with program(tmp_path / "peer" / "state") as peer, program(tmp_path / "fresh" / "state") as fresh:
        peer.ask("download", key, "--peer", ddrive.address)
        peer.ask("db", "get", database, "name")
        ddrive.ask("stop")
        shutil.rmtree(ddrive.state)
        assert fresh.run("keys", "restore", file, DDRIVE_PASSPHRASE="wrong").code == 4
        passphrase = tmp_path / "passphrase"
        passphrase.write_text(f"{SECRET}\n")
        restored = fresh.ask("keys", "restore", file, "--passphrase-file", passphrase)
        assert [drive["key"] for drive in restored["drives"]] == [key]
        assert restored["databases"] == others
        refused = fresh.run("import", source, key, "--timeout", "1s")  # nothing of it is here, and nobody is
        assert (refused.code, "is your own" in refused.err, "ddrive peer add" in refused.err) == (5, True, True)
        for verb in (
            ("tag", "add", key, "early"),
            ("log", key),
            ("unlink-drive", f"{key}:/nested"),
            ("db", "put", database, "name", "other"),
            ("db", "del", database, "name"),
            ("db", "authorize", database, key),
            ("db", "write", database),
            ("graph", "put", graph, "a", "b", "l"),
            ("graph", "del", graph, "a", "b", "l"),
            ("graph", "write", graph),
        ):
            assert fresh.run(*verb, "--timeout", "1s").code == 5, verb
        fresh.mount(key, place := tmp_path / "place", "--timeout", "1s")
        fresh.ask("peer", "add", peer.address)
        while fresh.ask("info", key)["content"]["downloaded"] < 6:
            pass
        assert sorted(path.name for path in place.iterdir()) == ["a", "b"]
        (place / "d").mkdir()  # a mount from before anything came can be written to by now
        fresh.ask("unmount", place)
        (source / "c").write_bytes(b"c")
        after = fresh.ask("import", source, key)["version"]
        assert after > version
        while peer.ask("info", key)["version"] < after:
            pass
        assert [peer.run("cat", key, name).out for name in "abc"] == [b"a" * 200_000, b"b" * 100_000, b"c"]
        assert not peer.ask("info", key)["forked"]
        assert fresh.ask("db", "get", database, "name")[0]["value"] == "value"


def test_who_watches_what_has_not_come_back_yet_is_told_why(ddrive: Program, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    database, graph = ddrive.ask("db", "create")["key"], ddrive.ask("graph", "create")["key"]
    ddrive.ask("db", "put", database, "name", "value")
    ddrive.ask("graph", "put", graph, "a", "b", "l")
    assert ddrive.run("keys", "backup", file, DDRIVE_PASSPHRASE=SECRET).code == 0
    ddrive.ask("db", "put", database, "other", "value")  # after the backup
    with program(tmp_path / "fresh" / "state") as fresh:
        assert fresh.run("keys", "restore", file, DDRIVE_PASSPHRASE=SECRET).code == 0
        refused = fresh.run("db", "get", database, "name", "--timeout", "1s")
        assert (refused.code, "your own, and 0 of its 2 blocks are here" in refused.err) == (5, True), refused
        assert "nobody is connected" in refused.err
        with (
            fresh.running("db", "watch", database) as first,
            fresh.running("graph", "watch", graph, "--json") as second,
        ):
            for process, name in ((first, f"database {database[:8]}"), (second, f"graph {graph[:8]}")):
                assert process.stderr is not None
                told = process.stderr.readline().decode()  # after 10 s
                assert f"still waiting for a peer that has {name} (it is your own, and 0 of its 2 blocks" in told
                assert "nobody is connected" in told
            fresh.ask("peer", "add", ddrive.address)
            assert fresh.ask("db", "get", database, "other", "--timeout", "20s")[0]["value"] == "value"
            assert len(fresh.ask("graph", "walk", graph, "l", "--timeout", "20s")) == 1
            fresh.ask("graph", "put", graph, "a", "c", "l")
            fresh.ask("db", "put", database, "third", "3")
            assert first.stdout is not None
            assert second.stdout is not None
            assert "third" in first.stdout.readline().decode()
            assert json.loads(second.stdout.readline())["to"] == "c"
        assert fresh.ask("rm", graph, "--yes")["kind"] == "graph"


def test_keys_are_not_restored_over_what_is_ones_own(ddrive: Program, tmp_path: Path) -> None:
    source, file = tmp_path / "tree", tmp_path / "keys"
    source.mkdir()
    (source / "a").write_bytes(b"a")
    ddrive.ask("create", "--name", "saved")
    assert ddrive.run("keys", "backup", file, DDRIVE_PASSPHRASE=SECRET).code == 0
    with program(tmp_path / "used" / "state") as used:
        own = used.ask("import", source, "--name", "kept")["key"]
        before = used.ask("list"), secrets_of(used.state)
        refused = used.run("keys", "restore", file, "--json", DDRIVE_PASSPHRASE=SECRET)
        assert (refused.code, refused.json()["error"]["code"]) == (1, "AlreadyExists"), refused
        assert "drives of your own here already" in refused.err
        assert "--state" in refused.err
        assert (used.ask("list"), secrets_of(used.state)) == before
        (source / "b").write_bytes(b"b")
        used.ask("import", source, own)
        assert used.run("cat", own, "b").out == b"b"
    with program(tmp_path / "database" / "state") as other:
        other.ask("db", "create")
        before = other.ask("db", "list"), secrets_of(other.state)
        assert other.run("keys", "restore", file, DDRIVE_PASSPHRASE=SECRET).code == 1
        assert (other.ask("db", "list"), secrets_of(other.state)) == before


def secrets_of(state: Path) -> dict[str, bytes]:
    """Return the keys of a state directory, and the tables of what is one's own."""
    names = ("master_key", "secret_key", "key", "drives.json", "databases.json")
    return {str(path): path.read_bytes() for path in state.rglob("*") if path.name in names}


def test_a_copied_state_refuses_to_write_what_was_written_elsewhere(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    (source / "a").write_bytes(b"a" * 1000)
    key = ddrive.ask("import", source)["key"]
    ddrive.ask("stop")
    shutil.copytree(ddrive.state, tmp_path / "copy" / "state", ignore=shutil.ignore_patterns("*.sock"))
    with program(tmp_path / "peer" / "state") as peer, program(tmp_path / "copy" / "state") as copy:
        (source / "b").write_bytes(b"b" * 1000)
        ddrive.ask("import", source, key)
        peer.ask("ls", key, "--peer", ddrive.address)  # it gets the entries, but none of the content
        ddrive.ask("stop")
        copy.ask("peer", "add", peer.address)
        while copy.ask("info", key)["version"] < peer.ask("info", key)["version"]:
            pass
        (source / "c").write_bytes(b"c" * 1000)
        again = copy.run("import", source, key, "--json")
        assert (again.code, json.loads(again.out)["error"]["code"]) == (6, "Behind"), again
        assert "ours" in again.err
        ddrive.ask("status")
        copy.ask("peer", "add", ddrive.address)
        while copy.ask("info", key)["content"]["downloaded"] < 2:
            pass
        copy.ask("import", source, key)
        assert copy.run("cat", key, "b").out == b"b" * 1000


def test_a_copy_that_meets_its_original_goes_on_from_there(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    key = ddrive.ask("import", source, "--name", "mine")["key"]
    peer_key = ddrive.ask("status")["peer_key"]
    ddrive.ask("stop")
    shutil.copytree(ddrive.state, tmp_path / "copy" / "state", ignore=shutil.ignore_patterns("*.sock"))
    with program(tmp_path / "copy" / "state") as copy:
        assert copy.ask("status")["peer_key"] == peer_key
        (source / "b").write_bytes(b"b" * 1000)
        ddrive.ask("import", source, key)
        copy.ask("peer", "add", ddrive.address)
        while copy.ask("info", key)["version"] < ddrive.ask("info", key)["version"]:
            pass
        assert ddrive.ask("status")["peer_key"] == peer_key != copy.ask("status")["peer_key"]
        while copy.ask("info", key)["content"]["downloaded"] < 1:
            pass
        (source / "c").write_bytes(b"c" * 1000)
        copy.ask("import", source, key)
        while copy.ask("info", key)["version"] > ddrive.ask("info", key)["version"]:
            pass
        assert ddrive.run("cat", key, "c").out == b"c" * 1000
        assert not ddrive.ask("info", key)["forked"]


def test_two_histories_of_a_copy_and_its_original_are_noticed(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    source.mkdir()
    key = ddrive.ask("import", source, "--name", "mine")["key"]
    ddrive.ask("stop")
    shutil.copytree(ddrive.state, tmp_path / "copy" / "state", ignore=shutil.ignore_patterns("*.sock"))
    with program(tmp_path / "copy" / "state") as copy:
        (source / "b").write_bytes(b"b" * 1000)
        ddrive.ask("import", source, key)
        (source / "b").write_bytes(b"something else")
        (source / "c").write_bytes(b"c" * 1000)
        copy.ask("import", source, key)
        copy.ask("peer", "add", ddrive.address)
        while not ddrive.ask("info", key)["forked"]:  # it is the shorter one, so it asks for what it lacks
            pass
        (source / "d").write_bytes(b"d")
        assert ddrive.run("import", source, key).code in (4, 6)


def test_the_file_opens_with_its_passphrase_alone() -> None:
    sealed = seal({"a": 1}, b"one")
    assert unseal(sealed, b"one") == {"a": 1}
    for content, passphrase in ((sealed, b"two"), (sealed[:-1], b"one"), (sealed[:20], b"one"), (b"", b"one")):
        with pytest.raises(CorruptStorage):
            unseal(content, passphrase)
    greedy = sealed[:18] + b"\xff" * 8 + sealed[26:]
    with pytest.raises(CorruptStorage, match="memory"):
        unseal(greedy, b"one")
