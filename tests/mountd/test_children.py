"""Workers that an engine starts before it has been loaded itself."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddrive.dialect import DWEB
from ddrive.ids import PublicKey
from mountd import children
from mountd.children import Spares, start_spares, start_worker
from mountd.config import Config
from mountd.mounts import Mount, MountTable, owner_of
from mountd.processes import start_time


@pytest.fixture
def lives() -> Iterator[int]:
    """Give a process that lives."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        yield process.pid


def spares_for(state: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch) -> Spares:
    monkeypatch.setattr(children, "COMMAND", (sys.executable, "-S", "-c", "print(input())"))
    MountTable(state / "mounts.json").add(mount)
    return start_spares(Config(state))


def left_by(state: Path, pid: int | None = None) -> Mount:
    started = None if pid is None else start_time(pid)
    return Mount("/mnt", PublicKey(bytes(32)), DWEB, pid=pid, started=started, owner=owner_of(state))


def test_a_mount_without_a_worker_is_given_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spares = spares_for(tmp_path, left_by(tmp_path), monkeypatch)
    child = spares.take("/mnt")
    assert child is not None
    assert spares.take("/mnt") is None
    os.write(child.tell, b"told\n")
    with open(child.hear, closefd=False) as answer:
        assert answer.readline() == "told\n"
    child.drop()


def test_a_worker_that_was_killed_and_not_buried_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert dead.stdout is not None
    assert not dead.stdout.read()
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    spares = spares_for(tmp_path, left_by(tmp_path, dead.pid), monkeypatch)
    child = spares.take("/mnt")
    assert child is not None
    child.drop()
    dead.communicate()


def test_a_mount_whose_worker_lives_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: int) -> None:
    assert spares_for(tmp_path, left_by(tmp_path, lives), monkeypatch).take("/mnt") is None


def test_a_mount_that_belongs_to_the_original_of_a_copied_state_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = left_by(tmp_path)
    mount.owner = "another"
    assert spares_for(tmp_path, mount, monkeypatch).take("/mnt") is None


def test_a_damaged_table_is_left_to_the_engine(tmp_path: Path) -> None:
    (tmp_path / "mounts.json").write_text("[{}]")
    assert start_spares(Config(tmp_path)).take("/mnt") is None


def test_a_spare_that_nobody_takes_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spares = spares_for(tmp_path, left_by(tmp_path), monkeypatch)
    child = spares._waiting["/mnt"]
    spares.close()
    assert child.process.returncode is not None
    assert spares.take("/mnt") is None


def test_a_spare_that_has_died_is_not_given_out(tmp_path: Path) -> None:
    child = start_worker((sys.executable, "-c", ""), "/mnt", None)
    child.process.wait()
    assert Spares([child]).take("/mnt") is None


def test_a_worker_ends_with_an_engine_that_told_it_nothing() -> None:
    child = start_worker(children.COMMAND, "/mnt", None)
    os.close(child.tell)
    assert child.process.wait(timeout=20) == 1
    os.close(child.hear)
