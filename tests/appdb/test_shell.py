"""`ddrive db` and `ddrive graph` as somebody meets them who tries everything: versions, bytes, names, advice."""

import json
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import Program, Result, program


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One engine for all tests here: each makes databases of its own."""
    with program(tmp_path_factory.mktemp("engine") / "state") as made:
        yield made


def fed(engine: Program, content: bytes, *arguments: str) -> Result:
    """Run one verb with something on stdin."""
    return Result(
        subprocess.run(
            [*engine.command, *arguments], input=content, capture_output=True, timeout=60, env=engine.environment()
        )
    )


def names(engine: Program, *arguments: str) -> list[str]:
    return [entry["name"] for entry in engine.ask("db", "ls", *arguments)]


def test_old_versions_are_read_by_their_address(engine: Program) -> None:
    key = engine.ask("db", "create")["key"]
    engine.ask("db", "put", key, "k", "old")
    version = engine.ask("db", "info", key)["version"]
    engine.ask("db", "put", key, "k", "new")
    engine.ask("db", "put", key, "later", "x")
    old = f"{key}+{version}"
    assert (engine.run("db", "get", old, "k").out, engine.run("db", "get", key, "k").out) == (b"old\n", b"new\n")
    assert (names(engine, old), names(engine, f"dweb://{old}/")) == (["k"], ["k"])
    assert len(engine.ask("db", "log", old)) == 1
    assert engine.ask("db", "info", old)["version"] == version
    for wrong in (f"{key}+3", f"{key}+name", f"{key}/path"):
        assert engine.run("db", "get", wrong, "k").code == 2
    for changing in (("put", old, "k", "v"), ("del", old, "k"), ("authorize", old, "0" * 64)):
        assert engine.run("db", *changing).code == 2
    assert engine.run("db", "get", key, "k").out == b"new\n"


def test_bytes_come_back_as_they_were(engine: Program) -> None:
    key, content = engine.ask("db", "create")["key"], bytes(range(256)) * 40
    assert fed(engine, content, "db", "put", key, "k", "-").code == 0
    assert engine.run("db", "get", key, "k", "--raw").out == content
    assert engine.run("db", "get", key, "k").out == content + b"\n"


def test_name_with_names_below_it_is_listed_as_both(engine: Program) -> None:
    key = engine.ask("db", "create")["key"]
    for name in ("a/b", "a/b/c", "a/b/d/e", "a", "z/only/deep"):
        engine.ask("db", "put", key, name, name)
    assert names(engine, key) == ["a", "a/", "z/"]
    assert names(engine, key, "a") == ["a", "a/b", "a/b/"]
    assert names(engine, key, "a/b") == ["a/b", "a/b/c", "a/b/d/"]
    engine.ask("db", "del", key, "a/b")
    assert names(engine, key, "a") == ["a", "a/b/"]


def test_answers_say_what_happened_and_what_to_do(engine: Program) -> None:
    key = engine.ask("db", "create")["key"]
    assert engine.ask("db", "put", key, "k", "1", "--if-not-exists")["stored"] is True
    kept = engine.run("db", "put", key, "k", "2", "--if-not-exists", "--json")
    assert (kept.json()["stored"], kept.json()["value"]) == (False, "1")
    assert "already" in kept.err
    missing = engine.run("db", "get", key, "nope")
    assert (missing.code, f"ddrive db ls {key}" in missing.err) == (3, True)
    writer = "5" * 64
    engine.ask("db", "authorize", key, writer)
    assert engine.ask("db", "info", key)["writers"] == [key, writer]
    assert writer in engine.run("db", "info", key).out.decode()
    assert engine.ask("db", "log", key)[0]["authorizes"] == [writer]
    assert writer in engine.run("db", "log", key).out.decode()
    wrong = engine.run("graph", "walk", key, "l")
    assert (wrong.code, "use ddrive db" in wrong.err) == (2, True)


def lines(*values: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def test_many_changes_are_done_by_one_call(engine: Program) -> None:
    key = engine.ask("db", "create")["key"]
    many = [{"key": f"k/{number}", "value": str(number)} for number in range(600)]
    special = [
        {"key": "k/1", "deleted": True},
        {"key": "bytes", "value": "/w==", "encoding": "base64"},
        {"key": "k/2", "value": "other", "if_not_exists": True},
    ]
    assert fed(engine, lines(*many, *special), "db", "write", key, "--json").json() == {"changes": 603}
    assert len(engine.ask("db", "ls", key, "k", "-R")) == 599
    assert engine.run("db", "get", key, "bytes", "--raw").out == b"\xff"
    assert engine.run("db", "get", key, "k/2").out == b"2\n"
    nodes = [node for entry in engine.ask("db", "ls", key, "-R") for node in entry["nodes"]]
    copy = engine.ask("db", "create")["key"]
    assert fed(engine, lines(*nodes), "db", "write", copy).code == 0
    assert names(engine, copy, "-R") == names(engine, key, "-R")
    for wrong in (b"nonsense\n", b"[]\n", lines({"key": "k"}), lines({"key": 1, "value": "x"})):
        result = fed(engine, lines({"key": "before", "value": ""}) + wrong, "db", "write", copy)
        assert (result.code, "line 2" in result.err) == (2, True)
    deep = fed(engine, b"[" * 100_000, "db", "write", copy)
    assert (deep.code, "line 1" in deep.err) == (2, True)
    assert "before" not in names(engine, copy)


def test_a_line_without_end_is_not_read_to_its_end(engine: Program) -> None:
    key, piece, taken = engine.ask("db", "create")["key"], b"x" * (1 << 20), 0
    with subprocess.Popen(
        [*engine.command, "db", "write", key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=engine.environment(),
    ) as writing:
        assert writing.stdin is not None
        assert writing.stderr is not None
        writing.stdin.write(lines({"key": "before", "value": "1"}) + b'{"key": "')
        with suppress(BrokenPipeError):
            while taken < 200:
                writing.stdin.write(piece)
                taken += 1
        error = writing.stderr.read().decode()
    assert writing.returncode == 2
    assert error.startswith("ddrive: line 2 of stdin is longer than 64 MiB")
    assert error.count("\n") == 1
    assert taken <= 66
    assert engine.run("db", "get", key, "before").out == b"1\n"


def test_a_value_that_fits_nowhere_is_refused(engine: Program) -> None:
    key = engine.ask("db", "create")["key"]
    result = fed(engine, bytes(9 << 20), "db", "put", key, "k", "-")
    assert (result.code, result.err.count("\n")) == (1, 1), result
    assert "a block has at most 8380416 bytes" in result.err
    assert engine.ask("db", "ls", key) == []


def test_changes_are_done_as_they_come_until_interrupted(engine: Program) -> None:
    key = engine.ask("db", "create")["key"]
    with subprocess.Popen(
        [*engine.command, "db", "write", key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=engine.environment(),
    ) as writing:
        try:
            assert writing.stdin is not None
            writing.stdin.write(lines({"key": "k", "value": "1"}))
            writing.stdin.flush()
            limit = time.monotonic() + 60
            while engine.run("db", "get", key, "k").out != b"1\n":
                assert time.monotonic() < limit
            writing.send_signal(signal.SIGINT)
            assert (writing.wait(60), writing.stderr.read() if writing.stderr else b"") == (130, b"")
        finally:
            writing.kill()


def test_graph_has_versions_and_takes_many_edges(engine: Program) -> None:
    key = engine.ask("graph", "create")["key"]
    edges = [{"from": f"n{number}", "to": f"n{number + 1}", "label": "l"} for number in range(300)]
    assert fed(engine, lines(*edges), "graph", "write", key, "--json").json() == {"changes": 300}
    version = engine.ask("graph", "info", key)["version"]
    gone = {"from": "n0", "to": "n1", "label": "l", "removed": True}
    added = {"from": "n0", "to": "other", "label": "m", "removed": False}
    assert fed(engine, lines(gone, added), "graph", "write", key).out == b"2 changes\n"
    told = engine.ask("graph", "info", key)
    assert (told["key"], told["writable"], sorted(told["labels"])) == (key, True, ["l", "m"])
    assert told["version"] > version
    assert len(engine.ask("graph", "walk", f"{key}+{version}", "l", "--from", "n0")) == 300
    assert engine.ask("graph", "walk", key, "l", "--from", "n0") == []
    changes = sorted(engine.ask("graph", "diff", key, str(version)), key=lambda change: str(change["label"]))
    assert changes == [gone, added]
    assert engine.ask("graph", "diff", key, str(version), "m") == [added]
    assert engine.run("graph", "walk", f"{key}+{version + 9}", "l").code == 3
    assert engine.run("graph", "diff", key, "99999").code == 3
    assert engine.run("graph", "put", f"{key}+{version}", "a", "b", "l").code == 2
    assert fed(engine, lines({"from": "a/b", "to": "c", "label": "l"}), "graph", "write", key).code == 2


def test_database_is_not_taken_for_a_drive(engine: Program, tmp_path: Path) -> None:
    graph = engine.ask("graph", "create")["key"]
    key = engine.ask("db", "create")["key"]
    for known, verb in ((key, "db"), (graph, "graph")):
        for call in (("ls", known), ("info", known), ("seed", known)):
            assert engine.run(*call).code != 0
        assert f"use ddrive {verb}" in engine.run("ls", known).err
    assert engine.ask("list") == []
    with program(tmp_path / "other" / "state") as other:
        engine_address = engine.address
        other.run("ls", graph, "--peer", engine_address)  # nothing tells yet that it is no drive
        engine.ask("graph", "put", graph, "a", "b", "l")
        assert len(other.ask("graph", "walk", graph, "l", "--peer", engine_address)) == 1
        assert other.ask("list") == []
        assert [known["key"] for known in other.ask("graph", "list")] == [graph]


def test_watch_ends_with_its_engine(engine: Program) -> None:
    key = engine.ask("db", "create")["key"]
    with engine.running("db", "watch", key, "--json") as watching:
        assert watching.stdout is not None
        number = 0
        while not select.select([watching.stdout], [], [], 0.5)[0]:
            engine.ask("db", "put", key, f"k/{number}", "1")
            number += 1
            assert number < 60
        assert engine.run("stop").code == 0
        out, _ = watching.communicate(timeout=60)
        assert watching.returncode == 1
        assert json.loads(out.splitlines()[-1])["error"]["code"] in ("Closed", "EngineError")


def test_two_who_look_for_what_nobody_has_do_not_hinder_each_other(engine: Program) -> None:
    looking = ("db", "get", "ab" * 32, "k", "--json", "--timeout")
    with engine.running(*looking, "1") as first, engine.running(*looking, "12") as second:
        for process in (first, second):
            out, notes = process.communicate(timeout=60)
            assert (process.returncode, json.loads(out)["error"]["code"]) == (5, "NoPeers")
    assert b"still looking for a peer that has database abababab" in notes


def test_key_of_something_else_is_not_authorised(engine: Program) -> None:
    key, drive = engine.ask("db", "create")["key"], engine.ask("create")["key"]
    engine.ask("db", "put", key, "k", "1")
    told = engine.run("db", "authorize", key, drive)
    assert (told.code, "our key" in told.err) == (2, True)
    assert engine.run("db", "get", key, "k").out == b"1\n"
    assert engine.ask("db", "info", key)["writers"] == [key]
