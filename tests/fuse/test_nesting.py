"""Nested drives in a mount: three deep on three peers, pinned versions, and circles."""

import errno
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.drive import open_drive
from ddrive.ids import PublicKey
from ddrive.store.attached import open_attached
from tests.support.memory_mount import until
from tests.support.program import Program, kill, program


def tree(place: Path, name: str, text: str) -> Path:
    """Return a directory with one file."""
    place.mkdir(exist_ok=True)
    (place / name).write_text(text)
    return place


def test_three_deep_each_on_another_peer(tmp_path: Path) -> None:
    """One reader, three authors: each drive comes from whoever has it, at the newest or the pinned version."""
    with (
        program(tmp_path / "inner") as first,
        program(tmp_path / "middle") as second,
        program(tmp_path / "outer") as third,
        program(tmp_path / "reader") as reader,
    ):
        inner = first.ask("import", tree(tmp_path / "a", "a.txt", "one"))
        middle = second.ask("import", tree(tmp_path / "b", "b.txt", "middle"))
        outer = third.ask("import", tree(tmp_path / "c", "c.txt", "outer"))
        second.ask("link", f"{middle['key']}:/inner", inner["key"])
        second.ask("link", f"{middle['key']}:/pinned", f"{inner['key']}+{inner['version']}")
        third.ask("link", f"{outer['key']}:/deep/middle", middle["key"])
        for author in (first, second, third):
            reader.ask("peer", "add", author.address)
        place = tmp_path / "mnt"
        reader.mount(outer["key"], place)
        assert (place / "deep/middle/inner/a.txt").read_text() == "one"
        tree(tmp_path / "a", "a.txt", "number two")
        first.ask("import", tmp_path / "a", inner["key"])
        until(lambda: (place / "deep/middle/inner/a.txt").read_text() == "number two")
        assert (place / "deep/middle/pinned/a.txt").read_text() == "one"
        found = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
        assert found == ["c.txt", "deep/middle/b.txt", "deep/middle/inner/a.txt", "deep/middle/pinned/a.txt"]
        with pytest.raises(OSError, match="Read-only"):
            (place / "deep/middle/pinned/a.txt").write_text("x")


def test_a_nested_drive_gets_another_name(tmp_path: Path) -> None:
    """Its entry is in the drive around it, so it does not matter whose it is."""
    with program(tmp_path / "theirs") as author, program(tmp_path / "ours") as ours:
        inner = author.ask("import", tree(tmp_path / "a", "a.txt", "one"))
        own = ours.ask("import", tree(tmp_path / "b", "b.txt", "two"))
        key = ours.ask("import", tree(tmp_path / "c", "c.txt", "outer"))["key"]
        ours.ask("peer", "add", author.address)
        ours.ask("link", f"{key}:/theirs", inner["key"])
        ours.ask("link", f"{key}:/pinned", f"{inner['key']}+{inner['version']}")
        ours.ask("link", f"{key}:/own", own["key"])
        place = tmp_path / "mnt"
        ours.mount(key, place)
        (place / "sub").mkdir()
        for name in ("theirs", "pinned", "own"):
            (place / name).rename(place / "sub" / name)
        (place / "sub/own").rename(place / "mine")
        assert sorted(os.listdir(place)) == ["c.txt", "mine", "sub"]
        assert [(place / "sub" / name / "a.txt").read_text() for name in ("theirs", "pinned")] == ["one", "one"]
        (place / "mine/b.txt").write_text("changed")
        until(lambda: ours.run("cat", own["key"], "/b.txt").out == b"changed")
        until(lambda: sorted(entry["name"] for entry in ours.ask("ls", key, "/sub")) == ["pinned", "theirs"])


@pytest.mark.parametrize("other", [False, True])
def test_files_keep_their_bytes_when_their_drive_is_taken_out(tmp_path: Path, other: bool) -> None:
    """What their paths lead to then, the drive around it or another one nested there, has other bytes there."""
    with program(tmp_path / "state") as ours:
        inner = ours.ask("import", tree(tmp_path / "a", "read", "inner 1"))["key"]
        ours.ask("import", tree(tmp_path / "a", "written", "inner 2"), inner)
        around, beside = (ours.ask("import", tree(tmp_path / "b", "file", "other " * 99))["key"] for _ in range(2))
        ours.ask("link", f"{around}:/q", inner)
        place = tmp_path / "mnt"
        ours.mount(around, place)
        reading = (place / "q/read").open("rb", buffering=0)
        files = [(place / "q" / name).open("r+b", buffering=0) for name in ("read", "written")]
        files.append((place / "q/new").open("w+b", buffering=0))
        files[-1].write(b"inner 3")
        os.fsync(files[-1].fileno())
        until(lambda: ours.run("cat", inner, "new").out == b"inner 3")
        ours.ask("unlink-drive", f"{around}:/q")
        if other:
            ours.ask("link", f"{around}:/q", beside)
        until(lambda: (place / "q/file").exists() if other else not (place / "q").exists())
        assert reading.read() == b"inner 1"
        for number, file in enumerate(files, 1):
            file.seek(0)
            file.write(b"I")
            assert file.read() == b"nner %d" % number
            file.close()
        reading.close()
        until(lambda: ours.run("cat", around, "q/new").out == b"Inner 3")  # as one that others have removed
        assert ours.run("cat", around, "q/written").out == b"Inner 2"


@pytest.mark.parametrize("killed", [False, True])
def test_attributes_of_a_file_do_not_outlive_its_drive(tmp_path: Path, killed: bool) -> None:
    """They are set right before that is taken out, and are nothing to the drive around it."""
    with program(tmp_path / "state") as ours:
        inner = ours.ask("import", tree(tmp_path / "a", "file", "inner"))["key"]
        around = ours.ask("import", tree(tmp_path / "b", "other", "around"))["key"]
        ours.ask("link", f"{around}:/q", inner)
        place = tmp_path / "mnt"
        ours.mount(around, place)
        assert (place / "q/file").read_text() == "inner"
        worker = json.loads((ours.state / "mounts.json").read_text())[0]["pid"]

        async def take_out() -> None:
            async with open_attached(ours.state / "control.sock", reconnect=False) as engine:
                drive = await open_drive(engine.store(DWEB), key=PublicKey(bytes.fromhex(around)))
                (place / "q/file").chmod(0o600)
                if killed:
                    kill(worker)
                await drive.unmount("q")

        def is_alone() -> bool:
            with suppress(OSError):  # the next worker is not there yet
                return os.listdir(place) == ["other"]
            return False

        trio.run(take_out)
        until(is_alone)
        time.sleep(1)
        assert [entry["name"] for entry in ours.ask("ls", around)] == ["other"]
        assert [entry["name"] for entry in ours.ask("ls", inner)] == ["file"]


@pytest.fixture
def ddrive(tmp_path: Path) -> Iterator[Program]:
    """The command line with a fresh state directory."""
    with program(tmp_path / "state") as made:
        yield made


def test_a_plain_feed_is_a_file_that_grows_and_is_not_written_to(ddrive: Program, tmp_path: Path) -> None:
    key, place = ddrive.ask("create")["key"], tmp_path / "mnt"

    async def append(text: bytes, *, nest: bool = False) -> None:
        async with open_attached(ddrive.state / "control.sock", reconnect=False) as engine:
            store = engine.store(DWEB)
            feed = await store.open_feed(name="notes")
            await feed.append([text])
            if nest:
                drive = await open_drive(store, key=PublicKey(bytes.fromhex(key)))
                await drive.mount("notes", feed.key, feed=True)

    trio.run(partial(append, b"one ", nest=True))
    ddrive.mount(key, place)
    notes = place / "notes"
    assert notes.read_bytes() == b"one "
    with notes.open("rb") as before:
        assert before.read(1) == b"o"
        trio.run(append, b"two " * 50_000)
        until(lambda: notes.stat().st_size == 200_004)
        assert before.read() == b"ne "  # as it was when it was opened
    assert notes.read_bytes() == b"one " + b"two " * 50_000
    for mode in ("w", "a", "r+"):
        with pytest.raises(OSError, match="Read-only"):
            notes.open(mode)
    with pytest.raises(OSError, match="Read-only"):
        os.truncate(notes, 1)
    notes.chmod(0o600)
    until(lambda: ddrive.ask("ls", key)[0]["mode"] & 0o777 == 0o600)
    assert notes.stat().st_size == 200_004


def circle(ddrive: Program, place: Path) -> str:
    """Make two drives that nest each other, and the first one itself and its past; return the key of the first."""
    one = ddrive.ask("import", tree(place / "one", "file", "past"))
    two = ddrive.ask("import", tree(place / "two", "other", "two"))["key"]
    key: str = one["key"]
    ddrive.ask("link", f"{key}:/two", two)
    ddrive.ask("link", f"{two}:/back/one", key)
    ddrive.ask("link", f"{key}:/self", key)
    ddrive.ask("link", f"{key}:/past", f"{key}+{one['version']}")
    tree(place / "one", "file", "present")
    ddrive.ask("import", place / "one", key)
    return key


def test_a_circle_ends_with_an_error(tmp_path: Path) -> None:
    with program(tmp_path / "state") as ddrive:
        key = circle(ddrive, tmp_path)
        place = tmp_path / "mnt"
        ddrive.mount(key, place)
        assert sorted(os.listdir(place)) == ["file", "past", "self", "two"]
        assert (place / "past/file").read_text() == "past"
        assert os.listdir(place / "two/back") == ["one"]
        assert (place / "two/back/one").is_dir()
        for inside in ("self", "two/back/one"):
            for path in (place / inside / "file", place / inside / "x/y"):
                with pytest.raises(OSError, match="symbolic links") as told:
                    path.stat()
                assert told.value.errno == errno.ELOOP
            with pytest.raises(OSError, match="symbolic links"):
                os.listdir(place / inside)
        done = subprocess.run(["find", ".", "-type", "f"], cwd=place, capture_output=True, timeout=60, text=True)
        assert sorted(done.stdout.splitlines()) == ["./file", "./past/file", "./two/other"]
        assert done.stderr.count("Too many levels of symbolic links") == 2


def test_a_drive_that_nobody_has_costs_little_and_is_there_when_it_comes(tmp_path: Path) -> None:
    """A peer of the drive around it is connected all the time, but has nothing of the nested one."""
    with (
        program(tmp_path / "inner") as first,
        program(tmp_path / "outer") as second,
        program(tmp_path / "reader") as reader,
    ):
        inner = first.ask("import", tree(tmp_path / "a", "a.txt", "one"))["key"]
        first.ask("stop")
        middle = second.ask("import", tree(tmp_path / "b", "b.txt", "two"))["key"]
        key = second.ask("import", tree(tmp_path / "c", "c.txt", "outer"))["key"]
        second.ask("link", f"{middle}:/deep/lost", inner)
        second.ask("link", f"{key}:/lost", inner)
        second.ask("link", f"{key}:/middle", middle)
        reader.ask("peer", "add", second.address)
        place = tmp_path / "mnt"
        reader.mount(key, place)

        def listed(path: Path) -> list[str]:
            with suppress(OSError):
                return os.listdir(path)
            return []

        def failing(path: Path) -> tuple[int, float]:
            began = time.monotonic()
            with pytest.raises(OSError, match="No route to host") as told:
                path.stat() if path.suffix else os.listdir(path)
            return told.value.errno or 0, time.monotonic() - began

        began = time.monotonic()
        subprocess.run(["ls", "-la", place, place / "middle/deep"], check=True, capture_output=True)
        assert (place / "lost").is_dir()
        assert (place / "middle/deep/lost").is_dir()
        assert time.monotonic() - began < 3
        code, took_s = failing(place / "lost")
        assert code == errno.EHOSTUNREACH
        assert took_s < 15
        for lost in (place / "lost", place / "middle/deep/lost"):
            assert failing(lost)[1] < 1
            assert failing(lost / "a.txt")[1] < 1
        reader.ask("peer", "add", first.address)
        until(lambda: listed(place / "lost") == ["a.txt"])
        assert (place / "lost/a.txt").read_text() == "one"
        assert os.listdir(place / "middle/deep/lost") == ["a.txt"]
