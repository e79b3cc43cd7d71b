"""Processes killed at random moments: what was closed or synced is there afterwards, what was half written is not.

`ROUNDS` in the environment sets how often (50 for a long run).
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import busy_writer
from tests.support.memory_mount import until
from tests.support.program import alive, kill
from tests.support.writing import sh, writable_mount

ROUNDS = int(os.environ.get("ROUNDS", "2"))
RECOVERY_S = 30.0  # a safety net; what recovery takes is printed
WRITER = Path(busy_writer.__file__)
GIT = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b;"


def found(directory: Path) -> dict[str, bytes]:
    """Return all files of a tree, without those that were only to replace others."""
    paths = [path for path in directory.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def expected(tree: busy_writer.Tree) -> dict[str, bytes]:
    return {path: busy_writer.content(*of) for path, of in tree.items()}


def settle(log: Path, directory: Path, *, half_closed: bool = False) -> None:
    """Check the tree against the log of the writer, and let the log say what is there.

    `half_closed`: the writer itself was killed, and the kernel has closed what it was writing.
    """
    there = found(directory)
    sizes = {path: len(data) for path, data in there.items()} if half_closed else None
    allowed = busy_writer.states(log.read_text().splitlines(), sizes)
    fitting = [tree for tree in allowed if expected(tree) == there]
    assert fitting, describe(there, *allowed)
    now = fitting[0]
    log.write_text("".join(json.dumps(["write", path, *of]) + '\n"done"\n' for path, of in now.items()))


def describe(there: dict[str, bytes], *trees: busy_writer.Tree) -> str:
    """Say how what is there differs from what may be."""
    lines = []
    for tree in trees:
        wanted = expected(tree)
        for path in sorted(wanted.keys() | there.keys()):
            if wanted.get(path) != there.get(path):
                has, wants = there.get(path), wanted.get(path)
                lines.append(f"{path}: {has and (len(has), has[:20])} instead of {wants and (len(wants), wants[:20])}")
        lines.append("or")
    return "\n".join(lines)


@pytest.mark.parametrize("victim", ["worker", "engine", "both"])
def test_what_was_closed_survives_a_kill(tmp_path: Path, victim: str) -> None:
    log = tmp_path / "log"
    log.write_text("")
    dice = random.Random(7)
    with writable_mount(tmp_path) as mount:
        for number in range(ROUNDS):
            pids = mount.pids()
            writer = subprocess.Popen(
                [sys.executable, WRITER, mount.path, log, str(number + 1)], stderr=subprocess.PIPE, text=True
            )
            try:
                time.sleep(dice.uniform(0.3, 1.5))
                for name, pid in pids.items():
                    if victim in (name, "both"):
                        kill(pid)
                        until(lambda pid=pid: not alive(pid))  # type: ignore[misc]
                if victim == "engine":
                    time.sleep(dice.uniform(0.0, 0.5))  # the mount goes on without it
            finally:
                writer.kill()
                _, errors = writer.communicate()
            assert "Error" not in errors or victim != "engine", errors
            started = time.monotonic()
            mount.heal()
            settle(log, mount.path, half_closed=victim == "engine")
            print(f"round {number}: back after {time.monotonic() - started:.1f} s")
        mount.remount()
        settle(log, mount.path)
        assert len(mount.spools()) == 1


def test_a_repository_survives_kills_of_the_worker(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        repository = mount.path / "repository"
        sh(f"{GIT} git init -q {repository}; cd {repository}; echo 0 > f; git add f; git commit -qm 0", mount.path)
        dice = random.Random(8)
        for number in range(ROUNDS):
            change = f"n=$((n+1)); echo {number}.$n > f$((n%7)); git add .; git commit -qm $n"
            script = f"{GIT} n=0; while true; do {change}; done"
            writer = subprocess.Popen(["bash", "-c", script], cwd=repository, stderr=subprocess.DEVNULL)
            try:
                time.sleep(dice.uniform(0.3, 1.0))
                kill(mount.pids()["worker"])
            finally:
                writer.kill()
                writer.communicate()
            mount.heal()
            sh(
                "find .git -name '*.lock' -delete; git fsck --strict; git log --oneline -1; git status",
                repository,
            )


def test_a_file_that_was_never_closed_leaves_the_old_one(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        path = mount.path / "a"
        path.write_bytes(b"old" * 100_000)
        program = (
            "import os, sys, time\n"
            "path = sys.argv[1]\n"
            "half = open(path, 'r+b', buffering=0); half.write(b'half' * 10_000)\n"
            "fresh = open(path + '2', 'wb', buffering=0); fresh.write(b'never')\n"
            "synced = open(path + '3', 'wb', buffering=0); synced.write(b'synced'); os.fsync(synced.fileno())\n"
            "synced.write(b' and more')\n"
            "print('ready', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as writer:
            try:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"ready\n"
                assert path.read_bytes()[:4] == b"half"
                kill(mount.pids()["worker"])
            finally:
                writer.kill()
        mount.heal()
        assert found(mount.path) == {"a": b"old" * 100_000, "a3": b"synced"}


def test_a_file_that_the_mount_never_read_is_changed_while_the_engine_is_away(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        second = mount.second()
        for name in ("appended", "changed", "read"):
            (mount.path / name).write_bytes(b"old" * 1000)
        until((second.path / "read").exists)
        engine = mount.pids()["engine"]
        kill(engine)
        until(lambda: not alive(engine))
        with (second.path / "appended").open("ab", buffering=0) as file:
            file.write(b"new")
        with (second.path / "changed").open("r+b", buffering=0) as file:
            file.seek(3)
            file.write(b"new")
        wanted = {"appended": b"old" * 1000 + b"new", "changed": b"oldnew" + b"old" * 998, "read": b"old" * 1000}
        assert found(second.path) == wanted
        mount.heal()
        until(lambda: found(mount.path) == wanted)
