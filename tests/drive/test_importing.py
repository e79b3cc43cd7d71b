"""What an import leaves out, compares, removes, and finds again after it was interrupted."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ddrive.drive import below, importer, source
from ddrive.drive.deep import reachable
from ddrive.drive.drive import Drive, open_drive
from ddrive.drive.ignore import IGNORE_FILES, Ignoring
from ddrive.drive.importer import import_tree
from ddrive.drive.removing import remove_tree
from ddrive.drive.source import read_patterns, scan
from ddrive.drive.stat import TIME_MS_MAX
from ddrive.drive.writer import NewEntry, blocks_of
from ddrive.errors import DriveError, NotADirectory
from ddrive.store.store import OwnedStore
from ddrive.trie import Delete, Put, Trie

LARGE = 17 * 1024 * 1024  # is read and stored piece by piece


def tree(root: Path, **files: bytes | str) -> Path:
    """Make files; `__` in a name stands for a slash."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


async def paths(drive: Drive) -> set[str]:
    return {path async for path, stat in drive.walk() if not stat.is_dir}


async def lengths(drive: Drive) -> tuple[int, int]:
    return drive.version, (await drive.content()).length


# -- ignore files


def ignoring(files: dict[str, str], given: str = "") -> Ignoring:
    return Ignoring(lambda directory: files.get(directory, "").split(), given.split())


@pytest.mark.parametrize(
    ("lines", "out", "kept"),
    [
        ("a/** !a/keep", {"a/x"}, {"a/", "a/keep", "b/a/x"}),
        ("a/**/", {"a/b/"}, {"a/", "a/x"}),
        ("** !/a", {"b", "b/", "a/x"}, {"a/"}),
        ("!** a", {"a", "a/", "b/a"}, {"b"}),
        ("* !*/ !*.c", {"a/x.o", "x"}, {"a/", "a/b/", "a/b/x.c"}),
        ("/* !/a", {"b", "b/"}, {"a/", "a/x"}),
        ("bad\\ *.o", {"x.o", "a/x.o"}, {"bad\\", "bad"}),
    ],
)
def test_lines_mean_what_they_mean_to_git(lines: str, out: set[str], kept: set[str]) -> None:
    rules = ignoring({"": lines})
    for path in out | kept:
        is_directory = path.endswith("/")
        assert rules.leaves_out(path.rstrip("/"), is_directory=is_directory) is (path in out), path


@pytest.mark.parametrize(
    ("files", "given", "path", "out"),
    [
        ({"": "*.o"}, "", "a.o", True),
        ({"": "*.o"}, "", "d/a.o", True),
        ({"": "*.o !keep.o"}, "", "d/keep.o", False),
        ({"": "/a.o"}, "", "d/a.o", False),
        ({"": "*.o", "d": "!a.o"}, "", "d/a.o", False),
        ({"d": "*.o"}, "", "a.o", False),
        ({"d": "/e"}, "", "d/e/f", True),
        ({"": "d/", "d": "!a"}, "", "d/a", True),  # nothing comes back below a directory that is left out
        ({"": "d/"}, "", "d", False),  # a file of that name
        ({"": "**/tmp/*"}, "", "a/tmp/x", True),
        ({"": "!a.o"}, "*.o", "a.o", True),
    ],
)
def test_patterns_work_as_with_git(files: dict[str, str], given: str, path: str, out: bool) -> None:
    assert ignoring(files, given).leaves_out(path, is_directory=False) == out


def test_only_a_file_is_read_for_patterns(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / IGNORE_FILES[0])  # nobody will write to it
    (tmp_path / IGNORE_FILES[1]).mkdir()
    (tmp_path / IGNORE_FILES[2]).write_text("a\n")
    with ThreadPoolExecutor() as other:
        try:
            assert other.submit(read_patterns, tmp_path, "").result(timeout=20) == ["a"]
        finally:
            os.close(os.open(tmp_path / IGNORE_FILES[0], os.O_RDWR | os.O_NONBLOCK))  # frees a reader that waits


async def test_ignore_files_leave_out_on_both_sides(own: Drive, tmp_path: Path) -> None:
    await own.write_file("/kept.log", b"of the drive")
    root = tree(tmp_path / "source", a="1", b__c="2", b__x="3", log="4", z__drop="5", z__d__x="6")
    tree(root, **{".ddriveignore": "*.log\n/log\n", "b__.datignore": "x\n", "z__.drivesignore": "# none\ndrop\nd/\n"})
    (root / "new.log").write_text("not taken")
    report = await import_tree(own, root, delete=True, patterns=["nothing"])
    assert report.refused == []
    assert await paths(own) == {"a", "b/c", "kept.log", ".ddriveignore", "b/.datignore", "z/.drivesignore"}


# -- comparing


@pytest.mark.parametrize("size", [10, 300_000, LARGE])
async def test_the_same_bytes_with_another_time_are_not_stored_again(own: Drive, tmp_path: Path, size: int) -> None:
    root = tree(tmp_path / "source", f=os.urandom(size))
    await import_tree(own, root)
    version, blocks = await lengths(own)
    os.utime(root / "f", ns=(10**18, 10**18))
    assert (await import_tree(own, root)).changed == 1
    assert await lengths(own) == (version + 1, blocks)
    assert (await own.lstat("/f")).mtime_ms == 10**12
    assert await own.read_file("/f") == (root / "f").read_bytes()
    assert (await import_tree(own, root)).changed == 0
    with (root / "f").open("r+b") as file:
        file.seek(size - 1)
        file.write(b"\0" if await own.read_file("/f") != b"\0" else b"\1")
    os.utime(root / "f", ns=(2 * 10**18, 2 * 10**18))
    assert (await import_tree(own, root)).changed == 1
    assert await own.read_file("/f") == (root / "f").read_bytes()


@pytest.mark.parametrize("into", ["/", "/deep/er"])
async def test_what_changed_among_many_is_found(own: Drive, tmp_path: Path, into: str) -> None:
    root = tmp_path / "source"
    names = [f"{number:02}" for number in range(40)]
    for name in names:
        tree(root, **{f"files__{name}": name, f"directories__{name}__below": name})
    (root / "directories" / "empty").mkdir()
    await import_tree(own, root, into=into)
    base = into.strip("/")
    await own.write_file(f"{base}/directories/07/later", b"newer than the entry of its directory")
    before = await lengths(own)
    assert (await import_tree(own, root, into=into)).changed == 0
    assert await lengths(own) == before
    (root / "files" / "03").write_text("other")
    (root / "files" / "04").unlink()
    tree(root, files__04__file="instead", files__new="n", directories__07__below="changed")
    for name in ("11", "12"):
        (root / "directories" / name / "below").unlink()
        (root / "directories" / name).rmdir()
    (root / "directories" / "11").write_text("a file now")
    (root / "directories" / "12").symlink_to("11")
    report = await import_tree(own, root, into=into, delete=True)
    assert report.refused == []
    assert report.removed == 1  # what was only in the drive; what was replaced went before
    expected = {str(path.relative_to(root)): path for path in root.rglob("*") if not path.is_dir()}
    found = {path.removeprefix(f"{base}/"): stat async for path, stat in own.walk(into) if not stat.is_dir}
    assert found.keys() == expected.keys()
    for path, stat in found.items():
        if stat.is_file:
            assert await own.read_file(f"{base}/{path}") == expected[path].read_bytes()
    assert (await import_tree(own, root, into=into)).changed == 0


async def test_times_that_no_drive_can_hold_become_the_nearest(own: Drive) -> None:
    with TemporaryDirectory(dir="/dev/shm") as place:  # a file system that holds any time
        root = tree(Path(place) / "source", late="1", early="2")
        os.utime(root / "late", (2**62, 2**62))
        os.utime(root / "early", (-(2**40), -(2**40)))
        assert (await import_tree(own, root)).changed == 2
        assert [(await own.lstat(f"/{name}")).mtime_ms for name in ("late", "early")] == [TIME_MS_MAX, 0]
        assert (await import_tree(own, root)).changed == 0


async def test_extended_attributes_are_kept(own: Drive, tmp_path: Path) -> None:
    root = tree(tmp_path / "source", f="1", d__g="2")
    os.setxattr(root / "f", "user.colour", b"blue\0")
    os.setxattr(root / "d", "user.of.directory", b"x")
    os.setxattr(root / "f", "user.ddrive.version", b"not stored")
    await import_tree(own, root)
    assert dict((await own.lstat("/f")).metadata) == {"user.colour": b"blue\0"}
    assert dict((await own.lstat("/d")).metadata) == {"user.of.directory": b"x"}
    await own.set_stat("/f", metadata={"user.colour": b"blue\0", "of the author": b"stays"})
    version, blocks = await lengths(own)
    assert (await import_tree(own, root)).changed == 0
    os.setxattr(root / "f", "user.colour", b"red")
    assert (await import_tree(own, root)).changed == 1
    assert dict((await own.lstat("/f")).metadata) == {"user.colour": b"red", "of the author": b"stays"}
    assert await lengths(own) == (version + 1, blocks)


# -- looking only


async def test_a_dry_run_changes_nothing(own: Drive, tmp_path: Path) -> None:
    root = tree(tmp_path / "source", same="1", other="2", touched="3")
    await import_tree(own, root)
    await own.write_file("/gone", b"")
    before = await lengths(own)
    tree(root, new="4", other="222")
    os.utime(root / "touched", ns=(10**18, 10**18))
    told: list[tuple[str, str]] = []
    report = await import_tree(own, root, delete=True, dry_run=True, notice=lambda *what: told.append(what))
    assert await lengths(own) == before
    assert (report.changed, report.removed) == (3, 1)
    assert sorted(told) == [("del", "gone"), ("put", "new"), ("put", "other"), ("put", "touched")]
    nothing = await import_tree(None, root, dry_run=True)
    assert (nothing.files, nothing.changed) == (4, 4)


async def test_only_some_paths_are_looked_at(own: Drive, tmp_path: Path) -> None:
    root = tree(tmp_path / "source", a="1", d__b="2", d__e__c="3", z="4", **{".ddriveignore": "*.tmp"})
    await import_tree(own, root)
    tree(root, a="11", d__e__c="33", d__e__new="5", z="44", **{"d__x.tmp": "6"})
    (root / "d/b").unlink()
    report = await import_tree(own, root, delete=True, only=["d", "d/x.tmp", "missing", "a"])
    assert report.removed == 1
    assert await own.read_file("/z") == b"4"
    assert (await own.read_file("/a"), await own.read_file("/d/e/c")) == (b"11", b"33")
    assert await paths(own) == {"a", "d/e/c", "d/e/new", "z", ".ddriveignore"}
    shutil.rmtree(root / "d")
    report = await import_tree(own, root, delete=True, only=["d", "d/e", "d/e/c", "d/e/new"])
    assert report.removed == 4, "each counts once"


# -- going on where an import has stopped


async def test_content_that_was_appended_is_used(own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "source", a=os.urandom(100_000), b="2", large=os.urandom(LARGE + 3), z="26")
    feed = await own.content()
    await own.write_file("/before", b"x")
    append = Trie.batch
    killed_by = 0  # a change of so many entries

    async def batch(trie: Trie, changes: Sequence[Put | Delete], **more: bool) -> object:
        if len(changes) == killed_by:
            raise DriveError("killed")
        return await append(trie, changes, **more)

    monkeypatch.setattr(Trie, "batch", batch)
    lengths = []
    for count in (1, 3):  # the entry of a large file, those of the small ones
        killed_by = count
        with pytest.raises(DriveError, match="killed"):
            await import_tree(own, root)
        lengths.append(feed.length)
    killed_by = 0
    await import_tree(own, root)
    assert lengths == [1 + 273, 1 + 273 + 4]
    assert feed.length == lengths[-1]
    for name in ("a", "b", "large", "z"):
        assert await own.read_file(f"/{name}") == (root / name).read_bytes()


async def test_a_large_file_goes_on_in_its_middle(own: Drive, tmp_path: Path) -> None:
    root = tree(tmp_path / "source", large=os.urandom(LARGE))
    feed = await own.content()
    blocks = [block async for block in blocks_of((root / "large").read_bytes())]
    await feed.append(blocks[:100])
    await import_tree(own, root)
    assert feed.length == len(blocks)
    assert await own.read_file("/large") == (root / "large").read_bytes()


async def test_content_of_something_else_is_left_alone(own: Drive, tmp_path: Path) -> None:
    root = tree(tmp_path / "source", large=os.urandom(LARGE), small="1")
    feed = await own.content()
    blocks = [bytes(block) async for block in blocks_of((root / "large").read_bytes())]
    await feed.append([*blocks[:3], b"of somebody else"])
    await own.batch([NewEntry("/of-others", (await own.write_file("/x", b"y")), (b"z",))])
    await import_tree(own, root)
    assert await own.read_file("/large") == (root / "large").read_bytes()
    assert (await own.read_file("/small"), await own.read_file("/of-others")) == (b"1", b"z")


# -- where drives are nested


async def test_a_drive_that_is_nested_in_the_source_is_not_entered(own: Drive, tmp_path: Path) -> None:
    root = tree(tmp_path / "source", a="1", inner__x="2")
    os.setxattr(root / "inner", "user.ddrive.key", b"of another drive")
    report = await import_tree(own, root)
    assert [refused.path for refused in report.refused] == ["inner"]
    assert await paths(own) == {"a"}


async def test_a_drive_that_is_nested_in_the_target_stays(own: Drive, own_store: OwnedStore, tmp_path: Path) -> None:
    inner = await open_drive(own_store, name="inner", create=True)
    await own.mount("/nested", inner.key)
    root = tree(tmp_path / "source", a="1", nested__x="2")
    report = await import_tree(own, root, delete=True)
    assert {refused.path for refused in report.refused} == {"nested", "nested/x"}
    assert [mount.path for mount in await own.mounts()] == ["nested"]


# -- deep trees


def made_deep(root: Path, name: str, levels: int) -> None:
    """Make so many directories in each other, with some entries in the last one."""
    at = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=at)
        inner = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    for file, content in (("small", b"1"), ("large", bytes(LARGE)), ("left", b"out"), (IGNORE_FILES[0], b"left\n")):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, dir_fd=at)
        os.write(descriptor, content)
        os.close(descriptor)
    os.setxattr(f"/proc/self/fd/{at}/small", "user.x", b"y")
    os.symlink("small", "link", dir_fd=at)
    os.close(at)


@contextmanager
def deep_tree(name: str, levels: int) -> Iterator[Path]:
    """Give such a tree; what else removes trees calls itself once per level."""
    with TemporaryDirectory() as place:
        made_deep(Path(place), name, levels)
        try:
            yield Path(place)
        finally:
            at = os.open(place, os.O_RDONLY)
            remove_tree(name, at)
            os.close(at)


async def test_trees_of_any_depth_are_imported(own: Drive) -> None:
    name, levels = "d" * 99, 60
    last = "/".join([name] * levels)
    with deep_tree(name, levels) as root:
        report = await import_tree(own, root)
        assert (report.files, report.directories, report.links, report.refused) == (3, levels, 1, [])
        names = {path.removeprefix(f"{last}/") for path in await paths(own)}
        assert names == {"small", "large", "link", IGNORE_FILES[0]}
        small = await own.lstat(f"/{last}/small")
        assert (small.size, dict(small.metadata)) == (1, {"user.x": b"y"})
        assert (await import_tree(own, root, delete=True)).removed == 0
        with reachable(str(root), f"{last}/small") as there:
            os.unlink(there)
        again = await import_tree(own, root, delete=True)
        assert (again.changed, again.removed, again.refused) == (1, 1, [])  # the directory has another time


def test_what_lies_deeper_than_python_calls_is_left_out() -> None:
    inner = "/".join(["d"] * 3000)
    rules = ignoring({"": "*.o", inner: "!keep.o", inner[:-2]: "left/"})
    found = {name: rules.leaves_out(f"{inner}/{name}", is_directory=False) for name in ("a.o", "keep.o", "left")}
    assert found == {"a.o": True, "keep.o": False, "left": False}
    assert rules.leaves_out(f"{inner[:-2]}/left/keep.o", is_directory=False)


async def test_paths_that_are_too_long_for_a_drive_are_refused(own: Drive) -> None:
    with deep_tree("d" * 199, 50) as root:
        report = await import_tree(own, root)
        assert (report.directories, report.unreadable) == (40, 1)
        assert [refused.why for refused in report.refused] == ["its path is longer than 8192 bytes"]


def test_the_way_to_a_deep_directory_is_gone_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[object] = []
    usual = os.open

    def noted(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_PATH:
            steps.append(path)
        return usual(path, flags, mode, dir_fd=dir_fd)

    with deep_tree("d" * 99, 60) as root:
        last = "/".join(["d" * 99] * 60)
        with reachable(str(root), last) as there:
            for number in range(200):
                Path(there, f"{number}").touch()
        monkeypatch.setattr(os, "open", noted)
        assert len(list(scan(root, ignoring({})))) == 265
    assert len(steps) < 200  # a few for each of the directories, none for what is in them


# -- what changes meanwhile


def at_reading(monkeypatch: pytest.MonkeyPatch, path: str, change: Callable[[], object]) -> None:
    """Let `change` happen once, before the file at `path` is opened."""
    usual, changes = source.OpenFile, [change]

    def opened(root: Path, found: source.Found) -> source.OpenFile:
        if found.path == path and changes:
            changes.pop()()
        return usual(root, found)

    monkeypatch.setattr(source, "OpenFile", opened)
    monkeypatch.setattr(importer, "OpenFile", opened)


@pytest.mark.parametrize("name", ["a", "large"])
async def test_a_file_that_goes_before_it_is_read_is_passed_over(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = tree(tmp_path / "source", a="1", b="2", large=bytes(LARGE))
    at_reading(monkeypatch, name, (root / name).unlink)
    report = await import_tree(own, root)
    assert (report.refused, report.unreadable, report.unsettled) == ([], 0, 0)
    assert await paths(own) == {"a", "b", "large"} - {name}


@pytest.mark.parametrize("name", ["a", "large"])
async def test_a_file_that_becomes_a_directory_is_told_and_the_rest_imported(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = tree(tmp_path / "source", a="1", b="2", large=bytes(LARGE))

    def replace() -> None:
        (root / name).unlink()
        (root / name).mkdir()

    at_reading(monkeypatch, name, replace)
    report = await import_tree(own, root)
    assert [refused.path for refused in report.refused] == [name]
    assert (report.unreadable, report.unsettled) == (0, 1)
    assert await paths(own) == {"a", "b", "large"} - {name}


async def test_nothing_is_removed_when_the_source_itself_goes(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "source", a="1", b="2")
    await import_tree(own, root)
    (root / "b").write_text("newer")

    def replace() -> None:
        root.rename(tmp_path / "away")
        root.mkdir()

    at_reading(monkeypatch, "b", replace)
    with pytest.raises(NotADirectory):
        await import_tree(own, root, delete=True)
    assert await paths(own) == {"a", "b"}


async def test_what_lies_behind_a_link_is_not_imported_by_its_path(own: Drive, tmp_path: Path) -> None:
    tree(tmp_path / "outside", secret="1", d__secret="2")
    root = tree(tmp_path / "source", a="1")
    (root / "was").symlink_to(tmp_path / "outside")
    report = await import_tree(own, root, only=["was/secret", "was/d", "was/d/secret", "a"])
    assert (report.files, report.links) == (1, 1)
    assert await paths(own) == {"a", "was"}


async def test_a_directory_that_becomes_a_link_is_not_followed(own: Drive, tmp_path: Path) -> None:
    tree(tmp_path / "outside", secret="1")
    root = tree(tmp_path / "source", was__x="1", z="2")
    found = scan(root, ignoring({}))
    assert [next(found).path, next(found).path] == ["was", "z"]
    shutil.rmtree(root / "was")
    (root / "was").symlink_to(tmp_path / "outside")
    assert list(found) == []


@pytest.mark.parametrize("path", ["sub/deep/a", "sub/deep/large"])
@pytest.mark.parametrize("kernel", ["new", "old"])
async def test_a_directory_that_becomes_a_link_leads_nowhere(
    own: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kernel: str
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for place in (root / "sub", outside):
        (place / "deep").mkdir(parents=True)
        (place / "deep/a").write_text(place.name)
        (place / "deep/large").write_bytes(place.name.encode() * LARGE)

    def replace() -> None:
        (root / "sub").rename(tmp_path / "was")
        (root / "sub").symlink_to(outside)

    at_reading(monkeypatch, path, replace)
    if kernel == "old":
        monkeypatch.setattr(below, "_OPENAT2", 100_000)  # no such call
    report = await import_tree(own, root)
    assert (report.refused, await own.exists(f"/{path}")) == ([], False)
    for found in await paths(own):
        assert not found.startswith("sub/deep/") or b"outside" not in await own.read_file(f"/{found}")


@pytest.mark.parametrize("kernel", ["new", "old"])
def test_a_directory_that_becomes_a_link_while_it_is_listed_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    root, outside, usual = tmp_path / "root", tmp_path / "outside", os.listdir
    for place in (root / "sub", outside):
        (place / "deep").mkdir(parents=True)
        (place / "deep/file").write_text(place.name)
        (place / "deep/link").symlink_to(place.name)
        os.setxattr(place / "deep/file", "user.place", place.name.encode())

    def listed(at: int) -> list[str]:
        names = usual(at)
        if "file" in names and not (root / "sub").is_symlink():
            (root / "sub").rename(tmp_path / "was")
            (root / "sub").symlink_to(outside)
        return names

    monkeypatch.setattr(os, "listdir", listed)
    if kernel == "old":
        monkeypatch.setattr(below, "_OPENAT2", 100_000)
    found = {each.path: each for each in scan(root, ignoring({}))}
    assert [*found] == ["sub", "sub/deep", "sub/deep/file", "sub/deep/link"]
    assert found["sub/deep/file"].stat.size == len("sub")
    assert dict(found["sub/deep/file"].stat.metadata) == {"user.place": b"sub"}
    assert found["sub/deep/link"].stat.linkname == "sub"
