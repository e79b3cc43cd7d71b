"""Every error is one line that says what and what to do, with the promised exit code, and nothing is left behind."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.program import COMMAND, Program, Result, mounted, program

UNKNOWN = "ab" * 32
STANDSTILL = """
import os, signal, sys
from ddrive.store.calling import Calling
from mountd import owning
from mountd.cli import engine, main

async def stopped(calling, method, *arguments, **options):
    if method == "stop":
        os.kill(int(sys.argv[1]), signal.SIGSTOP)
    return await usual(calling, method, *arguments, **options)

usual, Calling.call = Calling.call, stopped
engine.STOP_LIMIT_S = 1
main(["stop", *sys.argv[2:]])
"""  # the command, whose engine stands still just when it is told to stop


def check(result: Result, code: int, *words: str) -> None:
    """Make sure that `result` is an error of one line with these words in it."""
    lines = result.err.splitlines()
    assert result.code == code, result
    assert len(lines) == 1, result
    assert lines[0].startswith("ddrive: "), result
    assert "Traceback" not in result.err
    for word in words:
        assert word in lines[0], result


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["mount"],
        ["mount", "only-one"],
        ["status", "--wrong"],
        ["ls", UNKNOWN, "--timeout", "soon"],
        ["peer", "add", "nowhere"],
        ["peer", "nonsense"],
        ["create", "--dialect", "latin"],
        ["mount", "nothing", "like-a-key"],
        ["mount", UNKNOWN[:-1], "/"],
        ["mount", UNKNOWN, "/", "-o", "colour=blue"],
        ["cat", "gopher://" + UNKNOWN, "/x"],
        ["mount", UNKNOWN + "/sub", "/tmp"],
        ["link", UNKNOWN + ":/place", UNKNOWN + "/sub"],
        ["rm", UNKNOWN + "/sub", "--yes"],
        ["rm", UNKNOWN + "+3", "--yes"],
        ["import", "/etc", UNKNOWN + "/sub", "--delete", "--yes"],
        ["import", "/etc", UNKNOWN + "+3"],
    ],
)
def test_a_wrong_call_ends_with_2(arguments: list[str], ddrive: Program) -> None:
    answer = ddrive.run(*arguments, "--json")
    check(answer, 2)
    assert answer.json()["error"]["message"]
    assert not ddrive.state.exists(), "a wrong call has started an engine"


def test_help_and_version_start_nothing(ddrive: Program) -> None:
    assert ddrive.run("--version").out.startswith(b"ddrive ")
    calls = (
        [],
        ["--help"],
        ["mount", "--help"],
        ["peer", "-h"],
        ["peer"],
        ["help"],
        ["help", "mount"],
        ["--json", "db"],
    )
    for arguments in calls:
        shown = ddrive.run(*arguments)
        assert shown.code == 0
        assert b"Usage" in shown.out
    assert not ddrive.state.exists()


@pytest.mark.parametrize("module", ["ddrive", "mountd", "mountd.cli"])
def test_it_runs_as_a_module(module: str, ddrive: Program) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, env=ddrive.environment())
    assert done.returncode == 0, done
    assert done.stdout.startswith(b"ddrive ")


def test_a_missing_mountpoint_ends_with_3(ddrive: Program, tmp_path: Path) -> None:
    check(ddrive.run("mount", UNKNOWN, tmp_path / "nowhere"), 3, "nowhere", "mkdir")


def test_a_file_is_no_mountpoint(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check(ddrive.run("mount", UNKNOWN, tmp_path / "file"), 2, "file", "directory")


def test_a_mountpoint_with_something_in_it_is_refused(ddrive: Program, tmp_path: Path) -> None:
    key = ddrive.ask("create")["key"]
    (tmp_path / "mnt" / "sub").mkdir(parents=True)
    check(ddrive.run("mount", key, tmp_path / "mnt"), 2, "not empty", "-o nonempty")
    ddrive.mount(key, tmp_path / "mnt", "-o", "nonempty")
    assert list((tmp_path / "mnt").iterdir()) == []


def test_a_busy_mountpoint_is_refused(ddrive: Program, tmp_path: Path) -> None:
    first, second = ddrive.ask("create")["key"], ddrive.ask("create")["key"]
    ddrive.mount(first, tmp_path / "mnt")
    result = ddrive.run("mount", second, tmp_path / "mnt")
    assert result.code != 0
    check(result, result.code, "mnt")
    assert [mount["key"] for mount in ddrive.ask("status")["mounts"]] == [first]


def test_mounting_twice_the_same_is_no_error(ddrive: Program, tmp_path: Path) -> None:
    key = ddrive.ask("create")["key"]
    ddrive.mount(key, tmp_path / "mnt")
    ddrive.mount(key, tmp_path / "mnt")
    assert len(ddrive.ask("status")["mounts"]) == 1


def test_a_required_peer_that_is_missing_ends_with_5(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    result = ddrive.run("mount", UNKNOWN, tmp_path / "mnt", "--require-peer")
    assert result.code == 5, result
    waiting, error = result.err.splitlines()
    assert "waiting for a peer" in waiting
    assert UNKNOWN[:8] in error
    assert "--peer" in error
    assert ddrive.ask("status")["mounts"] == []
    assert ddrive.ask("list") == []
    assert not mounted(tmp_path / "mnt")


@pytest.mark.parametrize("verb", [["cat", UNKNOWN, "/x"], ["ls", UNKNOWN], ["ls", f"hyper://{UNKNOWN}/a/b"]])
def test_reading_without_a_peer_ends_with_5(verb: list[str], ddrive: Program) -> None:
    result = ddrive.run(*verb, "--timeout", "1s", "--json")
    check(result, 5, "nobody is connected", "discovery is off")
    assert result.json()["error"]["code"] in ("NoPeers", "TimedOut")
    assert result.json()["error"]["exit"] == 5


def test_what_no_peer_gives_is_said_with_the_reason(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    key = ddrive.ask("import", tmp_path / "tree")["key"]
    with program(tmp_path / "half" / "state") as half, program(tmp_path / "other" / "state") as other:
        half.ask("ls", key, "--peer", ddrive.address)  # has the entries, and not the content
        half.ask("seed", key)
        ddrive.ask("stop")
        check(half.run("cat", key, "file", "--timeout", "1s"), 5, "/file", "nobody is connected", "discovery is off")
        other.ask("ls", key, "--peer", half.address)
        check(other.run("cat", key, "file", "--timeout", "1s"), 5, "/file", "of 1 connected none gives what is missing")


def test_what_is_absent_ends_with_3(ddrive: Program, tmp_path: Path) -> None:
    key = ddrive.ask("create")["key"]
    check(ddrive.run("cat", key, "/nothing"), 3, "/nothing")
    check(ddrive.run("ls", key, "/nothing"), 3, "/nothing")
    check(ddrive.run("ls", f"{key}+99", "/", "--timeout", "2s"), 3)
    check(ddrive.run("import", tmp_path / "nothing"), 3, "nothing")
    check(ddrive.run("ls", tmp_path), 3)
    check(ddrive.run("unmount", tmp_path), 3, str(tmp_path))
    check(ddrive.run("info", UNKNOWN), 3, UNKNOWN[:8])


def test_a_version_that_nobody_knows_is_not_there(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "x").write_text("content")
    made = ddrive.ask("import", tmp_path / "tree")
    key, newest = made["key"], f"newest is {made['version']}"
    with program(tmp_path / "other" / "state") as other:
        other.ask("ls", key, "--peer", ddrive.address)
        for user, patience in ((ddrive, []), (other, ["--timeout", "1s"])):  # peers may know less than the author
            for verb in (["ls", f"{key}+9999"], ["diff", key, "1", "9999"], ["diff", key, "9999"]):
                check(user.run(*verb, *patience), 3, newest)
            (tmp_path / "mnt").mkdir(exist_ok=True)
            check(user.run("mount", f"{key}+9999", tmp_path / "mnt", *patience), 3, newest)
            assert user.ask("status")["mounts"] == []


def test_files_are_no_place_for_a_tree(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check(ddrive.run("import", tmp_path / "file"), 2, "directory")
    check(ddrive.run("export", ddrive.ask("create")["key"], tmp_path / "file"), 2, "directory")


def test_a_directory_is_no_file_of_patterns(ddrive: Program, tmp_path: Path) -> None:
    refused = ddrive.run("import", tmp_path, "--ignore-file", tmp_path)
    assert (refused.code, refused.err.count("\n"), f"'{tmp_path}' is a directory" in refused.err) == (2, 1, True), (
        refused
    )


def test_waiting_for_an_unknown_drive_ends_with_its_time(ddrive: Program, tmp_path: Path) -> None:
    ddrive.mount(UNKNOWN, tmp_path / "mnt", "--timeout", "100ms", "--peer", "no-such-host.invalid:4711")
    with pytest.raises(OSError, match=r"timed out|No route"):
        os.listdir(tmp_path / "mnt")
    (listed,) = ddrive.ask("list")
    assert listed["key"] == UNKNOWN
    ddrive.ask("unmount", tmp_path / "mnt")
    assert ddrive.ask("list") == [], "a key that nobody knows is forgotten with its mount"


def test_an_address_that_leads_nowhere_is_said(ddrive: Program) -> None:
    told = ddrive.run("peer", "add", "no-such-host.invalid:4711")
    assert told.code == 0
    assert "no-such-host.invalid:4711" in told.err
    assert len(ddrive.ask("peer", "ls")) == 1


def test_a_drive_that_one_verb_gives_up_stays_known_to_another(ddrive: Program) -> None:
    ddrive.ask("status")
    with ddrive.running("ls", UNKNOWN, "--timeout", "8") as first:
        while not ddrive.ask("list"):
            assert first.poll() is None
        with ddrive.running("ls", UNKNOWN, "--timeout", "100") as second:
            assert first.wait(30) == 5
            assert [drive["key"] for drive in ddrive.ask("list")] == [UNKNOWN]
            assert second.poll() is None
            second.terminate()
            second.wait(30)
    deadline = time.monotonic() + 30
    while ddrive.ask("list"):
        assert time.monotonic() < deadline, "who gives up by a signal leaves the drive too"


def test_advice_is_given_once(ddrive: Program) -> None:
    check(ddrive.run("ls", UNKNOWN, "--timeout", "soon"), 2, "write for example")
    assert "--help" not in ddrive.run("ls", UNKNOWN, "--timeout", "soon").err
    check(ddrive.run("mount"), 2, "ddrive mount --help")


def test_a_directory_is_no_file(ddrive: Program) -> None:
    check(ddrive.run("cat", ddrive.ask("create")["key"], "/"), 1)


def test_importing_into_a_foreign_drive_ends_with_6(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    check(ddrive.run("import", tmp_path / "tree", f"dweb://{UNKNOWN}/"), 6, UNKNOWN[:8])


def test_a_second_engine_is_refused(ddrive: Program) -> None:
    pid = ddrive.pid
    check(ddrive.run("daemon"), 7, str(ddrive.state))
    assert ddrive.pid == pid


def test_no_engine_is_started_when_none_is_wanted(ddrive: Program) -> None:
    result = ddrive.run("list", "--no-start")
    assert result.code == 1
    check(result, 1)
    assert ddrive.ask("stop") == {"stopped": False, "left": []}


def test_a_reader_that_leaves_early_is_no_error(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "big").write_bytes(bytes(5_000_000))
    key = ddrive.ask("import", tmp_path / "tree")["key"]
    script = f"{' '.join(COMMAND)} cat {key} /big | head -c 10 | wc -c"
    done = subprocess.run(["sh", "-c", script], capture_output=True, env=ddrive.environment())
    assert done.stdout.strip() == b"10"
    assert done.stderr == b""


def test_an_interrupt_is_quiet(ddrive: Program) -> None:
    ddrive.ask("status")
    with ddrive.running("cat", UNKNOWN, "/x") as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2)
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out, err) == (130, b"", b"")


def test_an_interrupt_is_quiet_while_the_command_is_loaded(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = f"{tmp_path / 'first'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = ddrive.run("status", PYTHONPATH=path)
    assert (done.code, done.out, done.err) == (130, b"", "")


def test_a_missing_dev_fuse_is_said(ddrive: Program, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    devices = tmp_path / "dev"
    devices.mkdir()
    hide = f"cd {devices} && mount -t tmpfs none . && cd {devices}"
    for name in ("null", "urandom"):
        hide += f" && : > {name} && mount --bind /dev/{name} {name}"
    script = (
        f"{hide} && cd / && mount --rbind {devices} /dev && exec {' '.join(COMMAND)} mount {UNKNOWN} {tmp_path}/mnt"
    )
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    done = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, env=ddrive.environment(), timeout=60)
    check(Result(done), 1, "/dev/fuse")  # at once: before anybody is waited for
    assert (ddrive.ask("status")["mounts"], ddrive.ask("list")) == ([], [])


def test_the_state_is_private(ddrive: Program) -> None:
    ddrive.ask("create")
    for path in [ddrive.state, *ddrive.state.rglob("*")]:
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0 or path.parent != ddrive.state, path
    assert stat.S_ISSOCK((ddrive.state / "control.sock").lstat().st_mode)


def test_stopping_ends_the_processes_and_mounts(ddrive: Program, tmp_path: Path) -> None:
    made = ddrive.mount(ddrive.ask("create")["key"], tmp_path / "mnt")
    pids = [ddrive.pid, made["pid"]]
    assert ddrive.ask("stop") == {"stopped": True, "left": []}
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end, "still running after stop"
        time.sleep(0.05)
    assert not mounted(tmp_path / "mnt")
    assert json.loads((ddrive.state / "mounts.json").read_text()) is not None


def test_stopping_an_engine_that_stands_still_ends_with_its_pid(ddrive: Program, tmp_path: Path) -> None:
    made = ddrive.mount(ddrive.ask("create")["key"], tmp_path / "mnt")
    pids = [ddrive.pid, made["pid"]]
    ddrive.command = [sys.executable, "-c", STANDSTILL, str(pids[0])]
    try:
        refused = ddrive.run("--json", timeout_s=30)
    finally:
        os.kill(pids[0], signal.SIGCONT)
        ddrive.command = COMMAND
    check(refused, 7, f"pid {pids[0]}", str(ddrive.state), "kill")
    assert refused.json()["error"]["code"] == "StorageLocked"
    assert ddrive.ask("stop")["left"] == []  # it may have ended by now
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end, "still running after stop"
        time.sleep(0.05)


@pytest.mark.parametrize("closed", [">&-", ">/dev/full", ">&- 2>&-", "2>&-", "<&- 2>/dev/full"])
@pytest.mark.parametrize("verb", ["status", "status --json", "ls nothing --json"])
def test_streams_that_cannot_be_used(verb: str, closed: str, ddrive: Program) -> None:
    ddrive.ask("list")
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(COMMAND)} {verb} {closed}"], capture_output=True, env=ddrive.environment()
    )
    no_stdout = closed.startswith(">")
    assert done.returncode == (2 if "nothing" in verb else 7 if "full" in closed and no_stdout else no_stdout)
    assert len(done.stderr.splitlines()) == ((no_stdout or "nothing" in verb) and "2>" not in closed)
    assert b"Traceback" not in done.stdout


def test_who_unmounts_from_inside_is_not_one_of_those_who_use_it(ddrive: Program, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    ddrive.mount(ddrive.ask("create")["key"], place)
    call = [*ddrive.command, "unmount", "."]
    with subprocess.Popen(["sleep", "60"], cwd=place) as user:
        done = subprocess.run(call, cwd=place, capture_output=True, text=True, env=ddrive.environment())
        assert f"is busy (sleep (pid {user.pid})): " in done.stderr
        user.kill()
    done = subprocess.run(call, cwd=place, capture_output=True, text=True, env=ddrive.environment())
    assert done.returncode == 0, done.stderr
