"""All versions of a mounted drive below `.ddrive/versions`: complete, read-only, and hidden from listings."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.memory_mount import until
from tests.support.program import program
from tests.support.writing import WritableMount, sh, writable_mount


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WritableMount]:
    with writable_mount(tmp_path_factory.mktemp("versions")) as made:
        yield made


def code_of(call: Callable[[], object]) -> int | None:
    """Return the errno of a call, None when it succeeds."""
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def version_of(mount: WritableMount) -> int:
    """Return the version of the drive as its mount tells it."""
    return int(os.getxattr(mount.path, "user.ddrive.version"))


def committed(mount: WritableMount, path: str, data: bytes) -> int:
    """Write a file through the mount; return the version from which on it is in the drive."""
    before = version_of(mount)
    (mount.path / path).parent.mkdir(parents=True, exist_ok=True)
    (mount.path / path).write_bytes(data)
    found: list[int] = []

    def stored() -> bool:
        version = version_of(mount)
        place = mount.path / ".ddrive/versions" / str(version) / path
        if version > before and place.exists() and place.read_bytes() == data:
            found.append(version)
        return bool(found)

    until(stored)
    return found[0]


def test_every_version_is_there_at_once(mount: WritableMount) -> None:
    versions = mount.path / ".ddrive/versions"
    first = committed(mount, "docs/a.txt", b"one")
    second = committed(mount, "docs/a.txt", b"two, longer")
    (mount.path / "docs/a.txt").unlink()
    third = committed(mount, "docs/b.txt", b"three")
    assert (versions / f"{first}/docs/a.txt").read_bytes() == b"one"
    assert (versions / f"{second}/docs/a.txt").read_bytes() == b"two, longer"
    assert os.listdir(versions / f"{third}/docs") == ["b.txt"]
    assert os.listdir(versions / "1") == []
    assert sh(f"diff -r {first}/docs {second}/docs || true", versions).count("diff -r") == 1
    assert ".ddrive" not in os.listdir(mount.path)
    assert sh("find . -name .ddrive", mount.path) == ""
    assert os.listdir(mount.path / ".ddrive") == ["versions"]
    listed = os.listdir(versions)
    assert set(map(str, range(1, third + 1))) <= set(listed)
    for name in ("0", "007", "-1", str(third + 1000), "missing", "²", "9" * 40):
        assert code_of(lambda name=name: os.stat(versions / name)) == errno.ENOENT  # type: ignore[misc]


def test_tags_are_links(mount: WritableMount) -> None:
    versions = mount.path / ".ddrive/versions"
    version = committed(mount, "tagged", b"then")
    os.listdir(versions)
    mount.program.ask("tag", "add", mount.key, "v1.0", str(version))
    newer = committed(mount, "tagged", b"now")
    until(lambda: str(newer) in os.listdir(versions))
    assert os.readlink(versions / "v1.0") == str(version)
    assert (versions / "v1.0/tagged").read_bytes() == b"then"
    until(lambda: "v1.0" in os.listdir(versions))
    mount.program.ask("tag", "rm", mount.key, "v1.0", "--yes")
    until(lambda: "v1.0" not in os.listdir(versions))


def test_nothing_can_be_changed(mount: WritableMount) -> None:
    version = committed(mount, "kept/file", b"kept")
    place = mount.path / f".ddrive/versions/{version}/kept"
    for call in (
        lambda: (place / "file").write_bytes(b"x"),
        lambda: (place / "new").write_bytes(b"x"),
        lambda: (place / "file").unlink(),
        lambda: (place / "file").rename(place / "other"),
        lambda: (place / "file").chmod(0o600),
        lambda: (place / "dir").mkdir(),
        lambda: os.truncate(place / "file", 0),
        lambda: os.utime(place / "file"),
        lambda: (place.parent.parent / "new").mkdir(),
        lambda: (place.parent.parent.parent / "new").write_bytes(b""),
    ):
        assert code_of(call) == errno.EROFS
    assert code_of(lambda: os.rmdir(place.parent)) == errno.EROFS
    assert code_of(lambda: os.rmdir(mount.path / ".ddrive")) == errno.EBUSY
    assert (place / "file").read_bytes() == b"kept"


def test_an_own_entry_of_that_name_is_shown_instead(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / ".ddrive").mkdir(parents=True)
    (source / ".ddrive/mine").write_text("mine")
    (source / "file").write_text("content")
    with program(tmp_path / "state") as ddrive:
        made = ddrive.ask("import", source)
        ddrive.mount(made["key"], tmp_path / "mnt")
        assert sorted(os.listdir(tmp_path / "mnt")) == [".ddrive", "file"]
        assert os.listdir(tmp_path / "mnt/.ddrive") == ["mine"]
        assert (tmp_path / "mnt/.ddrive/mine").read_text() == "mine"
        assert (tmp_path / f"mnt/.ddrive/versions/{made['version']}/file").read_text() == "content"


def test_a_reader_far_away_sees_them_too(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with program(tmp_path / "one") as author, program(tmp_path / "two") as reader:
        (source / "file").write_text("one")
        first = author.ask("import", source)
        (source / "file").write_text("number two")
        second = author.ask("import", source, first["key"])
        author.ask("tag", "add", first["key"], "first", str(first["version"]))
        reader.mount(first["key"], tmp_path / "mnt", "--peer", author.address)
        versions = tmp_path / "mnt/.ddrive/versions"
        assert (versions / f"{first['version']}/file").read_text() == "one"
        assert (versions / f"{second['version']}/file").read_text() == "number two"
        assert (versions / "first/file").read_text() == "one"
        assert "first" in os.listdir(versions)
        reader.mount(f"{first['key']}+{first['version']}", tmp_path / "fixed", "--peer", author.address)
        assert (tmp_path / "fixed/.ddrive/versions/1").is_dir()
        assert code_of(lambda: os.stat(tmp_path / f"fixed/.ddrive/versions/{second['version']}")) == errno.ENOENT
