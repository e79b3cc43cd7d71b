"""Directory trees into drives and out again, with everything awkward that a tree can hold."""

import os
import socket
from pathlib import Path

import pytest

from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.exporter import export_tree
from ddrive.drive.importer import import_tree
from ddrive.drive.source import OpenFile
from ddrive.drive.stat import Stat, encode_stat
from ddrive.drive.writer import NewEntry
from ddrive.errors import NotADirectory, NotFound, NotWritable
from ddrive.store.store import OwnedStore
from tests.support.tree import Step, build, content, differences, expected, nested_steps, observe, plain_steps


async def play_on(store: OwnedStore, steps: list[Step]) -> Drive:
    """Play `steps` on drives of `store`; return the drive called root."""
    drives = {name: await open_drive(store, name=name, create=True) for name in ("inner", "middle", "root")}
    marks: dict[str, int] = {}
    for step in steps:
        drive = drives[step["drive"]]
        match step["do"]:
            case "file":
                data = content(step["path"], step["seed"], step["size"])
                await drive.write_file(step["path"], data, mode=step["mode"], mtime_ms=step["mtime"])
            case "link":
                await drive.symlink(step["path"], step["target"])
            case "directory":
                await drive.mkdir(step["path"], mode=step["mode"], mtime_ms=step["mtime"])
            case "unlink":
                await drive.unlink(step["path"])
            case "mark":
                marks[step["mark"]] = drive.version
            case "mount":
                await drive.mount(step["path"], drives[step["of"]].key, version=marks.get(step.get("mark", "")))
    return drives["root"]


async def test_the_awkward_tree_comes_back_as_it_was(own: Drive, tmp_path: Path) -> None:
    steps = plain_steps()
    source = build(tmp_path / "source", steps)
    done = await import_tree(own, source)
    assert done.refused == []
    report = await export_tree(own, "/", tmp_path / "out")
    assert (report.refused, report.files, report.links) == ([], done.files, done.links)
    assert differences(observe(tmp_path / "out"), expected(steps)) == []
    assert observe(tmp_path / "out") == observe(source)
    assert (tmp_path / "out/locked-dir").stat().st_mtime_ns // 10**6 == (
        source / "locked-dir"
    ).stat().st_mtime_ns // 10**6


async def test_drives_three_deep_are_exported_with_their_pinned_version(own_store: OwnedStore, tmp_path: Path) -> None:
    steps = nested_steps()
    drive = await play_on(own_store, steps)
    report = await export_tree(drive, "/", tmp_path / "out")
    assert report.refused == []
    seen = observe(tmp_path / "out")
    kept = seen.pop("/gone")  # we keep a directory whose last entry goes
    assert kept["type"] == "directory"
    assert differences(seen, expected(steps)) == []


async def test_both_dialects_hold_the_same_tree(other_store: OwnedStore, tmp_path: Path) -> None:
    steps = plain_steps(many=20, big=200_000)
    drive = await open_drive(other_store, create=True)
    await import_tree(drive, build(tmp_path / "source", steps))
    await export_tree(drive, "/", tmp_path / "out")
    assert differences(observe(tmp_path / "out"), expected(steps)) == []


# -- import


def small(root: Path) -> Path:
    """Make a small tree."""
    (root / "d/e").mkdir(parents=True)
    (root / "f").write_bytes(b"one")
    (root / "d/g").write_bytes(b"two")
    (root / "d/link").symlink_to("../f")
    (root / "empty").touch()
    return root


async def test_only_what_changed_is_stored_again(own: Drive, tmp_path: Path) -> None:
    root = small(tmp_path / "source")
    first = await import_tree(own, root)
    assert (first.files, first.directories, first.links, first.bytes, first.changed) == (3, 2, 1, 6, 6)
    assert (await own.lstat("/empty")).blocks == 0
    content_feed = await own.content()
    version, blocks = own.version, content_feed.length
    again = await import_tree(own, root)
    assert (again.files, again.directories, again.links, again.bytes, again.changed) == (3, 2, 1, 6, 0)
    assert (own.version, content_feed.length) == (version, blocks)
    (root / "f").write_bytes(b"longer")
    (root / "new").write_bytes(b"x")
    (root / "d/link").unlink()
    (root / "d/link").symlink_to("e")
    third = await import_tree(own, root)
    assert third.changed == 3 + (await own.lstat("/d") != (await own.checkout(version).lstat("/d")))
    assert await own.read_file("/f") == b"longer"
    assert await own.read_link("/d/link") == "e"


async def test_a_new_mode_needs_no_new_content(own: Drive, tmp_path: Path) -> None:
    root = small(tmp_path / "source")
    await import_tree(own, root)
    blocks = (await own.content()).length
    (root / "f").chmod(0o711)
    done = await import_tree(own, root)
    assert done.changed == 1
    assert (await own.lstat("/f")).mode == 0o100711
    assert await own.read_file("/f") == b"one"
    assert (await own.content()).length == blocks


async def test_what_vanished_goes_only_when_asked(own: Drive, tmp_path: Path) -> None:
    root = small(tmp_path / "source")
    await own.write_file("/other/x", b"1")
    await import_tree(own, root)
    (root / "d/g").unlink()
    (root / "d/link").unlink()
    (root / "d/e").rmdir()
    await import_tree(own, root)
    assert await own.exists("/d/g")
    done = await import_tree(own, root, delete=True)
    assert done.removed == 4
    assert [path async for path, _ in own.walk()] == ["d", "empty", "f"]


async def test_a_subdirectory_can_be_the_target(own: Drive, tmp_path: Path) -> None:
    await own.write_file("/keep", b"1")
    await own.write_file("/into/old", b"1")
    await import_tree(own, small(tmp_path / "source"), into="/into", delete=True)
    assert [path async for path, _ in own.walk()] == [
        *["into", "keep", "into/d", "into/empty", "into/f", "into/d/e", "into/d/g", "into/d/link"]
    ]


async def test_kinds_can_change(own: Drive, tmp_path: Path) -> None:
    root = tmp_path / "source"
    root.mkdir()
    await own.write_file("/was-dir/a/b", b"1")
    await own.write_file("/was-file", b"1")
    await own.symlink("/was-link", "x")
    (root / "was-dir").write_bytes(b"now a file")
    (root / "was-file").mkdir()
    (root / "was-file/in").write_bytes(b"1")
    (root / "was-link").write_bytes(b"2")
    await import_tree(own, root)
    assert [path async for path, _ in own.walk()] == ["was-dir", "was-file", "was-link", "was-file/in"]
    assert await own.read_file("/was-dir") == b"now a file"
    assert await own.read_file("/was-link") == b"2"


async def test_what_is_ignored_is_left_alone_on_both_sides(own: Drive, tmp_path: Path) -> None:
    root = small(tmp_path / "source")
    await own.write_file("/d/e/kept", b"1")
    await own.write_file("/gone", b"1")
    asked: list[tuple[str, bool]] = []

    def ignore(path: str, is_directory: bool) -> bool:
        asked.append((path, is_directory))
        return path == "f" or path.startswith("d/e")

    await import_tree(own, root, ignore=ignore, delete=True)
    assert [path async for path, _ in own.walk()] == ["d", "empty", "d/e", "d/g", "d/link", "d/e/kept"]
    assert ("d/e", True) in asked


async def test_what_cannot_be_imported_is_reported(own: Drive, tmp_path: Path) -> None:
    root = small(tmp_path / "source")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "socket"))
        (root / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"1")
        done = await import_tree(own, root)
    refused = dict(done.refused)
    assert set(refused) == {"pipe", "socket", os.fsdecode(b"not-utf8-\xff")}
    assert all(refused.values())
    assert (done.files, done.unreadable) == (3, 1), "a drive holds no pipes and sockets anyway"


async def test_a_nested_drive_is_not_written_over(own: Drive, own_store: OwnedStore, tmp_path: Path) -> None:
    inner = await open_drive(own_store, name="inner", create=True)
    await inner.write_file("/x", b"inner")
    await own.mount("/d/e", inner.key)
    root = small(tmp_path / "source")
    (root / "d/e/x").write_bytes(b"outer")
    done = await import_tree(own, root, delete=True)
    assert dict(done.refused).keys() == {"d/e", "d/e/x"}
    assert await own.read_file("/d/e/x") == b"inner"
    (root / "d/e/x").rename(root / "x")
    for path in ("d/e", "d/g", "d/link", "d"):
        (root / path).rmdir() if (root / path).is_dir() else (root / path).unlink()
    (root / "d").write_bytes(b"a file")
    assert dict((await import_tree(own, root)).refused).keys() == {"d"}
    into = await import_tree(own, small(tmp_path / "more"), into="/d/e")
    assert into.refused == []
    assert await inner.read_file("/d/g") == b"two"


async def test_a_file_that_keeps_changing_is_refused(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small(tmp_path / "source")
    plain = OpenFile.read
    growing = [root / "f"]

    def read(self: OpenFile, size: int) -> list[bytes]:
        blocks = plain(self, size)
        for path in growing:
            with path.open("ab") as file:
                file.write(b"more")
        return blocks

    monkeypatch.setattr(OpenFile, "read", read)
    done = await import_tree(own, root)
    assert ("f" in dict(done.refused), done.unsettled) == (True, 1)
    assert not await own.exists("/f")
    growing.clear()
    assert (await import_tree(own, root)).refused == []
    assert await own.read_file("/f") == (root / "f").read_bytes()


@pytest.mark.parametrize("settles", [True, False])
async def test_a_large_file_that_changes_is_read_again(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settles: bool
) -> None:
    root = tmp_path / "source"
    root.mkdir()
    data = os.urandom(400_000)
    (root / "large").write_bytes(data)
    plain = OpenFile.check
    checks: list[int] = []

    def check(self: OpenFile) -> None:
        checks.append(1)
        if not settles or len(checks) == 1:
            os.utime(root / "large", ns=(0, 10**9 * len(checks)))
        plain(self)

    monkeypatch.setattr(OpenFile, "check", check)
    monkeypatch.setattr("ddrive.drive.importer.LARGE_BYTES", 100_000)
    done = await import_tree(own, root)
    assert [refused.path for refused in done.refused] == ([] if settles else ["large"])
    assert done.unsettled == len(done.refused)
    assert await own.exists("/large") is settles
    if settles:
        assert await own.read_file("/large") == data


async def test_many_batches_and_progress(own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddrive.drive.importer.BATCH_ENTRIES", 7)
    monkeypatch.setattr("ddrive.drive.importer.APPEND_BYTES", 200_000)
    root = tmp_path / "source"
    root.mkdir()
    for number in range(40):
        (root / f"{number:02}").write_bytes(bytes([number]) * number * 1000)
    seen: list[tuple[int, int, int, int]] = []
    await import_tree(own, root, progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (40, 780_000, 40, 780_000)
    assert seen == sorted(seen)
    for number in range(40):
        assert await own.read_file(f"/{number:02}") == bytes([number]) * number * 1000


async def test_only_a_directory_of_a_writable_drive_takes_an_import(own: Drive, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectory):
        await import_tree(own, tmp_path / "file")
    with pytest.raises(NotADirectory):
        await import_tree(own, tmp_path / "missing")
    with pytest.raises(NotWritable):
        await import_tree(own.checkout(1), tmp_path)


# -- export


async def test_an_interrupted_export_goes_on(own: Drive, tmp_path: Path) -> None:
    await import_tree(own, small(tmp_path / "source"))
    out = tmp_path / "out"
    first = await export_tree(own, "/", out)
    assert first.written == 6
    (out / "f").write_bytes(b"on")  # as a break in the middle leaves it: short, and of now
    (out / "d/g").unlink()
    (out / "empty").chmod(0o600)
    (out / "d/link").unlink()
    (out / "d/link").symlink_to("elsewhere")
    again = await export_tree(own, "/", out)
    assert (again.written, again.files, again.links) == (3, 3, 1)
    assert observe(out) == observe(tmp_path / "source")
    assert (await export_tree(own, "/", out)).written == 0


async def test_other_things_in_the_target_stay_unless_told(own: Drive, tmp_path: Path) -> None:
    await import_tree(own, small(tmp_path / "source"))
    out = tmp_path / "out"
    (out / "more/deep").mkdir(parents=True)
    (out / "more/deep/x").write_bytes(b"1")
    (out / "f").mkdir()
    (out / "f/in").write_bytes(b"1")
    (out / "d").write_bytes(b"a file where a directory belongs")
    report = await export_tree(own, "/", out)
    assert dict(report.refused) == {"f": "a directory is in the way"}
    assert (out / "more/deep/x").exists()
    assert (out / "d/g").read_bytes() == b"two"
    report = await export_tree(own, "/", out, delete=True)
    assert (report.refused, report.removed) == ([], 1)
    assert observe(out) == observe(tmp_path / "source")


async def test_a_path_of_the_drive_or_an_old_version(own: Drive, tmp_path: Path) -> None:
    await import_tree(own, small(tmp_path / "source"))
    old = own.version
    await own.write_file("/d/g", b"newer")
    await export_tree(own, "/d", tmp_path / "part")
    assert sorted(os.listdir(tmp_path / "part")) == ["e", "g", "link"]
    await export_tree(own.checkout(old), "/d/g", tmp_path / "one")
    assert (tmp_path / "one/g").read_bytes() == b"two"
    with pytest.raises(NotFound):
        await export_tree(own, "/missing", tmp_path / "none")


async def hostile(drive: Drive, entries: dict[str, Stat]) -> None:
    """Store entries that no check of ours has seen."""
    trie = (await drive.trie()).trie
    for key, stat in entries.items():
        await trie.put(key, encode_stat(stat))


async def test_nothing_is_written_outside_the_target(own: Drive, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    out = tmp_path / "out"
    out.mkdir()
    (out / "dir").symlink_to(outside)
    (out / "file").symlink_to(outside / "precious")
    await own.write_file("/dir/precious", b"overwritten")
    await own.write_file("/dir/new", b"1")
    await own.write_file("/file", b"overwritten")
    await own.symlink("/link", str(outside))
    await own.batch([NewEntry("link/planted", Stat(0o100644), (b"x",))])
    await hostile(own, {"../escaped": Stat(0o100644), "a/../../escaped": Stat(0o100644), "..": Stat(0o120777)})
    report = await export_tree(own, "/", out)
    assert sorted(os.listdir(outside)) == ["precious"]
    assert (outside / "precious").read_bytes() == b"1"
    assert sorted(os.listdir(tmp_path)) == ["out", "outside", "store"]
    assert (out / "dir").is_dir()
    assert not (out / "dir").is_symlink()
    assert (out / "file").read_bytes() == b"overwritten"
    assert report.hostile_names == 2


async def test_directories_in_the_place_of_something_else_are_reported(own: Drive, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    await own.mkdir("/link")
    await own.mkdir("/link/below")
    await own.mkdir("/file")
    await own.mkdir("/there")
    await own.mkdir("/new")
    (elsewhere / "below").mkdir(parents=True)
    (out / "there").mkdir(parents=True)
    (out / "link").symlink_to(elsewhere)
    (out / "file").write_bytes(b"1")
    for is_dry in (True, False):
        told: list[tuple[str, str]] = []
        report = await export_tree(own, "/", out, dry_run=is_dry, notice=lambda *what: told.append(what))  # noqa: B023
        assert sorted(told) == [("put", path) for path in ("file", "link", "link/below", "new")]
        assert (report.directories, report.written) == (5, 4)
    assert (await export_tree(own, "/", out)).written == 0


async def test_attributes_of_strangers_do_no_harm(own: Drive, tmp_path: Path) -> None:
    await own.batch([NewEntry("setuid", Stat(0o107755), (b"x",)), NewEntry("ok", Stat(0o100644), (b"y",))])
    await own.mkdir("/shared", mode=0o7777)
    huge = (1 << 64) - 1
    await hostile(
        own,
        {
            "device": Stat(0o060644),
            "lying-size": Stat(0o100644, size=500, blocks=1, offset=0),
            "lying-large": Stat(0o100644, size=50_000_000, blocks=2, offset=0),
            "impossible": Stat(0o100644, size=huge, blocks=huge),
            "far-future": Stat(0o100644, mtime_ms=huge),
            "nul-link": Stat(0o120777, linkname="a\0b"),
            "no-target": Stat(0o120777),
        },
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out/impossible").write_bytes(b"was here before")
    report = await export_tree(own, "/", tmp_path / "out")
    assert {refused.path for refused in report.refused} == {
        *["device", "lying-size", "lying-large", "impossible", "nul-link", "no-target"]
    }
    assert report.unverified == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["far-future", "impossible", "ok", "setuid", "shared"]
    assert (tmp_path / "out/impossible").read_bytes() == b"was here before"
    assert (tmp_path / "out/setuid").stat().st_mode == 0o100755
    assert (tmp_path / "out/shared").stat().st_mode == 0o041777


async def test_a_drive_that_contains_itself_is_exported_once(own: Drive, tmp_path: Path) -> None:
    await own.write_file("/f", b"1")
    await own.mount("/loop", own.key)
    report = await export_tree(own, "/", tmp_path / "out")
    assert [refused.path for refused in report.refused] == ["loop"]
    assert sorted(os.listdir(tmp_path / "out")) == ["f"]


async def test_progress_of_an_export(own: Drive, tmp_path: Path) -> None:
    await own.write_file("/big", b"x" * 9_000_000)
    await own.write_file("/d/small", b"y" * 10)
    seen: list[tuple[int, int, int, int]] = []
    report = await export_tree(own, "/", tmp_path / "out", progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (2, 9_000_010, 2, 9_000_010)
    assert seen == sorted(seen)
    assert (report.files, report.bytes) == (2, 9_000_010)


async def test_extended_attributes_come_back(own: Drive, tmp_path: Path) -> None:
    root = small(tmp_path / "source")
    os.setxattr(root / "f", "user.colour", b"blue\0")
    os.setxattr(root / "d", "user.of.directory", b"")
    (root / "f").chmod(0o444)
    await import_tree(own, root)
    await own.set_stat("/empty", metadata={"user.ddrive.key": b"never", "trusted.x": b"never", "user.y": b"1"})
    out = tmp_path / "out"
    assert (await export_tree(own, "/", out)).refused == []
    assert os.getxattr(out / "f", "user.colour") == b"blue\0"
    assert os.getxattr(out / "d", "user.of.directory") == b""
    assert os.listxattr(out / "empty") == ["user.y"]
    os.setxattr(out / "empty", "user.y", b"other")
    before = (out / "empty").stat().st_mtime_ns
    assert (await export_tree(own, "/", out)).written == 0
    assert os.getxattr(out / "empty", "user.y") == b"1"
    assert (out / "empty").stat().st_mtime_ns == before


async def test_a_dry_run_of_an_export_writes_nothing(own: Drive, tmp_path: Path) -> None:
    await import_tree(own, small(tmp_path / "source"))
    out = tmp_path / "out"
    told: list[tuple[str, str]] = []
    report = await export_tree(own, "/", out, dry_run=True, delete=True, notice=lambda *what: told.append(what))
    assert (report.files, report.directories, report.written, report.removed) == (3, 2, 6, 0)
    assert not out.exists()
    await export_tree(own, "/", out)
    (out / "f").chmod(0o700)
    (out / "d/more").mkdir()
    (out / "d/g").unlink()
    before = observe(out)
    told.clear()
    report = await export_tree(own, "/", out, dry_run=True, delete=True, notice=lambda *what: told.append(what))
    assert sorted(told) == [("del", "d/more"), ("put", "d/g"), ("put", "f")]
    assert (report.written, report.removed) == (2, 1)
    assert observe(out) == before
