"""Verbs that go through a whole drive although something in it cannot be had."""

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import trio

from ddrive.dialect import DWEB
from ddrive.drive import NewEntry, Stat, open_drive
from ddrive.ids import PublicKey
from ddrive.store.attached import open_attached
from tests.support.program import Program, program

GHOST = "cd" * 32  # a drive that nobody has


def test_a_nested_drive_that_nobody_has_holds_up_nothing_else(ddrive: Program, tmp_path: Path) -> None:
    source, inner = tmp_path / "tree", tmp_path / "inner"
    (source / "mo").mkdir(parents=True)
    inner.mkdir()
    for directory, size in ((source, 100), (source / "mo", 2_000_000), (inner, 30)):
        (directory / "f").write_bytes(b"x" * size)
    outer = ddrive.ask("import", source)["key"]
    ddrive.ask("link", f"{outer}/mo/ghost", GHOST)
    ddrive.ask("link", f"{outer}/z", ddrive.ask("import", inner)["key"])
    waiting = ("--timeout", "1s")

    copy = tmp_path / "copy"
    exported = ddrive.run("export", outer, copy, *waiting, "--json")
    assert exported.code == 5, exported
    [refused] = exported.json()["refused"]
    assert refused["path"] == "mo/ghost"
    assert "cdcdcdcd" in refused["why"]
    assert [(copy / name).stat().st_size for name in ("f", "mo/f", "z/f")] == [100, 2_000_000, 30]
    told = ddrive.run("export", outer, copy, *waiting)
    assert told.code == 5
    assert "left out (mo/ghost): nothing arrived for 1 s (drive cdcdcdcd, nested at /mo/ghost" in told.err

    listed = ddrive.run("ls", outer, "-R", *waiting)
    assert (listed.code, listed.out.split()) == (5, [b"f", b"mo", b"z", b"mo/f", b"mo/ghost", b"z/f"])
    assert "left out (mo/ghost)" in listed.err
    assert b"ghost (drive cdcdcdcd)" in ddrive.run("ls", outer, "mo", "-l").out
    (tmp_path / "dangling").symlink_to("nowhere")
    refused = ddrive.run("export", outer, tmp_path / "dangling")
    assert (refused.code, "leads nowhere" in refused.err) == (2, True)
    for verb in ("du", "download"):
        counted = ddrive.run(verb, outer, *waiting, "--json")
        assert counted.code == 5
        value = counted.json()
        assert (value["files"], value["bytes"], value["held"]) == (3, 2_000_130, 2_000_130)
        assert [one["path"] for one in value["refused"]] == ["mo/ghost"]
    assert ddrive.run("du", outer, "z").code == 0


def test_all_nested_drives_that_nobody_has_are_waited_for_together(ddrive: Program, tmp_path: Path) -> None:
    outer = ddrive.ask("create")["key"]
    links = {"a/one": GHOST, "b/again": GHOST, "b/two": "ab" * 32, "c/three": "ef" * 32, "d/fixed": f"{GHOST}+5"}
    for path, key in links.items():
        ddrive.ask("link", f"{outer}/{path}", key)
    for verb in (["ls", outer, "-R"], ["du", outer], ["export", outer, tmp_path / "copy"]):
        began = time.monotonic()
        done = ddrive.run(*verb, "--timeout", "3s")
        assert time.monotonic() - began < 9, done  # each by itself: more than 12
        assert done.code == 5, done
        assert [line.split(" (")[1].split(")")[0] for line in done.err.splitlines() if "left out" in line] == [*links]


def test_drives_of_which_little_is_here_are_not_waited_for_one_by_one(ddrive: Program, tmp_path: Path) -> None:
    with program(tmp_path / "author" / "state") as author:
        outer = author.ask("create")["key"]
        for name in ("a", "b", "c", "d"):
            for number in range(30):
                (tmp_path / name / f"{number}").mkdir(parents=True)
                (tmp_path / name / f"{number}" / "f").write_text("x")
            author.ask("link", f"{outer}/{name}", author.ask("import", tmp_path / name)["key"])
        ddrive.ask("peer", "add", author.address)
        assert ddrive.run("ls", outer).code == 0
        for name in ("a", "b", "c", "d"):
            assert ddrive.run("ls", outer, f"{name}/3").code == 0
    for verb in (["ls", outer, "-R"], ["export", outer, tmp_path / "copy"]):
        began = time.monotonic()
        done = ddrive.run(*verb, "--timeout", "4s")
        assert time.monotonic() - began < 13, done  # each by itself: more than 16
        assert (done.code, done.err.count("left out")) == (5, 4), done
    with program(tmp_path / "author" / "state") as author:
        ddrive.ask("peer", "add", author.address)
        assert ddrive.ask("export", outer, tmp_path / "copy")["files"] == 120


def test_drives_that_nobody_has_are_waited_for_once_however_deep_they_are(ddrive: Program, tmp_path: Path) -> None:
    """Each is seen only in one that has to arrive first."""
    ghosts = ["cd" * 32, "ab" * 32, "ef" * 32]
    with program(tmp_path / "author" / "state") as author:
        levels = [author.ask("create")["key"] for _ in ghosts]
        for number, key in enumerate(levels):
            author.ask("link", f"{key}/ghost", ghosts[number])
            if key != levels[-1]:
                author.ask("link", f"{key}/level", levels[number + 1])
        ddrive.ask("peer", "add", author.address)
        began = time.monotonic()
        done = ddrive.run("ls", levels[0], "-R", "--timeout", "4s")
        assert time.monotonic() - began < 10, done  # each by itself: more than 12
        assert (done.code, done.out.split()[-1]) == (5, b"level/level/ghost"), done
        lost = [line.split(" (")[1].split(")")[0] for line in done.err.splitlines() if "left out" in line]
        assert lost == ["ghost", "level/ghost", "level/level/ghost"]


def test_clearing_waits_for_no_nested_drive_of_which_nothing_is_here(ddrive: Program, tmp_path: Path) -> None:
    source, inner = tmp_path / "tree", tmp_path / "inner"
    (source / "mo").mkdir(parents=True)
    (source / "mo" / "f").write_bytes(b"x" * 1000)
    for number in range(50):
        (inner / f"{number}").mkdir(parents=True)
        (inner / f"{number}" / "f").write_bytes(b"y" * 100)
    outer = ddrive.ask("import", source)["key"]
    ddrive.ask("link", f"{outer}/mo/ghost", GHOST)
    ddrive.ask("link", f"{outer}/z", ddrive.ask("import", inner)["key"])
    with program(tmp_path / "other" / "state") as other:
        assert other.run("download", outer, "--peer", ddrive.address, "--timeout", "1s").code == 5  # the ghost
        planned = other.ask("clear", outer, "mo", "--dry-run")
        assert (planned["blocks"], planned["bytes"], planned["refused"]) == (1, 1000, [])
        assert other.ask("clear", outer, "mo", "--yes") == planned
        assert other.ask("clear", outer, "mo/ghost", "--yes")["blocks"] == 0
        assert other.ask("clear", outer, "--yes")["bytes"] == 5000
        assert other.run("clear", GHOST, "--yes").code == 3
        freed = other.run("gc")
        assert (freed.code, [line.split()[5] for line in freed.err.splitlines()]) == (0, [GHOST[:8]])
    with program(tmp_path / "third" / "state") as third:
        third.ask("peer", "add", ddrive.address)
        for verb, path in (("ls", "/"), ("ls", "mo"), ("cat", "mo/f"), ("cat", "z/7/f")):
            assert third.run(verb, outer, path).code == 0
        assert ddrive.run("stop").code == 0
        cleared = third.run("clear", outer, "--yes", "--timeout", "1s", "--json")
        assert cleared.code == 5  # where in the nested drive something is held cannot be told without peers
        assert (cleared.json()["blocks"], [one["path"] for one in cleared.json()["refused"]]) == (1, ["z"])


def test_entries_that_cannot_be_true_stop_nothing(ddrive: Program) -> None:
    key = ddrive.ask("create")["key"]

    async def author() -> None:
        async with open_attached(ddrive.state / "control.sock", reconnect=False) as engine:
            drive = await open_drive(engine.store(DWEB), key=PublicKey(bytes.fromhex(key)))
            late = NewEntry("late", Stat(0o100644, mtime_ms=1 << 60), [b"content"])
            nowhere = Stat(0o100644, size=1000, blocks=3, offset=1 << 60, mtime_ms=1_600_000_000_000)
            await drive.batch([late, NewEntry("nowhere", nowhere, placed=True), NewEntry("pipe", Stat(0o010644))])

    trio.run(author)
    listed = ddrive.run("ls", key, "-l")
    assert listed.code == 0, listed
    assert listed.out.splitlines()[0].split()[2:] == [b"?", b"late"]
    assert b"prw-r--r--" in listed.out
    assert [entry["type"] for entry in ddrive.ask("ls", key)] == ["file", "file", "other"]
    told = ddrive.run("log", key)
    assert (told.code, b"?" in told.out) == (0, True)
    for verb in ("du", "download"):
        counted = ddrive.run(verb, key, "--json")
        assert counted.code == 0, counted
        assert (counted.json()["files"], counted.json()["bytes"]) == (1, 7)
        [refused] = counted.json()["refused"]
        assert (refused["path"], "1000 bytes in 3 blocks" in refused["why"]) == ("nowhere", True)
    alone = ddrive.run("cat", key, "nowhere")
    assert (alone.code, "its author" in alone.err, "disk" in alone.err) == (4, True, False), alone


def test_content_behind_the_end_of_its_feed_is_given_up_when_a_peer_has_all_of_that(
    ddrive: Program, tmp_path: Path
) -> None:
    source, place = tmp_path / "tree", tmp_path / "place"
    source.mkdir()
    place.mkdir()
    (source / "f").write_bytes(b"x" * 200_000)
    with program(tmp_path / "author" / "state") as author:
        key = author.ask("import", source)["key"]

        async def lie() -> None:
            async with open_attached(author.state / "control.sock", reconnect=False) as engine:
                drive = await open_drive(engine.store(DWEB), key=PublicKey(bytes.fromhex(key)))
                stat = Stat(0o100644, size=600_000, blocks=10, offset=10**6, byte_offset=10**9)
                await drive.batch([NewEntry("lost", stat, placed=True)])

        trio.run(lie)
        ddrive.mount(key, place, "--peer", author.address, "--timeout", "100s")
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):  # before anything of the content was met
            (place / "lost").read_bytes()
        assert (place / "f").read_bytes() == b"x" * 200_000
        read = ddrive.run("cat", key, "lost")
        assert (read.code, "nobody knows more than 4" in read.err) == (5, True), read
        exported = ddrive.run("export", key, tmp_path / "copy", "--json")
        assert exported.code == 5, exported
        assert [one["path"] for one in exported.json()["refused"]] == ["lost"]
        assert (tmp_path / "copy" / "f").stat().st_size == 200_000


def test_bytes_of_which_connected_peers_have_nothing_are_waited_for_once(ddrive: Program, tmp_path: Path) -> None:
    source, place = tmp_path / "tree", tmp_path / "place"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_bytes(name.encode() * 1000)
    key = ddrive.ask("import", source)["key"]
    with program(tmp_path / "looker" / "state") as looker, program(tmp_path / "reader" / "state") as reader:
        assert looker.run("ls", key, "--peer", ddrive.address).code == 0
        reader.mount(key, place, "--peer", looker.address, "--timeout", "6s")
        took = []
        for name in ("a", "b", "c"):
            began = time.monotonic()
            with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
                (place / name).read_bytes()
            took.append(time.monotonic() - began)
        assert took[0] > 5  # whoever has it may come
        assert max(took[1:]) < 3
        reader.ask("peer", "add", ddrive.address)
        while len(reader.ask("stats", key)["peers"]) < 2:
            pass
        assert [(place / name).read_bytes() for name in ("a", "b")] == [b"a" * 1000, b"b" * 1000]
        assert ddrive.run("stop").code == 0
        (place / "a").read_bytes()


def test_a_tree_of_drives_without_end_is_listed_as_it_is_found(ddrive: Program) -> None:
    keys: list[PublicKey] = []

    async def author() -> None:
        async with open_attached(ddrive.state / "control.sock", reconnect=False) as engine:
            for level in range(24):
                drive = await open_drive(engine.store(DWEB), name=f"level {level}", create=True)
                for name in ("a", "b") if keys else ():
                    await drive.mount(name, keys[-1])
                keys.append(drive.key)

    assert ddrive.run("status").code == 0
    trio.run(author)
    with ddrive.running("ls", keys[-1].hex(), "-R") as listing:
        assert listing.stdout is not None
        assert [listing.stdout.readline() for _ in range(3)] == [b"a\n", b"b\n", b"a/a\n"]
        assert listing.poll() is None
        listing.send_signal(signal.SIGINT)
        began = time.monotonic()
        listing.stdout.read()
        assert (listing.wait(10), time.monotonic() - began < 5) == (130, True)


def test_a_walk_over_what_nobody_can_send_ends_and_finds_all_when_somebody_can(ddrive: Program, tmp_path: Path) -> None:
    source, place = tmp_path / "tree", tmp_path / "place"
    source.mkdir()
    names = [f"file-{number}" for number in range(4)]
    for name in names:
        (source / name).write_text(f"found in {name}\n")
    key, address = ddrive.ask("import", source)["key"], ddrive.address
    with program(tmp_path / "other" / "state") as other:
        other.mount(key, place, "--peer", address, "--timeout", "3s")
        assert sorted(path.name for path in place.iterdir()) == names
        assert ddrive.run("stop").code == 0
        in_vain = subprocess.run(["grep", "-r", "found", place], capture_output=True, text=True)
        assert (in_vain.returncode, in_vain.stdout) == (2, "")
        assert sorted(line.split(": ")[1:] for line in in_vain.stderr.splitlines()) == [
            [str(place / name), os.strerror(errno.EHOSTUNREACH)] for name in names
        ]
        assert ddrive.run("status", DDRIVE_LISTEN=address).code == 0
        other.ask("peer", "add", address)
        while not other.ask("info", key)["peers"]:
            pass
        found = subprocess.run(["grep", "-r", "found", place], capture_output=True, text=True)
        assert (found.returncode, found.stderr) == (0, "")
        assert sorted(found.stdout.splitlines()) == [f"{place / name}:found in {name}" for name in names]
