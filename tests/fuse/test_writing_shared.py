"""What is written through a mount, as others see it; and others who write at the same time."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import npm, tree
from tests.support.memory_mount import until
from tests.support.program import program
from tests.support.writing import sh, writable_mount


@pytest.mark.parametrize("dialect", npm.DIALECTS)
def test_npm_and_another_engine_read_what_was_written(dialect: str, tmp_path: Path) -> None:
    steps = tree.plain_steps(many=50)
    source = tree.build(tmp_path / "tree", steps)
    wanted = tree.expected(steps)
    with writable_mount(tmp_path, dialect=dialect) as mount, program(tmp_path / "other" / "state") as other:
        sh(f"cp -a {source}/. . && mv one first && mv first one && chmod 600 one && chmod 644 one", mount.path)
        sh("mkdir gone && echo x > gone/x && rm -r gone && ln -s one two && rm two", mount.path)
        assert tree.differences(tree.observe(mount.path), wanted) == []
        mount.remount()
        seen = npm.read(dialect, mount.key, mount.program.address, tmp_path / "npm")
        assert tree.differences(seen, wanted) == []
        other.mount(mount.key, tmp_path / "foreign", "--peer", mount.program.address)
        assert tree.differences(tree.observe(tmp_path / "foreign"), wanted) == []
        assert not other.ask("info", mount.key)["writable"]
        (mount.path / "one").write_bytes(b"newer")
        until(lambda: (tmp_path / "foreign/one").read_bytes() == b"newer")


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    source = tree.build(tmp_path / "tree", tree.plain_steps(many=40, big=2 * tree.MIB))
    with writable_mount(tmp_path) as mount:
        second = mount.second()
        failures: list[BaseException] = []

        def write(root: Path, name: str) -> None:
            try:
                for number in range(150):
                    (root / f"{name}{number}").write_bytes(f"{name} {number}".encode() * 1000)
                    if number % 3 == 0:
                        (root / f"{name}{number}").rename(root / f"{name}-moved{number}")
            except BaseException as failure:
                failures.append(failure)

        writers = [
            threading.Thread(target=write, args=args) for args in ((mount.path, "first"), (second.path, "second"))
        ]
        for writer in writers:
            writer.start()
        mount.program.ask("import", source, mount.key)
        for writer in writers:
            writer.join()
        assert failures == []
        mount.remount()
        second.remount()
        for root in (mount.path, second.path):
            for name in ("first", "second"):
                for number in range(150):
                    path = root / (f"{name}-moved{number}" if number % 3 == 0 else f"{name}{number}")
                    assert path.read_bytes() == f"{name} {number}".encode() * 1000
            assert sh(f"rsync -anc --omit-dir-times --itemize-changes {source}/ .", root) == ""


def test_attributes_set_here_leave_what_others_write(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        second = mount.second()
        for number in range(4):
            (mount.path / "a").write_bytes(b"first")
            until(lambda: (second.path / "a").exists() and (second.path / "a").read_bytes() == b"first")
            (second.path / "a").write_bytes(b"second%d" % number)
            (mount.path / "a").chmod(0o600 + number % 8)
            until(lambda number=number: (mount.path / "a").read_bytes() == b"second%d" % number)  # type: ignore[misc]
            until(lambda number=number: (second.path / "a").stat().st_mode & 7 == number % 8)  # type: ignore[misc]
            assert (second.path / "a").read_bytes() == b"second%d" % number


def test_an_open_file_is_left_alone_by_what_others_write(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount:
        second = mount.second()
        (mount.path / "a").write_bytes(b"old" * 1000)
        (mount.path / "d").mkdir()
        until((second.path / "d").exists)
        program_text = (
            "import os, sys; os.chdir('d'); print('in', flush=True); sys.stdin.readline(); os.getcwd(); os.stat('x')"
        )
        with (
            (mount.path / "a").open("rb", buffering=0) as reader,
            subprocess.Popen(
                [sys.executable, "-c", program_text],
                cwd=mount.path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as inside,
        ):
            assert inside.stdout is not None
            assert inside.stdout.readline() == b"in\n"
            (second.path / "a").write_bytes(b"new")
            (second.path / "d/x").write_bytes(b"")
            until(lambda: (mount.path / "a").read_bytes() == b"new")
            until((mount.path / "d/x").exists)
            assert reader.read() == b"old" * 1000
            inside.communicate(b"\n")
            assert inside.returncode == 0


def test_a_nested_drive_of_our_own_is_written_and_one_of_others_is_not(tmp_path: Path) -> None:
    with writable_mount(tmp_path) as mount, program(tmp_path / "other" / "state") as other:
        inner = mount.program.ask("create", "--name", "inner")["key"]
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/f").write_bytes(b"theirs")
        foreign = other.ask("import", tmp_path / "tree")["key"]
        mount.program.ask("peer", "add", other.address)
        mount.program.ask("link", mount.path / "ours", inner)
        mount.program.ask("link", mount.path / "theirs", foreign)
        sh("mkdir ours/d; echo a > ours/d/a; echo b > ours/b; mv ours/b ours/d/c; echo o > outer", mount.path)
        done = subprocess.run(["mv", "-n", mount.path / "outer", mount.path / "ours/outer"], capture_output=True)
        assert done.returncode == 0, done.stderr  # another drive: copied and removed
        until(lambda: (mount.path / "theirs/f").exists())
        assert (mount.path / "theirs/f").read_bytes() == b"theirs"
        for call in ("echo x > theirs/new", "rm theirs/f", "echo x >> theirs/f", "mkdir theirs/d", "rmdir ours"):
            assert subprocess.run(["bash", "-c", call], cwd=mount.path, capture_output=True).returncode != 0
        mount.remount()
        names = sorted(entry["name"] for entry in mount.program.ask("ls", inner))
        assert names == ["d", "outer"]
        assert (mount.path / "ours/d/c").read_bytes() == b"b\n"
        assert sorted(path.name for path in mount.path.iterdir()) == ["ours", "theirs"]
