"""The command line, and several engines over loopback: they share databases and graphs as they share drives."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import Program, alive, kill, program

WAIT_S = 30.0  # a safety net: everything here takes about a second


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[list[Program]]:
    """Three engines, each with a state directory of its own."""
    with ExitStack() as stack:
        yield [stack.enter_context(program(tmp_path / name / "state")) for name in ("one", "two", "three")]


def until(ask: Callable[[], Any], wanted: Any) -> None:
    """Return when `ask` gives what is wanted."""
    limit = time.monotonic() + WAIT_S
    while (found := ask()) != wanted:
        assert time.monotonic() < limit, f"{found!r} instead of {wanted!r}"
        time.sleep(0.1)


def values(engine: Program, key: str, name: str) -> list[str]:
    """Return the values of a name, sorted; none when there is nothing."""
    result = engine.run("db", "get", key, name, "--json")
    return sorted(node["value"] for node in result.json()) if result.code == 0 else []


def test_one_engine_from_the_shell(tmp_path: Path) -> None:
    with program(tmp_path / "state") as engine:
        key = engine.ask("db", "create", "--name", "book")["key"]
        assert engine.ask("db", "list")[0]["key"] == key
        assert engine.run("db", "create", "--name", "book").code != 0
        engine.ask("db", "put", key, "people/ada", "1815")
        engine.ask("db", "put", key, "people/ada", "other", "--if-not-exists")
        before = engine.ask("db", "info", key)["version"]
        engine.ask("db", "put", key, "people/alan", "1912")
        engine.ask("db", "put", key, "places/london", "")
        assert values(engine, key, "people/ada") == ["1815"]
        assert engine.run("db", "get", key, "people/ada").out == b"1815\n"
        assert [entry["name"] for entry in engine.ask("db", "ls", key)] == ["people/", "places/"]
        assert [entry["name"] for entry in engine.ask("db", "ls", key, "people")] == ["people/ada", "people/alan"]
        assert engine.run("db", "ls", key, "-R").out == b"people/ada\npeople/alan\nplaces/london\n"
        engine.ask("db", "del", key, "people/ada")
        assert engine.run("db", "get", key, "people/ada").code == engine.run("db", "del", key, "people/ada").code != 0
        changed = sorted(change["key"] for change in engine.ask("db", "diff", key, before))
        assert changed == ["people/ada", "people/alan", "places/london"]
        assert [node["deleted"] for node in engine.ask("db", "log", key, "people/ada")] == [True, False]
        assert len(engine.ask("db", "log", key)) == 4
        graph = engine.ask("graph", "create", "--name", "citations")["key"]
        for edge in (("a", "b"), ("b", "c"), ("c", "a")):
            engine.ask("graph", "put", graph, *edge, "cites")
        assert engine.run("graph", "walk", graph, "cites", "--from", "a").out == b"a  b\nb  c\nc  a\n"
        engine.ask("graph", "del", graph, "b", "c", "cites")
        assert engine.ask("graph", "walk", graph, "cites", "--from", "a") == [
            {"from": "a", "to": "b", "label": "cites"}
        ]
        assert engine.run("graph", "put", graph, "a/b", "c", "cites").code != 0
        assert engine.run("db", "get", graph, "a").code != 0
        assert [node["key"] for node in engine.ask("graph", "list")] == [graph]


def test_three_engines_share_a_database_though_one_is_killed(engines: list[Program]) -> None:
    one, two, three = engines
    key = one.ask("db", "create")["key"]
    one.ask("db", "put", key, "shared", "from one")
    locals_ = []
    for other in (two, three):
        info = other.ask("db", "info", key, "--peer", one.address)
        assert not info["authorized"]
        locals_.append(info["local"])
        one.ask("db", "authorize", key, info["local"])
    for other in (two, three):
        until(lambda other=other: other.ask("db", "info", key)["authorized"], True)  # type: ignore[misc]
    two.ask("db", "put", key, "two", "hello")
    until(lambda: values(three, key, "two"), ["hello"])
    pid = three.pid
    kill(pid)
    until(lambda: alive(pid), False)
    one.ask("db", "put", key, "meanwhile", "1")
    two.ask("db", "put", key, "shared", "from two")
    until(lambda: values(one, key, "shared"), ["from two"])
    until(lambda: values(three, key, "meanwhile"), ["1"])  # it starts again and catches up
    until(lambda: values(three, key, "shared"), ["from two"])
    three.ask("db", "put", key, "three", "back")
    for engine in engines:
        until(lambda engine=engine: values(engine, key, "three"), ["back"])  # type: ignore[misc]
    versions = {engine.ask("db", "info", key)["version"] for engine in engines}
    assert len(versions) == 1


def test_peer_that_is_named_is_asked_before_the_answer(engines: list[Program]) -> None:
    ada, ben = engines[:2]
    key = ada.ask("db", "create")["key"]
    for name in ("first", "second", "third"):
        ada.ask("stop")
        ada.ask("db", "put", key, name, "1")
        assert ben.run("db", "get", key, name, "--peer", ada.address).out == b"1\n"


def test_conflict_between_engines_is_shown_and_settled(engines: list[Program]) -> None:
    one, two, _ = engines
    key = one.ask("db", "create")["key"]
    one.ask("db", "put", key, "k", "old")
    one.ask("db", "authorize", key, two.ask("db", "info", key, "--peer", one.address)["local"])
    until(lambda: two.ask("db", "info", key)["authorized"], True)
    one.ask("stop")
    two.ask("db", "put", key, "k", "from two")
    two.ask("stop")
    one.ask("db", "put", key, "k", "from one")
    two.ask("peer", "add", one.address)  # it has another port now
    for engine in (one, two):
        until(lambda engine=engine: values(engine, key, "k"), ["from one", "from two"])  # type: ignore[misc]
    result = two.run("db", "get", key, "k")
    assert "2 writers disagree" in result.err
    two.ask("db", "put", key, "k", "settled")
    until(lambda: values(one, key, "k"), ["settled"])


def test_what_is_not_seeded_stays_here_also_after_a_restart(engines: list[Program]) -> None:
    one, two, _ = engines
    key = one.ask("db", "create")["key"]
    graph = one.ask("graph", "create")["key"]
    one.ask("db", "put", key, "k", "early")
    one.ask("db", "authorize", key, two.ask("db", "info", key, "--peer", one.address)["local"])
    until(lambda: two.ask("db", "info", key)["authorized"], True)
    assert one.ask("db", "unseed", key) == {"key": key, "seeding": False}
    one.ask("graph", "unseed", graph)
    assert [known["seeding"] for known in one.ask("db", "list")] == [False]
    two.ask("db", "put", key, "two", "unheard")
    one.ask("stop")
    one.ask("db", "put", key, "k", "late")
    two.ask("peer", "add", one.address)  # it has another port now
    assert two.run("graph", "walk", graph, "l", "--timeout", "1s").code == 5
    assert [known["seeding"] for kind in ("db", "graph") for known in one.ask(kind, "list")] == [False, False]
    assert (values(one, key, "k"), values(one, key, "two"), values(two, key, "k")) == (["late"], [], ["early"])
    one.ask("db", "seed", key)
    until(lambda: (values(two, key, "k"), values(one, key, "two")), (["late"], ["unheard"]))
    assert two.run("db", "seed", graph).code == 3


def test_graph_is_read_from_a_peer(engines: list[Program]) -> None:
    one, two, _ = engines
    graph = one.ask("graph", "create", "--dialect", "hypercore")["key"]
    one.ask("graph", "put", graph, "a", "b", "l")
    edge = {"from": "a", "to": "b", "label": "l"}
    assert two.ask("graph", "walk", graph, "l", "--peer", one.address) == [edge]
    one.ask("graph", "put", graph, "b", "c", "l")
    until(lambda: len(two.ask("graph", "walk", graph, "l")), 2)
    assert two.run("graph", "put", graph, "x", "y", "l").code != 0
