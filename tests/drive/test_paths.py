"""Path rules of drives."""

import pytest

from ddrive.drive.paths import check_name, drive_path, is_hostile, join, link_target, parent
from ddrive.errors import InvalidName, InvalidPath, NameTooLong


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", ""),
        ("", ""),
        ("/a/b", "a/b"),
        ("a/b/", "a/b"),
        ("//a///b", "a/b"),
        ("/back\\slash", "back\\slash"),
        ("/ünïcødé/文件.txt", "ünïcødé/文件.txt"),
        ("/emoji/😀 ", "emoji/😀 "),
        ("/.hidden/...", ".hidden/..."),
        ("/new\nline", "new\nline"),
    ],
)
def test_a_path_loses_only_superfluous_slashes(text: str, path: str) -> None:
    assert drive_path(text) == path


@pytest.mark.parametrize("text", ["/a/./b", "..", "a/../b", "a\0b", "x/\udcff"])
def test_what_no_entry_can_be_called_is_an_invalid_name(text: str) -> None:
    with pytest.raises(InvalidName):
        drive_path(text)


@pytest.mark.parametrize("text", ["é" * 128, "a" * 256, "/".join(["a" * 200] * 41), "/".join(["é" * 100] * 41)])
def test_limits_of_the_kernel_are_counted_in_bytes(text: str) -> None:
    with pytest.raises(NameTooLong):
        drive_path(text)


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "\\", " ", "trailing ", "...", "-", "\n", "😀"])
def test_odd_but_possible_names_are_shown(name: str) -> None:
    check_name(name)
    assert not is_hostile(name)
    assert drive_path(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a\0", "é\0", "a" * 256, "é" * 128, "\udc80"])
def test_names_that_no_kernel_takes_are_hostile(name: str) -> None:
    assert is_hostile(name)
    with pytest.raises(InvalidPath):
        check_name(name)


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("docs/up", "../hello.txt", "hello.txt"),
        ("docs/up", "readme", "docs/readme"),
        ("docs/up", "./x/../y", "docs/y"),
        ("docs/up", "/nowhere", "nowhere"),
        ("link", "../../../etc/passwd", "etc/passwd"),
        ("a/b/link", "..", "a"),
        ("link", ".", ""),
        ("link", "/", ""),
    ],
)
def test_a_link_leads_somewhere_inside_the_drive(link: str, target: str, path: str) -> None:
    assert link_target(link, target) == path


def test_parent_and_join_are_inverse() -> None:
    assert (parent("a/b/c"), parent("a"), parent("")) == ("a/b", "", "")
    assert (join("", "a"), join("a", "b")) == ("a", "a/b")
