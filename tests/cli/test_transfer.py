"""`import` and `export` as people use them: again and again, interrupted, following a directory."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event

import pytest

from tests.support.program import Program, kill
from tests.support.tree import differences, observe

MIB = 1024 * 1024
NOTED = """
import sys
from ddrive.drive import importer
from ddrive.store.calling import Calling
from mountd.cli import main

def noted(usual, name):
    def call(*arguments, **options):
        with open(sys.argv[2] + ".notes", "a") as notes:
            notes.write(f"{name or arguments[1]}\\n")
        return usual(*arguments, **options)
    return call

importer.count_all = noted(importer.count_all, "count")
Calling.call = noted(Calling.call, "")
main(sys.argv[1:])
"""  # the command, which notes beside the directory what it asks of the engine, and whether it counts files


def size_of(directory: Path) -> int:
    """Return the bytes of all files below a directory that may change meanwhile."""
    total = 0
    for path, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                continue
    return total


def sample(root: Path) -> Path:
    """Make some hundred small files and two large ones."""
    for number in range(400):
        path = root / f"d{number % 7}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number * 50))
    (root / "d3" / "large").write_bytes(os.urandom(40 * MIB))
    (root / "last").write_bytes(os.urandom(20 * MIB))
    return root


def killed_when(ddrive: Program, directory: Path, size: int, *arguments: str | Path) -> None:
    """Run a verb and kill it as soon as `directory` has this size."""
    with ddrive.running(*arguments) as running:
        end = time.monotonic() + 60
        while size_of(directory) < size and running.poll() is None:
            assert time.monotonic() < end, "nothing happens"
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)


def test_an_import_that_is_killed_goes_on(ddrive: Program, tmp_path: Path) -> None:
    root = sample(tmp_path / "tree")
    whole = ddrive.ask("info", ddrive.ask("import", root)["key"])
    key = ddrive.ask("create")["key"]
    start = size_of(ddrive.state)
    for grown in (1, 20 * MIB, 33 * MIB, 50 * MIB):
        killed_when(ddrive, ddrive.state, start + grown, "import", root, key)
    ddrive.ask("import", root, key)
    resumed = ddrive.ask("info", key)
    for feed in ("metadata", "content"):
        assert resumed[feed]["length"] == whole[feed]["length"], f"something was appended twice: {feed}"
    ddrive.ask("export", key, tmp_path / "out")
    assert differences(observe(tmp_path / "out"), observe(root)) == []


def test_an_export_that_is_killed_goes_on(ddrive: Program, tmp_path: Path) -> None:
    root = sample(tmp_path / "tree")
    key, out = ddrive.ask("import", root)["key"], tmp_path / "out"
    for size in (1, 3 * MIB, 30 * MIB, 50 * MIB):
        killed_when(ddrive, out, size, "export", key, out)
    done = ddrive.ask("export", key, out)
    assert done["files"] == 402
    assert done["changed"] < 402, "all was written again"
    assert differences(observe(out), observe(root)) == []
    assert ddrive.ask("export", key, out)["changed"] == 0


def test_removing_is_asked_for_and_can_be_looked_at_first(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("stays", "goes"):
        (root / name).write_text(name)
    key = ddrive.ask("import", root)["key"]
    (root / "goes").unlink()
    (root / "new").write_text("1")
    how = "add --yes to go on, or --dry-run to look first"
    refused = ddrive.run("import", root, key, "--delete")
    assert (refused.code, refused.err) == (
        2,
        f"ddrive: this would remove from the drive what {root} does not have: {how}\n",
    )
    planned = ddrive.ask("import", root, key, "--delete", "--dry-run")
    assert planned["changes"] == [{"type": "put", "path": "/new"}, {"type": "del", "path": "/goes"}]
    assert ddrive.run("import", root, key, "--delete", "--dry-run").out == b"A  /new\nD  /goes\n"
    done = ddrive.ask("import", root, key, "--delete", "--yes")
    assert (done["changed"], done["removed"]) == (1, 1)
    assert ddrive.run("ls", key).out == b"new\nstays\n"
    assert ddrive.ask("import", root, "--dry-run")["changed"] == 2
    assert len(ddrive.ask("list")) == 1

    out = tmp_path / "out"
    assert ddrive.ask("export", key, out, "--delete", "--dry-run")["changed"] == 2
    assert not out.exists()
    ddrive.ask("export", key, out, "--delete")
    (out / "more").write_text("")
    refused = ddrive.run("export", key, out, "--delete")
    assert (refused.code, refused.err) == (
        2,
        f"ddrive: this would remove from {out} what the drive does not have: {how}\n",
    )
    assert ddrive.ask("export", key, out, "--delete", "--dry-run")["changes"] == [{"type": "del", "path": "/more"}]
    assert ddrive.ask("export", key, out, "--delete", "--yes")["removed"] == 1
    assert sorted(path.name for path in out.iterdir()) == ["new", "stays"]


def shown_as(ddrive: Program, key: str, *names: str) -> None:
    """Return when the drive holds just these paths."""
    end = time.monotonic() + 60
    while (shown := ddrive.run("ls", "-R", key).out.decode().split()) != list(names):
        assert time.monotonic() < end, shown


@pytest.mark.parametrize("is_terminal", [False, True])
def test_an_import_does_nothing_that_nobody_sees(ddrive: Program, tmp_path: Path, is_terminal: bool) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "file").write_text("content")
    key = ddrive.ask("import", root)["key"]
    outer, inner = os.openpty() if is_terminal else os.pipe()
    command = [sys.executable, "-c", NOTED, "import", str(root), key]
    try:
        subprocess.run(command, env=ddrive.environment(), stdout=subprocess.PIPE, stderr=inner, check=True)
    finally:
        os.close(outer)
        os.close(inner)
    notes = Path(f"{root}.notes").read_text().split()
    assert "drive.open" in notes
    assert "info" not in notes, "the engine looks at all entries for it"
    assert ("count" in notes) is is_terminal, "the files are counted for the bar alone"


def test_an_import_below_a_mount_does_not_hit_the_rest_of_the_drive(ddrive: Program, tmp_path: Path) -> None:
    mount, source = tmp_path / "mount", tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "a").write_text("a")
    (source / "b").write_text("b")
    key = ddrive.ask("import", source)["key"]
    ddrive.mount(key, mount)
    refused = ddrive.run("import", source / "sub", mount / "sub", "--delete", "--yes")
    assert (refused.code, "'/sub' is a path in" in refused.err) == (2, True), refused
    assert (mount / "b").read_text() == "b"
    assert ddrive.ask("import", source / "sub", mount)["version"] > 2  # its root stands for the drive


def test_a_file_that_never_rests_is_left_out_and_said(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "busy").write_bytes(bytes(40 * MIB))
    (root / "quiet").write_text("1")
    rests = Event()

    def change() -> None:
        for at_ms in count():
            os.utime(root / "busy", ns=(0, at_ms * 10**6))
            if rests.wait(0.001):
                return

    with ThreadPoolExecutor() as other:
        changing = other.submit(change)
        try:
            result = ddrive.run("import", root, "--json")
            value = result.json()
            again = ddrive.run("import", root, value["key"])
        finally:
            rests.set()
        changing.result()
    why = "it changes while it is imported"
    assert (result.code, value["files"], value["refused"]) == (5, 1, [{"path": "busy", "why": why}])
    assert (again.code, again.err.splitlines()[-1]) == (5, f"ddrive: left out (busy): {why}")
    assert ddrive.ask("import", root, value["key"])["changed"] == 1


def test_an_import_follows_its_directory(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_text("1")
    (root / ".ddriveignore").write_text("*.tmp\n")
    key = ddrive.ask("create")["key"]
    with ddrive.running("import", root, key, "--watch", "--delete", "--yes", "--json") as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["files"] == 2
        (root / "sub" / "deep").mkdir()
        (root / "sub" / "deep" / "new").write_text("2")
        (root / "not.tmp").write_text("3")
        (root / "a").unlink()
        shown_as(ddrive, key, ".ddriveignore", "sub", "sub/deep", "sub/deep/new")
        (root / ".ddriveignore").write_text("")
        shown_as(ddrive, key, ".ddriveignore", "not.tmp", "sub", "sub/deep", "sub/deep/new")
        running.send_signal(signal.SIGINT)
        lines = running.stdout.read().splitlines()
        assert running.wait(timeout=30) == 0
    told = [json.loads(line) for line in lines]
    assert sum(value["removed"] for value in told) == 1
    assert sum(value["changed"] for value in told) >= 4
    assert ddrive.run("cat", key, "sub/deep/new").out == b"2"


def engine_of(ddrive: Program) -> int:
    """Return the process of the engine, or of the last one, without asking it; 0 while another one begins."""
    return int((ddrive.state / "engine.lock").read_text() or 0)


def news(running: subprocess.Popen[bytes]) -> None:
    """Return when an import has told that it stored something."""
    assert running.stdout is not None
    assert json.loads(running.stdout.readline())["changed"] > 0


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_import_follows_its_directory_with_the_next_engine(ddrive: Program, tmp_path: Path, how: str) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a").write_text("1")
    key = ddrive.ask("create")["key"]
    with ddrive.running("import", root, key, "--watch", "--json") as running:
        assert running.stderr is not None
        news(running)
        for name in ("b", "c") if how == "killed" else ("b",):
            if how == "killed":
                kill(ddrive.pid)
            else:
                ddrive.ask("stop")
            told = running.stderr.readline()
            assert f"the engine in {ddrive.state} has ended: ".encode() in told
            (root / name).write_text("2")
            if how == "stopped":
                with pytest.raises(subprocess.TimeoutExpired):
                    running.wait(timeout=3)
                assert ddrive.run("status", "--no-start").code == 1, "it was ended on purpose"
                ddrive.ask("status")
            news(running)
        assert ddrive.run("ls", key).out == (b"a\nb\nc\n" if how == "killed" else b"a\nb\n")
        ddrive.ask("stop")
        running.stderr.readline()
        running.send_signal(signal.SIGTERM)
        assert (running.wait(timeout=30), running.stderr.read()) == (0, b"")


def test_the_first_copy_goes_on_with_the_next_engine(ddrive: Program, tmp_path: Path) -> None:
    root = sample(tmp_path / "tree")
    ddrive.ask("status")
    start, killed = size_of(ddrive.state), 0
    with ddrive.running("import", root, "--watch", "--json") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        for grown in (MIB, 20 * MIB, 50 * MIB):
            end = time.monotonic() + 60
            while size_of(ddrive.state) < start + grown or engine_of(ddrive) in (0, killed):
                assert time.monotonic() < end, "nothing happens"
                time.sleep(0.002)
            kill(killed := engine_of(ddrive))
        assert b" has ended: starting another one" in running.stderr.readline()
        value = json.loads(running.stdout.readline())
        assert value["files"] == 402
        ddrive.ask("export", value["key"], tmp_path / "out")
        assert differences(observe(tmp_path / "out"), observe(root)) == []
        (root / "last").write_text("1")
        news(running)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=30) == 0
    assert len(ddrive.ask("list")) == 1


def test_a_first_copy_without_an_engine_can_be_interrupted(ddrive: Program, tmp_path: Path) -> None:
    root = sample(tmp_path / "tree")
    ddrive.ask("status")
    start = size_of(ddrive.state)
    with ddrive.running("import", root, "--watch", "--json", "--no-start") as running:
        assert running.stderr is not None
        while size_of(ddrive.state) <= start + MIB and running.poll() is None:
            time.sleep(0.002)
        kill(engine_of(ddrive))
        running.stderr.readline()
        running.send_signal(signal.SIGINT)
        assert (running.wait(timeout=30), running.stderr.read()) == (130, b"")


def test_an_import_waits_for_the_next_engine_for_so_long(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a").write_text("1")
    with ddrive.running("import", root, "--watch", "--json", "--timeout", "3s", "--no-start") as running:
        assert (running.wait(timeout=30), b"no engine runs" in running.stderr.read()) == (1, True)
    ddrive.ask("status")
    with ddrive.running("import", root, "--watch", "--json", "--timeout", "3s", "--no-start") as running:
        assert running.stderr is not None
        news(running)
        kill(ddrive.pid)
        began = time.monotonic()
        assert running.wait(timeout=30) == 5
        assert 3 <= time.monotonic() - began < 10
        lines = running.stderr.read().decode().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("start it with ddrive daemon; waiting for 3 s")
    assert f"no engine in {ddrive.state} for 3 s (no engine runs in {ddrive.state}): start one with" in lines[1]


def test_an_import_goes_on_following_where_a_name_is_not_utf_8(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    key = ddrive.ask("create")["key"]
    with ddrive.running("import", root, key, "--watch", "--json") as running:
        assert running.stdout is not None
        running.stdout.readline()
        bad = os.fsencode(root) + b"/\xff"
        for text in ("1", "2"):
            Path(os.fsdecode(bad)).write_text(text)
            (root / text).write_text(text)
            shown_as(ddrive, key, *("1", "2")[: int(text)])
        os.rename(bad, root / "good")
        shown_as(ddrive, key, "1", "2", "good")
        running.send_signal(signal.SIGINT)
        told = [json.loads(line) for line in running.stdout.read().splitlines()]
        assert running.wait(timeout=30) == 0
    refused = [one["path"] for value in told for one in value["refused"]]
    assert set(refused) == {os.fsdecode(b"\xff")}


def test_names_and_patterns_that_are_not_utf_8_end_no_import(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xff")
    root.mkdir()
    (root / "a").write_text("1")
    followed = ddrive.run("import", root, "--watch")
    assert (followed.code, b"Traceback" in followed.out, "internal" in followed.err) == (2, False, False), followed
    patterns = tmp_path / "patterns"
    patterns.write_bytes(b"\xff*\na\n")
    assert ddrive.ask("import", root, "--ignore-file", patterns)["files"] == 0
    (root / os.fsdecode(b"b\xfe")).write_text("2")
    left_out = ddrive.run("import", root, "--json")
    assert (left_out.code, left_out.json()["files"]) == (6, 1), left_out


def test_an_own_drive_becomes_private_by_an_import_and_keeps_its_name(ddrive: Program, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    key = ddrive.ask("import", source, "--name", "given")["key"]
    looked = ddrive.run("import", source, key, "--private", "--name", "other", "--dialect", "hypercore", "--dry-run")
    assert looked.code == 0
    assert not ddrive.ask("info", key)["private"]  # nothing changes by looking
    done = ddrive.run("import", source, key, "--private", "--name", "other", "--dialect", "hypercore")
    assert done.code == 0
    assert "--name and --dialect: for a new drive only" in done.err
    assert ddrive.ask("info", key)["private"]
    assert [drive["name"] for drive in ddrive.ask("list")] == ["given"]
    assert "for a new drive" not in ddrive.run("import", source, key, "--dialect", "dweb").err


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_following_ends_with_the_directory(ddrive: Program, tmp_path: Path, how: str) -> None:
    """What is at its place then is another one, and `--delete` would remove what that does not have."""
    root, key = tmp_path / "src", ddrive.ask("create")["key"]
    root.mkdir()
    (root / "file").write_text("1")
    with ddrive.running("import", root, key, "--watch", "--delete", "--yes", "--json") as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        (root / "last").write_text("2")
        running.stdout.readline()  # it is followed
        if how == "removed":
            shutil.rmtree(root)
        else:
            root.rename(tmp_path / "elsewhere")
        if how == "replaced":
            root.mkdir()
        assert running.wait(timeout=10) == 3
        told = running.stderr.read().decode().splitlines()
    assert len(told) == 1, told
    assert f"the directory was moved, removed or unmounted ({root}): " in told[0]
    assert ddrive.run("ls", key).out.split() == [b"file", b"last"]
