"""An engine that was killed comes back while the verb that needs it is being loaded."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mountd import launching
from mountd.cli import ahead
from mountd.config import Config
from mountd.locks import STARTING, try_lock
from tests.support.memory_mount import until
from tests.support.program import alive, kill, program


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (["status"], "/usual"),
        (["--json", "--state", "/other", "ls", "KEY"], "/other"),
        (["ls", "--state=/other", "KEY"], "/other"),
        (["peer", "add", "a:1"], "/usual"),
        (["ls", "--state"], None),
        (["ls", "--state", "/other", "--state", "/third"], None),
        (["status", "--no-start"], None),
        (["--no-start", "status"], None),
        (["mount", "--help"], None),
        (["help", "mount"], None),
        (["--version"], None),
        (["--state", "status"], None),
        (["stop"], None),
        (["daemon"], None),
        (["unknown"], None),
        ([], None),
    ],
)
def test_what_an_engine_is_brought_back_for(
    monkeypatch: pytest.MonkeyPatch, call: Sequence[str], wanted: str | None
) -> None:
    found: list[Config] = []
    monkeypatch.setattr(ahead, "launch_after_kill", found.append)
    monkeypatch.setenv("DDRIVE_STATE", "/usual")
    ahead.bring_back_engine(call)
    assert [str(config.state) for config in found] == ([] if wanted is None else [wanted])


def test_none_is_brought_back_where_the_environment_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "launch_after_kill", lambda config: pytest.fail("it was"))
    monkeypatch.setenv("DDRIVE_NO_START", "1")
    ahead.bring_back_engine(["status"])


@pytest.fixture
def killed(tmp_path: Path) -> Config:
    """Give the state directory that a killed engine has left."""
    with subprocess.Popen([sys.executable, "-c", ""]) as engine:
        engine.wait()
    (tmp_path / "engine.lock").write_text(f"{engine.pid}\n")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "control.sock"))
    return Config(tmp_path)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Give what is launched instead of engines: whether the lock of who starts one is held meanwhile."""
    found: list[bool] = []

    def launch(config: Config, starting: int | None) -> None:
        with try_lock(config.state / STARTING) as free:
            found.append(free is None)

    monkeypatch.setattr(launching, "launch", launch)
    return found


def test_an_engine_that_was_killed_is_started_once(killed: Config, launched: list[bool]) -> None:
    assert launching.launch_after_kill(killed)
    assert launched == [True]


def test_an_engine_that_ended_by_itself_is_not_started(killed: Config, launched: list[bool]) -> None:
    killed.socket.unlink()
    assert not launching.launch_after_kill(killed)
    assert not launched


def test_an_engine_that_lives_is_not_started(killed: Config, launched: list[bool]) -> None:
    (killed.state / "engine.lock").write_text(f"{os.getpid()}\n")
    assert not launching.launch_after_kill(killed)
    assert not launched


def test_an_engine_that_somebody_else_starts_is_not_started(killed: Config, launched: list[bool]) -> None:
    with try_lock(killed.state / STARTING):
        assert not launching.launch_after_kill(killed)
    assert not launched


def test_verbs_after_a_kill_start_one_engine_together(tmp_path: Path) -> None:
    with program(tmp_path / "state") as made:
        log = made.state / "log" / "engine.log"
        for number in range(2):
            killed = made.ask("status")["pid"]
            assert log.read_text().count("engine ready") == number + 1
            kill(killed)
            until(lambda killed=killed: not alive(killed))  # type: ignore[misc]
            with ThreadPoolExecutor() as threads:
                found = [status["pid"] for status in threads.map(made.ask, ["status"] * 3)]
            assert len(set(found)) == 1
            assert found[0] != killed
        assert "another engine" not in log.read_text()


def test_no_engine_is_left_by_a_verb_that_may_start_none(tmp_path: Path) -> None:
    with program(tmp_path / "state") as made:
        killed = made.ask("status")["pid"]
        kill(killed)
        until(lambda: not alive(killed))
        assert made.run("status", "--no-start").code != 0
        assert made.run("stop").code == 0
        assert (made.state / "log" / "engine.log").read_text().count("engine ready") == 1
