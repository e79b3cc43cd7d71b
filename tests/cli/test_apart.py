"""The secret keys of engines stay out of what is imported, and are not written over."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ddrive.crypto import KeyPair
from tests.support.disk import small_disk
from tests.support.program import Program, program

STORE = """
import sys, trio, ddrive

async def main():
    async with ddrive.open_store(sys.argv[1]) as store, await ddrive.open_drive(store, create=True):
        pass

trio.run(main)
"""


def test_the_secret_keys_of_the_engine_are_not_imported(ddrive: Program, tmp_path: Path) -> None:
    root = ddrive.state.parent
    (root / "other").write_text("1")
    for _ in range(2):
        key = ddrive.ask("import", root)["key"]
        assert set(ddrive.run("ls", "-R", key).out.split()) <= {b"other", b"home"}
    told = ddrive.run("import", root, key, "--delete", "--yes").err
    assert f"left out ({ddrive.state.name}): the state directory of ddrive" in told
    for source in (ddrive.state, ddrive.state / "dweb"):
        assert ddrive.run("import", source, key).code == 2
        assert ddrive.run("export", key, source).code == 2
    assert ddrive.run("export", key, root, "--delete", "--yes").code == 2
    assert ddrive.run("export", key, root).code == 0
    with ddrive.running("import", root, key, "--watch", "--json") as running:
        assert running.stdout is not None
        running.stdout.readline()
        ddrive.ask("create")
        (root / "new").write_text("2")
        assert json.loads(running.stdout.readline())["changed"] == 1


def test_the_secret_keys_of_another_engine_are_not_imported(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "sub" / "dweb").mkdir(parents=True)
    (root / "sub" / "dweb" / "master_key").write_text("of something else")
    with program(root / "sub" / "state") as other:
        other.ask("create")
        shutil.copytree(other.state, root / "copy", ignore=shutil.ignore_patterns("*.sock", "*.lock"))
        for more in ([], ["--delete", "--yes"], ["--dry-run"]):
            done = ddrive.run("import", root, *([ddrive.run("list").out.split()[0].decode()] if more else []), *more)
            assert done.code == 0, done
            for name in ("copy", "sub/state"):
                why = f"left out ({name}): the state directory of ddrive, with the secret keys of another engine\n"
                assert done.err.count(why) == 1, done
        key = ddrive.ask("list")[0]["key"]
        assert ddrive.run("ls", "-R", key).out.split() == [b"sub", b"sub/dweb", b"sub/dweb/master_key"]
        for place in (other.state, root / "copy" / "dweb"):
            assert ddrive.run("import", place, key).code == 2
            assert ddrive.run("export", key, place).code == 2


def made_store(place: Path) -> bytes:
    """Make a store of the library, without an engine; return its master key."""
    subprocess.run([sys.executable, "-c", STORE, str(place)], check=True)
    return (place / "master_key").read_bytes()


def made_feed(place: Path) -> bytes:
    """Make what a program leaves that opens a feed by itself; return its secret key."""
    place.mkdir(parents=True)
    for name in ("key", "tree", "data", "bitfield"):
        (place / name).write_bytes(b"1" * 32)
    secret = KeyPair.from_seed(b"2" * 32).secret_key
    (place / "secret_key").write_bytes(secret)
    return secret


def test_the_secret_keys_of_stores_without_an_engine_are_not_imported(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    deep = root / "/".join(["d" * 200] * 15)
    secrets = [made_store(root / "store"), made_feed(root / "sub" / "feed")]
    deep.mkdir(parents=True)
    at = os.open(deep, os.O_RDONLY)
    for _ in range(10):
        os.mkdir("e" * 200, dir_fd=at)
        inner = os.open("e" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    shutil.copytree(root / "store", f"/proc/self/fd/{at}/store")
    os.close(at)
    (root / "other").mkdir()
    (root / "other" / "secret_key").write_text("only called so")
    done = ddrive.run("import", root)
    assert done.code == 0, done
    for name, what in (
        ("store", "a store of feeds, with its secret keys"),
        ("sub/feed", "a feed, with its secret key"),
    ):
        assert done.err.count(f"left out ({name}): {what}\n") == 1, done
    shown = ddrive.run("ls", "-R", done.out.decode().strip()).out.decode().split()
    assert {name.rpartition("/")[2][:1] for name in shown} == {"d", "e", "s", "o"}
    assert [name for name in shown if "store" in name or "secret" in name] == ["other/secret_key"]
    assert ddrive.run("import", root / "store").code == 2
    assert not any(secret in file.read_bytes() for file in ddrive.state.rglob("data") for secret in secrets)


def test_what_is_only_called_as_a_secret_key_is_imported(ddrive: Program, tmp_path: Path) -> None:
    """A web service keeps such a file beside its data: as many digits, or random bytes."""
    root = tmp_path / "tree"
    (root / "data").mkdir(parents=True)
    (root / "secret_key").write_text("0123456789abcdef" * 4)
    (root / "sub").mkdir()
    (root / "sub/key").write_bytes(b"k" * 32)
    (root / "sub/secret_key").write_bytes(b"s" * 64)
    done = ddrive.run("import", root)
    assert (done.code, done.err.count("left out")) == (0, 0), done
    assert ddrive.ask("import", root, done.out.decode().strip())["files"] == 3


def test_keys_that_come_while_a_directory_is_followed_are_not_imported(ddrive: Program, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    key = ddrive.ask("create")["key"]
    with ddrive.running("import", root, key, "--watch", "--json") as running:
        assert running.stdout is not None
        running.stdout.readline()
        made_store(root)
        (root / "sub").mkdir()
        time.sleep(0.5)
        made_store(root / "sub")
        (root / "new").write_text("1")
        end = time.monotonic() + 30
        while b"new" not in (shown := ddrive.run("ls", "-R", key).out.split()):
            assert time.monotonic() < end, shown
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=30) == 0
    assert not any(b"master_key" in name for name in ddrive.run("ls", "-R", key).out.split())


def test_an_export_removes_no_secret_keys_and_writes_none(ddrive: Program, tmp_path: Path) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    (root / "in").mkdir(parents=True)
    (root / "in" / "engine.lock").write_text("of the author")
    key = ddrive.ask("import", root)["key"]
    secret = made_feed(out / "goes" / "feed")
    made_store(out / "store")
    (out / "goes" / "file").write_text("1")
    for name in ("in", "goes/deep/state"):
        (out / name / "dweb").mkdir(parents=True)
        (out / name / "dweb" / "master_key").write_bytes(b"3" * 32)
        (out / name / "engine.lock").write_text("ours")
    before = sorted(path for path in out.rglob("*") if path.name != "file")
    kept = {"in", "store", "goes/feed", "goes/deep/state"}
    planned = ddrive.run("export", key, out, "--delete", "--dry-run", "--json")
    assert (planned.code, {each["path"] for each in planned.json()["refused"]}, planned.json()["changes"]) == (
        6,
        kept,
        [],
    )
    for more in (["--delete", "--yes"], []):
        done = ddrive.run("export", key, out, *more, "--json")
        assert (done.code, {each["path"] for each in done.json()["refused"]}) == (6, kept if more else {"in"}), done
        assert sorted(out.rglob("*")) == before
    assert (out / "goes" / "feed" / "secret_key").read_bytes() == secret
    assert (out / "in" / "engine.lock").read_text() == "ours"
    assert ddrive.run("export", key, out / "store").code == 2


def test_an_export_removes_nothing_of_what_is_mounted(ddrive: Program, tmp_path: Path) -> None:
    root, out = tmp_path / "tree", tmp_path / "out"
    root.mkdir()
    key = ddrive.ask("import", root)["key"]
    (out / "beside").mkdir(parents=True)
    with small_disk(out / "goes", 4 * 1024 * 1024) as disk:
        (disk / "file").write_text("1")
        done = ddrive.run("export", key, out, "--delete", "--yes", "--json")
        assert (done.code, done.json()["refused"]) == (
            6,
            [{"path": "goes/disk", "why": "something is mounted there"}],
        ), done
        assert (disk / "file").read_text() == "1"
        assert sorted(path.name for path in (out / "goes").iterdir()) == ["disk"]
    assert ddrive.ask("export", key, out, "--delete", "--yes")["removed"] == 1
