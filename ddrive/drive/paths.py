"""Which texts name an entry of a drive, and what a symbolic link in one leads to.

A `DrivePath` is the form used as trie key: components joined by `/`, no slash at either end, `""` for the root. Nothing
is converted: a backslash is a character like any other and Unicode is not normalised, since both would make two names
of a stranger's drive one. Entries that no kernel could show (`is_hostile`) exist in tries but never reach a caller.
"""

from typing import NewType

from ddrive.errors import InvalidName, InvalidPath, NameTooLong

DrivePath = NewType("DrivePath", str)

ROOT = DrivePath("")
NAME_BYTES_MAX = 255  # NAME_MAX of Linux
PATH_BYTES_MAX = 8192  # from a deep directory, programs name what lies PATH_MAX of Linux (4096) below


def drive_path(path: str) -> DrivePath:
    """Return the checked form of `path`; slashes at the ends and doubled ones mean nothing.

    Raises: InvalidName for `.`, `..`, NUL and text that is not UTF-8; NameTooLong over 255 bytes per name, 8192 in all.
    """
    names = [name for name in path.split("/") if name]
    for name in names:
        check_name(name)
    joined = "/".join(names)
    if is_too_long(joined):
        raise NameTooLong(f"the path {path[:40]!r}… is longer than {PATH_BYTES_MAX} bytes")
    return DrivePath(joined)


def is_too_long(path: str) -> bool:
    """Tell whether a path is longer than those of a drive may be."""
    return len(path) * 4 > PATH_BYTES_MAX and len(path.encode("utf-8", "surrogateescape")) > PATH_BYTES_MAX


def check_name(name: str) -> None:
    """Raise InvalidName or NameTooLong when `name` cannot be a component of a path."""
    if name in (".", ".."):
        raise InvalidName(f"{name!r} cannot be a name in a drive")
    if "\0" in name or "/" in name or not name:
        raise InvalidName(f"the name {name[:40]!r} is empty or holds a NUL or a slash")
    try:
        size = len(name) if name.isascii() else len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"the name {name[:40]!r} is not UTF-8") from None
    if size > NAME_BYTES_MAX:
        raise NameTooLong(f"the name {name[:40]!r}… is longer than {NAME_BYTES_MAX} bytes")


def is_hostile(name: str) -> bool:
    """Tell whether `name`, found in a trie, cannot be given to a kernel or a shell."""
    if name.isascii():  # by far the most names: no exception machinery
        return not name or len(name) > NAME_BYTES_MAX or "\0" in name or name in (".", "..")
    try:
        check_name(name)
    except InvalidPath:
        return True
    return False


def join(directory: str, name: str) -> DrivePath:
    """Return the path of `name` in `directory`; both are trusted to be checked."""
    return DrivePath(f"{directory}/{name}" if directory else name)


def parent(path: str) -> DrivePath:
    """Return the path of the directory that holds `path`; the root's is the root."""
    return DrivePath(path.rpartition("/")[0])


def link_target(link: str, target: str) -> DrivePath:
    """Return where the link at `link` leads: absolute from the drive's root, else from the link's directory.

    `.` and `..` are resolved by text alone and never leave the drive. Source: drive.md section 4.
    Raises: InvalidPath when the target cannot be a path.
    """
    steps = [] if target.startswith("/") else [name for name in parent(link).split("/") if name]
    for name in target.split("/"):
        if name == "..":
            del steps[-1:]
        elif name not in ("", "."):
            steps.append(name)
    return drive_path("/".join(steps))
